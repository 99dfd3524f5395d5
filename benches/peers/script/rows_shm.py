"""remuda-shm beside iceoryx2, a Unix stream and bare eventfds: two processes, a core each."""

from script.row import Pair, Side

ICEORYX = "iceoryx2 0.10"
WHY_EVENT = (
    "bare eventfds, with nothing done between them, have the ratio at the right: what the aim leaves, if anything, is half a microsecond "
    "for two messages that are written, published and read, each by a core that has just woken."
)
WHY_EVENTFDS = ("both sides make the same two system calls a trip. What is left is 0.4 us on each side: the lines of the "
                "slot and of three words that travel between the cores.")
WHY_COPIES = ("two cores that do nothing but `memcpy`, in and out of memory that they share, are hardly faster, by 3 to 10 %, as the row "
              "after this one shows. In place, one of the copies falls away.")


def rows(places, has):
    def case(name, what):
        return Side(name, [places.figures(), "1", "--exact", what], "last")

    def iceoryx(name):
        return Side(f"{ICEORYX}, {name}", [places.peer("iceoryx-peer"), name], "figure")

    polled = case("rings, polled", "64 B round trip, polled")
    asleep = case("rings, asleep", "64 B round trip, blocking, asleep")
    spinning = case("rings, spinning", "64 B round trip, blocking, spinning")
    one_way = case("rings, one by one", "64 B one way, send_blocking to recv")
    stream = case("Unix stream", "Unix stream, 64 B round trip")
    eventfds = case("bare eventfds", "bare eventfds, round trip")
    rows = [
        Pair("shm-polled", "shm", "round trip of 64 B, both sides polling", polled, iceoryx("polled"), "us", ("at most", 0.5)),
        Pair("shm-event", "shm", "round trip of 64 B, both sides asleep", asleep, iceoryx("event"), "us", ("at most", 0.5), why=WHY_EVENT,
             floors=("floor-shm-event",),
             headline="round trip through shared memory, both sides asleep"),
        Pair("shm-stream", "shm", "round trip of 64 B, both sides asleep", asleep, stream, "us"),
        Pair("shm-eventfds", "shm", "round trip of 64 B, both sides asleep", asleep, eventfds, "us", ("at most", 1.1), why=WHY_EVENTFDS),
        Pair("shm-spinning", "shm", "round trip of 64 B, both sides spinning for a while", spinning, stream, "us"),
        Pair("shm-one-way", "shm", "64 B one way", one_way, iceoryx("one-way"), "M/s",
             headline="messages/s through shared memory"),
        Pair("floor-shm-event", "floor", "round trip through shared memory, both sides asleep", eventfds, iceoryx("event"), "us"),
    ]
    for row in rows:
        row.less_is_better = row.unit == "us"
    for size in ("8,000 B", "64 KiB", "1 MiB"):
        name, what = f"shm-bytes-{size.split()[0].replace(',', '')}{size.split()[1]}", f"{size} one way, every byte read"
        copied, stream = case("rings, copied", f"{size}, copied"), case("Unix stream", f"{size}, Unix stream")
        in_place = case("rings, written and read in place", f"{size}, in place at both ends")
        bare = case("memcpy in and out, two threads", f"{size}, bare copies")
        rows += [
            Pair(name, "shm", what, copied, stream, "GB/s", ("at least", 2), why=WHY_COPIES, floors=(f"floor-{name}",)),
            Pair(f"{name}-memcpy", "shm", what, copied, bare, "GB/s"),
            Pair(f"{name}-in-place", "shm", what, in_place, stream, "GB/s", ("at least", 2)),
            Pair(f"floor-{name}", "floor", what, bare, stream, "GB/s"),
        ]
    return rows
