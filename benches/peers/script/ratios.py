"""Median, ratio and interval."""

import random
import statistics

RESAMPLES = 4000


def median(values):
    return statistics.median(values)


def paired(ours, peer):
    """The median of the paired ratios, and its 95 % interval by the bootstrap."""
    ratios = [o / p for o, p in zip(ours, peer)]
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return statistics.median(ratios), medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)]


def met(aim, low, high):
    """Whether the interval reaches the aim, which is ("at least" or "at most", ratio)."""
    word, bound = aim
    return high >= bound if word == "at least" else low <= bound
