"""What growth says: a table, and whether twice as much costs no more than it may."""

import math

from script.aims import Aim
from script.ratios import median

MEMORY_MAX = 2
# Two points beside each other differ by as much by chance.
NOISE = 1.1
AIM = (
    f"The aim: twice as many cost at most twice the memory, and no more processor time a job; growth by less than {NOISE} is not told "
    "from none. A floor is a program that parses nothing, under the same load: as many microseconds as a message costs it more than at "
    "any line before, the kernel and the processor ask of anybody, and the pool may cost more by so many. The aim is then met *beside "
    "the floor*; under each table stands by how much both grow."
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
        Aim(f"{row.what}: processor time a job", not beyond(points), row.why, beside_floor=beside),
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
    lines = [f"Twice as many cost at most {memory:.2f} times the memory (at {at_memory:,}).", "",
             "| growth of the processor time | each doubling at most | each doubling, from the first line to the last | in all |",
             "| --- | --- | --- | --- |"]
    first, last = points[0], points[-1]
    for name in (None, *floors):
        most, at = steepest(points, "cpu_us", name)
        lines.append(f"| {name or 'the pool'} | {most:.2f} times (at {at:,}) | {doubling(first, last, 'cpu_us', name):.2f} times | "
                     f"{cpu(last, name) - cpu(first, name):+.2f} us |")
    return lines


def micro(value):
    return f"{value:.2f} us"


def cpu(point, floor=None):
    return value(point, "cpu_us", floor)


def value(point, name, floor=None):
    return median((point["floors"][floor] if floor else point)[name])


def doubling(one, other, name, floor=None):
    """What twice as many cost, between two points."""
    return (value(other, name, floor) / value(one, name, floor)) ** (1 / doublings(one, other))


def doublings(one, other):
    return math.log2(other["x"] / one["x"])


def steepest(points, name, floor=None):
    """The most that twice as many cost between two points beside each other, and where."""
    return max((doubling(one, other, name, floor), other["x"]) for one, other in zip(points, points[1:]))


def beyond(points):
    """Where the processor time grows by more than it may."""
    return [other["x"] for one, other, more in zip(points, points[1:], dearer(points))
            if cpu(other) - more > cpu(one) * NOISE ** doublings(one, other)]


def dearer(points):
    """By how many microseconds the first floor is dearer at each line but the first than at any before: 0 where it isn't."""
    for name in list(points[0].get("floors", {}))[:1]:
        figures = [cpu(point, name) for point in points]
        return [max(0.0, figure - max(figures[:index])) for index, figure in enumerate(figures) if index]
    return [0.0] * (len(points) - 1)


def by_floor(points):
    """Whether it is the floor that makes the aim met."""
    return not beyond(points) and steepest(points, "cpu_us")[0] > NOISE
