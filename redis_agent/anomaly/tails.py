"""Tails and ranges of the two predictive distributions: negative binomial counts, beta-binomial successes.

A tail is summed term by term for as long as that is cheap; the rest is bounded by a geometric series, so that a p-value
is exact or a little too large, never too small.
"""

from __future__ import annotations

from math import ceil, exp, floor, inf, lgamma, log, log1p, sqrt
from typing import Final

_TERMS: Final = 64
_NEGLIGIBLE: Final = 1e-6
_POISSON: Final = 1e8
"""From this shape on a negative binomial is a Poisson, and the difference of two `lgamma` says nothing any more."""

_Z: Final = 1.959964
"""Of the normal distribution, for 95 %."""


def shape_of(mean: float, variance: float) -> float:
    """The shape r of the negative binomial with this mean and variance; infinite for a Poisson."""
    excess = variance - mean
    return mean * mean / excess if excess > mean * mean / _POISSON else inf


def _log_mass(x: float, mean: float, r: float) -> float:
    if r == inf:
        return x * log(mean) - mean - lgamma(x + 1.0)
    return lgamma(x + r) - lgamma(r) - lgamma(x + 1.0) - r * log1p(mean / r) + x * log(mean / (mean + r))


def count_tail(x: float, mean: float, variance: float) -> float:
    """P(X >= x) for counts with this mean and variance: negative binomial, Poisson when they are equal.

    Terms from x upwards (ratio ``q (n + r) / (n + 1)``, Johnson, Kemp and Kotz 2005, ch. 5). Below the mean the tail is
    only said to be 1.

    Args:
        x: A count; fractions are rounded up.
        mean: Not negative.
        variance: At least the mean.

    Returns:
        A probability, within 1e-6 relatively for small counts, at most a fifth too large for huge ones.
    """
    x = float(ceil(x))
    if x <= 0.0:
        return 1.0
    if mean <= 0.0:
        return 0.0
    if x <= mean:
        return 1.0
    r = shape_of(mean, variance)
    q = 0.0 if r == inf else mean / (mean + r)
    term, total, n = 1.0, 1.0, x
    for _ in range(_TERMS):
        term *= mean / (n + 1.0) if r == inf else q * (n + r) / (n + 1.0)
        total += term
        n += 1.0
        if term < _NEGLIGIBLE * total * (1.0 - q):
            break
    ratio = mean / (n + 1.0) if r == inf else q * max(1.0, (n + r) / (n + 1.0))
    if ratio < 1.0:
        total += term * ratio / (1.0 - ratio)
    else:
        return 1.0
    logarithm = _log_mass(x, mean, r) + log(total)
    return min(1.0, exp(logarithm)) if logarithm > -700.0 else 0.0


def count_range(mean: float, variance: float) -> tuple[float, float]:
    """The central 95 % of such counts: the smallest whole numbers with 2.5 % and 97.5 % at or below them.

    Step by step where the counts are small; else the expansion of Cornish and Fisher (1938) to the skewness.
    """
    if mean <= 0.0:
        return 0.0, 0.0
    r = shape_of(mean, variance)
    if mean < 12.0:
        mass = exp(-mean) if r == inf else exp(-r * log1p(mean / r))
        if mass > 0.0:
            found = _stepped_range(mass, mean, r)
            if found is not None:
                return found
    deviation = sqrt(max(variance, mean))
    skewness = (2.0 * variance - mean) / (deviation * mean) if r != inf else 1.0 / deviation
    bend = skewness * (_Z * _Z - 1.0) / 6.0
    low = mean + deviation * (bend - _Z)
    high = mean + deviation * (bend + _Z)
    return max(0.0, float(floor(low))), float(ceil(high))


def _stepped_range(mass: float, mean: float, r: float) -> tuple[float, float] | None:
    q = 0.0 if r == inf else mean / (mean + r)
    low, cumulative = -1.0, mass
    n = 0.0
    for _ in range(4 * _TERMS):
        if low < 0.0 and cumulative >= 0.025:
            low = n
        if cumulative >= 0.975:
            return low, n
        mass *= mean / (n + 1.0) if r == inf else q * (n + r) / (n + 1.0)
        n += 1.0
        cumulative += mass
    return None


def success_tail(successes: int, trials: int, a: float, b: float) -> float:
    """P(S >= successes) in so many trials when the rate is Beta(a, b): the beta-binomial (Skellam 1948).

    Terms from ``successes`` upwards, as in `count_tail`.
    """
    if successes <= 0:
        return 1.0
    if successes > trials:
        return 0.0
    if successes <= trials * a / (a + b):
        return 1.0
    s, n = float(successes), float(trials)
    term, total = 1.0, 1.0
    ratio = 0.0
    for _ in range(_TERMS):
        if s >= n:
            break
        ratio = (n - s) * (s + a) / ((s + 1.0) * (n - s - 1.0 + b))
        term *= ratio
        total += term
        s += 1.0
        if term < _NEGLIGIBLE * total:
            break
    else:
        # The ratios of a unimodal distribution fall beyond its mode; at most so many terms are left.
        total += term * min(n - s, ratio / (1.0 - ratio)) if ratio < 1.0 else term * (n - s)
    s = float(successes)
    logarithm = (
        lgamma(n + 1.0) - lgamma(s + 1.0) - lgamma(n - s + 1.0)
        + lgamma(s + a) + lgamma(n - s + b) - lgamma(n + a + b)
        + lgamma(a + b) - lgamma(a) - lgamma(b)
        + log(total)
    )  # fmt: skip
    return min(1.0, exp(logarithm)) if logarithm > -700.0 else 0.0


def success_range(trials: int, a: float, b: float) -> tuple[float, float]:
    """The central 95 % of a beta-binomial, as in `count_range`."""
    n = float(trials)
    if n <= _TERMS:
        mass = exp(lgamma(b + n) - lgamma(b) + lgamma(a + b) - lgamma(a + b + n))
        low, cumulative = -1.0, mass
        for s in range(trials + 1):
            if low < 0.0 and cumulative >= 0.025:
                low = float(s)
            if cumulative >= 0.975:
                return low, float(s)
            mass *= (n - s) * (s + a) / ((s + 1.0) * max(n - s - 1.0 + b, 1e-12))
            cumulative += mass
        return max(low, 0.0), n
    p = a / (a + b)
    deviation = sqrt(n * p * (1.0 - p) * (a + b + n) / (a + b + 1.0))
    skewness = (a + b + 2.0 * n) * (b - a) / (a + b + 2.0) * sqrt((1.0 + a + b) / (n * a * b * (n + a + b)))
    bend = skewness * (_Z * _Z - 1.0) / 6.0
    low = float(floor(n * p + deviation * (bend - _Z)))
    high = float(ceil(n * p + deviation * (bend + _Z)))
    return min(max(0.0, low), n), min(max(0.0, high), n)
