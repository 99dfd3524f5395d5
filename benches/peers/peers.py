#!/usr/bin/env python3
"""Runs Remuda beside its peers in interleaved pairs, and writes docs/performance.md from the results."""

import argparse
import dataclasses
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from script import inputs, install, page, plots  # noqa: E402
from script.machine import machine  # noqa: E402
from script.measure import QUICK, WHOLE, measure  # noqa: E402
from script.places import PAGE, RESULTS, Places  # noqa: E402
from script.progress import Progress  # noqa: E402
from script.results import Results  # noqa: E402
from script.rows import rows  # noqa: E402

TRIAL = RESULTS / "trial.md"


def main():
    options = parse()
    places = Places(options.target_dir, options.peers_target_dir, options.profile)
    plan = QUICK if options.quick or options.pairs else WHOLE
    if options.pairs:
        plan = dataclasses.replace(plan, mode="trial", pairs=options.pairs, rounds=1)
    if not options.no_build and not options.list and not options.page:
        install.build(places)
    every = rows(places, plan)
    chosen = [row for row in every if not options.only or any(is_meant(row.name, name, every) for name in options.only)]
    if options.list:
        for row in chosen:
            print(f"{row.name:24} {row.what}")
        return
    results = Results(plan.mode, options.fresh)
    if not options.page:
        inputs.write()
        install.install({need for row in chosen for need in row.needs})
        try:
            run(chosen, plan, results, again=bool(options.only) and not options.resume)
        except KeyboardInterrupt:
            sys.exit("\ninterrupted: the rows so far are kept, and the same command goes on" + " with --resume" * bool(options.only))
    need_one(results, plan)
    target = TRIAL if plan.mode == "trial" else PAGE
    charts = plots.write(every, results.of, target.parent)
    page.write(every, results.of, plan, places, charts, target)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than half an hour instead of about an hour: fewer pairs")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="only rows with this name or, where none has it, with one that begins so; again if need be")
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of going on with a run that was interrupted")
    parser.add_argument("--resume", action="store_true", help="with --only: keep what is there of an interrupted run")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the results there are")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--pairs", type=int, metavar="N", help="try rows: so many pairs, and the page into .results/")
    parser.add_argument("--no-build", action="store_true", help="use what was built before")
    parser.add_argument("--profile", default="release", help="the cargo profile of Remuda [release]")
    parser.add_argument("--target-dir", metavar="DIR", help="where Remuda is built [target]")
    parser.add_argument("--peers-target-dir", metavar="DIR", help="where this folder's workspace is built [its target]")
    return parser.parse_args()


def need_one(results, plan):
    """Ends the script where a page would be empty, which would cost the one that is there."""
    if not results.of:
        other = "without --quick it takes those of the whole run" if plan is QUICK else "with --quick it takes those of the quick run"
        sys.exit(f"peers.py: no row has a result of this kind of run, so no page was written; {other}")


def is_meant(row, name, every):
    """By its whole name, or else by the beginning of it."""
    return row == name if any(other.name == name for other in every) else row.startswith(name)


def run(chosen, plan, results, again):
    """Measures each row that has no result yet, and keeps what came out at once. What failed is tried
    once more in the end."""
    where = machine()
    due = [row for row in chosen if again or not results.has(row.name)]
    progress = Progress(due, plan)
    if len(due) < len(chosen):
        progress.say(f"{len(chosen) - len(due)} of {len(chosen)} rows are there already; --fresh begins anew")
    for row in due:
        run_one(row, plan, results, progress, where)
    failed = [row for row in due if "error" in results.of[row.name]]
    progress = Progress(failed, plan)
    for row in failed:
        progress.say(f"{row.name} failed; once more")
        run_one(row, plan, results, progress, where)


def run_one(row, plan, results, progress, where):
    progress.begin(row)
    try:
        result = {"missing": True} if row.there and not row.there() else measure(row, plan, progress.step)
    except Exception as error:  # whatever it is, a row that fails doesn't end the run
        result = {"error": f"{type(error).__name__}: {error}"}
    seconds = progress.end(page.short(row, result))
    results.add({"row": row.name, "mode": plan.mode, "where": where, **result, "seconds": round(seconds, 1)})


if __name__ == "__main__":
    main()
