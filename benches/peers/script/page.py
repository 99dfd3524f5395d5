"""The page: what the results say, between two marks in docs/performance.md."""

import os

from script import elsewhere, growths, system_calls
from script.aims import missed, of_pair
from script.places import ROOT
from script.progress import duration
from script.ratios import median, met, paired
from script.row import Count, Growth, Pair, Program
from script.rows_counts import CALLS, MAP_FEW, MAP_MANY
from script.say import say
from script.summary import summary

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
GROUPS = {
    "map": ("Jobs from a file", "Jobs/s of whole commands, their start included. Where a side would take "
            "long it has fewer lines, as its command says; its start is then a small part of its time still."),
    "serve": ("Behind a door", "A pool's door, a broker's, and a bare relay that parses nothing. Every server runs "
              "while the other is measured, and waits. With one call in flight most of the time is wake-ups of processors that "
              "sleep, four of them for the relay: its time says how long they take on this machine, which differs much between machines."),
    "shm": ("Shared memory between two processes", "Each process has a core of its own."),
    "floor": ("What a hop and a copy cost at the least", "Programs that parse nothing and do nothing with what comes, beside the peers of "
              "the aims that they bound: the column *floor* above has these ratios. A message passes from a client by a relay or a middle "
              "process to a worker and back; with eventfds it is only the wake-ups, and with rings alone those of Remuda without a pool."),
    "honest": ("Where every pool is as good as another", "Batches that the user tunes, and jobs that take long."),
}
MODES = {"quick": "`--quick`", "whole": "the whole run", "trial": "a trial, which says nothing"}


def write(rows, results, plan, places, charts, target):
    """Replaces what is between the marks."""
    old = target.read_text() if target.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    head, rest = old.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    target.write_text(f"{head}{BEGIN}\n{text(rows, results, plan, places, charts)}{END}{tail}")
    say(f"wrote {os.path.relpath(target, ROOT)}")


def text(rows, results, plan, places, charts):
    there = [(row, results[row.name]) for row in rows if row.name in results]
    sections = [*pair_sections(there, plan), *program_sections(there), *growth_sections(there, charts), *count_sections(there)]
    lines = [measured(there, plan, len(rows)), "", *summary([(title, aims) for title, aims, _ in sections], there)]
    lines += chart(charts, "ratios", "How many times as good as its peer Remuda is, with 95 % intervals and aims")
    for title, aims, body in sections:
        lines += [f"### {title}", "", *body, "", *missed(aims)]
    lines += ["### The commands", "", f"`python3 {script(plan)} --only ROW` measures a row anew as it was for this page, by these commands. "
              "`remuda` is `target/release/remuda`; `relay`, `load`, `fanout`, `echo-worker`, `nats-peer`, `iceoryx-peer`, `net-server`, `net-rows` "
              "and `threads-rows` are in `benches/peers/target/release`; `figures` is `cargo bench -p remuda-shm --bench figures --`. What stands "
              "in front of a semicolon or of `beside` is a server that runs meanwhile, `$DIR` a fresh folder, `$PORT` a free port, and `N` what "
              "grows or is counted; the script makes `lines-N`, files of so many lines.", ""]
    for row, _ in there:
        lines += commands(row, places, plan)
    return "\n".join(lines) + "\n"


# A section is its title, the aims of its rows, and its lines.


def script(plan):
    """The script as it measures this way."""
    options = {"quick": " --quick", "whole": "", "trial": f" --pairs {plan.pairs}"}
    return "benches/peers/peers.py" + options[plan.mode]


def pair_sections(there, plan):
    for group, (title, words) in GROUPS.items():
        pairs = [(row, result) for row, result in there if isinstance(row, Pair) and row.group == group]
        if pairs:
            yield title, [aim for row, result in pairs for aim in of_pair(row, result)], [words, "", *table(pairs, there, plan)]


def program_sections(there):
    for row, result in there:
        if isinstance(row, Program):
            yield row.what, elsewhere.aims(row, result), [row.words, "", *failed_or(result, elsewhere.table)]


def growth_sections(there, charts):
    growths_there = [(row, result) for row, result in there if isinstance(row, Growth)]
    if growths_there:
        lines = ["Of the pool's process alone: its most memory, its processor time (user and system, all its threads) and its system "
                 "calls, by the jobs. Opening connections is not in it. Workers are Rust programs that give back what "
                 f"comes. {growths.of(growths_there)}{growths.AIM}"]
        for row, result in growths_there:
            lines += ["", f"#### {row.what}", "", *chart(charts, row.name, row.what),
                      *failed_or(result, lambda r, row=row: growths.table(row, r))]
        yield "Cost as work grows", [aim for row, result in growths_there for aim in growths.aims(row, result)], lines


def count_sections(there):
    counts = [(row, result) for row, result in there if isinstance(row, Count)]
    if counts:
        yield "What a job costs, counted", [], [
            f"Of {CALLS:,} calls, or {MAP_MANY - MAP_FEW:,} lines. System calls are counted in the kernel by perf, which stops nobody" + (" (here by strace, which slows each call, so that "
            "what sleeps does so more often)" if system_calls.counted_by() == "strace" else "") + "; allocations by a preloaded library; "
            "wake-ups are voluntary context switches. A client is one of this folder's programs, or `remuda bench`.", "",
            *count_table(counts), "",
            "What is copied, by reading the code, and the next thing that would make it cheaper:", "",
            *(f"- {row.what.split(',')[0]}: {row.copies} Cheaper by: {row.cheaper}" for row, _ in counts if row.copies)]


def chart(charts, name, words):
    return [f"![{words}]({charts[name]})", ""] if name in charts else []


