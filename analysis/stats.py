"""Means, 95 % intervals and paired differences. Nothing else is computed in this room.

Every interval but those of `bootstrap` is Student's: mean ± t(0.975, n-1) · s / √n, with s the
sample standard deviation (n-1 in its denominator). Values that are not finite make the result not
finite: a diverged trial is never averaged away.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
DRAWS = 4000  # of a bootstrap


class Interval(NamedTuple):
    """mean ± half; half is NaN where fewer than two values leave the spread unknown."""

    mean: float
    half: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    @property
    def side(self) -> int | None:
        """-1 or 1 where the whole interval lies below or above zero, 0 where it does not; None
        where there is no interval."""
        if not math.isfinite(self.half):
            return None
        return -1 if self.high < 0 else 1 if self.low > 0 else 0


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularized incomplete beta function I_x(a, b), by its continued fraction.

    I_x(a, b) = x^a (1-x)^b / (a B(a, b)) · 1/(1 + d1/(1 + d2/(1 + ...))) with
    d_{2m} = m (b-m) x / ((a+2m-1)(a+2m)) and d_{2m+1} = -(a+m)(a+b+m) x / ((a+2m)(a+2m+1)).
    It converges fast for x < (a+1)/(a+b+2); beyond, I_x(a, b) = 1 - I_{1-x}(b, a).
    """
    if not 0 <= x <= 1:
        raise ValueError(f"incomplete beta: x = {x} is outside [0, 1]")
    if x in (0, 1):
        return float(x)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = a * math.log(x) + b * math.log1p(-x)
    log_front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / a * _continued_fraction(a, b, x)


def _continued_fraction(a: float, b: float, x: float) -> float:
    # Lentz's evaluation from the front: numerators and denominators as running ratios.
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, 1000):
        m = step // 2
        if step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / ((1 + term * d) or tiny)
        c = (1 + term / c) or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            return 1 / value
    raise ArithmeticError(f"incomplete beta did not converge at a={a}, b={b}, x={x}")


def t_cdf(t: float, degrees: float) -> float:
    """P(T ≤ t) of Student's distribution: 1 - I_x(ν/2, 1/2)/2 with x = ν/(ν + t²), for t ≥ 0."""
    tail = incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2
    return 1 - tail if t >= 0 else tail


@functools.cache  # few degrees of freedom, thousands of intervals
def t_quantile(probability: float, degrees: float) -> float:
    """The t with P(T ≤ t) = probability, by bisection of t_cdf."""
    if not 0 < probability < 1 or degrees <= 0:
        raise ValueError(f"t quantile: probability {probability}, degrees of freedom {degrees}")
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def mean_interval(values) -> Interval:
    """mean ± t(0.975, n-1) · s/√n of independent values; half is NaN for n < 2."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, 0)
    mean = float(np.mean(values))
    if n < 2 or not math.isfinite(mean):
        return Interval(mean, math.nan, n)
    spread = float(np.std(values, ddof=1))
    return Interval(mean, t_quantile(0.5 + LEVEL / 2, n - 1) * spread / math.sqrt(n), n)


def unpaired(values, others) -> Interval:
    """Difference of the means of independent values, Welch: ± t(0.975, ν) · √(s²/n + s'²/n'); half
    is NaN where either has fewer than two."""
    parts = [(len(v), float(np.var(v, ddof=1)) / len(v) if len(v) > 1 else math.nan)
             for v in (np.asarray(values, dtype=float), np.asarray(others, dtype=float))]
    mean, total = float(np.mean(values) - np.mean(others)), sum(part for _, part in parts)
    n = min(count for count, _ in parts)
    if not math.isfinite(total) or total == 0:
        return Interval(mean, total, n)
    degrees = total**2 / sum(part**2 / (count - 1) for count, part in parts)
    return Interval(mean, t_quantile(0.5 + LEVEL / 2, degrees) * math.sqrt(total), n)


def wider(first: Interval, second: Interval) -> Interval:
    """The one with the larger half width, unknown ones apart; the first where none is known."""
    known = [interval for interval in (first, second) if math.isfinite(interval.half)]
    return max(known, key=lambda interval: interval.half, default=first)


def paired_over_windows(values, reference) -> Interval:
    """Difference of two methods over evaluation windows, each averaged over its own seeds.

    values [seeds, windows], reference [its seeds, the same windows].
    d_w = mean_s values[s, w] - mean_r reference[r, w], then the t-interval of d over windows.
    It speaks of other windows of the same text, for the seeds at hand.
    """
    values, reference = np.atleast_2d(values), np.atleast_2d(reference)
    if values.shape[1] != reference.shape[1]:
        raise ValueError(f"pairing {values.shape[1]} windows with {reference.shape[1]}")
    return mean_interval(values.mean(axis=0) - reference.mean(axis=0))


def paired_over_seeds(values: dict, reference: dict, random: tuple[bool, bool]) -> Interval:
    """Difference of two methods over seeds, each seed averaged over the windows.

    values and reference: seed → array over the same windows; random: whether each depends on the
    seed. Where both do, d_s = mean_w values[s] - mean_w reference[s] over their seeds, or, with
    other seeds on either side, unpaired();
    where one does not, its mean stands in for every seed of the other. Then the t-interval of d
    over seeds; half is NaN where neither depends on the seed, since nothing varies.
    It speaks of other seeds, for the windows at hand.
    """
    own = {seed: float(np.mean(windows)) for seed, windows in values.items()}
    other = {seed: float(np.mean(windows)) for seed, windows in reference.items()}
    own_mean, other_mean = (float(np.mean(list(means.values()))) for means in (own, other))
    if random == (False, False):
        return Interval(own_mean - other_mean, math.nan, 1)
    if not random[0]:
        own = dict.fromkeys(other, own_mean)
    if not random[1]:
        other = dict.fromkeys(own, other_mean)
    if own.keys() != other.keys():
        return unpaired(list(own.values()), list(other.values()))
    return mean_interval([own[seed] - other[seed] for seed in sorted(own)])


def bootstrap(samples: list, statistic) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic of means over items, items drawn anew.

    samples: one array [items, columns] a task; columns are measured on the same items, so a
    statistic of two columns is paired. Every draw takes as many items of each task as it has, with
    replacement, and statistic maps the list of means, [draws, columns] each, to [draws]. The draws
    are the same at every call.
    """
    rng = np.random.default_rng(0)
    means = []
    for sample in samples:
        items = len(sample)
        counts = rng.multinomial(items, np.full(items, 1 / items), size=DRAWS)
        means.append(counts @ np.asarray(sample, dtype=float) / items)
    with np.errstate(invalid="ignore"):  # infinite draws
        low, high = np.quantile(statistic(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
