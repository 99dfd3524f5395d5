"""The floors of growth: programs that parse nothing, under the load that the pool has."""

import json
import subprocess

from script.places import ROOT
from script.processes import cpu_seconds, filled, running
from script.row import Floor

SOCKET = "{folder}/floor.sock"
LOAD_TIMEOUT_S = 120
# What the pool's own buffers hold.
BUFFERS = ["--buffer", "16384"]


def echo(places, kind, in_flight, calls, shown):
    """An echo server: a receive and a send for what comes at a time, as any server has them."""
    def load(count):
        return ["--connections", count, "--in-flight", in_flight(count), "--calls", calls]

    server = [places.peer("net-server"), kind, "echo", "--listen", f"unix:{SOCKET}", *BUFFERS]
    name = {"bare": "a bare echo on io_uring", "tokio": "tokio's echo"}[kind]
    return Floor(name, lambda count: measured(places, server, load(count)), [*server, *beside(["--connections", "N", "--in-flight", shown, "--calls", calls])])


def fanout(places, in_flight, calls, shown):
    """A process that hands lines to children by rings and eventfds."""
    def server(count):
        return [places.peer("fanout"), SOCKET, str(count)]

    return Floor("a bare fan-out by rings", lambda count: measured(places, server(count), ["--in-flight", in_flight(count), "--calls", calls]),
                 [*server("N"), *beside(["--in-flight", shown, "--calls", calls])])


def beside(load):
    return ["beside", "load", "lines", "--to", SOCKET, *map(str, load)]


def measured(places, server, load):
    """The processor time of the server's own process, by the messages."""
    command = [places.peer("load"), "lines", "--to", SOCKET]
    with running([server], [*command, "--calls", "1"]) as names:
        def run(*more):
            done = subprocess.run(filled([*command, *more], names), cwd=ROOT, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S)
            if done.returncode != 0:
                raise ValueError(done.stderr[-400:])
            return json.loads(done.stdout)

        run("--in-flight", 256, "--calls", 2000)
        before = cpu_seconds(names["pids"][0])
        result = run(*load)
        used = cpu_seconds(names["pids"][0]) - before
        return {"jobs_per_second": result["jobs_per_second"], "cpu_us": used * 1e6 / result["total"]}
