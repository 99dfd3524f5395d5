"""What growth says: a table, and whether twice as much costs no more than it may."""

import math

from script.aims import Aim
from script.ratios import median, paired

MEMORY_MAX = 2
# Two points beside each other differ by as much by chance.
NOISE = 1.1
AIM = (
    f"The aim: twice as many cost at most twice the memory, and no more processor time a job; growth by less than {NOISE} is not told "
    "from none, and an interval that reaches it meets the aim, as everywhere on this page. A floor is a program that parses nothing, under "
    "the same load: as many microseconds as a message costs it more than at any line before, the kernel and the processor ask of anybody, "
    "and the pool may cost more by so many. The aim is then met *beside the floor*; under each table stands by how much both grow."
)


def of(rows):
    """Of how much a figure is the median."""
    counts = sorted({len(point["cpu_us"]) for _, result in rows for point in result.get("points", [])})
    times = " or ".join(map(str, counts))
    return f"A figure is the median of {times} fresh pools, and of as many of each floor. " if counts else ""


def aims(row, result):
    if not row.bounded or "points" not in result:
        return []
    points = result["points"]
    memory, _ = steepest(points, "memory_mib")
    beside = by_floor(points)
    return [
        Aim(f"{row.what}: memory", memory <= MEMORY_MAX),
        Aim(f"{row.what}: processor time a job", not beyond(points, dearer(points)), row.why, beside_floor=beside),
    ]


def table(row, result):
    points = result["points"]
    floors = list(points[0].get("floors", {}))
    heads = [row.grows, "jobs/s", "memory", "processor time a job", *(f"{name}, a message" for name in floors), "system calls a job"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for point in points:
        failed = sum(point["failed"])
        lost = f" ({failed:,.0f} calls without a result)" if failed else ""
        cells = [f"{point['x']:,}", f"{median(point['jobs_per_second']):,.0f}{lost}", f"{median(point['memory_mib']):.1f} MiB", micro(cpu(point)),
                 *(micro(cpu(point, name)) for name in floors), f"{median(point['calls']):.2f}" if "calls" in point else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *said(points, floors)] if row.bounded else lines


def said(points, floors):
    """Growth, the pool's and the floors'."""
    memory, at_memory = steepest(points, "memory_mib")
    names = [None, *floors]
    lines = [f"Twice as many cost at most {memory:.2f} times the memory (at {at_memory:,}). The processor time, by that of the same round's "
             "other line:", "", f"| from | to | {' | '.join(name or 'the pool' for name in names)} |", "| --- " * (len(names) + 2) + "|"]
    for one, other in [*zip(points, points[1:]), (points[0], points[-1])]:
        cells = [f"{one['x']:,}", f"{other['x']:,}", *(step(one, other, name) for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def step(one, other, floor):
    ratio, low, high = paired(series(other, floor), series(one, floor))
    more = median([b - a for a, b in zip(series(one, floor), series(other, floor))])
    return f"{ratio:.2f} times ({low:.2f} to {high:.2f}), {more:+.2f} us"


def micro(value):
    return f"{value:.2f} us"


def cpu(point, floor=None):
    return median(series(point, floor))


def series(point, floor=None):
    """The processor time in each round."""
    return (point["floors"][floor] if floor else point)["cpu_us"]


def doublings(one, other):
    return math.log2(other["x"] / one["x"])


def steepest(points, name):
    """The most that twice as many cost between two points beside each other, and where."""
    return max(((median(other[name]) / median(one[name])) ** (1 / doublings(one, other)), other["x"]) for one, other in zip(points, points[1:]))


def beyond(points, allowed):
    """Where the processor time grows by more than it may, though it may by as many microseconds as are given for each round."""
    return [other["x"] for one, other, more in zip(points, points[1:], allowed)
            if paired([b - m for b, m in zip(series(other), more)], series(one))[1] > NOISE ** doublings(one, other)]


def dearer(points):
    """By how many microseconds the first floor is dearer, in each round, at each line but the first than at any before: 0 where it isn't."""
    for name in list(points[0].get("floors", {}))[:1]:
        rounds = list(zip(*(series(point, name) for point in points)))
        return [[max(0.0, figures[index] - max(figures[:index])) for figures in rounds] for index in range(1, len(points))]
    return nothing(points)


def nothing(points):
    return [[0.0] * len(series(point)) for point in points[1:]]


def by_floor(points):
    """Whether it is the floor that makes the aim met."""
    return not beyond(points, dearer(points)) and bool(beyond(points, nothing(points)))
