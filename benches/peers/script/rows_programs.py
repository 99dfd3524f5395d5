"""Programs of this workspace that run pairs of their own: the network and the threads."""

from script.row import Program

# Why aims of the network aren't met, as far as they aren't: by the figures in the table above.
BEYOND_BARE = (
    "a request costs about 0.3 us more than in the bare loop: a task is woken and polled for it, and a buffer given out and taken "
    "back. Where each request has a turn of the loop to itself it is about 0.8 us, with the clock, the timers and the driver's own "
    "books once a turn; where a turn serves many requests of a connection the aim is met."
)
COPIES = (
    "the server's core is full, mostly with the kernel's copies of 64 KiB in and out: the bare loop, which does nothing "
    "else, is no faster than tokio either. Beside tokio's own copy loop, with its buffers of 8 KiB, the aim is met."
)
FORWARDED = (
    "the server's core is full, mostly with four system calls' work in the kernel: the bare loop, which does nothing else, needs "
    "about 0.87 of tokio's processor time, so that nothing on this path reaches 1.25 times its requests."
)


def rows(places):
    quick, pairs = ["--quick"], ["--pairs", "15"]
    return [
        Program("net", "The network: an echo server on core 0, its load on core 1", [places.peer("net-rows"), "--json"], quick, whys()),
        Program("threads", "Threads, u64 messages", [places.peer("threads-rows"), "--json"], pairs),
        Program("threads-one-core", "Threads, u64 messages, all on one core",
                [places.peer("threads-rows"), "--one-core", "--json"], pairs),
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
    large = [
        "echo of 64 KiB on TCP, 16 connections, 1 in flight each",
        "echo of 64 KiB on Unix sockets, 16 connections, 1 in flight each",
        "forwarding of 64 KiB and its answer on TCP, 16 connections, 1 in flight each; tokio with buffers of 64 KiB",
    ]
    return {
        **{(what, "cpu_us", "bare"): BEYOND_BARE for what in small},
        **{(what, "per_second", "tokio"): COPIES for what in large},
        ("forwarding of 64 B and its answer on TCP, 64 connections, 1 in flight each", "per_second", "tokio"): FORWARDED,
    }
