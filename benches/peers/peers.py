#!/usr/bin/env python3
"""Runs Remuda beside its peers in interleaved pairs, and writes what came out as Markdown."""

import argparse
import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = HERE / ".peers"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"

PYTHON_PEERS = ["mosec==0.9.8", "pebble==5.2.3"]
NODE_PEERS = ["piscina@5.3.2"]

PAIRS, PAIRS_QUICK = 15, 5
COMMAND_TIMEOUT_S = 300


@dataclasses.dataclass
class Row:
    """Two commands that do the same work; each prints a line of JSON with `figure` in it, or its
    whole running time is the figure."""

    name: str
    what: str
    ours: list
    peer: list
    peer_name: str
    unit: str
    # "rate": more is better, and the ratio is ours / peer. "time": less is better, ours / peer too.
    kind: str
    # How many jobs a command does, where its running time is the figure.
    jobs: int = 0
    # The aim for the ratio, as text for the table.
    aim: str = ""
    needs: tuple = ()


def main():
    arguments = parse()
    sys.path.insert(0, str(HERE))
    import rows

    chosen = [r for r in rows.rows(ROOT, PEERS) if not arguments.only or any(o in r.name for o in arguments.only)]
    if arguments.list:
        for row in chosen:
            print(f"{row.name:28} {row.what}")
        return
    build(arguments)
    install({need for row in chosen for need in row.needs})
    rows.prepare(PEERS)
    pairs = arguments.pairs or (PAIRS_QUICK if arguments.quick else PAIRS)
    results = []
    for row in chosen:
        say(f"{row.name}: {pairs} pairs")
        try:
            results.append((row, measure(row, pairs)))
            middle, low, high = ratio(*results[-1][1])
            say(f"  Remuda / {row.peer_name}: {middle:.2f} ({low:.2f} to {high:.2f})")
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            say(f"{row.name}: {error}")
            results.append((row, None))
    text = page(results, pairs)
    if arguments.print:
        print(text)
    else:
        write(text)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{PAIRS_QUICK} pairs instead of {PAIRS}")
    parser.add_argument("--pairs", type=int, help="so many pairs")
    parser.add_argument("--only", action="append", metavar="NAME", help="only rows whose name holds NAME")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--print", action="store_true", help="write to stdout, not to the page")
    parser.add_argument("--no-build", action="store_true", help="use what was built before")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


def build(arguments):
    if arguments.no_build:
        return
    subprocess.run(["cargo", "build", "--release", "-p", "remuda"], cwd=ROOT, check=True)
    subprocess.run(["cargo", "build", "--release"], cwd=HERE, check=True)


def install(needs):
    """Puts the peers that the chosen rows need into a folder of their own."""
    PEERS.mkdir(exist_ok=True)
    python = PEERS / "python"
    if "python" in needs and not (python / "installed").exists():
        say("installing " + " ".join(PYTHON_PEERS))
        subprocess.run([sys.executable, "-m", "venv", str(python)], check=True)
        subprocess.run([str(python / "bin/pip"), "install", "-q", *PYTHON_PEERS], check=True)
        (python / "installed").write_text("\n".join(PYTHON_PEERS))
    node = PEERS / "node"
    if "node" in needs and not (node / "node_modules").exists():
        say("installing " + " ".join(NODE_PEERS))
        node.mkdir(exist_ok=True)
        (node / "package.json").write_text('{"private": true, "type": "module"}')
        subprocess.run(["npm", "install", "--silent", *NODE_PEERS], cwd=node, check=True)


def measure(row, pairs):
    """The figures of both sides, pair by pair; the order within a pair changes."""
    ours, peer = [], []
    run(row, row.ours), run(row, row.peer)
    for pair in range(pairs):
        if pair % 2:
            peer.append(run(row, row.peer))
            ours.append(run(row, row.ours))
        else:
            ours.append(run(row, row.ours))
            peer.append(run(row, row.peer))
    return ours, peer


def run(row, command):
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=COMMAND_TIMEOUT_S, text=True)
    took = time.perf_counter() - started
    if done.returncode != 0:
        raise ValueError(f"{' '.join(map(str, command))} exited with {done.returncode}: {done.stderr[-400:]}")
    for line in reversed(done.stdout.splitlines()[-3:]):
        if line.startswith("{") and '"figure"' in line:
            return float(json.loads(line)["figure"])
    return row.jobs / took if row.kind == "rate" else took


def ratio(ours, peer):
    """Median of the paired ratios and its 95 % interval, by the binomial distribution of ranks."""
    ratios = sorted(o / p for o, p in zip(ours, peer))
    n = len(ratios)
    low = 0
    below = 0.0
    while low < n // 2:
        below += math.comb(n, low) / 2**n
        if below > 0.025:
            break
        low += 1
    low = max(low - 1, 0)
    return statistics.median(ratios), ratios[low], ratios[n - 1 - low]


def figure(value, unit):
    if value >= 1000:
        return f"{value:,.0f} {unit}"
    return f"{value:.3g} {unit}"


def shown(command):
    words = ["python3" if word == sys.executable else str(word).replace(str(ROOT) + "/", "") for word in command]
    return " ".join(words)


def page(results, pairs):
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    lines = [
        f"Measured on {datetime.date.today()} at commit {commit.stdout.strip()}: {os.cpu_count()} cores of {cpu}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {pairs} interleaved pairs a row.",
        "",
        "| row | Remuda | peer | Remuda / peer (95 % interval) | aim |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row, result in results:
        if result is None:
            lines.append(f"| {row.what} | | {row.peer_name} | did not run | {row.aim} |")
            continue
        ours, peer = result
        middle, low, high = ratio(ours, peer)
        lines.append(
            f"| {row.what} | {figure(statistics.median(ours), row.unit)} | {row.peer_name}: "
            f"{figure(statistics.median(peer), row.unit)} | {middle:.2f} ({low:.2f} to {high:.2f}) | {row.aim} |"
        )
    lines += ["", "The commands:", ""]
    for row, _ in results:
        lines += [f"- {row.what}", f"  - `{shown(row.ours)}`", f"  - `{shown(row.peer)}`"]
    return "\n".join(lines) + "\n"


def write(text):
    old = PAGE.read_text() if PAGE.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    head, rest = old.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    PAGE.write_text(f"{head}{BEGIN}\n{text}{END}{tail}")
    say(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    random.seed(1)
    main()
