"""`remuda map` beside pools and commands that run a function over the lines of a file. The figure is
jobs by the running time of the whole command, its start included; where a side would take long, it
has fewer lines, which its jobs/s hardly feel: starting takes a small part of its time."""

import sys

from script.inputs import lines
from script.places import PARALLEL, PEER_NODE, PEER_PYTHON, PROGRAMS
from script.row import Pair, Side

PEBBLE, PISCINA, FEW = 20_000, 50_000, 10_000
# Where every pool is as good as another, a ratio needs few pairs.
ALIKE_S = 45.0
CHUNK_TUNED = 2_000
JOBS = "benches/peers/programs/jobs.py"


def rows(places, plan):
    def ours(count, *worker):
        command = [places.remuda, "map", "-j", "2", "-a", lines(count), "-o", "/dev/null", *worker]
        return Side("remuda map", command, jobs=count)

    def python(function, count):
        return ours(count, "--python", f"{JOBS}:{function}")

    def pool(kind, function, count, chunksize, name):
        program = [PEER_PYTHON if kind != "executor" else sys.executable, str(PROGRAMS / "python_pools.py")]
        return Side(name, [*program, kind, function, lines(count), str(chunksize)], jobs=count)

    def executor(function, count, chunksize):
        return pool("executor", function, count, chunksize, f"ProcessPoolExecutor, chunksize {chunksize:,}")

    many, upper = plan.lines, "two Python workers upper-case lines of 60 letters"
    node = Side("piscina 5.3.2", ["node", str(PROGRAMS / "piscina.mjs"), PEER_NODE, lines(PISCINA)], jobs=PISCINA)
    xargs = ["sh", "-c", f"xargs -a {lines(2_000)} -P2 -n1 /bin/echo > /dev/null"]
    parallel = ["sh", "-c", f"{PARALLEL} --will-cite -j2 -a {lines(500)} /bin/echo > /dev/null"]
    return [
        Pair("map-executor-1", "map", upper, python("upper", many), executor("upper", FEW, 1), "jobs/s",
             ("at least", 15), headline="jobs/s of `map`, Python workers"),
        Pair("map-executor-100", "map", upper, python("upper", many), executor("upper", many, 100), "jobs/s",
             ("at least", 1), headline="jobs/s of `map`, Python workers"),
        Pair("map-executor-tuned", "honest", upper + ", the executor's chunksize tuned", python("upper", many),
             executor("upper", many, CHUNK_TUNED), "jobs/s"),
        Pair("map-pebble", "map", upper, python("upper", many), pool("pebble", "upper", PEBBLE, 1, "pebble 5.2.3"),
             "jobs/s", ("at least", 7), ("python",), headline="jobs/s of `map`, Python workers"),
        Pair("map-loky", "map", upper, python("upper", many), pool("loky", "upper", FEW, 1, "loky 3.7.0"), "jobs/s",
             None, ("python",)),
        Pair("map-piscina", "map", "two Node workers upper-case lines of 60 letters",
             ours(many, "--node", "examples/upper.mjs:upper"), node, "jobs/s", ("at least", 2), ("node",),
             headline="jobs/s of `map`, Node workers"),
        Pair("map-xargs", "map", "2,000 lines, Remuda starting Python, the peer a process for each", python("upper", 2_000),
             Side("xargs -P2 -n1 /bin/echo", xargs, jobs=2_000), "jobs/s"),
        Pair("map-parallel", "map", "500 lines, Remuda starting Python, the peer a process for each", python("upper", 500),
             Side("GNU parallel 20221122, -j2 /bin/echo", parallel, jobs=500), "jobs/s", None, ("debian",)),
        Pair("map-1ms", "honest", "2,000 jobs that each use the processor for 1 ms", python("burn_1ms", 2_000),
             executor("burn_1ms", 2_000, 1), "jobs/s", budget=ALIKE_S),
        Pair("map-100ms", "honest", "20 jobs that each use the processor for 100 ms", python("burn_100ms", 20),
             executor("burn_100ms", 20, 1), "jobs/s", budget=ALIKE_S),
    ]
