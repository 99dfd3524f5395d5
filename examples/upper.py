"""The smallest worker: `remuda map --python examples/upper.py:upper < FILE`."""


def upper(s):
    return s.upper()
