"""What a job costs on each path, counted: system calls by strace, allocations by a preloaded library,
wake-ups by the kernel's count of voluntary context switches."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from script.inputs import lines
from script.places import ROOT
from script.processes import cpu_seconds, filled, leaves, running, wake_ups
from script.row import Count
from script.rows_serve import BODY, RINGS, SOCKET, echo

CALLS = 20_000
CALLS_TRACED = 4_000
MAP_FEW, MAP_MANY = 50_000, 250_000
ATTACH_TIMEOUT_S = 10


# The bytes of a body within the pool's process, by reading the code; each socket adds the kernel's
# copies into and out of it.
COPIES = {
    "map": "In: read, copied into the job, written as JSON into the line for the worker, copied for sending. Out: "
           "its JSON string undone into the results, which are written as they are.",
    "unix": "In: copied into the job, encoded into the line for the worker, copied for sending. Out: encoded into the "
            "answer, copied for sending.",
    "http": "As over Unix sockets, and the answer once more on its way to the thread of HTTP.",
    "rings": "In: out of the ring where a message isn't whole in a slot, into the job, encoded into the line, into the "
             "ring. Out: the same without the job. The kernel copies nothing.",
}
CHEAPER = {
    "map": "Nothing of the pool is near the worker's own cost: a Python function called, and a line of JSON.",
    "unix": "Encoding where it is sent from, which saves a copy each way; one enter of the kernel for the answer to a client and "
            "the wait that follows.",
    "http": "HTTP on the pool's own thread: the two hand-overs between threads are most of the system calls and allocations.",
    "rings": "Encoding into the ring's slots, which saves a copy each way.",
}


def rows(places, has):
    def load(*more):
        return lambda calls: [places.peer("load"), *more, "--calls", str(calls)]

    def bench(to, in_flight):
        return lambda calls: [places.remuda, "bench", "--to", to, "--in-flight", str(in_flight), "-n", str(calls),
                              "--warmup", "0", "--body", BODY, "--json"]

    unix, web = ("lines", "--to", "{folder}/pool.sock"), ("http", "--to", "127.0.0.1:{port}", "--path", "/call")

    def served(name, what, calls, to=SOCKET, options=(), there=None, worker="--sockets", path=None):
        listen = ["-l", SOCKET, *(["-l", to] if to != SOCKET else [])]
        server = [places.remuda, "serve", *listen, *options, *echo(places, 1, *([worker] if worker else []))]
        shown = [*server, "beside", *calls("N")]
        ready = [places.remuda, "call", "--to", to, "x"]
        return Count(name, what, lambda: count_served(places, server, ready, calls), shown,
                     COPIES.get(path, ""), CHEAPER.get(path, ""), there=there)

    command = [places.remuda, "map", "-j", "1", "-a", lines(MAP_MANY), "-o", "/dev/null", "--python", "examples/upper.py:upper"]
    return [
        Count("count-map", "`map`, a Python worker", lambda: count_map(places, command), command,
              COPIES["map"], CHEAPER["map"]),
        served("count-unix-1", "`serve` over Unix sockets, 1 in flight", load(*unix, "--in-flight", "1"), path="unix"),
        served("count-unix-64", "`serve` over Unix sockets, 64 in flight", load(*unix, "--in-flight", "64")),
        served("count-http-1", "`POST /call`, 1 connection", load(*web, "--connections", "1"), options=["--http", "{port}"],
               path="http"),
        served("count-http-64", "`POST /call`, 64 connections", load(*web, "--connections", "64"), options=["--http", "{port}"]),
        served("count-rings-1", "`serve` over rings at both ends, 1 in flight", bench(RINGS, 1), RINGS, there=has.rings, worker=None,
               path="rings"),
        served("count-rings-64", "`serve` over rings at both ends, 64 in flight", bench(RINGS, 64), RINGS, there=has.rings, worker=None),
    ]


def count_served(places, server, ready, calls):
    with tempfile.TemporaryDirectory(prefix="peers-count-") as counted:
        environment = {"LD_PRELOAD": places.peer("libcounter.so"), "COUNTER_FOLDER": counted}
        with running([server], ready, environment) as names:
            pool = names["pids"][0]
            run(filled(calls(2_000), names))
            parts = {"pool": [pool], "worker": leaves(pool)}
            counters = {
                "cpu_us": lambda pids: sum(map(cpu_seconds, pids)) * 1e6,
                "wake_ups": lambda pids: sum(map(wake_ups, pids)),
                "allocations": lambda pids: sum(allocations(counted, pid) for pid in pids if pid == pool),
            }
            before = {(part, name): count(pids) for part, pids in parts.items() for name, count in counters.items()}
            run(filled(calls(CALLS), names))
            result = {
                part: {name: (count(pids) - before[part, name]) / CALLS for name, count in counters.items()}
                for part, pids in parts.items()
            }
            del result["worker"]["allocations"]
            for part, pids in parts.items():
                result[part]["calls"] = traced(pids, lambda: run(filled(calls(CALLS_TRACED), names)), CALLS_TRACED)
    return result


def allocations(folder, pid):
    return int.from_bytes((pathlib.Path(folder) / str(pid)).read_bytes(), "little")


def run(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise ValueError(f"{' '.join(command)}: {done.stderr[-300:]}")


def traced(pids, work, jobs):
    """System calls a job of these processes while something is done."""
    with tempfile.NamedTemporaryFile("r") as table:
        attach = [word for pid in pids for word in ("-p", str(pid))]
        strace = subprocess.Popen(["strace", "-c", "-f", "-o", table.name, *attach], stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + ATTACH_TIMEOUT_S
            while not all(is_traced(pid) for pid in pids):
                if time.monotonic() > end or strace.poll() is not None:
                    raise ValueError("strace could not attach")
                time.sleep(0.02)
            work()
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait()
        return {name: calls / jobs for name, calls in parsed(table.read()).items()}


def is_traced(pid):
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/status")
    return all("TracerPid:\t0\n" not in thread.read_text() for thread in threads)


def parsed(table):
    """The calls of strace's table, by name."""
    counts = {}
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            counts[words[-1]] = int(words[3])
    return counts


def count_map(places, command):
    """All its processes together, as the difference of a run with many lines and one with few."""
    def with_lines(count):
        return [lines(count) if word == lines(MAP_MANY) else word for word in command]

    def differ(of):
        few, many = of(with_lines(MAP_FEW)), of(with_lines(MAP_MANY))
        return {name: (many.get(name, 0) - few.get(name, 0)) / (MAP_MANY - MAP_FEW) for name in many}

    return {"pool": differ(usage_of_pool(places)), "pool and worker": {"calls": differ(calls_of_all)}}


def usage_of_pool(places):
    def usage(command):
        with tempfile.TemporaryDirectory(prefix="peers-count-") as counted:
            environment = {**os.environ, "LD_PRELOAD": places.peer("libcounter.so"), "COUNTER_FOLDER": counted}
            process = subprocess.Popen(command, cwd=ROOT, env=environment)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            return {
                "cpu_us": (used.ru_utime + used.ru_stime) * 1e6,
                "wake_ups": used.ru_nvcsw,
                "allocations": allocations(counted, process.pid),
            }

    return usage


def calls_of_all(command):
    with tempfile.NamedTemporaryFile("r") as table:
        subprocess.run(["strace", "-c", "-f", "-o", table.name, *command], cwd=ROOT, check=True, capture_output=True, timeout=120)
        return parsed(table.read())
