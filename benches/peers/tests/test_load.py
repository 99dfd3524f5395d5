"""What a job costs, without what isn't a job's."""

import unittest

from script.load import Load


class Counted(Load):
    """Opening costs 7 a connection, a call 2, and what is opened for the first time 1,000 more."""

    def __post_init__(self):
        self.opened = False

    def run(self, *options):
        said = dict(zip(options[::2], options[1::2]))
        first = 0 if self.opened else 1000
        self.opened = True
        return {"cost": first + 7 * said["--connections"] + 2 * said["--calls"]}


def cost(count):
    return Counted(None, "", {}, 100_000, count).each(lambda work: work()["cost"])


class Costs(unittest.TestCase):
    def test_opening_connections_is_no_cost_of_a_job(self):
        self.assertAlmostEqual(cost(1000), 2)
        self.assertAlmostEqual(cost(2), 2)

    def test_with_one_connection_nothing_is_taken_away(self):
        self.assertAlmostEqual(cost(1), 2 + 1007 / 100_000)


if __name__ == "__main__":
    unittest.main()
