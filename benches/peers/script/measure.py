"""Runs rows."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import tempfile
import threading
import time

from script.places import ROOT
from script.processes import end_with_parent, filled, running
from script.row import Count, Growth, Pair

COMMAND_TIMEOUT_S = 300
PROGRAM_TIMEOUT_S = 3600
PAIRS_MIN = 5


@dataclasses.dataclass
class Plan:
    """How much is measured."""

    mode: str
    # Interleaved pairs of a row, and the seconds after which it has enough with fewer.
    pairs: int
    budget: float
    # The servers of a row are started anew after so many pairs.
    pairs_a_start: int
    # One short run under load.
    seconds: float
    warmup: float
    # How often each point of a row of growth is measured.
    rounds: int
    # How many lines a fast side of `map` has: the more, the less its start is of its time.
    lines: int


QUICK = Plan("quick", 15, 60.0, 3, 0.5, 0.2, 5, 200_000)
# Runs differ from each other more than their parts do, and no less where they are longer: the time goes
# into more of them.
WHOLE = Plan("whole", 42, 75.0, 3, 0.5, 0.2, 15, 1_000_000)


def measure(row, plan, step=lambda done, of: None):
    """The result of a row, without what all results have. `step` is told what is done of it."""
    if isinstance(row, Pair):
        return pair(row, plan, step)
    if isinstance(row, Growth):
        return growth(row, plan, step)
    if isinstance(row, Count):
        return {"counts": row.measure()}
    return program(row, plan, step)


def pair(row, plan, step):
    ours, peer = [], []
    begun = time.monotonic()
    budget = row.budget or plan.budget

    def enough():
        return len(ours) >= plan.pairs or (len(ours) >= PAIRS_MIN and time.monotonic() - begun > budget)

    while not enough():
        with contextlib.ExitStack() as stack:
            run_ours = stack.enter_context(ready(row.ours, plan))
            run_peer = stack.enter_context(ready(row.peer, plan))
            if not ours:
                run_ours(), run_peer()
            for _ in range(plan.pairs_a_start):
                # The order within a pair changes.
                if len(ours) % 2:
                    theirs = run_peer()
                    ours.append(run_ours())
                    peer.append(theirs)
                else:
                    own = run_ours()
                    peer.append(run_peer())
                    ours.append(own)
                step(len(ours), plan.pairs)
                if enough():
                    break
    return {"ours": ours, "peer": peer}


@contextlib.contextmanager
def ready(side, plan):
    """Gives a function that runs the side once."""
    with running(side.servers, side.ready) as names:
        names |= {"seconds": plan.seconds, "warmup": plan.warmup}
        command = filled(side.command, names)
        environment = {name: filled([value], names)[0] for name, value in side.environment.items()}
        yield lambda: run(side, command, {**os.environ, **environment})


def run(side, command, environment):
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=COMMAND_TIMEOUT_S, text=True,
                          env=environment)
    took = time.perf_counter() - started
    if done.returncode != 0:
        raise ValueError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr[-400:]}")
    if not side.figure:
        return side.jobs / took
    if side.figure == "last":
        # "name 9.6 us (9.5 to 9.7)"
        return float(re.search(r"\s(\d+\.\d+) \S+\s+\(", done.stdout.splitlines()[-1]).group(1))
    value = json.loads(done.stdout.splitlines()[-1])
    for key in side.figure.split("."):
        value = value[key]
    return float(value)


def growth(row, plan, step):
    """Point by point, and all of them again: what drifts, drifts for all."""
    points = [{"x": x} for x in row.values]
    for turn in range(plan.rounds):
        for index, point in enumerate(points):
            keep(point, row.measure(point["x"]))
            for floor in row.floors:
                keep(point.setdefault("floors", {}).setdefault(floor.name, {}), floor.measure(point["x"]))
            step(turn * len(points) + index + 1, plan.rounds * len(points))
    return {"points": points}


def keep(series, values):
    for name, value in values.items():
        series.setdefault(name, []).append(value)


def program(row, plan, step):
    """Its lines of JSON. Those that it printed before it failed are kept."""
    command = [*row.command, *row.options(plan)]
    lines = []
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True, preexec_fn=end_with_parent)
        limit = threading.Timer(PROGRAM_TIMEOUT_S, process.kill)
        limit.start()
        try:
            with process.stdout:
                for line in process.stdout:
                    if line.startswith("{"):
                        lines.append(json.loads(line))
                        step(len(lines), None)
            process.wait()
        finally:
            limit.cancel()
            process.kill()
            process.wait()
        said.seek(0)
        words = said.read()[-400:]
    failed = {"error": f"{' '.join(command)} exited with {process.returncode}: {words}"} if process.returncode else {}
    return {"lines": lines, **failed}
