"""How far a run is, and how long it will take yet: on a terminal a line that changes, and in any case a
line a row."""

import sys
import time

from script.row import Count, Growth, Pair

# Besides what a run of a pair is told to take: the start of its command. Then the time of a command that
# isn't told, of one whose whole time is the figure, of a point of growth and of its floor, all in seconds
# and as it is on two cores; what comes out is scaled by what the rows before took.
COMMAND_S, UNTIMED_S, WHOLE_COMMAND_S, POINT_S, FLOOR_S, COUNT_S = 0.01, 0.15, 0.9, 0.7, 0.15, 6.0


def expected(row, plan):
    """The seconds that a row takes, roughly."""
    if isinstance(row, Pair):
        sides = sum(side_seconds(side, plan) for side in (row.ours, row.peer))
        starts = -(-plan.pairs // plan.pairs_a_start) * sum(side.start_seconds for side in (row.ours, row.peer) if side.servers)
        # One pair goes before those that count.
        return min((plan.pairs + 1) * sides + starts, row.budget or plan.budget)
    if isinstance(row, Growth):
        return plan.rounds * len(row.values) * (POINT_S + FLOOR_S * len(row.floors))
    if isinstance(row, Count):
        return COUNT_S
    return row.seconds[plan.mode == "whole"]


def side_seconds(side, plan):
    timed = any("{seconds}" in str(word) for word in [*side.command, *side.environment.values()])
    if timed:
        return plan.seconds + plan.warmup + COMMAND_S
    return UNTIMED_S if side.figure else WHOLE_COMMAND_S


def duration(seconds):
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02} min"


class Progress:
    """Of these rows."""

    def __init__(self, rows, plan, out=None, clock=time.monotonic):
        self.out, self.clock = out or sys.stderr, clock
        self.terminal = self.out.isatty()
        self.plan, self.count, self.done = plan, len(rows), 0
        self.seconds_of = {row.name: expected(row, plan) for row in rows}
        self.left = sum(self.seconds_of.values())
        self.took = self.thought = 0.0
        self.row, self.begun = None, 0.0

    def begin(self, row):
        self.row, self.begun = row.name, self.clock()
        self.step(0, None)

    def step(self, done, of):
        """So much of the row is done. Only a terminal shows it."""
        if self.terminal:
            part = f"{done} of {of}" if of else f"{done} lines" if done else "starting"
            gone = self.clock() - self.begun
            rest = self.rest(gone * (of - done) / done if of and done else None)
            self.out.write(f"\r\x1b[K[{self.done + 1}/{self.count}] {self.row}: {part}, {duration(gone)}; {rest}")
            self.out.flush()

    def end(self, result):
        """The row is over, with this in short."""
        seconds = self.clock() - self.begun
        self.done += 1
        self.took += seconds
        self.thought += self.seconds_of[self.row]
        self.left -= self.seconds_of[self.row]
        self.say(f"[{self.done}/{self.count}] {self.row}: {result} [{duration(seconds)}; {self.rest()}]")
        return seconds

    def say(self, text):
        self.out.write(("\r\x1b[K" if self.terminal else "") + text + "\n")
        self.out.flush()

    def rest(self, of_this=None):
        """What is left: as it was thought, times how far that was wrong so far; of this row it may be
        known better."""
        left = self.left * (self.took / self.thought if self.thought else 1.0)
        if of_this is not None:
            left += of_this - self.seconds_of[self.row]
        return f"about {duration(max(left, 0.0))} left" if self.done < self.count else f"{duration(self.took)} in all"
