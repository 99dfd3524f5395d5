"""remuda-shm beside iceoryx2, a Unix stream and bare eventfds: two processes, a core each."""

from script.row import Pair, Side

ICEORYX = "iceoryx2 0.10"


def rows(places, has):
    def case(name, what):
        return Side(name, [places.figures(), "1", what], "last")

    def iceoryx(name):
        return Side(f"{ICEORYX}, {name}", [places.peer("iceoryx-peer"), name], "figure")

    polled = case("rings, polled", "64 B round trip, polled")
    asleep = case("rings, asleep", "64 B round trip, blocking, asleep")
    spinning = case("rings, spinning", "64 B round trip, blocking, spinning")
    one_way = case("rings, one by one", "64 B one way, send_blocking to recv")
    stream = case("Unix stream", "Unix stream, 64 B round trip")
    eventfds = case("bare eventfds", "bare eventfds")
    rows = [
        Pair("shm-polled", "shm", "round trip of 64 B, both sides polling", polled, iceoryx("polled"), "us"),
        Pair("shm-event", "shm", "round trip of 64 B, both sides asleep", asleep, iceoryx("event"), "us",
             headline="round trip through shared memory, both sides asleep"),
        Pair("shm-stream", "shm", "round trip of 64 B, both sides asleep", asleep, stream, "us"),
        Pair("shm-eventfds", "shm", "round trip of 64 B, both sides asleep", asleep, eventfds, "us"),
        Pair("shm-spinning", "shm", "round trip of 64 B, both sides spinning for a while", spinning, stream, "us"),
        Pair("shm-one-way", "shm", "64 B one way", one_way, iceoryx("one-way"), "M/s",
             headline="messages/s through shared memory"),
    ]
    for row in rows:
        row.less_is_better = row.unit == "us"
    for size in ("8,000 B", "64 KiB", "1 MiB"):
        rows.append(Pair(f"shm-bytes-{size.split()[0].replace(',', '')}{size.split()[1]}", "shm",
                         f"{size} one way, every byte read", case("rings, copied", f"{size}, copied"),
                         case("Unix stream", f"{size}, Unix stream"), "GB/s"))
    return rows