def measured(there, plan, count):
    places = [result["where"] for _, result in there]
    if not places:
        return "Nothing has been measured yet."
    last = max(places, key=lambda where: where["date"])
    commits = sorted({where["commit"] for where in places})
    took = duration(sum(result.get("seconds", 0) for _, result in there))
    so_far = f", so far {len(there)} of {count} rows" if len(there) < count else ""
    return (f"Measured on {last['date']} at {', '.join(commits)} ({MODES[plan.mode]}, {took}{so_far}): {last['cpu']}, {last['memory']}, "
            f"{last['kernel']}, Python {last['python']}, Node {last['node']}, Rust {last['rust']}. A row's ratio is Remuda's figure by the peer's, the median of interleaved "
            "pairs with the 95 % interval of the bootstrap: of times less is better, of jobs/s more. An aim is met when the interval "
            "reaches it. A floor is what a program that does the least has of the same peer.")


def short(row, result):
    """A result in some words."""
    if "ours" not in result:
        return "Remuda hasn't got it yet" if "missing" in result else result.get("error", "done")
    middle, low, high = paired(result["ours"], result["peer"])
    verdict = "" if not row.aim else f", {' '.join(map(str, row.aim))}: {'met' if met(row.aim, low, high) else 'NOT met'}"
    return f"{middle:.2f} ({low:.2f} to {high:.2f}) x {row.peer.name}{verdict}"


def table(pairs, there, plan):
    floors = {row.name: (row, result) for row, result in there if isinstance(row, Pair) and "ours" in result}
    bounded = any(row.floors for row, _ in pairs)
    heads = ["row", "what", "the least" if pairs[0][0].group == "floor" else "Remuda", "peer", "ratio (95 % interval)", "pairs", "aim", *(["floor"] if bounded else [])]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row, result in pairs:
        cells = [f"`{row.name}`", row.what, *compared(row, result), *([floor(row, floors)] if bounded else [])]
        lines.append(f"| {' | '.join(cells)} |")
    if any("ours" in result and len(result["ours"]) < plan.pairs for _, result in pairs):
        lines += ["", f"Fewer than {plan.pairs} pairs: the row's time was over."]
    return lines


def compared(row, result):
    """The cells of a row, from Remuda to the aim."""
    aim = " ".join(map(str, row.aim)) if row.aim else ""
    if "ours" not in result:
        words = "not there yet" if "missing" in result else f"did not run: {cell(result['error'])}"
        return [row.ours.name, row.peer.name, words, "", aim]
    middle, low, high = paired(result["ours"], result["peer"])
    if row.aim:
        aim += ": met" if met(row.aim, low, high) else ": **not met**"
    figures = [f"{side.name}: {figure(median(result[name]), row.unit)}" for side, name in ((row.ours, "ours"), (row.peer, "peer"))]
    return [*figures, f"{number(middle)} ({number(low)} to {number(high)})", str(len(result["ours"])), aim]


def floor(row, floors):
    """What those who do the least have of the same peer."""
    there = [floors[name] for name in row.floors if name in floors]
    return "; ".join(f"{number(paired(result['ours'], result['peer'])[0])} {of.ours.name}" for of, result in there)


def cell(words):
    return " ".join(words.replace("|", "/").split())[:160]


def number(value):
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def figure(value, unit):
    return f"{number(value)} {unit}"


def failed_or(result, show):
    """What there is, and that it isn't all."""
    if "error" not in result:
        return show(result)
    return [*(show(result) if result.get("lines") else []), "", f"It failed: {cell(result['error'])}"]


def count_table(counts):
    lines = ["| path | process | system calls a job | wake-ups | allocations | processor time |", "| --- | --- | --- | --- | --- | --- |"]
    for row, result in counts:
        if "counts" not in result:
            words = "not there yet" if "missing" in result else "did not run: " + cell(result["error"])
            lines.append(f"| {row.what} | | {words} | | | |")
            continue
        for process, counted in result["counts"].items():
            lines.append(f"| {row.what} | {process} | {calls(counted.get('calls'))} | {small(counted.get('wake_ups'))} | "
                         f"{small(counted.get('allocations'))} | {small(counted.get('cpu_us'), ' us')} |")
    return lines


def calls(counted):
    """The sum, and the calls that are more than a hundredth of a call a job."""
    if counted is None:
        return ""
    named = sorted(counted.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{count:.2f} {name}" for name, count in named if count >= 0.01)
    return f"{sum(counted.values()):.2f}" + (f" ({shown})" if shown else "")


def small(value, unit=""):
    # -0.0 + 0.0 is 0.0.
    return "" if value is None else f"{round(value, 2) + 0.0:.2f}{unit}"


def commands(row, places, plan):
    if isinstance(row, Pair):
        return [f"- `{row.name}`: {row.what}", *(f"  - {code(side, places, plan)}" for side in (row.ours, row.peer))]
    command = [*row.command, *(row.options(plan) if isinstance(row, Program) else [])]
    said = [f"`{places.shown(command)}`"]
    if getattr(row, "alone", ""):
        said.append(f"one of its rows alone: `{places.shown([*command, *row.alone])}`")
    said += [f"{floor.name}: `{places.shown(floor.command)}`" for floor in getattr(row, "floors", [])]
    return [f"- `{row.name}`: {row.what}", *(f"  - {words}" for words in said)]


def code(side, places, plan):
    environment = [f"{name}={value}" for name, value in side.environment.items()]
    words = [*(places.shown(server) for server in side.servers), " ".join([*environment, places.shown(side.command)])]
    shown = "; ".join(words).replace("{seconds}", str(plan.seconds)).replace("{warmup}", str(plan.warmup))
    return f"`{shown}`"
