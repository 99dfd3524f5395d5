"""Tables of the programs that run pairs of their own."""

NUMBERS = {"cpu_us": "processor time a request", "p50_us": "p50", "per_second": "requests/s", "bytes_each": "memory a connection"}


def table(result):
    lines = result["lines"]
    return threads(lines) if lines and "rows" in lines[0] else network(lines)


def network(lines):
    out = ["| row | server | processor time a request | p50 | requests/s |", "| --- | --- | --- | --- | --- |"]
    memory = ["| row | server | memory a connection |", "| --- | --- | --- |"]
    aims = ["| row | measure | of | ratio (95 % interval) | aim |", "| --- | --- | --- | --- | --- |"]
    for line in lines:
        for server, figures in line["servers"].items():
            start = f"| {line['what']} | {server} |"
            if "bytes_each" in figures:
                memory.append(f"{start} {figures['bytes_each']:,.0f} B |")
            else:
                out.append(f"{start} {figures['cpu_us']:.2f} us | {figures['p50_us']:.1f} us | {figures['per_second']:,.0f} |")
        for aim in line["aims"]:
            median, low, high = aim["ratio"]
            met = "met" if aim["met"] else "**not met**"
            aims.append(f"| {line['what']} | {NUMBERS.get(aim['measure'], aim['measure'])} | {aim['of']} | "
                        f"{median:.2f} ({low:.2f} to {high:.2f}) | {aim['aim']}: {met} |")
    return [*out, "", *(memory + [""] if len(memory) > 2 else []), *(aims if len(aims) > 2 else [])]


def threads(lines):
    out = ["| row | workers | Remuda | peer | times as fast (95 % interval) |", "| --- | --- | --- | --- | --- |"]
    for row in lines[0]["rows"]:
        for peer in row["peers"]:
            ratio = f"{peer['times_as_fast']:.2f} ({peer['low']:.2f} to {peer['high']:.2f})"
            out.append(f"| {row['row']} | {row['workers']} | {shown(row['figure'], row['unit'])} | {peer['peer']}: "
                       f"{shown(peer['figure'], row['unit'])} | {ratio} |")
    return [*out, "", f"{lines[0]['pairs']} pairs a row."]


def shown(value, unit):
    return f"{value * 1e6:.2f} us" if unit == "s" else f"{value / 1e6:.1f} M/s"
