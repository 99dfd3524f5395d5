"""The floors of growth: programs that parse nothing, under the load that the pool has."""

from script.load import Load
from script.processes import running
from script.row import Floor

SOCKET = "{folder}/floor.sock"
# What the pool's own buffers hold.
BUFFERS = ["--buffer", "16384"]


def echo(places, kind, in_flight, calls, shown):
    """An echo server: a receive and a send for what comes at a time, as any server has them."""
    server = [places.peer("net-server"), kind, "echo", "--listen", f"unix:{SOCKET}", *BUFFERS]
    name = {"bare": "a bare echo on io_uring", "tokio": "tokio's echo"}[kind]
    return Floor(name, lambda count: measured(places, server, calls, in_flight(count), count),
                 [*server, *beside("--connections", "N", "--in-flight", shown, "--calls", calls)])


def fanout(places, children, in_flight, calls, shown, count=None):
    """A process that hands lines to children by rings and eventfds, at most so many at a time as a pool does.
    `children`, `in_flight` and `count` (of connections) are functions of what grows; `shown` is the words for the
    first two, and for the third if it isn't one."""
    server = [places.peer("fanout"), SOCKET]
    shown_children, shown_in_flight, *connections = shown
    load = [*(["--connections", *connections] if connections else []), "--in-flight", shown_in_flight, "--calls", calls]

    def point(x):
        return measured(places, [*server, str(children(x))], calls, in_flight(x), count(x) if count else 1)

    return Floor("a bare fan-out by rings", point, [*server, shown_children, *beside(*load)])


def beside(*load):
    return ["beside", "load", "lines", "--to", SOCKET, *map(str, load)]


def measured(places, server, calls, in_flight, count=1):
    """The processor time of the server's own process, by the messages."""
    with running([server], [places.peer("load"), "lines", "--to", SOCKET, "--calls", "1"]) as names:
        load = Load(places, SOCKET, names, calls, count, ("--in-flight", in_flight))
        cpu_us, result = load.cpu_us(names["pids"][0])
        return {"jobs_per_second": result["jobs_per_second"], "cpu_us": cpu_us}
