"""How sure counts make us that a rate is beyond a threshold, at whatever moment one looks.

Watching a rate after every event and believing the first crossing is wrong in nearly every
experiment that sits on its threshold. The test here may be looked at after every event for ever:
the chance that it *ever* confirms a crossing that is not there is at most ``alpha``.

It is a mixture e-process. For ``rate > t`` the null hypothesis is ``p <= t``, and the evidence
after ``s`` successes in ``n`` trials is the likelihood ratio averaged over a Beta(a, b) prior cut
to ``(t, 1]``::

    e = B(a+s, b+n-s) P(X' > t) / (B(a, b) P(X > t) t^s (1-t)^(n-s)),
        X ~ Beta(a, b),  X' ~ Beta(a+s, b+n-s)

For each ``p' > t`` one more trial multiplies the ratio by ``1 + (p'-t)(p-t) / (t(1-t))`` in
expectation, at most 1 when ``p <= t``: a supermartingale under the whole null, and so is any
average of such. Ville's inequality bounds the chance that ``e`` ever reaches ``1/alpha`` by
``alpha``. ``rate < t`` is the same with successes and failures exchanged. Sources: Ville (1939);
Robbins (1970), the mixture; Howard, Ramdas, McAuliffe, Sekhon (2021), anytime validity;
Waudby-Smith and Ramdas (2024), means of bounded variables.

The prior lies around twice the odds of a small threshold (for ``<``, a quarter) with
``min(a, b) = 2``. Any prior keeps the level; this one was chosen by computing the distribution of
the first crossing exactly, for means of 1.5 to 4 times the odds and shapes of 0.5 to 30. Median
trials until confirmed: above 0.1, at true rates of 0.15, 0.2 and 0.4, 250, 64 and 12; below 0.1, at
0.05, 0.02 and 0, 151, 59 and 37. Sharper priors save 10 trials at exactly twice the threshold and
lose more elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import exp, inf, isclose, isfinite, lgamma, log, log1p
from typing import Final, Literal, TypeAlias

EvidenceState: TypeAlias = Literal["none", "early", "confirmed"]

_ODDS_ABOVE_SMALL: Final = 2.0
_ODDS_ABOVE_LARGE: Final = 4.0
_PRIOR_SHAPE: Final = 2.0
_SMALLEST_RATE: Final = 1e-9
_MAX_TRIALS: Final = 1_000_000_000
_EXACT_TRIALS: Final = 2_000
"""Up to here the posterior tail is computed; beyond, a bound of Cantelli does, at no loss."""

_BISECTIONS: Final = 60
_TOLERANCE: Final = 1e-12

_OPERATORS: Final = {"≥": ">=", "≤": "<=", "=": "==", "≠": "!="}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What counts say about a rate and its threshold.

    Attributes:
        state: ``none``: not met, or met on too little; ``early``: met literally on at least
            ``min_samples`` trials; ``confirmed``: the test says so at level ``alpha``.
        reason: Why a test was not possible, else "".
        successes: As given.
        trials: As given.
        alpha: Level of the test and of the interval.
    """

    state: EvidenceState
    reason: str
    successes: int
    trials: int
    alpha: float = field(default=0.05)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bounds of the rate that hold at all looks together with probability ``1 - alpha``.

        A confidence sequence: the rates that the two-sided mixture e-process with a Beta(1/2, 1/2)
        prior (Robbins 1970) does not reject. (0.0, 1.0) without trials; None when the counts are
        not successes among trials. Computed when asked for, in well under a millisecond.
        """
        if self.trials < 0 or not 0 <= self.successes <= self.trials:
            return None
        low, high = _confidence_sequence(*_bounded(self.successes, self.trials), self.alpha)
        rate = self.successes / self.trials if self.trials else low
        return min(low, rate), max(high, rate)  # rounding must not shut the rate itself out


def rate_evidence(
    successes: int,
    trials: int,
    threshold: float,
    operator: str,
    *,
    alpha: float = 0.05,
    min_samples: int = 20,
) -> Evidence:
    """Judges ``successes / trials <operator> threshold``.

    Depends on the counts alone, not on the way there. More than a billion trials are judged as a
    billion at the same rate. ``==`` and ``!=`` have no test and are early at best, and so are
    counts that are not successes among trials (more replies than emails) and thresholds outside
    0 to 1, which are mistakes of scale more often than certainties.

    Args:
        successes: Numerator.
        trials: Denominator.
        threshold: On the scale 0 to 1.
        operator: ``<``, ``<=``, ``>``, ``>=``, ``==`` or ``!=``.
        alpha: Chance of ever confirming what is not so.
        min_samples: Trials from which a literal crossing counts as early.

    Returns:
        The evidence; cheap, its interval is computed when asked for.

    Raises:
        ValueError: The operator is unknown, ``alpha`` is not between 0 and 1, or the threshold is
            NaN or infinite.
    """
    operator = _OPERATORS.get(operator, operator)
    if operator not in ("<", "<=", ">", ">=", "==", "!="):
        raise ValueError(f"unknown operator {operator!r}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}")
    if not isfinite(threshold):
        raise ValueError(f"the threshold must be finite, not {threshold!r}")
    if trials <= 0:
        reason = "no trials yet" if trials == 0 else "trials are negative"
        return Evidence("none", reason, successes, trials, alpha)
    if not compares(successes / trials, operator, threshold):
        return Evidence("none", "", successes, trials, alpha)
    reason = ""
    if not 0 <= successes <= trials:
        reason = "the counts are not successes among trials"
    elif not 0.0 <= threshold <= 1.0:
        reason = "the threshold lies outside 0 to 1"
    elif operator in ("==", "!="):
        reason = "an exact value has no test"
    elif _log_evidence(successes, trials, threshold, operator, alpha) >= -log(alpha):
        return Evidence("confirmed", "", successes, trials, alpha)
    state: EvidenceState = "early" if trials >= min_samples else "none"
    return Evidence(state, reason, successes, trials, alpha)


def compares(value: float, operator: str, threshold: float) -> bool:
    """Compares literally; values within 1e-12 of each other, relatively, are equal."""
    if value == threshold or isclose(value, threshold, rel_tol=_TOLERANCE):
        return operator in ("<=", ">=", "==")
    if value < threshold:
        return operator in ("<", "<=", "!=")
    return operator in (">", ">=", "!=")


def _bounded(successes: int, trials: int) -> tuple[int, int]:
    """Counts that floating point can tell apart; fewer trials only make the answer shyer."""
    if trials <= _MAX_TRIALS:
        return successes, trials
    return successes * _MAX_TRIALS // trials, _MAX_TRIALS


def _log_evidence(successes: int, trials: int, threshold: float, operator: str, alpha: float) -> float:
    """The logarithm of e, or -inf where it is certain not to reach ``1/alpha``."""
    successes, trials = _bounded(successes, trials)
    hits, misses = successes, trials - successes
    rate, complement = threshold, 1.0 - threshold
    if operator[0] == "<":
        hits, misses, rate, complement = misses, hits, complement, rate
    if rate <= 0.0:  # the null is p = 0: one hit refutes it, no miss ever does
        return inf if hits else -inf
    rate = max(rate, _SMALLEST_RATE)  # a larger null is harder to refute
    if complement < _SMALLEST_RATE:
        return -inf
    shape_a, shape_b, log_prior = _prior(rate, complement)
    a, b = shape_a + hits, shape_b + misses
    bound = _log_beta(a, b) - log_prior - hits * log(rate) - misses * log(complement)
    if bound < -log(alpha):
        return -inf
    return bound + _log_tail(rate, complement, a, b)


@lru_cache(maxsize=1_024)
def _prior(rate: float, complement: float) -> tuple[float, float, float]:
    """The prior's shapes for the side above ``rate``, and log of B(a, b) P(X > rate)."""
    factor = _ODDS_ABOVE_SMALL if rate <= 0.5 else _ODDS_ABOVE_LARGE
    odds = factor * rate / complement
    if odds <= 1.0:
        a, b = _PRIOR_SHAPE, _PRIOR_SHAPE / odds
    else:
        a, b = _PRIOR_SHAPE * odds, _PRIOR_SHAPE
    tail = 1.0 - _incomplete_beta(rate, complement, a, b)
    return a, b, _log_beta(a, b) + log(tail)


