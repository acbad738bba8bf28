import math
import unittest

import numpy as np

import fixture  # noqa: F401  (puts the repository on the path)
from analysis import stats


class Quantiles(unittest.TestCase):
    def test_against_printed_tables(self):
        # Student's t, two-sided 95 %, as printed in statistical tables.
        for degrees, expected in [(1, 12.7062), (2, 4.30265), (4, 2.77645), (7, 2.36462),
                                  (30, 2.04227), (120, 1.97993)]:
            self.assertAlmostEqual(stats.t_quantile(0.975, degrees), expected, delta=5e-5)

    def test_against_closed_forms(self):
        # One degree of freedom is Cauchy's; two have t = (2p-1)·√(2 / (4p(1-p))).
        for p in (0.6, 0.9, 0.975, 0.9995):
            self.assertAlmostEqual(stats.t_quantile(p, 1) / math.tan(math.pi * (p - 0.5)), 1, 9)
            closed = (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
            self.assertAlmostEqual(stats.t_quantile(p, 2) / closed, 1, 9)

    def test_symmetry_and_median(self):
        self.assertAlmostEqual(stats.t_quantile(0.5, 5), 0, 12)
        self.assertEqual(stats.t_quantile(0.025, 5), -stats.t_quantile(0.975, 5))

    def test_incomplete_beta(self):
        # I_x(1, b) = 1 - (1-x)^b and I_x(a, 1) = x^a.
        for x in (0.01, 0.3, 0.7, 0.99):
            self.assertAlmostEqual(stats.incomplete_beta(1, 3.5, x), 1 - (1 - x) ** 3.5, 12)
            self.assertAlmostEqual(stats.incomplete_beta(2.5, 1, x), x ** 2.5, 12)

    def test_bad_arguments(self):
        for probability, degrees in [(0, 3), (1, 3), (0.9, 0)]:
            with self.assertRaises(ValueError):
                stats.t_quantile(probability, degrees)
        with self.assertRaises(ValueError):
            stats.incomplete_beta(1, 1, 1.5)


class Intervals(unittest.TestCase):
    def test_by_hand(self):
        # 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, s = √7, half = 4.30265 · √7 / √3 = 6.5725.
        interval = stats.mean_interval([1, 2, 6])
        self.assertEqual(interval.mean, 3)
        self.assertAlmostEqual(interval.half, 6.5725, delta=1e-4)
        self.assertEqual(interval.side, 0)

    def test_one_value_has_no_interval(self):
        interval = stats.mean_interval([2.5])
        self.assertEqual(interval.mean, 2.5)
        self.assertTrue(math.isnan(interval.half))
        self.assertIsNone(interval.side)

    def test_a_diverged_value_is_not_averaged_away(self):
        self.assertTrue(math.isnan(stats.mean_interval([1, math.nan, 2]).mean))

    def test_side(self):
        self.assertEqual(stats.mean_interval([-1, -1.1, -0.9]).side, -1)
        self.assertEqual(stats.mean_interval([1, 1.1, 0.9]).side, 1)


class Pairing(unittest.TestCase):
    def test_windows_share_their_difficulty(self):
        # Windows differ by 10, the difference is 1, 2, 3 with means over two seeds 1.5, 2.5, 3.5.
        reference = [[10, 20, 30]]
        values = [[11, 22, 33], [12, 23, 34]]
        interval = stats.paired_over_windows(values, reference)
        self.assertAlmostEqual(interval.mean, 2.5)
        self.assertAlmostEqual(interval.half, 4.30265 / math.sqrt(3), delta=1e-4)

    def test_windows_must_match(self):
        with self.assertRaises(ValueError):
            stats.paired_over_windows([[1, 2]], [[1, 2, 3]])

    def test_seeds_of_two_random_methods_pair_by_seed(self):
        values = {1: [1, 3], 2: [4, 4], 3: [9, 9]}
        reference = {1: [1, 1], 2: [2, 2], 3: [6, 6]}
        interval = stats.paired_over_seeds(values, reference, (True, True))
        # differences 1, 2, 3
        self.assertAlmostEqual(interval.mean, 2)
        self.assertEqual(interval.n, 3)
        self.assertAlmostEqual(interval.half, 4.30265 / math.sqrt(3), delta=1e-4)

    def test_other_seeds_are_compared_as_they_are(self):
        values = {1: [1], 2: [2], 3: [3]}
        reference = {seed: [2 * seed] for seed in range(1, 6)}
        interval = stats.paired_over_seeds(values, reference, (True, True))
        self.assertEqual(interval, stats.unpaired([1, 2, 3], [2, 4, 6, 8, 10]))
        self.assertEqual((interval.mean, interval.n), (-4, 3))
        # s²/n = 1/3 and 2, so ν = 5.158: t lies between those of 6 and 5 degrees.
        self.assertTrue(2.4469 < interval.half / math.sqrt(7 / 3) < 2.5706)
        self.assertTrue(math.isnan(stats.unpaired([1], [1, 2]).half))
        self.assertAlmostEqual(stats.unpaired([1, 3], [11, 13]).half,
                               4.30265 * math.sqrt(2), delta=1e-4)

    def test_a_seedless_side_stands_in_for_every_seed(self):
        interval = stats.paired_over_seeds({1: [2], 2: [4]}, {0: [1]}, (True, False))
        self.assertEqual((interval.mean, interval.n), (2, 2))
        mirrored = stats.paired_over_seeds({0: [1]}, {1: [2], 2: [4]}, (False, True))
        self.assertEqual((mirrored.mean, mirrored.n), (-2, 2))
        self.assertAlmostEqual(interval.half, 12.7062 * math.sqrt(2) / math.sqrt(2), delta=1e-3)

    def test_nothing_varies_between_seedless_methods(self):
        interval = stats.paired_over_seeds({0: [1], 1: [1]}, {0: [3]}, (False, False))
        self.assertEqual(interval.mean, -2)
        self.assertTrue(math.isnan(interval.half))

    def test_a_bootstrap_covers_as_it_should(self):
        rng = np.random.default_rng(3)
        hits = 0
        for _ in range(60):
            sample = rng.normal(1, 2, size=(80, 1))
            low, high = stats.bootstrap([sample], lambda means: means[0][:, 0])
            half = stats.mean_interval(sample[:, 0]).half
            self.assertLess(abs((high - low) / 2 - half), 0.15 * half)
            hits += low < 1 < high
        self.assertGreater(hits, 50)

    def test_a_bootstrap_pairs_columns(self):
        noise = np.random.default_rng(4).normal(size=50)
        sample = np.stack([noise + 1, noise], axis=1)
        low, high = stats.bootstrap([sample, sample], lambda means: means[0][:, 0] - means[1][:, 1])
        self.assertLess(low, high)
        low, high = stats.bootstrap([sample], lambda means: means[0][:, 0] - means[0][:, 1])
        self.assertAlmostEqual(low, 1)
        self.assertAlmostEqual(high, 1)


if __name__ == "__main__":
    unittest.main()
