"""Tables of the programs that run pairs of their own."""

WORKS = {
    "up": "a stream upward", "burst": "a stream upward, read by bursts", "flight": "down and up, 256 on their way",
    "round": "down and up, one at a time",
}
NUMBERS = {"cpu_us": "processor time a request", "p50_us": "p50", "per_second": "requests/s", "bytes_each": "memory a connection"}


def table(result):
    lines = result["lines"]
    return threads(lines) if lines and "rows" in lines[0] else network(lines)


def network(lines):
    """A line a row, a column a server; then the aims."""
    rows = [line for line in lines if not is_memory(line)]
    out = columns(rows, lambda figures: f"{figures['cpu_us']:.2f} us (p50 {figures['p50_us']:.0f} us)", "processor time a request")
    idle = [line for line in lines if is_memory(line)]
    if idle:
        out += ["", *columns(idle, lambda figures: f"{figures['bytes_each']:,.0f} B", "memory a connection")]
    out += ["", "| row | measure | of | ratio (95 % interval) | aim |", "| --- | --- | --- | --- | --- |"]
    for line in lines:
        for aim in line["aims"]:
            median, low, high = aim["ratio"]
            met = "met" if aim["met"] else "**not met**"
            out.append(f"| {line['what']} | {NUMBERS.get(aim['measure'], aim['measure'])} | {aim['of']} | "
                       f"{median:.2f} ({low:.2f} to {high:.2f}) | {aim['aim']}: {met} |")
    return out


def is_memory(line):
    return any("bytes_each" in figures for figures in line["servers"].values())


def columns(lines, show, title):
    servers = list(dict.fromkeys(server for line in lines for server in line["servers"]))
    out = [f"| {title} | " + " | ".join(servers) + " |", "| --- |" + " --- |" * len(servers)]
    for line in lines:
        cells = (show(line["servers"][server]) if server in line["servers"] else "" for server in servers)
        out.append(f"| {line['what']} | " + " | ".join(cells) + " |")
    return out


def threads(lines):
    out = ["| row | workers | Remuda | peer | times as fast (95 % interval) |", "| --- | --- | --- | --- | --- |"]
    for row in lines[0]["rows"]:
        for peer in row["peers"]:
            ratio = f"{peer['times_as_fast']:.2f} ({peer['low']:.2f} to {peer['high']:.2f})"
            out.append(f"| {WORKS.get(row['row'], row['row'])} | {row['workers']} | {shown(row['figure'], row['unit'])} | {peer['peer']}: "
                       f"{shown(peer['figure'], row['unit'])} | {ratio} |")
    return [*out, "", f"{lines[0]['pairs']} pairs a row."]


def shown(value, unit):
    return f"{value * 1e6:.2f} us" if unit == "s" else f"{value / 1e6:.1f} M/s"
