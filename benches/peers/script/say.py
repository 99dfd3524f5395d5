"""What the person who started this reads meanwhile."""

import sys


def say(text):
    print(text, file=sys.stderr, flush=True)
