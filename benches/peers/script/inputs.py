"""The input of the pools: lines of 60 letters."""

import random
import string

from script.places import PEERS

LINE_BYTES = 60


def lines(count):
    """A file of so many lines, made where it isn't there."""
    path = PEERS / f"lines-{count}"
    if not path.exists():
        PEERS.mkdir(exist_ok=True)
        chance = random.Random(1)
        text = "".join("".join(chance.choices(string.ascii_lowercase, k=LINE_BYTES)) + "\n" for _ in range(count))
        path.write_text(text)
    return str(path)
