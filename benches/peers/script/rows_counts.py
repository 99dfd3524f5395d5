"""What a job costs on each path, counted: system calls by perf, allocations by a preloaded library,
wake-ups by the kernel's count of voluntary context switches."""

import os
import pathlib
import subprocess
import tempfile
import threading

from script import system_calls
from script.inputs import lines
from script.places import ROOT
from script.processes import cpu_seconds, filled, leaves, own_pid, running, wake_ups
from script.row import Count
from script.rows_serve import BODY, RINGS, SOCKET, echo

CALLS = 20_000
# What a client does besides its calls is the same in a run with few.
CALLS_FEW = 2_000
MAP_FEW, MAP_MANY = 50_000, 250_000
COMMAND_TIMEOUT_S = 120


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
    "http": "HTTP on the pool's own thread: the two hand-overs between threads are most of the system calls. Of the six allocations four "
            "are hyper's (its timer, the body's channel, the read buffer and its count), and two carry the answer between the threads.",
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

    command, few = ([places.remuda, "map", "-j", "1", "-a", lines(count), "-o", "/dev/null", "--python", "examples/upper.py:upper"]
                    for count in (MAP_MANY, MAP_FEW))
    return [
        Count("count-map", "`map`, a Python worker", lambda: count_map(places, command, few), command,
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
    with tempfile.TemporaryDirectory(prefix="peers-count-") as folder:
        environment = counting(places, folder)
        with running([server], ready, environment) as names:
            pool = names["pids"][0]
            few, many = filled(calls(CALLS_FEW), names), filled(calls(CALLS), names)
            parts = {"pool": [pool], "worker": leaves(pool)}
            usage(few, places)
            before = {part: used(pids, folder) for part, pids in parts.items()}
            usage(many, places)
            result = {part: each(used(pids, folder), before[part], CALLS) for part, pids in parts.items()}
            for part, pids in parts.items():
                made = system_calls.of_processes(pids, lambda: usage(many, places))
                result[part]["calls"] = each(made, {}, CALLS)
            result["client"] = each(usage(many, places), usage(few, places), CALLS - CALLS_FEW)
            made = [system_calls.of_command(command) for command in (many, few)]
            result["client"]["calls"] = each(*made, CALLS - CALLS_FEW)
    return result


def counting(places, folder):
    """The environment of a process whose allocations are counted."""
    return {"LD_PRELOAD": places.peer("libcounter.so"), "COUNTER_FOLDER": folder}


def used(pids, folder):
    """What running processes have used."""
    return {
        "cpu_us": sum(map(cpu_seconds, pids)) * 1e6,
        "wake_ups": sum(map(wake_ups, pids)),
        "allocations": sum(allocations(folder, own_pid(pid)) for pid in pids),
    }


def usage(command, places):
    """What a command used, without what it started."""
    with tempfile.TemporaryDirectory(prefix="peers-count-") as folder, tempfile.TemporaryFile("w+") as said:
        environment = {**os.environ, **counting(places, folder)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        limit = threading.Timer(COMMAND_TIMEOUT_S, process.kill)
        limit.start()
        _, status, used = os.wait4(process.pid, 0)
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise ValueError(f"{' '.join(command)}: {said.read()[-300:]}")
        return {
            "cpu_us": (used.ru_utime + used.ru_stime) * 1e6,
            "wake_ups": used.ru_nvcsw,
            "allocations": allocations(folder, process.pid),
        }


def allocations(folder, pid):
    return int.from_bytes((pathlib.Path(folder) / str(pid)).read_bytes(), "little")


def each(after, before, jobs):
    return {name: (after.get(name, 0) - before.get(name, 0)) / jobs for name in after}


def count_map(places, command, few):
    """As the difference of a run with many lines and one with few."""
    def differ(of):
        return each(of(command), of(few), MAP_MANY - MAP_FEW)

    return {"pool": differ(lambda command: usage(command, places)), "pool and worker": {"calls": differ(system_calls.of_command)}}
