"""The aims of a row, whether they are met, and why not."""

import dataclasses

from script.ratios import met, paired

UNKNOWN = "the reason isn't known yet."


@dataclasses.dataclass
class Aim:
    words: str
    met: bool
    why: str = ""
    # Whether it is met since what grows isn't more than what a floor grows by.
    beside_floor: bool = False


def of_pair(row, result):
    if not row.aim or "ours" not in result:
        return []
    _, low, high = paired(result["ours"], result["peer"])
    return [Aim(f"{row.what}: {row.ours.name} by {row.peer.name}", met(row.aim, low, high), row.why)]


def missed(aims):
    """What a section says of its aims that aren't met, or only beside a floor."""
    return [
        *listed("Where the aim isn't met:", [aim for aim in aims if not aim.met]),
        *listed("Where it is met beside the floor:", [aim for aim in aims if aim.met and aim.beside_floor]),
    ]


def listed(title, aims):
    """A reason may be that of several."""
    of_reason = {}
    for aim in aims:
        of_reason.setdefault(aim.why or UNKNOWN, []).append(f"*{aim.words}*")
    lines = [f"- {'; '.join(words)}: {why}" for why, words in of_reason.items()]
    return [title, "", *lines, ""] if lines else []
