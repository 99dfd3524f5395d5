"""What growth says: a table, and whether twice as much costs no more than it may."""

import math

from script.aims import Aim
from script.ratios import median

MEMORY_MAX = 2
# Two points beside each other differ by as much by chance.
NOISE = 1.1
AIM = (
    "The aim: twice as many cost at most twice the memory, and no more processor time a job, where growth by less than "
    f"{NOISE} is not told from none. A floor is a program under the same load that parses nothing: what it grows by, the kernel "
    "and the processor cost anybody. So from each line to the next the processor time may grow by a factor of the floor's, too; "
    "such an aim is counted as met *beside the floor*, and what the growth is in microseconds is said of both."
)


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
    return (value(other, name, floor) / value(one, name, floor)) ** (1 / math.log2(other["x"] / one["x"]))


def steepest(points, name, floor=None):
    """The most that twice as many cost between two points beside each other, and where."""
    return max((doubling(one, other, name, floor), other["x"]) for one, other in zip(points, points[1:]))


def beyond(points):
    """Where the processor time grows by more than it may, and by more than the first floor's."""
    def allowed(one, other):
        return max([NOISE, *(doubling(one, other, "cpu_us", floor) for floor in list(one.get("floors", {}))[:1])])

    return [other["x"] for one, other in zip(points, points[1:]) if doubling(one, other, "cpu_us") > allowed(one, other)]


def by_floor(points):
    """Whether it is the floor that makes the aim met."""
    return not beyond(points) and steepest(points, "cpu_us")[0] > NOISE
