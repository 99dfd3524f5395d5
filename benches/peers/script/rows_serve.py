"""`remuda serve` beside servers, brokers and a bare relay."""

from script.places import NATS_SERVER, PEER_PYTHON, PROGRAMS
from script.row import Pair, Side

SOCKET = "unix:{folder}/pool.sock"
RINGS = "shm:peers-{port}"
BODY_BYTES = 60
BODY = "the quick brown fox jumps over the lazy dog and then some..."
PYTHON = ["-j", "2", "--python", "benches/peers/programs/jobs.py:upper"]
ONE_CORE = ["taskset", "-c", "0"]
# mosec ends later where it had more connections.
MOSEC_START_S, MOSEC_START_MANY_S = 1.5, 3.5

# Why aims aren't met, as far as they aren't. The eventfds' round trip is that of `shm-eventfds`.
WHY_ASLEEP = (
    "the pool makes two system calls for a call, where the relay makes four, and sleeps as often. Of what it lacks, a part is "
    "io_uring's wait, which wakes the thread before it receives: the rows of a bare relay on io_uring show how much, and epoll's wait is no "
    "cheaper. The rest is mostly the pool's and its worker's own: a call and an answer that are parsed, queued, and written anew, in about "
    "7,800 instructions of the pool, a little more than half of them its runtime's, and 1,100 of the worker (callgrind)."
)
WHY_MOSEC = (
    "the pool and its worker watch, so that the client alone is woken up, across cores where it has one of its own. A relay that parses "
    "nothing and doesn't watch makes four wake-ups, to and from a worker that does nothing, and has the ratio at the right: where a processor "
    "that sleeps is slow to wake up, as in some virtual machines, it is near the aim itself. What is left is the call of a Python function."
)
WHY_RINGS_ASLEEP = (
    "with all asleep a call is four wake-ups across cores, over rings as over sockets, and a doorbell of rings is an eventfd. Bare eventfds, "
    "with nothing done between their wake-ups, and the rings alone, through which a middle process passes on what it doesn't look into, have "
    "the ratios at the right: they leave a call and its answer a microsecond at most to be read, queued and written, and nothing where the "
    "kernel wakes who sleeps on an eventfd later than who sleeps on a socket. Who sleeps at each message is woken before it is written, and "
    "by the pool before a call or an answer is read."
)
WHY_RINGS_SPINNING = (
    "the client and the worker sleep, and to wake both across cores takes as long as a round trip of bare eventfds. The rings alone, "
    "through which a middle process that spins passes on what it doesn't look into, are at the aim themselves or above it: that leaves "
    "nothing for a call and an answer to be parsed, queued and written anew."
)
WHY_RINGS_SOCKETS = (
    "the wake-ups are as many over both, and a kernel may wake who sleeps on an eventfd later than who sleeps on a socket: bare eventfds beside "
    "a bare relay by sockets, among the floors below, show by how much."
)
WHY_RINGS_MANY = (
    "with 64 calls in flight a socket's system calls are shared by many jobs (about a fifth of one a job in the pool, counted below). What "
    "rings save is a worker's send for each answer, and the kernel's copies; to parse, queue and write a job is the same over both."
)


def echo(places, count, *options):
    """Workers in Rust that give back what comes. The last words of a command."""
    return ["-j", str(count), "--", places.peer("echo-worker"), *options]


def pool(places, worker, to=SOCKET, in_flight=1, options=(), prefix=(), name="serve", client=None):
    """A pool and the load of `remuda bench`, or of another client."""
    figure = "latency_us.p50" if in_flight == 1 else "jobs_per_second"
    bench = [places.remuda, "bench", "--to", to, "--in-flight", str(in_flight), "--duration", "{seconds}", "--warmup",
             "{warmup}", "--body", BODY, "--json"]
    return Side(
        name,
        [*prefix, *(client or bench)],
        "figure" if client else figure,
        servers=[[*prefix, places.remuda, "serve", "-l", SOCKET, *(["-l", to] if to != SOCKET else []), *options, *worker]],
        ready=[places.remuda, "call", "--to", to, "x"],
    )


def http(places, name, server, ready, path, connections, start_seconds):
    figure = "p50_us" if connections == 1 else "jobs_per_second"
    load = [places.peer("load"), "http", "--to", "127.0.0.1:{port}", "--path", path, "--connections", str(connections),
            "--seconds", "{seconds}", "--warmup", "{warmup}", "--bytes", str(BODY_BYTES)]
    return Side(name, load, figure, servers=[server], ready=ready, start_seconds=start_seconds)


