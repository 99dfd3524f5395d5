"""Growth, its floor, and what of it is allowed."""

import unittest

from script import growths
from script.row import Growth


def result(xs, cpu, floor=None, memory=None):
    points = []
    for index, x in enumerate(xs):
        point = {"x": x, "cpu_us": [cpu[index]], "memory_mib": [memory[index] if memory else 10], "jobs_per_second": [1e6], "failed": [0],
                 "calls": [0.5]}
        if floor:
            point["floors"] = {"the least": {"cpu_us": [floor[index]], "jobs_per_second": [2e6]}}
        points.append(point)
    return {"points": points}


def cpu_aim(measured):
    return growths.aims(ROW, measured)[1]


ROW = Growth("grow", "Things", "things", [], None, [], why="they grow.")


class Growths(unittest.TestCase):
    def test_memory_is_said_for_each_doubling(self):
        # From 10 to 30 is more than one doubling.
        points = result([10, 30], [1, 1], memory=[10, 30])["points"]
        self.assertAlmostEqual(growths.steepest(points, "memory_mib")[0], 2)

    def test_the_steepest_is_found_wherever_it_is(self):
        points = result([1, 2, 4, 8], [1] * 4, memory=[10, 10, 15, 16])["points"]
        most, at = growths.steepest(points, "memory_mib")
        self.assertEqual((round(most, 2), at), (1.5, 4))

    def test_growth_within_the_noise_needs_no_floor(self):
        aim = cpu_aim(result([1, 2, 4], [1, 1.05, 1.1]))
        self.assertTrue(aim.met)
        self.assertFalse(aim.beside_floor)

    def test_growth_without_a_floor_misses_the_aim(self):
        self.assertFalse(cpu_aim(result([1, 2, 4], [1, 1, 1.2])).met)

    def test_growth_by_no_more_than_the_floors_meets_it_and_is_said_to(self):
        aim = cpu_aim(result([1, 2, 4], [1, 1, 1.2], floor=[0.1, 0.1, 0.2]))
        self.assertTrue(aim.met)
        self.assertTrue(aim.beside_floor)

    def test_a_floor_that_grows_by_as_much_of_less_is_no_excuse(self):
        # Both cost 1.5 times as much, but a half and a twentieth of a microsecond more.
        self.assertFalse(cpu_aim(result([1, 2, 4], [1, 1, 1.5], floor=[0.1, 0.1, 0.15])).met)

    def test_a_floor_that_grows_elsewhere_is_no_excuse(self):
        # The floor grows in the first step, the pool in the second.
        self.assertFalse(cpu_aim(result([1, 2, 4], [1, 1, 1.2], floor=[0.1, 0.3, 0.3])).met)

    def test_a_floor_that_only_grows_back_to_what_it_was_is_no_excuse(self):
        self.assertFalse(cpu_aim(result([1, 2, 4], [1, 1, 1.3], floor=[0.4, 0.1, 0.4])).met)
        self.assertTrue(cpu_aim(result([1, 2, 4], [1, 1, 1.3], floor=[0.4, 0.1, 0.65])).met)

    def test_the_noise_is_allowed_for_each_doubling(self):
        self.assertTrue(cpu_aim(result([1, 4], [1, 1.2])).met)
        self.assertFalse(cpu_aim(result([1, 4], [1, 1.3])).met)

    def test_a_floor_that_shrinks_takes_nothing_away(self):
        self.assertTrue(cpu_aim(result([1, 2], [1, 1.05], floor=[0.2, 0.1])).met)

    def test_memory_may_double_and_no_more(self):
        self.assertTrue(growths.aims(ROW, result([1, 2], [1, 1], memory=[10, 20]))[0].met)
        self.assertFalse(growths.aims(ROW, result([1, 2], [1, 1], memory=[10, 21]))[0].met)

    def test_the_table_has_both_figures(self):
        text = "\n".join(growths.table(ROW, result([1, 2, 4], [1, 1, 1.2], floor=[0.1, 0.1, 0.13])))
        self.assertIn("| 4 | 1,000,000 | 10.0 MiB | 1.20 us | 0.13 us | 0.50 |", text)
        self.assertIn("| from | to | the pool | the least |", text)
        self.assertIn("| 2 | 4 | 1.20 times (1.20 to 1.20), +0.20 us | 1.30 times (1.30 to 1.30), +0.03 us |", text)
        self.assertIn("| 1 | 4 | 1.20 times (1.20 to 1.20), +0.20 us | 1.30 times (1.30 to 1.30), +0.03 us |", text)

    def test_an_interval_that_reaches_the_aim_meets_it(self):
        def grows(*rounds):
            measured = result([1, 2], [1, 1])
            measured["points"][0]["cpu_us"] = [1.0] * len(rounds)
            measured["points"][1]["cpu_us"] = list(rounds)
            return cpu_aim(measured)

        self.assertTrue(grows(1.0, 1.3, 1.05, 1.4, 1.3).met)
        self.assertFalse(grows(1.2, 1.3, 1.25, 1.4, 1.3).met)

    def test_what_drifts_from_round_to_round_is_no_growth(self):
        measured = result([1, 2], [1, 1])
        measured["points"][0]["cpu_us"] = [1.0, 1.5, 2.0, 1.0, 1.6]
        measured["points"][1]["cpu_us"] = [1.0, 1.5, 2.0, 1.0, 1.6]
        self.assertTrue(cpu_aim(measured).met)
        self.assertIn("| 1 | 2 | 1.00 times (1.00 to 1.00), +0.00 us |", "\n".join(growths.table(ROW, measured)))

    def test_a_floor_is_that_of_the_same_round(self):
        measured = result([1, 2], [1, 1], floor=[1, 1])
        measured["points"][1]["cpu_us"] = [1.5] * 5
        measured["points"][0]["cpu_us"] = [1.0] * 5
        floors = [point["floors"]["the least"] for point in measured["points"]]
        floors[0]["cpu_us"], floors[1]["cpu_us"] = [1.0, 2.0, 1.0, 3.0, 1.0], [1.5, 2.5, 1.5, 3.5, 1.5]
        self.assertTrue(cpu_aim(measured).met)
        floors[1]["cpu_us"] = [1.1, 2.1, 1.1, 3.1, 1.1]
        self.assertFalse(cpu_aim(measured).met)


if __name__ == "__main__":
    unittest.main()
