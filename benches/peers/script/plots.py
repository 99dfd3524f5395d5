"""Plots as SVG, written by hand: bars of ratios, and lines of cost as work grows."""

import html
import math

from script.ratios import median, paired
from script.row import Growth, Pair

# A plot is seen on a light page and on a dark one, as the reader's system says; the page may be of
# the other kind, so a plot has a ground of its own.
STYLE = """<style>
.ground { fill: #ffffff } text { font: 13px sans-serif; fill: #24292f } .faint { fill: #57606a } .grid { stroke: #d0d7de }
.bar { fill: #4c8bf5 } .behind { fill: #d1772e } .whisker { stroke: #24292f; stroke-width: 1.5 }
.aim { stroke: #cf222e; stroke-width: 2 } .line { fill: none; stroke: #4c8bf5; stroke-width: 2 } .dot { fill: #4c8bf5 }
.least { stroke: #24292f; stroke-width: 2; stroke-dasharray: 2 2 } .line.floor { stroke-dasharray: 2 5; stroke-width: 1.5 }
.line.second { stroke: #d1772e } .dot.second, text.second { fill: #d1772e } text.first { fill: #4c8bf5 }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117 } text { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #3d444d } .whisker, .least { stroke: #e6edf3 } .aim { stroke: #ff7b72 } }
</style>"""
WIDTH = 860
BAR, NAMES, TOP, FOOT = 24, 400, 34, 44
PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 280, 190, 56
NAME_MAX = 48
# Above it, an axis is labelled by the powers of ten instead of by its values.
X_WORDS_MAX = 1000
KINDS = ("first", "second")
PANELS = [("jobs_per_second", "jobs/s"), ("memory_mib", "memory, MiB"), ("cpu_us", "processor time a job, us")]


def write(rows, results, folder):
    """Writes what there are results for, and gives the files' names by what they show."""
    charts = {}
    pairs = [(row, results[row.name]) for row in rows if isinstance(row, Pair) and "ours" in results.get(row.name, {})]
    if any(row.group != "floor" for row, _ in pairs):
        charts["ratios"] = save(folder / "performance-ratios.svg", bars(pairs))
    for row in rows:
        if isinstance(row, Growth) and row.plotted:
            # One plot for the rows of which it is said that they are plotted together.
            together = [(other, results[other.name]["points"]) for other in rows
                        if isinstance(other, Growth) and row.name in (other.name, other.with_row)
                        and "points" in results.get(other.name, {})]
            if together:
                charts[row.name] = save(folder / f"performance-{row.name}.svg", lines(together))
    return charts


def save(path, svg):
    path.write_text(svg)
    return path.name


