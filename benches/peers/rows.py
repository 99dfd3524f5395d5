"""The rows: what is run beside what."""

import pathlib
import random
import string
import sys

LINES = 200_000
LINES_FEW = 2_000
LINE_BYTES = 60
PYTHON_MAP = "200,000 lines upper-cased by two Python workers (map, whole command)"


def prepare(peers: pathlib.Path):
    """The input of the pools: lines of 60 letters."""
    for count in (LINES, LINES_FEW):
        path = peers / f"lines-{count}"
        if not path.exists():
            chance = random.Random(1)
            letters = string.ascii_lowercase
            path.write_text("".join("".join(chance.choices(letters, k=LINE_BYTES)) + "\n" for _ in range(count)))


def rows(root: pathlib.Path, peers: pathlib.Path):
    from peers import Row

    remuda = str(root / "target/release/remuda")
    programs = root / "benches/peers/programs"
    relay = str(root / "benches/peers/target/release/relay")
    many, few = str(peers / f"lines-{LINES}"), str(peers / f"lines-{LINES_FEW}")
    python = sys.executable
    peer_python = str(peers / "python/bin/python")
    ours_many = [remuda, "map", "-j", "2", "-a", many, "-o", "/dev/null", "--python", "examples/upper.py:upper"]
    node_many = [remuda, "map", "-j", "2", "-a", many, "-o", "/dev/null", "--node", "examples/upper.mjs:upper"]

    def pool(kind, *arguments):
        return [peer_python if kind == "pebble" else python, str(programs / "python_pools.py"), kind, *arguments]

    def serve(what, *arguments):
        return [python, str(programs / "serve.py"), what, *arguments]

    return [
        Row("map-executor-1", PYTHON_MAP, ours_many,
            pool("executor", many, "1"), "ProcessPoolExecutor, chunksize 1", "jobs/s", "rate", LINES, "at least 15"),
        Row("map-executor-100", PYTHON_MAP, ours_many, pool("executor", many, "100"),
            "ProcessPoolExecutor, chunksize 100", "jobs/s", "rate", LINES, "at least 1"),
        Row("map-pebble", PYTHON_MAP, ours_many, pool("pebble", many, "1"), "pebble 5.2.3", "jobs/s", "rate", LINES,
            "at least 7", ("python",)),
        Row("map-piscina", "200,000 lines upper-cased by two Node workers (map, whole command)", node_many,
            ["node", str(programs / "piscina.mjs"), str(peers / "node"), many], "piscina 5.3.2", "jobs/s", "rate",
            LINES, "at least 2", ("node",)),
        Row("map-xargs", "2,000 lines (Remuda starts Python; the peer a process for each line)",
            [remuda, "map", "-j", "2", "-a", few, "-o", "/dev/null", "--python", "examples/upper.py:upper"],
            ["sh", "-c", f"xargs -a {few} -P2 -n1 /bin/echo > /dev/null"], "xargs -P2 -n1 /bin/echo", "jobs/s", "rate",
            LINES_FEW),
        Row("serve-relay", "one call in flight through `serve` to a Rust worker, p50", serve("remuda-rust", remuda),
            [relay], "bare blocking relay over Unix sockets", "us", "time", 0, "at most 1.2"),
        Row("serve-mosec-64", "64 calls in flight through `serve` to two Python workers", serve("remuda-64", remuda),
            serve("mosec-64", peer_python), "mosec 0.9.8, 64 connections", "jobs/s", "rate", 0, "at least 8",
            ("python",)),
        Row("serve-mosec-1", "one call in flight through `serve` to two Python workers, p50", serve("remuda-1", remuda), serve("mosec-1", peer_python),
            "mosec 0.9.8", "us", "time", 0, "at most 0.35", ("python",)),
    ]