def mosec(places, connections):
    server = [PEER_PYTHON, str(PROGRAMS / "mosec_server.py"), "--port", "{port}", "--log-level", "error"]
    one = [places.peer("load"), "http", "--to", "127.0.0.1:{port}", "--path", "/inference", "--calls", "1"]
    return http(places, f"mosec 0.9.8, {connections} connection{'s' * (connections > 1)}", server, one, "/inference",
                connections, MOSEC_START_S if connections == 1 else MOSEC_START_MANY_S)


def post_call(places, connections):
    server = [places.remuda, "serve", "-l", SOCKET, "--http", "{port}", *PYTHON]
    one = [places.peer("load"), "http", "--to", "127.0.0.1:{port}", "--path", "/call", "--calls", "1"]
    return http(places, f"POST /call, {connections} connection{'s' * (connections > 1)}", server, one, "/call", connections, 0.1)


def nats(places, in_flight):
    url, program = "nats://127.0.0.1:{port}", places.peer("nats-peer")
    respond = [program, "respond", url]
    return Side(
        "NATS 2.9 request/reply, queue group of two",
        [program, "load", url, str(in_flight), "{seconds}", "{warmup}", str(BODY_BYTES)],
        "p50_us" if in_flight == 1 else "jobs_per_second",
        # A responder that finds no server yet tries again.
        servers=[[NATS_SERVER, "-a", "127.0.0.1", "-p", "{port}"], respond, respond],
        ready=[program, "load", url, "1", "0.05", "0", str(BODY_BYTES)],
    )


