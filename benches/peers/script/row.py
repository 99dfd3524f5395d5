"""What a row is."""

import dataclasses
from typing import Callable, Optional


@dataclasses.dataclass
class Side:
    """One of the two sides of a row. In its commands `{folder}` is a fresh folder, `{port}` a free
    port, `{seconds}` and `{warmup}` the time of a short run."""

    name: str
    # Run for each figure.
    command: list
    # Where the figure is in the line of JSON that the command prints ("latency_us.p50"), "last" for
    # the last number that it prints, or nothing where its running time is the figure.
    figure: str = ""
    # How many jobs it does, where its running time is the figure.
    jobs: int = 0
    # Started before, and stopped after.
    servers: list = dataclasses.field(default_factory=list)
    # A command that ends with 0 once the servers are ready.
    ready: list = dataclasses.field(default_factory=list)
    # How long it takes to start and stop them, roughly, in seconds.
    start_seconds: float = 0.05
    environment: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Pair:
    """Two sides that do the same work, compared pair by pair. The ratio is Remuda's figure by the
    peer's."""

    name: str
    group: str
    what: str
    ours: Side
    peer: Side
    unit: str
    # ("at least" or "at most", ratio)
    aim: Optional[tuple] = None
    # What of the peers has to be installed: "python", "node", "debian".
    needs: tuple = ()
    # Says whether the binary has what this row measures; nothing where it always has.
    there: Optional[Callable[[], bool]] = None
    # More of both sides' time is worse.
    less_is_better: bool = False
    # The rows that say what the peer's work takes at the least.
    floors: tuple = ()
    # Why the aim isn't met: a floor that was measured or what a profile showed, and the next step.
    # It is shown only as long as it isn't.
    why: str = ""
    # What is compared, if the row belongs to the few at the top of the page.
    headline: str = ""
    # The time that its pairs may take in all, in seconds, where it isn't the usual.
    budget: float = 0.0


@dataclasses.dataclass
class Floor:
    """A program that does the least that grows in the same way, measured beside the pool."""

    name: str
    measure: Callable[[int], dict]
    command: list


@dataclasses.dataclass
class Growth:
    """Cost as something grows: `measure(x)` gives a figure by name, of a fresh pool each time."""

    name: str
    what: str
    # What grows, and its values.
    grows: str
    values: list
    measure: Callable[[int], dict]
    command: list
    # Twice as much may cost at most twice the memory, and no more processor time a job.
    bounded: bool = True
    # Why it costs more processor time, where it does.
    why: str = ""
    # What grows for anybody, the lowest first.
    floors: list = dataclasses.field(default_factory=list)
    # Another row whose plot shows this one, too.
    with_row: str = ""
    group: str = "growth"
    needs: tuple = ()
    there: Optional[Callable[[], bool]] = None

    @property
    def plotted(self):
        """Whether it has a plot of its own."""
        return not self.with_row


@dataclasses.dataclass
class Count:
    """What a job costs on one path, counted: `measure()` gives it for each process. A path that is
    measured in two ways says once what is copied on it, and what would make it cheaper."""

    name: str
    what: str
    measure: Callable[[], dict]
    command: list
    copies: str = ""
    cheaper: str = ""
    group: str = "counts"
    needs: tuple = ()
    there: Optional[Callable[[], bool]] = None


@dataclasses.dataclass
class Program:
    """A program that runs its own pairs, and prints them as JSON."""

    name: str
    what: str
    command: list
    # What the run with few pairs adds to the command, and what the whole run does.
    quick: list
    whole: list
    # How long it takes with few pairs and with many, roughly.
    seconds: tuple
    # What runs one of its rows alone, added to the command.
    alone: tuple = ()
    # What a reader has to know of its table.
    words: str = ""
    # Why an aim isn't met, by the words of the row that the program prints, what is measured, and
    # the peer: shown only as long as it isn't.
    whys: dict = dataclasses.field(default_factory=dict)
    group: str = "programs"
    needs: tuple = ()
    there: Optional[Callable[[], bool]] = None

    def options(self, plan):
        return self.whole if plan.mode == "whole" else self.quick
