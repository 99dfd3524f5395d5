"""Programs of this workspace that run pairs of their own: the network and the threads."""

from script.row import Program


def rows(places):
    quick, pairs = ["--quick"], ["--pairs", "15"]
    return [
        Program("net", "The network: an echo server on core 0, its load on core 1", [places.peer("net-rows"), "--json"], quick),
        Program("threads", "Threads, u64 messages", [places.peer("threads-rows"), "--json"], pairs),
        Program("threads-one-core", "Threads, u64 messages, all on one core",
                [places.peer("threads-rows"), "--one-core", "--json"], pairs),
    ]
