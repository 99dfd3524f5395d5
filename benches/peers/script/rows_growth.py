"""What a job costs the pool's process as something grows: a fresh pool for each point, so many calls
that each is answered before the end, its most memory, and its processor time and system calls by the
calls, without those of opening connections. Where the number of parties grows, the load is the same in all on one table and the same for
each of them on another: on the first, each party has less to do, and what a wake-up of it costs is
divided by fewer jobs."""

from script import growth_floors, system_calls
from script.load import Load
from script.processes import memory, running
from script.row import Growth
from script.rows_serve import SOCKET, echo

CALLS = 100_000
# Room in the queue for whatever is in flight.
QUEUE = ["--max-queue-size", "20000"]
EACH_WORKER, EACH_CONNECTION = 64, 16

# The first line of the tables of workers has what the others lack.
ONE_LOOKS = (
    "one worker, where it has a processor beside the pool's, looks for its next call (`--spin`), so that the pool need not wake it: the first "
    "line is the cheapest by that on two processors, and the second has workers that sleep. "
)
# What perf showed at the last line of each table.
WORKERS_EACH = (
    ONE_LOOKS + "The bare fan-out, which hands a child no more messages at once than the pool does jobs, and keeps each until it is answered, "
    "grows by as much at the last doubling, and by less from 16 children on. What grows is not what is done: with 16 workers "
    "as with 64 a worker gets 25 jobs in a message and 22 to 29 answers are read at once, a job needs 0.03 wake-ups, as in the fan-out, and the "
    "pool hardly ever sleeps. It is memory: four thousand jobs in flight and the rings beside them don't stay in the 2 MiB of cache that a processor has of its own. "
    "By function (perf), 64 workers beside 16, a job took 155 ns more, of which 55 were the first look at the next job of a worker that has "
    "answered, 19 that at its call, 47 the writing of a new job to where another was, 28 the sending of one that has waited, and 21 its "
    "client's place. Since then the dispatch has all but the last fetched ahead, by an instruction that nothing waits for: 11 % less a job with 64 workers, 4 % with "
    "16, and nothing with one or two (pools in turn, paired). Tried and not kept, as the time was the same: workers that don't preempt who "
    "wakes them (`SCHED_BATCH`), twice as many jobs handed ahead, slots of an eighth, rings of twice as many slots, buffers that all "
    "workers share, pages of 2 MiB, and to have the lines of the rings fetched ahead as well. Next: a call that lies in its job."
)
WORKERS = (
    ONE_LOOKS + "The load is divided by the workers, so that at 64 of them there are four calls for each: a job goes to a worker that is idle "
    "before it goes to one that has a job, which may be a long one. The workers sleep between their few jobs, and waking them, each by "
    "a system call of its own, is most of what their number costs. What the number alone costs is in the table before. The bare "
    "fan-out, which has little but its wake-ups to do, is dearer by the times that its line says. "
    "Next: nothing, as long as no job is to wait behind another while a worker is idle."
)
CONNECTIONS_EACH = (
    "it is close to the limit, and met in other runs. 16,000 calls in flight cost no more than 480 do where they are on 4 or 30 "
    "connections, 0.9 us a job, so that it is the number of connections, each with a task, buffers and answers of its own."
)
CONNECTIONS = (
    "the load is divided by the connections, so that at 1,000 of them there is one call on each: each call comes by a receive of its "
    "own, and its answer goes by a send of its own, the kernel's work for which can't be shared. The bare fan-out, which has the pool's "
    "sockets and rings and two children, has the growth that its line says, most of it the kernel's. Turns are small for both, 0.07 waits and "
    "0.06 wake-ups a job: the load writes its calls one by one, and whoever reads them takes what has come. By function (perf, "
    "against one connection with as many calls), a job takes 0.50 us more of the pool's own time, a message 0.06 of the fan-out's: of 1,000 connections none is in the cache "
    "when its next call comes, and what reads, answers and wakes it each waits for a line or two, none for more than 0.07 us. It was about 0.3 more "
    "before a connection lay in three lines, its task in one, and the tasks of a turn were fetched ahead. The kernel takes 3.2 us more for "
    "the pool, and 2.8 for the fan-out, though it has no more operations: it rings its workers' bells more often, 0.08 a job beside 0.05. What the number alone "
    "costs is in the table before. Tried and not kept: to have a connection and its client fetched ahead when its call is seen to have come, which made some functions cheaper by 0.11 us "
    "together, and others dearer by as much. Next: a client and its connection as one piece of memory, and fewer bells."
)


