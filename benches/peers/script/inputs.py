"""The input of the pools: lines of 60 letters."""

import random
import string

from script.places import PEERS

LINE_BYTES = 60
# How many lines the files have that rows named.
named = set()


def lines(count):
    """A file of so many lines, which `write` makes."""
    named.add(count)
    return str(path(count))


def path(count):
    return PEERS / f"lines-{count}"


def write():
    """Makes the files that were named and aren't there."""
    PEERS.mkdir(exist_ok=True)
    for count in sorted(named):
        if not path(count).exists():
            chance = random.Random(1)
            text = "".join("".join(chance.choices(string.ascii_lowercase, k=LINE_BYTES)) + "\n" for _ in range(count))
            half = path(count).with_suffix(".half")
            half.write_text(text)
            half.rename(path(count))
