"""The few lines at the top of the page."""

import re

from script.ratios import paired


def summary(sections, there):
    """How many aims are met, of which section, and the ratios that say most. A section is its title
    and its aims."""
    aims = [aim for _, section in sections for aim in section]
    if not aims:
        return []
    beside = sum(aim.met and aim.beside_floor for aim in aims)
    floors = f" {beside} of them {'is' if beside == 1 else 'are'} met beside a floor that grows as well." if beside else ""
    lines = [f"**{sum(aim.met for aim in aims)} of {len(aims)} aims are met.**{floors} Under each table stands why, where one isn't.", "",
             "| section | aims met |", "| --- | --- |"]
    for title, section in sections:
        if section:
            lines.append(f"| [{title}](#{anchor(title)}) | {sum(aim.met for aim in section)} of {len(section)} |")
    headlines = [headline(row, result) for row, result in there if getattr(row, "headline", "") and "ours" in result]
    if headlines:
        lines += ["", "| in short | beside | Remuda has |", "| --- | --- | --- |", *headlines]
    return [*lines, ""]


def headline(row, result):
    middle, low, high = paired(result["ours"], result["peer"])
    unit = "of its time" if row.less_is_better else "times as many"
    return f"| {row.headline} | {row.peer.name} | {middle:.3g} {unit} ({low:.3g} to {high:.3g}) |"


def anchor(title):
    """As GitHub names a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