def measured(places, options, calls, *load, count=1):
    """One point. `count` is of connections."""
    server = [places.remuda, "serve", "-l", SOCKET, *options]
    with running([server], [places.remuda, "call", "--to", SOCKET, "x"]) as names:
        pool = names["pids"][0]
        load = Load(places, SOCKET.removeprefix("unix:"), names, calls, count, load)
        cpu_us, result = load.cpu_us(pool)
        point = {
            "jobs_per_second": result["jobs_per_second"],
            "memory_mib": memory(pool) / (1 << 20),
            "cpu_us": cpu_us,
            "failed": result["failed"],
        }
        # Once more, since counting costs time.
        made = load.each(lambda work: system_calls.number([pool], work))
        return {**point, "calls": made}


def rows(places):
    def workers(in_flight):
        return lambda count: measured(places, [*QUEUE, *echo(places, count)], CALLS, "--in-flight", in_flight(count))

    def connections(in_flight):
        return lambda count: measured(places, [*QUEUE, *echo(places, 2)], CALLS, "--in-flight", in_flight(count), count=count)

    def bodies(size):
        calls = max(200, min(CALLS, (128 << 20) // size))
        return measured(places, echo(places, 2), calls, "--in-flight", 64, "--bytes", size)

    def queue(length):
        return measured(places, ["--max-queue-size", str(max(length, 2_000) + 100), *echo(places, 2)], max(2 * length, CALLS),
                        "--in-flight", length + 8, count=4)

    def command(options, load):
        return ["remuda", "serve", "-l", "unix:$DIR/pool.sock", *options, "beside", "load", "lines",
                "--to", "$DIR/pool.sock", *load]

    def command_workers(in_flight):
        return command([*QUEUE, "-j", "N", "--", "echo-worker"], ["--in-flight", in_flight, "--calls", str(CALLS)])

    def command_connections(in_flight):
        return command([*QUEUE, "-j", "2", "--", "echo-worker"],
                       ["--connections", "N", "--in-flight", in_flight, "--calls", str(CALLS)])

    def fanout_workers(in_flight, shown):
        return [growth_floors.fanout(places, lambda count: count, in_flight, CALLS, ("N", shown))]

    def fronts(in_flight, shown):
        """What has the pool's rings, too, comes first: the aim is judged beside it."""
        return [growth_floors.fanout(places, lambda _: 2, in_flight, CALLS, ("2", shown, "N"), lambda count: count),
                *(growth_floors.echo(places, kind, in_flight, CALLS, shown) for kind in ("bare", "tokio"))]

    counts, numbers = [1, 2, 4, 8, 16, 32, 64], [1, 2, 4, 10, 30, 100, 300, 1000]
    return [
        Growth("grow-workers-each", f"Workers, {EACH_WORKER} calls in flight for each", "workers", counts,
               workers(lambda count: EACH_WORKER * count), command_workers(f"{EACH_WORKER}N"), why=WORKERS_EACH,
               floors=fanout_workers(lambda count: EACH_WORKER * count, f"{EACH_WORKER}N")),
        Growth("grow-workers", "Workers, 256 calls in flight in all", "workers", counts, workers(lambda count: 256),
               command_workers("256"), why=WORKERS, with_row="grow-workers-each",
               floors=fanout_workers(lambda count: 256, "256")),
        Growth("grow-connections-each", f"Connections, {EACH_CONNECTION} calls in flight on each", "connections", numbers,
               connections(lambda count: EACH_CONNECTION * count), command_connections(f"{EACH_CONNECTION}N"),
               why=CONNECTIONS_EACH, floors=fronts(lambda count: EACH_CONNECTION * count, f"{EACH_CONNECTION}N")),
        Growth("grow-connections", "Connections, 1,000 calls in flight in all", "connections", numbers,
               connections(lambda count: 1000), command_connections("1000"), why=CONNECTIONS, with_row="grow-connections-each",
               floors=fronts(lambda count: 1000, "1000")),
        Growth("grow-bodies", "Bodies, 64 calls in flight", "bytes", [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10,
               256 << 10, 1 << 20], bodies,
               command(["-j", "2", "--", "echo-worker"], ["--in-flight", "64", "--bytes", "N", "--calls", f"{CALLS} and fewer"]), bounded=False),
        Growth("grow-queue", "Jobs that wait in the queue", "jobs", [10, 100, 1000, 10_000, 100_000, 1_000_000], queue,
               command(["--max-queue-size", "N+100", "-j", "2", "--", "echo-worker"], ["--connections", "4", "--in-flight", "N+8", "--calls",
               f"2N, at least {CALLS}"])),
    ]
