"""A run that is killed and gone on with, and how far it says it is."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import signal
import tempfile
import unittest

import peers
from script.measure import QUICK, WHOLE, program
from script.places import Places
from script.progress import Progress, duration, expected
from script.results import Results
from script.row import Count, Growth, Pair, Program, Side
from script.rows import rows


def count(name, measure=lambda: {"made": 1}):
    return Count(name, name, measure, [])


def run(rows, results):
    """What a run says of itself."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        peers.run(rows, WHOLE, results, again=False)
    return said.getvalue()


def fail():
    raise ValueError("no such peer")


class Run(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = pathlib.Path(made.name)

    def results(self, fresh=False):
        return Results("whole", fresh, self.folder)

    def test_a_run_that_is_killed_goes_on_where_it_was(self):
        def killed():
            os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if child == 0:
            run([count("one"), count("two", killed), count("three")], self.results())
            os._exit(0)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), -signal.SIGKILL)
        results = self.results()
        self.assertEqual(list(results.of), ["one"])
        again = []
        said = run([count("one", lambda: again.append(1)), count("two"), count("three")], results)
        self.assertEqual(again, [])
        self.assertEqual(list(self.results().of), ["one", "two", "three"])
        self.assertIn("1 of 3 rows are there already", said)

    def test_no_page_is_written_of_nothing(self):
        with self.assertRaisesRegex(SystemExit, "with --quick it takes"):
            peers.need_one(self.results(), WHOLE)
        run([count("one")], self.results())
        peers.need_one(self.results(), WHOLE)

    def test_half_a_line_loses_no_other(self):
        self.results().add({"row": "one"})
        with open(self.folder / "whole.jsonl", "a") as file:
            file.write('{"row": "two", "wh')
        results = self.results()
        self.assertEqual(list(results.of), ["one"])
        results.add({"row": "two"})
        results.add({"row": "three"})
        self.assertEqual(list(self.results().of), ["one", "two", "three"])

    def test_a_row_that_fails_loses_no_other_and_is_tried_once_more(self):
        tries = []
        said = run([count("bad", lambda: tries.append(1) or fail()), count("good")], self.results())
        self.assertEqual(len(tries), 2)
        results = self.results()
        self.assertTrue(results.has("good"))
        self.assertFalse(results.has("bad"))
        self.assertIn("ValueError: no such peer", results.of["bad"]["error"])
        self.assertIn("bad failed; once more", said)

    def test_to_begin_anew_keeps_the_old_aside(self):
        self.results().add({"row": "one"})
        self.assertEqual(self.results(fresh=True).of, {})
        self.assertEqual(json.loads((self.folder / "whole.jsonl.before").read_text())["row"], "one")

    def test_a_program_that_fails_keeps_its_lines(self):
        row = Program("net", "", ["sh", "-c", "echo '{\"row\": 1}'; echo words; echo why >&2; exit 3"], [], [], (1, 1))
        made = program(row, WHOLE, lambda done, of: None)
        self.assertEqual(made["lines"], [{"row": 1}])
        self.assertIn("exited with 3: why", made["error"])

    def test_a_program_that_ends_well_has_no_error(self):
        made = program(Program("net", "", ["sh", "-c", "echo '{}'"], [], [], (1, 1)), WHOLE, lambda done, of: None)
        self.assertEqual(made, {"lines": [{}]})

    def test_a_program_is_told_which_run_it_is(self):
        row = Program("net", "", ["echo"], ['{"run": "quick"}'], ['{"run": "whole"}'], (1, 1))
        for plan in (QUICK, WHOLE):
            self.assertEqual(program(row, plan, lambda done, of: None), {"lines": [{"run": plan.mode}]})

    def test_the_whole_run_takes_about_an_hour_and_the_quick_one_less_than_half(self):
        for plan, least, most in ((QUICK, 15, 28), (WHOLE, 50, 70)):
            every = rows(Places(None, None, "release"), plan)
            minutes = sum(expected(row, plan) for row in every) / 60
            self.assertTrue(least < minutes < most, (plan.mode, minutes))


class Terminal(io.StringIO):
    def isatty(self):
        return True


class HowFar(unittest.TestCase):
    def progress(self, out):
        self.now = 0.0
        rows = [count("one"), count("two"), count("three")]
        return rows, Progress(rows, QUICK, out, lambda: self.now)

    def test_what_is_left_is_scaled_by_what_the_rows_took(self):
        out = io.StringIO()
        rows, progress = self.progress(out)
        progress.begin(rows[0])
        self.now += 60
        progress.end("done")
        # Each of the other two was thought to take as long as this one.
        self.assertEqual(out.getvalue(), "[1/3] one: done [60 s; about 2 min left]\n")

    def test_a_pipe_gets_a_line_a_row_and_a_terminal_the_steps_too(self):
        for out, steps in ((io.StringIO(), 0), (Terminal(), 3)):
            rows, progress = self.progress(out)
            progress.begin(rows[0])
            progress.step(1, 15)
            progress.step(2, 15)
            progress.end("done")
            self.assertEqual(out.getvalue().count("\n"), 1)
            self.assertEqual(out.getvalue().count("[1/3] one: ") - 1, steps)

    def test_the_last_row_says_how_long_it_took(self):
        out = io.StringIO()
        rows, progress = self.progress(out)
        for row in rows:
            progress.begin(row)
            self.now += 1
            progress.end("done")
        self.assertIn("[3/3] three: done [1 s; 3 s in all]", out.getvalue())

    def test_a_whole_run_is_thought_to_take_as_long_as_its_plan_says(self):
        timed = Side("a", ["load", "{seconds}"], "figure")
        row = Pair("p", "serve", "", timed, timed, "us")
        self.assertAlmostEqual(expected(row, WHOLE), 43 * 2 * 0.71)
        self.assertAlmostEqual(expected(row, QUICK), 16 * 2 * 0.71)
        served = dataclasses.replace(timed, servers=[["serve"]], start_seconds=3.0)
        self.assertAlmostEqual(expected(Pair("p", "serve", "", served, timed, "us"), QUICK), 16 * 2 * 0.71 + 5 * 3.0)
        self.assertEqual(expected(dataclasses.replace(row, budget=20.0), QUICK), 20.0)
        self.assertEqual(expected(Program("net", "", [], [], [], (60, 900)), WHOLE), 900)
        one = expected(Growth("g", "", "", [1], None, []), WHOLE)
        self.assertAlmostEqual(expected(Growth("g", "", "", [1, 2], None, []), WHOLE), 2 * one)

    def test_durations_are_said_as_people_do(self):
        self.assertEqual([duration(s) for s in (4.4, 89, 90, 5399, 5400, 16_000)], ["4 s", "89 s", "2 min", "90 min", "1 h 30 min", "4 h 26 min"])


if __name__ == "__main__":
    unittest.main()
