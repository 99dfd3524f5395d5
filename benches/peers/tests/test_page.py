"""The page, from results that were made up."""

import contextlib
import io
import pathlib
import tempfile
import unittest

from script import page, plots
from script.measure import QUICK, WHOLE
from script.places import Places
from script.row import Growth, Pair, Program, Side

WHERE = {"date": "2026-01-02", "commit": "abc1234", "cpu": "2 cores", "memory": "4 GiB", "kernel": "Linux", "python": "3", "node": "20", "rust": "1"}
SLOW = "the reason of the slow."


def pair(name, aim=None, **more):
    return Pair(name, more.pop("group", "serve"), f"what {name} does", Side("ours", ["a", "{seconds}"]), Side("peer", ["b"]), "us", aim, **more)


def of(ours, peer=1.0, **more):
    return {"where": WHERE, "seconds": 60, "ours": [ours] * 15, "peer": [peer] * 15, **more}


def text(rows, results, charts=None, plan=QUICK):
    return page.text(rows, results, plan, Places(None, None, "release"), charts or {})


class Page(unittest.TestCase):
    def test_a_pair_has_its_figures_its_ratio_and_its_aim(self):
        made = text([pair("fast", ("at most", 0.5))], {"fast": of(2.0, 5.0)})
        self.assertIn("| `fast` | what fast does | ours: 2 us | peer: 5 us | 0.4 (0.4 to 0.4) | 15 | at most 0.5: met |", made)
        self.assertIn("**1 of 1 aims are met.**", made)
        self.assertIn("  - `a 0.5`", made)

    def test_the_reason_stands_there_only_where_the_aim_is_not_met(self):
        row = pair("slow", ("at most", 0.5), why=SLOW)
        self.assertIn(SLOW, text([row], {"slow": of(0.6)}))
        self.assertNotIn(SLOW, text([row], {"slow": of(0.4)}))
        self.assertIn("0 of 1", text([row], {"slow": of(0.6)}))

    def test_the_floor_stands_beside_the_aim_that_it_bounds(self):
        rows = [pair("slow", ("at most", 0.5), floors=("floor",)), pair("floor", group="floor")]
        made = text(rows, {"slow": of(0.6), "floor": of(0.55)})
        self.assertIn("at most 0.5: **not met** | 0.55 ours |", made)
        # And as long as the floor wasn't measured, nothing does.
        self.assertIn("at most 0.5: **not met** |  |", text(rows, {"slow": of(0.6)}))

    def test_a_row_that_failed_or_is_missing_says_so_and_the_others_are_there(self):
        rows = [pair("good"), pair("bad"), pair("young")]
        results = {"good": of(1.5), "bad": {"where": WHERE, "error": "a | b\n" + "c" * 500}, "young": {"where": WHERE, "missing": True}}
        made = text(rows, results)
        self.assertIn("| `bad` | what bad does | ours | peer | did not run: a / b ccc", made)
        self.assertIn("| `young` | what young does | ours | peer | not there yet |", made)
        self.assertIn("1.5 (1.5 to 1.5)", made)

    def test_a_program_that_failed_in_the_middle_keeps_what_it_printed(self):
        line = {"row": "x", "what": "an echo", "servers": {"bare": {"cpu_us": 1.0, "p50_us": 2.0}}, "aims": []}
        made = text([Program("net", "The network", [], [], [], (1, 1))], {"net": {"where": WHERE, "lines": [line], "error": "exited with 1"}})
        self.assertIn("| `x`: an echo | 1.00 us (p50 2 us) |", made)
        self.assertIn("It failed: exited with 1", made)

    def test_an_aim_of_the_network_that_is_missed_has_the_bare_loop_beside_it(self):
        line = {
            "row": "x", "what": "an echo", "servers": {"remuda-uring": {"cpu_us": 1.0, "p50_us": 2.0}},
            "ratios": {"bare/tokio": {"cpu_us": [0.9, 0.8, 1.0]}},
            "aims": [{"measure": "cpu_us", "of": "remuda-uring/tokio", "aim": "at most 1", "met": False, "ratio": [1.02, 1.01, 1.03]}],
        }
        row = Program("net", "The network", [], [], [], (1, 1), whys={("an echo", "cpu_us", "tokio"): SLOW})
        made = text([row], {"net": {"where": WHERE, "lines": [line]}})
        self.assertIn("| `x` | **1.02 (1.01 to 1.03)**; bare 0.90 |", made)
        self.assertIn(SLOW, made)

    def test_an_unfinished_run_says_how_many_rows_there_are(self):
        rows = [pair("one"), pair("two")]
        self.assertIn("so far 1 of 2 rows", text(rows, {"one": of(1)}))
        self.assertNotIn("so far", text(rows, {"one": of(1), "two": of(1)}))

    def test_the_commands_are_those_of_the_run_that_was_made(self):
        rows = [pair("one"), Program("net", "The network", ["net-rows"], ["--quick"], ["--long"], (1, 1), ("--row", "NAME"))]
        results = {"one": of(1), "net": {"where": WHERE, "lines": []}}
        quick, whole = (text(rows, results, plan=plan) for plan in (QUICK, WHOLE))
        self.assertIn("`--quick`, ", quick)
        self.assertIn("`python3 benches/peers/peers.py --quick --only ROW`", quick)
        self.assertIn("- `net`: The network\n  - `net-rows --quick`\n  - one of its rows alone: `net-rows --quick --row NAME`\n", quick)
        self.assertIn("the whole run, ", whole)
        self.assertIn("`python3 benches/peers/peers.py --only ROW`", whole)
        self.assertIn("  - `net-rows --long`\n", whole)
        self.assertNotIn("quick", whole)

    def test_fewer_pairs_than_the_run_has_are_said_to_be_fewer(self):
        rows, results = [pair("one")], {"one": of(1)}
        self.assertNotIn("Fewer than", text(rows, results))
        self.assertIn(f"Fewer than {WHOLE.pairs} pairs", text(rows, results, plan=WHOLE))

    def test_what_people_wrote_around_the_marks_stays(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            target = pathlib.Path(folder) / "page.md"
            target.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
            page.write([pair("one")], {"one": of(1)}, QUICK, Places(None, None, "release"), {}, target)
            made = target.read_text()
        self.assertTrue(made.startswith(f"before\n{page.BEGIN}\nMeasured on"), made)
        self.assertTrue(made.endswith(f"{page.END}\nafter\n"), made)
        self.assertNotIn("\nold\n", made)

    def test_plots_are_drawn_of_what_is_there(self):
        points = [{"x": x, "jobs_per_second": [1e6], "memory_mib": [5], "cpu_us": [1], "floors": {"least": {"cpu_us": [0.1]}}} for x in (1, 2)]
        rows = [pair("one"), pair("floor", group="floor"), Growth("grow", "Things", "things", [1, 2], None, []), Growth("other", "", "", [], None, [])]
        with tempfile.TemporaryDirectory() as folder:
            charts = plots.write(rows, {"one": of(1), "floor": of(1), "grow": {"points": points}}, pathlib.Path(folder))
            self.assertEqual(sorted(charts), ["grow", "ratios"])
            self.assertIn('class="line first floor"', (pathlib.Path(folder) / charts["grow"]).read_text())
            self.assertNotIn("floor / peer", (pathlib.Path(folder) / charts["ratios"]).read_text())


if __name__ == "__main__":
    unittest.main()
