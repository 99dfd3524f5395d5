"""Programs of this workspace that run pairs of their own: the network and the threads."""

from script.measure import QUICK, WHOLE
from script.row import Program

NETWORK = (
    "Echo servers and proxies, whose processor time is user and system of all their threads. `remuda-uring` and `remuda-mio` are the "
    "runtime on its two drivers, tokio's is its `current_thread`, ringline has one worker, and `bare` is a loop on io_uring without a "
    "runtime, the floor: multishot receives, provided buffers, one system call a turn."
)
THREADS = "`remuda-threads`, messages from workers to their owner and back."

# Why aims of the network aren't met, as far as they aren't: by the figures in the table above.
BEYOND_BARE = (
    "a request costs about 0.3 us more than in the bare loop: a task is woken and polled for it, and a buffer given out and taken "
    "back. Where each request has a turn of the loop to itself it is about 0.8 us, with the driver's own books once a turn; "
    "where a turn serves many requests of a connection the aim is met."
)
BEYOND_RINGLINE = (
    "the kernel has 94 % of the time where 16 requests come at once, and about nine tenths where each comes alone, and its part is about "
    "the same for both. Our own code takes longer than ringline's (by perf, in microseconds a request): 0.02 beside 0.015 where 16 come at "
    "once, 0.39 beside 0.20 where each comes alone on TCP, and 0.32 beside 0.14 on a Unix socket, where the bare loop has 0.06. It is "
    "90 instructions a request where 16 come at once, and 1,470 where each comes alone on one of 16 connections (callgrind): a fifth of "
    "them in the wait for what comes, a fifth in handing over the answer, and no single step more than an eighth. Next: files that are "
    "registered with the ring, so that a send doesn't look its descriptor up."
)
TURN = (
    "with one request a turn our own code is 1,740 instructions, where tokio's has 1,730 and the bare loop 540 (callgrind): what is done "
    "once a turn is done for each request, and no single step is more than a fifth of it. Next: fewer steps in the wait for what comes."
)
COPIES = (
    "96 % of the time is the kernel's, by `perf`, 45 % its copies out of one socket and into the other, for tokio as for us. The bare "
    "loop, whose receives of 64 KiB have four buffers at a time, so that they stay in the cache, has 1.05 to 1.17 times tokio's requests "
    "and 0.85 to 0.95 of its processor time, and a plain loop of `recv` and `send` with one buffer 0.85 to 0.93 of that time: the floor for a "
    "server that sees its bytes, so that nothing on this path reaches 1.25 times tokio's requests. Tried on the bare loop and not kept: "
    "zero-copy sends take 1.15 to 1.25 times as long (loopback copies in the end), bundles of receive buffers 0.94 to 1.07 times. Beside "
    "tokio's own copy loop, with its buffers of 8 KiB, the aim is met, and in forwarding, where the kernel splices. Next: buffers that are "
    "filled on (`IOU_PBUF_RING_INC`)."
)
SHARED_BUFFERS = (
    "receives that all connections share stay in the cache as long as few buffers are out at a time: with four of 64 KiB it was 0.89 to 0.94 "
    "on TCP and 0.94 to 0.96 on Unix sockets, with twelve 1.00 to 1.01, with sixteen or more up to 1.10, on a core with 2 MiB of cache. "
    "Where it is more, the core's cache is smaller, or others use it. Next: buffers that are filled on (`IOU_PBUF_RING_INC`)."
)
ENCRYPTED = (
    "the same library encrypts for both, and has most of the time: by `perf`, 29 % is AES-GCM, 22 % the kernel's copies, and 11 % copies in "
    "the program, of which ours has one more, from the receive buffer to the session's. With few receive buffers at a time it was 0.98 of "
    "tokio's. Next: decrypting in the receive buffer, by rustls's unbuffered connections."
)
LOAD_FULL = (
    "the server needs about 0.6 of tokio's processor time, and its core is idle for a third of the time: the load on the other core, which "
    "writes and reads every byte, is full. The bare loop copies where the runtime splices, into few buffers, and has more requests for a third "
    "more of the server's time; by what its load is faster is not known. "
    "Next: copying instead of splicing where the core has time left."
)
LARGE_BEYOND_BARE = (
    "it is close to the limit, and met in other runs (0.99 to 1.06 on TCP, 1.01 to 1.05 on Unix sockets, with the same programs): nine tenths "
    "of the time are the kernel's, most of it copies, whose speed differs from start to start. Next: which memory the buffers of a start lie "
    "in."
)
FORWARDED = (
    "the server's core is full, mostly with four system calls' work in the kernel: the bare loop, which does nothing else, needs "
    "about 0.87 of tokio's processor time, so that nothing on this path reaches 1.25 times its requests."
)


def rows(places):
    net, threads = places.peer("net-rows"), [places.peer("threads-rows")]
    pairs = (["--pairs", str(QUICK.pairs)], ["--pairs", str(WHOLE.pairs)])
    return [
        Program("net", "The network: an echo server on core 0, its load on core 1", [net, "--json"], ["--quick"], [], (70, 420),
                ("--row", "NAME"), NETWORK, whys()),
        Program("threads", "Threads, u64 messages", [*threads, "--json"], *pairs, (15, 42), ("NAME",), THREADS),
        Program("threads-one-core", "Threads, u64 messages, all on one core", [*threads, "--one-core", "--json"], *pairs, (13, 36),
                ("NAME",), THREADS),
    ]


def whys():
    """By the words of the row, the name of what is measured, and the peer."""
    small = [
        "echo of 64 B on TCP, 1 connection",
        "echo of 64 B on TCP, 64 connections, 1 in flight each",
        "echo of 4 KiB on TCP, 16 connections, 1 in flight each",
        "echo of 64 B on a Unix socket",
        "echo of 64 B on Unix sockets, 64 connections, 1 in flight each",
        "forwarding of 64 B and its answer on TCP, 64 connections, 1 in flight each",
    ]
    beside_ringline = [
        *small,
        "echo of 64 B on TCP, 16 connections, 16 in flight each",
        "echo of 64 B on Unix sockets, 16 connections, 16 in flight each",
        "echo of 64 B with TLS, 64 connections, 1 in flight each",
    ]
    large = [
        "echo of 64 KiB on TCP, 16 connections, 1 in flight each",
        "echo of 64 KiB on Unix sockets, 16 connections, 1 in flight each",
    ]
    return {
        **{(what, "cpu_us", "bare"): BEYOND_BARE for what in small},
        **{(what, "cpu_us", "ringline"): BEYOND_RINGLINE for what in beside_ringline},
        **{(what, "cpu_us", "tokio"): TURN for what in ("echo of 64 B on TCP, 1 connection", "echo of 64 B on a Unix socket")},
        **{(what, "per_second", "tokio"): COPIES for what in large},
        **{(what, "cpu_us", "tokio"): SHARED_BUFFERS for what in large},
        **{(what, "cpu_us", "bare"): LARGE_BEYOND_BARE for what in large},
        ("echo of 64 KiB with TLS, 16 connections, 1 in flight each", "cpu_us", "tokio"): ENCRYPTED,
        ("forwarding of 64 KiB and its answer on TCP, 16 connections, 1 in flight each; tokio with buffers of 64 KiB", "per_second",
         "tokio"): LOAD_FULL,
        ("forwarding of 64 B and its answer on TCP, 64 connections, 1 in flight each", "per_second", "tokio"): FORWARDED,
    }