def _log_tail(rate: float, complement: float, a: float, b: float) -> float:
    """Log of P(X > rate) for X ~ Beta(a, b), or a little less."""
    total = a + b
    distance = a / total - rate
    if total <= _EXACT_TRIALS:
        tail = 1.0 - _incomplete_beta(rate, complement, a, b)
    elif distance <= 0.0:
        return -inf
    else:  # Cantelli's inequality
        variance = a * b / (total * total * (total + 1.0))
        tail = distance * distance / (variance + distance * distance)
    return log(tail) if tail > 0.0 else -inf


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _incomplete_beta(x: float, complement: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), 0 < x < 1."""
    front = exp(a * log(x) + b * log(complement) - _log_beta(a, b))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _continued_fraction(x, a, b) / a
    return 1.0 - front * _continued_fraction(complement, b, a) / b


def _continued_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b) by Lentz's method (Abramowitz and Stegun 26.5.8)."""
    tiny = 1e-300
    c = 1.0
    d = 1.0 / ((1.0 - (a + b) * x / (a + 1.0)) or tiny)
    result = d
    for m in range(1, 1_000):
        even = a + 2 * m
        term = m * (b - m) * x / ((even - 1.0) * even)
        d = 1.0 / ((1.0 + term * d) or tiny)
        c = (1.0 + term / c) or tiny
        result *= d * c
        term = -(a + m) * (a + b + m) * x / (even * (even + 1.0))
        d = 1.0 / ((1.0 + term * d) or tiny)
        c = (1.0 + term / c) or tiny
        step = d * c
        result *= step
        if abs(step - 1.0) < 1e-10:
            break
    return result


def _confidence_sequence(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Both ends of {p : log B(s+1/2, f+1/2) - log B(1/2, 1/2) - log(p^s (1-p)^f) < -log alpha}."""
    if trials == 0:
        return 0.0, 1.0
    failures = trials - successes
    level = _log_beta(successes + 0.5, failures + 0.5) - _log_beta(0.5, 0.5) + log(alpha)

    def inside(p: float) -> bool:
        likelihood = successes * log(p) if successes else 0.0
        if failures:
            likelihood += failures * log1p(-p)
        return likelihood > level

    centre = successes / trials

    def end(outside: float) -> float:
        within = centre
        for _ in range(_BISECTIONS):
            middle = (outside + within) / 2.0
            if not 0.0 < middle < 1.0 or middle in (outside, within):
                break
            if inside(middle):
                within = middle
            else:
                outside = middle
        return outside  # on the safe side of the end

    return (0.0 if successes == 0 else end(0.0)), (1.0 if failures == 0 else end(1.0))
