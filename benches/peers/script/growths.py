"""What growth says: a table, and whether twice as much costs no more than it may."""

import math

from script.aims import Aim
from script.ratios import median

MEMORY_MAX = 2
# Two points beside each other differ by as much by chance.
NOISE = 1.1


def aims(row, result):
    if not row.bounded or "points" not in result:
        return []
    memory, cpu = (steepest(result["points"], name)[0] for name in ("memory_mib", "cpu_us"))
    return [Aim(f"{row.what}: memory", memory <= MEMORY_MAX), Aim(f"{row.what}: processor time a job", cpu <= NOISE, row.why)]


def table(row, result):
    lines = [f"| {row.grows} | jobs/s | memory | processor time a job | system calls a job |", "| --- | --- | --- | --- | --- |"]
    points = result["points"]
    for point in points:
        failed = sum(point["failed"])
        lost = f" ({failed:,.0f} calls without a result)" if failed else ""
        made = f"{median(point['calls']):.2f}" if "calls" in point else ""
        lines.append(f"| {point['x']:,} | {median(point['jobs_per_second']):,.0f}{lost} | {median(point['memory_mib']):.1f} MiB | "
                     f"{median(point['cpu_us']):.2f} us | {made} |")
    if row.bounded:
        (memory, at_memory), (cpu, at_cpu) = (steepest(points, name) for name in ("memory_mib", "cpu_us"))
        whole = doubling(points[0], points[-1], "cpu_us")
        lines += ["", f"Twice as many cost at most {memory:.2f} times the memory (at {at_memory:,}), and at most {cpu:.2f} times the "
                  f"processor time a job (at {at_cpu:,}); from the first line to the last, {whole:.2f} times for each doubling."]
    return lines


def doubling(one, other, name):
    """What twice as many cost, between two points."""
    return (median(other[name]) / median(one[name])) ** (1 / math.log2(other["x"] / one["x"]))


def steepest(points, name):
    """The most that twice as many cost between two points beside each other, and where."""
    return max((doubling(one, other, name), other["x"]) for one, other in zip(points, points[1:]))
