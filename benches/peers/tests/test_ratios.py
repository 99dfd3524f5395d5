"""Ratios, intervals, and when an aim is met."""

import unittest

from script.ratios import met, paired


class Ratios(unittest.TestCase):
    def test_the_ratio_is_that_of_the_pairs_and_not_of_the_medians(self):
        # Drift that both sides share says nothing: each pair has the ratio 2.
        ours, peer = [2, 20, 200, 2000, 20000], [1, 10, 100, 1000, 10000]
        self.assertEqual(paired(ours, peer), (2, 2, 2))
        # The median of the ratios is 2, that of the figures 20 / 15.
        self.assertEqual(paired([2, 20, 30], [1, 10, 15])[0], 2)

    def test_the_interval_holds_the_median_and_not_all_that_was_seen(self):
        ratios = [0.5, *[1.0 + step / 100 for step in range(13)], 3.0]
        middle, low, high = paired(ratios, [1] * 15)
        self.assertEqual(middle, 1.06)
        self.assertTrue(1.0 <= low < middle < high <= 1.12, (low, high))

    def test_the_interval_is_the_same_each_time(self):
        figures = [1.0, 1.3, 0.9, 1.1, 1.25, 0.8, 1.05]
        self.assertEqual(paired(figures, [1] * 7), paired(figures, [1] * 7))

    def test_an_aim_is_met_when_the_interval_reaches_it(self):
        self.assertTrue(met(("at least", 2), 1.5, 2.0))
        self.assertFalse(met(("at least", 2), 1.5, 1.99))
        self.assertTrue(met(("at most", 0.5), 0.5, 0.9))
        self.assertFalse(met(("at most", 0.5), 0.51, 0.9))


if __name__ == "__main__":
    unittest.main()
