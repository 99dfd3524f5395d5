"""What a job costs the pool's process as something grows: a fresh pool for each point, so many calls
that each is answered before the end, its most memory, and its processor time by the calls."""

import json
import subprocess

from script.places import ROOT
from script.processes import cpu_seconds, filled, memory, running
from script.row import Growth
from script.rows_serve import SOCKET, echo

LOAD_TIMEOUT_S = 120


def measured(places, options, load):
    """One point."""
    server = [places.remuda, "serve", "-l", SOCKET, *options]
    command = [places.peer("load"), "lines", "--to", "{folder}/pool.sock", *map(str, load)]
    with running([server], [places.remuda, "call", "--to", SOCKET, "x"]) as names:
        pool = names["pids"][0]
        # Workers that start would be counted, too: the first calls wait for them.
        warm = filled([*command[:4], "--in-flight", "256", "--calls", "2000"], names)
        subprocess.run(warm, check=True, capture_output=True, timeout=LOAD_TIMEOUT_S)
        before = cpu_seconds(pool)
        done = subprocess.run(filled(command, names), cwd=ROOT, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S)
        if done.returncode != 0:
            raise ValueError(done.stderr[-400:])
        result = json.loads(done.stdout)
        jobs = result["total"] + result["failed"]
        return {
            "jobs_per_second": result["jobs_per_second"],
            "memory_mib": memory(pool) / (1 << 20),
            "cpu_us": (cpu_seconds(pool) - before) * 1e6 / jobs,
            "failed": result["failed"],
        }


def rows(places):
    def workers(count):
        return measured(places, echo(places, count), ["--in-flight", 256, "--calls", 100_000])

    def connections(count):
        return measured(places, echo(places, 2), ["--connections", count, "--in-flight", 1000, "--calls", 100_000])

    def bodies(size):
        calls = max(200, min(100_000, (128 << 20) // size))
        return measured(places, echo(places, 2), ["--in-flight", 64, "--bytes", size, "--calls", calls])

    def queue(length):
        return measured(places, ["--max-queue-size", str(max(length, 2_000) + 100), *echo(places, 2)],
                        ["--connections", 4, "--in-flight", length + 8, "--calls", max(2 * length, 100_000)])

    def command(options, load):
        return ["remuda", "serve", "-l", "unix:$DIR/pool.sock", *options, "beside", "load", "lines",
                "--to", "$DIR/pool.sock", *load]

    return [
        Growth("grow-workers", "Workers, 256 calls in flight", "workers", [1, 2, 4, 8, 16, 32, 64], workers,
               command(["-j", "N", "--", "echo-worker"], ["--in-flight", "256", "--calls", "100000"])),
        Growth("grow-connections", "Connections, 1,000 calls in flight in all", "connections",
               [1, 2, 4, 10, 30, 100, 300, 1000], connections,
               command(["-j", "2", "--", "echo-worker"], ["--connections", "N", "--in-flight", "1000", "--calls", "100000"])),
        Growth("grow-bodies", "Bodies, 64 calls in flight", "bytes", [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10,
               256 << 10, 1 << 20], bodies,
               command(["-j", "2", "--", "echo-worker"], ["--in-flight", "64", "--bytes", "N", "--calls", "100000 and fewer"]), bounded=False),
        Growth("grow-queue", "Jobs that wait in the queue", "jobs", [10, 100, 1000, 10_000, 100_000, 1_000_000], queue,
               command(["--max-queue-size", "N+100", "-j", "2", "--", "echo-worker"], ["--connections", "4", "--in-flight", "N+8", "--calls",
               "2N, at least 100000"])),
    ]
