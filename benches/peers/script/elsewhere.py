"""Tables of the programs that run pairs of their own."""

from script.aims import Aim

WORKS = {
    "up": "a stream upward", "burst": "a stream upward, read by bursts", "flight": "down and up, 256 on their way",
    "round": "down and up, one at a time",
}
ORDER = ["remuda-uring", "remuda-mio", "tokio", "ringline", "bare"]
NUMBERS = {"cpu_us": "processor time a request", "p50_us": "p50", "per_second": "requests/s", "bytes_each": "memory a connection"}


def table(result):
    lines = result["lines"]
    return threads(lines) if lines and "rows" in lines[0] else network(lines)


def aims(row, result):
    """The aims that a program's results say of themselves."""
    return [
        Aim(f"{line['what']}: {measured(aim)}", bool(aim["met"]), row.whys.get((line["what"], aim["measure"], aim["of"].split("/")[1]), ""))
        for line in result.get("lines", []) for aim in line.get("aims", [])
    ]


def measured(aim):
    one, other = aim["of"].split("/")
    return f"{NUMBERS.get(aim['measure'], aim['measure'])}, {one} by {other}"


def network(lines):
    """A line a row, a column a server; then the aims."""
    rows = [line for line in lines if not is_memory(line)]
    out = sorted({f"{line['pairs']} bursts of {line['millis']} ms a server, in turn" for line in rows if "millis" in line})
    out = [f"{' or '.join(out)}. ", ""] if out else []
    out += columns(rows, lambda figures: f"{figures['cpu_us']:.2f} us (p50 {figures['p50_us']:.0f} us)", "processor time a request")
    idle = [line for line in lines if is_memory(line)]
    if idle:
        out += ["", *columns(idle, lambda figures: f"{figures['bytes_each']:,.0f} B", "memory a connection")]
    kinds = list(dict.fromkeys((measured(aim), aim["aim"]) for line in lines for aim in line["aims"]))
    out += ["", "Ratios of `remuda-uring` with their 95 % intervals; in bold those that miss the aim at the head of the column, and "
            "beside them what the bare loop has of the same peer. The time is processor time a request.", "",
            "| row | " + " | ".join(f"{head(words)}: {aim}" for words, aim in kinds) + " |", "| --- |" + " --- |" * len(kinds)]
    for line in lines:
        ratios = {(measured(aim), aim["aim"]): ratio(aim, floor(line, aim)) for aim in line["aims"]}
        if ratios:
            out.append(f"| `{line['row']}` | " + " | ".join(ratios.get(kind, "") for kind in kinds) + " |")
    return out


def head(words):
    """Narrow: the table has many columns."""
    return words.replace(NUMBERS["cpu_us"], "time").replace(NUMBERS["bytes_each"], "memory").replace(", remuda-uring by", " by")


def ratio(aim, floor):
    median, low, high = aim["ratio"]
    shown = f"{median:.2f} ({low:.2f} to {high:.2f})"
    return shown if aim["met"] else f"**{shown}**{floor}"


def floor(line, aim):
    """What the bare loop has of the same peer."""
    bare = line.get("ratios", {}).get(f"bare/{aim['of'].split('/')[1]}", {}).get(aim["measure"])
    return f"; bare {bare[0]:.2f}" if bare else ""


def is_memory(line):
    return any("bytes_each" in figures for figures in line["servers"].values())


def columns(lines, show, title):
    servers = sorted({server for line in lines for server in line["servers"]}, key=place)
    out = [f"| {title} | " + " | ".join(servers) + " |", "| --- |" + " --- |" * len(servers)]
    for line in lines:
        cells = (show(line["servers"][server]) if server in line["servers"] else "" for server in servers)
        out.append(f"| `{line['row']}`: {line['what']} | " + " | ".join(cells) + " |")
    return out


def place(server):
    """Ours first, and the floor last."""
    return (ORDER.index(server) if server in ORDER else len(ORDER), server)


def threads(lines):
    rows = lines[0]["rows"]
    peers = list(dict.fromkeys(peer["peer"] for row in rows for peer in row["peers"]))
    out = ["The peer's figure, and how many times as fast Remuda is, with its 95 % interval.", "",
           "| row | workers | Remuda | " + " | ".join(peers) + " |", "| --- | --- | --- |" + " --- |" * len(peers)]
    for row in rows:
        beside = {peer["peer"]: f"{shown(peer['figure'], row['unit'])}: {times(peer)}" for peer in row["peers"]}
        out.append(f"| `{row['row']}`: {WORKS.get(row['row'], row['row'])} | {row['workers']} | {shown(row['figure'], row['unit'])} | "
                   + " | ".join(beside.get(peer, "") for peer in peers) + " |")
    return [*out, "", f"{lines[0]['pairs']} pairs a row."]


def times(peer):
    return f"{peer['times_as_fast']:.2f} ({peer['low']:.2f} to {peer['high']:.2f})"


def shown(value, unit):
    return f"{value * 1e6:.2f} us" if unit == "s" else f"{value / 1e6:.1f} M/s"