def rows(places, has):
    relay = [places.peer("relay")]
    client = [places.peer("relay"), "client", "{folder}/pool.sock"]
    ring_client = [places.peer("relay"), "rings", RINGS.removeprefix("shm:")]
    times = {"RELAY_SECONDS": "{seconds}", "RELAY_WARMUP": "{warmup}"}

    def bare(prefix=()):
        return Side("bare blocking relay", [*prefix, *relay], "figure", environment=times)

    def floor(name, what, *options, prefix=()):
        """What does the least, beside the relay that the pool is beside."""
        how = "all on one core" if prefix else "all asleep" if "spinning" not in options else "the middle spinning"
        return Pair(f"floor-{name}", "floor", f"one in flight, p50, {how}", Side(what, [*prefix, *relay, *options], "figure", environment=times),
                    bare(prefix), "us", less_is_better=True)

    def rust(to=SOCKET, in_flight=1, workers=1, sockets=True, asleep=False, dozing=False, prefix=(), name="over Unix sockets"):
        """A pool of Rust workers. With `sockets` its workers take no rings; with `asleep` nobody watches for
        what comes, with `dozing` the pool alone does. A single call is made by the relay's own client."""
        worker = echo(places, workers, *(["--sockets"] if sockets else []), *(["--asleep"] if asleep or dozing else []))
        said = None if in_flight > 1 else client if to == SOCKET else ring_client
        side = pool(places, worker, to, in_flight, ["--spin", "0"] if asleep else [], prefix, name, said)
        side.environment = times if said else {}
        return side

    def rings(**more):
        return rust(to=RINGS, sockets=False, name="over rings", **more)

    one, many = "one call in flight, a Rust worker, p50", "64 calls in flight"
    return [
        Pair("serve-mosec-64", "serve", f"{many}, two Python workers", pool(places, PYTHON, in_flight=64, name="over a Unix socket"),
             mosec(places, 64), "jobs/s", ("at least", 8), ("python",),
             headline="jobs/s of `serve`, Python workers, 64 calls in flight"),
        Pair("serve-mosec-64-http", "serve", f"{many}, two Python workers, the same load program",
             post_call(places, 64), mosec(places, 64), "jobs/s", ("at least", 2), ("python",)),
        Pair("serve-mosec-1", "serve", "one call in flight, two Python workers, p50",
             pool(places, PYTHON, name="over a Unix socket"), mosec(places, 1), "us", ("at most", 0.35), ("python",),
             less_is_better=True, why=WHY_MOSEC, floors=("floor-mosec",), headline="p50 of `serve`, Python workers, one call in flight"),
        Pair("serve-mosec-1-http", "serve", "one call in flight, two Python workers, the same load program, p50",
             post_call(places, 1), mosec(places, 1), "us", None, ("python",), less_is_better=True),
        Pair("serve-relay", "serve", f"{one}, all asleep, the same client", rust(asleep=True), bare(), "us", ("at most", 1.2),
             less_is_better=True, why=WHY_ASLEEP, floors=("floor-uring", "floor-epoll")),
        Pair("serve-relay-spinning", "serve", f"{one}, the pool spinning as it does by default, the same client", rust(),
             bare(), "us", ("at most", 1.2), less_is_better=True),
        Pair("serve-relay-one-core", "serve", f"{one}, all on one core, the same client", rust(asleep=True, prefix=ONE_CORE),
             bare(ONE_CORE), "us", ("at most", 1.2), less_is_better=True, why=WHY_ASLEEP,
             floors=("floor-uring-one-core", "floor-epoll-one-core")),
        Pair("serve-relay-default", "serve", f"{one}, as it is by default, the same client", rust(sockets=False, name="over a Unix socket, worker over rings"),
             bare(), "us", ("at most", 1.2), less_is_better=True,
             headline="p50 of `serve` over a Unix socket, a Rust worker, as it is by default, where the pool spins"),
        Pair("serve-relay-default-one-core", "serve", f"{one}, all on one core, as it is by default, the same client",
             rust(sockets=False, prefix=ONE_CORE, name="over a Unix socket, worker over rings"), bare(ONE_CORE), "us",
             ("at most", 1.2), less_is_better=True),
        Pair("rings-relay-asleep", "serve", f"{one}, all asleep, the same client", rings(asleep=True), bare(), "us", ("at most", 0.85),
             there=has.rings, less_is_better=True, why=WHY_RINGS_ASLEEP,
             floors=("floor-eventfds", "floor-rings")),
        Pair("rings-relay-spinning", "serve", f"{one}, the pool alone spinning, the same client", rings(dozing=True), bare(), "us",
             ("at most", 0.5), there=has.rings, less_is_better=True, why=WHY_RINGS_SPINNING,
             floors=("floor-eventfds-spinning", "floor-rings-spinning")),
        Pair("rings-relay-default", "serve", f"{one}, pool and worker spinning as they do by default, the same client", rings(), bare(),
             "us", ("at most", 0.5), there=has.rings, less_is_better=True),
        Pair("rings-relay-one-core", "serve", f"{one}, all on one core, the same client", rings(asleep=True, prefix=ONE_CORE),
             bare(ONE_CORE), "us", there=has.rings, less_is_better=True),
        Pair("rings-sockets-asleep", "serve", f"{one}, all asleep, the same client", rings(asleep=True),
             rust(asleep=True), "us", ("at most", 0.85), there=has.rings, less_is_better=True, why=WHY_RINGS_SOCKETS),
        Pair("rings-sockets-64", "serve", f"{many}, a Rust worker", rings(in_flight=64), rust(in_flight=64), "jobs/s",
             ("at least", 2), there=has.rings, why=WHY_RINGS_MANY),
        Pair("serve-nats-64", "serve", f"{many}, two Rust workers", rust(workers=2, in_flight=64), nats(places, 64), "jobs/s",
             ("at least", 2), ("debian",), headline="jobs/s of `serve` over Unix sockets, Rust workers, 64 calls in flight"),
        Pair("rings-nats-64", "serve", f"{many}, two Rust workers", rings(workers=2, in_flight=64), nats(places, 64), "jobs/s",
             ("at least", 4), ("debian",), has.rings, headline="jobs/s of `serve` over rings, Rust workers, 64 calls in flight"),
        Pair("serve-nats-1", "serve", "one call in flight, two Rust workers, p50", rust(workers=2), nats(places, 1),
             "us", None, ("debian",), less_is_better=True),
        Pair("floor-mosec", "floor", "one in flight, p50", bare(), mosec(places, 1), "us", needs=("python",), less_is_better=True),
        floor("uring", "bare relay on io_uring", "uring"),
        floor("epoll", "bare relay by epoll", "epoll"),
        floor("eventfds", "bare eventfds, four wake-ups", "eventfds"),
        floor("eventfds-spinning", "bare eventfds, two wake-ups", "eventfds", "spinning"),
        floor("rings", "rings alone, four wake-ups", "alone"),
        floor("rings-spinning", "rings alone, two wake-ups", "alone", "spinning"),
        floor("uring-one-core", "bare relay on io_uring", "uring", prefix=ONE_CORE),
        floor("epoll-one-core", "bare relay by epoll", "epoll", prefix=ONE_CORE),
    ]