def svg(width, height, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    ground = f'<rect class="ground" width="{width}" height="{height}" rx="6"/>'
    return "\n".join([head, STYLE, ground, *parts, "</svg>"]) + "\n"


def label(x, y, words, anchor="start", kind=""):
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{html.escape(words)}</text>'


def stroke(kind, x1, y1, x2, y2):
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def bars(pairs):
    """How many times as good: where less is better the ratio is turned round, so that right is good."""
    entries, floors = [], {}
    for row, result in pairs:
        middle, low, high = paired(result["ours"], result["peer"])
        aim = row.aim[1] if row.aim else None
        if row.less_is_better:
            middle, low, high, aim = 1 / middle, 1 / high, 1 / low, aim and 1 / aim
        if row.group == "floor":
            floors[row.name] = middle
        else:
            entries.append((row, middle, low, high, aim))
    least = min(0.5, *(min(low, aim or low) for _, _, low, _, aim in entries))
    most = max(2.0, *(max(high, aim or high) for _, _, _, high, aim in entries))
    first, last = math.log10(least) - 0.05, math.log10(most) + 0.05
    height = TOP + BAR * len(entries) + FOOT

    def at(value):
        return NAMES + (math.log10(value) - first) / (last - first) * (WIDTH - NAMES - 20)

    parts = [label(NAMES, 16, "times as good as the peer (logarithmic)", kind="faint")]
    for tick in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        if least <= tick <= most:
            parts += [stroke("grid", at(tick), TOP - 6, at(tick), height - FOOT),
                      label(at(tick), height - FOOT + 15, f"{tick:g}", "middle", "faint")]
    for index, (row, middle, low, high, aim) in enumerate(entries):
        y = TOP + index * BAR
        left, right = sorted((at(1), at(middle)))
        kind = "bar" if middle >= 1 else "behind"
        parts += [
            label(NAMES - 8, y + 14, name(row), "end"),
            f'<rect class="{kind}" x="{left:.1f}" y="{y + 3}" width="{max(right - left, 1):.1f}" height="{BAR - 9}"/>',
            stroke("whisker", at(low), y + 10.5, at(high), y + 10.5),
        ]
        if aim:
            parts.append(stroke("aim", at(aim), y, at(aim), y + BAR - 4))
        parts += [stroke("least", at(floors[name]), y, at(floors[name]), y + BAR - 4) for name in row.floors if name in floors]
    parts.append(label(NAMES, height - 10, "red: the aim; dotted: the floors; thin: 95 % interval", kind="faint"))
    return svg(WIDTH, height, parts)


def name(row):
    """What is compared, as far as there is room."""
    peer = row.peer.name
    return f"{row.name} / {peer if len(row.name) + len(peer) <= NAME_MAX else peer.split(',')[0]}"


def lines(together):
    """A panel for each figure, with a line for each row."""
    parts = []
    for index, (name, title) in enumerate(PANELS):
        series = [(kind, [(point["x"], median(point[name])) for point in points]) for kind, (_, points) in zip(KINDS, together)]
        if name == "cpu_us":
            series += [(f"{kind} floor", floor(points)) for kind, (_, points) in zip(KINDS, together) if "floors" in points[0]]
        parts += panel(index * (PANEL_WIDTH + 6), title, together[0][0].grows, series)
    below = []
    if len(together) > 1:
        below = [label(MARGIN + index * PANEL_WIDTH, PANEL_HEIGHT + 80, row.what, kind=KINDS[index]) for index, (row, _) in enumerate(together)]
    if any("floors" in points[0] for _, points in together):
        below.append(label(3 * PANEL_WIDTH - 2, PANEL_HEIGHT + 80, "dotted: the floor", "end", "faint"))
    return svg(3 * PANEL_WIDTH + 12, PANEL_HEIGHT + (92 if below else 64), [*parts, *below])


def floor(points):
    """The first floor's processor time."""
    return [(point["x"], median(next(iter(point["floors"].values()))["cpu_us"])) for point in points]


def panel(left, title, grows, series):
    """Lines with both axes logarithmic: straight and flat is a cost that doesn't grow."""
    points = [point for _, line in series for point in line]

    def bounds(values):
        low, high = math.log10(min(values)), math.log10(max(values))
        middle, half = (low + high) / 2, max((high - low) / 2, 0.5)
        return middle - half * 1.08, middle + half * 1.08

    (x_low, x_high), (y_low, y_high) = bounds([x for x, _ in points]), bounds([y for _, y in points])

    def at(x, y):
        across = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return left + MARGIN + across * (PANEL_WIDTH - MARGIN - 14), 24 + (1 - up) * PANEL_HEIGHT

    parts = [label(left + MARGIN, 16, title)]
    for tick in ticks(y_low, y_high):
        _, y = at(points[0][0], tick)
        parts += [stroke("grid", left + MARGIN, y, left + PANEL_WIDTH - 14, y), label(left + MARGIN - 4, y + 4, short(tick), "end", "faint")]
    values = [x for x, _ in series[0][1]]
    for tick in values if max(values) <= X_WORDS_MAX else powers(x_low, x_high):
        x, _ = at(tick, points[0][1])
        parts.append(label(x, PANEL_HEIGHT + 40, short(tick), "middle", "faint"))
    parts.append(label(left + PANEL_WIDTH - 14, PANEL_HEIGHT + 55, grows, "end", "faint"))
    for kind, line in series:
        places = [at(x, y) for x, y in line]
        parts.append(f'<polyline class="line {kind}" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in places) + '"/>')
        parts += [f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    return parts


def powers(low, high):
    return [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]


def ticks(low, high):
    """1, 2 and 5 of each power of ten, or the powers alone where that would be many."""
    many = [factor * 10.0**power for power in range(math.floor(low), math.floor(high) + 1) for factor in (1, 2, 5)]
    inside = [tick for tick in many if low <= math.log10(tick) <= high]
    return inside if len(inside) <= 6 else powers(low, high)


def short(value):
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"
