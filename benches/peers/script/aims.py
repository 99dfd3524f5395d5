"""The aims of a row, whether they are met, and why not."""

import dataclasses

from script.ratios import met, paired

UNKNOWN = "the reason isn't known yet."


@dataclasses.dataclass
class Aim:
    words: str
    met: bool
    why: str = ""


def of_pair(row, result):
    if not row.aim or "ours" not in result:
        return []
    _, low, high = paired(result["ours"], result["peer"])
    return [Aim(f"{row.what}: {row.ours.name} by {row.peer.name}", met(row.aim, low, high), row.why)]


def missed(aims):
    """What a section says of its aims that aren't met: a reason may be that of several."""
    of_reason = {}
    for aim in aims:
        if not aim.met:
            of_reason.setdefault(aim.why or UNKNOWN, []).append(f"*{aim.words}*")
    lines = [f"- {'; '.join(words)}: {why}" for why, words in of_reason.items()]
    return ["Where the aim isn't met:", "", *lines, ""] if lines else []
