"""How sure counts make us that a rate is beyond a threshold, at whatever moment one looks.

Watching a rate after every event and believing the first crossing is wrong in nearly every
experiment that sits on its threshold. The test here may be looked at after every event for ever:
the chance that it *ever* confirms a crossing that is not there is at most ``alpha``.

It is a mixture e-process. For ``rate > t`` the null hypothesis is every ``p <= t``, and the
evidence after ``s`` successes in ``n`` trials is the likelihood ratio against ``t``, averaged over
a Beta(a, b) prior cut to ``(t, 1]``::

    e = B(a+s, b+n-s) P(X' > t) / (B(a, b) P(X > t) t^s (1-t)^(n-s)),
        X ~ Beta(a, b),  X' ~ Beta(a+s, b+n-s)

Under every ``p <= t`` it is a supermartingale that begins at 1, so that by Ville's inequality it
ever reaches ``1/alpha`` with probability ``alpha`` at most. ``rate < t`` is the same with
successes and failures exchanged. The interval holds the thresholds that neither direction refutes.
Why, and how the prior was chosen: docs/evidence.md.

Sources: Ville (1939), the inequality; Robbins (1970), mixtures; Howard, Ramdas, McAuliffe and
Sekhon (2021), confidence sequences; Waudby-Smith and Ramdas (2024), inverting tests by betting.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, isclose, isfinite, lgamma, log, log1p
from typing import Final, Literal, TypeAlias

EvidenceState: TypeAlias = Literal["none", "early", "confirmed"]

_SHARE: Final = 0.86
"""Of ``alpha``, what the direction of the criterion gets; the other end of the interval has the rest."""

_PRIOR_SHAPE: Final = 2.0
_SMALLEST_RATE: Final = 1e-9
_MAX_TRIALS: Final = 1_000_000_000
"""Floating point can tell counts apart up to here; `lgamma` of them is exact to about 1e-5."""

_WIDEST_LOGIT: Final = -log(_SMALLEST_RATE)
_BISECTIONS: Final = 36
"""They leave 6e-10 of the interval's end, relatively to its odds."""

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
        threshold: As given.
        operator: As given, written in ASCII.
        alpha: Level of the test and of the interval.
    """

    state: EvidenceState
    reason: str
    successes: int
    trials: int
    threshold: float
    operator: str
    alpha: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bounds of the rate that hold at all looks together with probability ``1 - alpha``.

        A confidence sequence: the thresholds that the test refutes in neither direction (Howard et
        al. 2021). The direction of the criterion has 86 % of ``alpha`` and is the same test
        that confirms it, so that a criterion is confirmed when the whole interval lies beyond its
        threshold, and only then. ``==`` and ``!=`` share ``alpha`` equally.

        Returns:
            (0.0, 1.0) without trials; None when the counts are not successes among trials.
            Computed when asked for, in well under a millisecond.
        """
        successes, failures = self.successes, self.trials - self.successes
        if failures < 0:
            return None
        if not self.trials:
            return 0.0, 1.0
        above = {">": _SHARE, "<": 1.0 - _SHARE}.get(self.operator[0], 0.5)
        low, _ = _refuted_up_to(successes, failures, -log(above) - log(self.alpha))
        _, high = _refuted_up_to(failures, successes, -log(1.0 - above) - log(self.alpha))
        # Rounding must shut out neither the rate itself nor what is confirmed.
        if self.state == "confirmed" and self.operator[0] == ">":
            low = max(low, self.threshold)
        elif self.state == "confirmed":
            high = min(high, self.threshold)
        rate = successes / self.trials
        return min(low, rate), max(high, rate)


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

    Depends on the counts alone, not on the way there. The level holds in the direction of the
    operator, for this one criterion. More than a billion trials are judged as a billion at the same
    rate. ``==`` and ``!=`` have no test and are early at best, and so are more successes than
    trials (several replies to one email) and thresholds outside 0 to 1, which are mistakes of scale
    more often than certainties.

    Args:
        successes: Numerator.
        trials: Denominator.
        threshold: On the scale 0 to 1; whoever counts in percent divides first.
        operator: ``<``, ``<=``, ``>``, ``>=``, ``==`` or ``!=``.
        alpha: Chance of ever confirming what is not so.
        min_samples: Trials from which a literal crossing counts as early.

    Returns:
        The evidence; a few microseconds, its interval is computed when asked for.

    Raises:
        TypeError: A count is not a whole number, or a number is a bool.
        ValueError: A count is negative, the operator is unknown, ``alpha`` is not between 0 and 1,
            or the threshold is NaN or infinite.
    """
    _check_count("successes", successes)
    _check_count("trials", trials)
    _check_count("min_samples", min_samples)
    _check_real("threshold", threshold)
    _check_real("alpha", alpha)
    operator = _OPERATORS.get(operator, operator)
    if operator not in ("<", "<=", ">", ">=", "==", "!="):
        raise ValueError(f"unknown operator {operator!r}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}")
    if not isfinite(threshold):
        raise ValueError(f"the threshold must be finite, not {threshold!r}")
    state, reason = _judged(successes, trials, threshold, operator, alpha)
    if state == "early" and trials < min_samples:
        state = "none"
    return Evidence(state, reason, successes, trials, threshold, operator, alpha)


def _judged(successes: int, trials: int, threshold: float, operator: str, alpha: float) -> tuple[EvidenceState, str]:
    """The state for however few trials, and why there was no test."""
    if trials == 0:
        return "none", "no trials yet"
    if not compares(successes / trials, operator, threshold):
        return "none", ""
    if successes > trials:
        return "early", "the counts are not successes among trials"
    if not 0.0 <= threshold <= 1.0:
        return "early", "the threshold lies outside 0 to 1"
    if operator in ("==", "!="):
        return "early", "an exact value has no test"
    hits, misses, rate, complement = successes, trials - successes, threshold, 1.0 - threshold
    if operator[0] == "<":
        hits, misses, rate, complement = misses, hits, complement, rate
    hits, misses = _bounded(hits, misses)
    confirmed = _log_evidence(hits, misses, rate, complement) >= -log(_SHARE) - log(alpha)
    return ("confirmed" if confirmed else "early"), ""


def compares(value: float, operator: str, threshold: float) -> bool:
    """Compares literally; values within 1e-12 of each other, relatively, are equal."""
    if value == threshold or isclose(value, threshold, rel_tol=_TOLERANCE):
        return operator in ("<=", ">=", "==")
    if value < threshold:
        return operator in ("<", "<=", "!=")
    return operator in (">", ">=", "!=")


def _check_count(name: str, count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be a whole number, not {count!r}")
    if count < 0:
        raise ValueError(f"{name} must not be negative, not {count}")


def _check_real(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")


def _bounded(hits: int, misses: int) -> tuple[int, int]:
    """Counts that floating point can tell apart; fewer trials and hits only make the answer shyer."""
    trials = hits + misses
    if trials <= _MAX_TRIALS:
        return hits, misses
    hits = hits * _MAX_TRIALS // trials
    return hits, _MAX_TRIALS - hits


def _log_evidence(hits: int, misses: int, rate: float, complement: float) -> float:
    """The logarithm of e against every ``p <= rate``, or a little less; ``complement`` is 1 - rate.

    The prior has its mean at ``2 (1 + rate)`` times the odds of ``rate``, and a smaller shape of 2,
    which gives its mass in closed form. The mass of the posterior below ``rate`` is bounded by a
    geometric series: the ratios of the terms of Abramowitz and Stegun 26.5.4 fall from
    ``(a+b) rate / (a+1)``. A smaller e keeps the level.
    """
    if rate <= 0.0:  # the null is p = 0: one hit refutes it, no miss ever does
        return inf if hits else -inf
    if rate < _SMALLEST_RATE:  # a larger null is harder to refute
        rate, complement = _SMALLEST_RATE, 1.0 - _SMALLEST_RATE
    if complement < _SMALLEST_RATE:
        return -inf
    log_rate, log_complement = log(rate), log(complement)
    odds = 2.0 * (1.0 + rate) * rate / complement
    if odds <= 1.0:
        a, b = _PRIOR_SHAPE, _PRIOR_SHAPE / odds
        log_prior = b * log_complement + log1p(b * rate) - log(b * (b + 1.0))
    else:
        a, b = _PRIOR_SHAPE * odds, _PRIOR_SHAPE
        log_prior = log(1.0 - exp(a * log_rate) * (1.0 + a * complement)) - log(a * (a + 1.0))
    a, b = a + hits, b + misses
    ratio = (a + b) * rate / (a + 1.0)
    if ratio >= 1.0:
        return -inf
    log_posterior = lgamma(a) + lgamma(b) - lgamma(a + b)
    log_below = a * log_rate + b * log_complement - log_posterior - log(a * (1.0 - ratio))
    if log_below >= 0.0:
        return -inf
    log_above = log1p(-exp(log_below))
    return log_posterior + log_above - log_prior - hits * log_rate - misses * log_complement


def _refuted_up_to(hits: int, misses: int, needed: float) -> tuple[float, float]:
    """The largest rate that is refuted as too small, and its complement; (0, 1) when none is.

    Evidence falls as the threshold rises towards the rate that was seen, so that bisection finds
    where its logarithm passes ``needed``. It works on the logit, as exact near 0 as near 1.
    """
    hits, misses = _bounded(hits, misses)
    if not hits:
        return 0.0, 1.0
    outside, inside = -_WIDEST_LOGIT, log(hits / misses) if misses else _WIDEST_LOGIT
    found = (0.0, 1.0)
    for _ in range(_BISECTIONS):
        middle = (outside + inside) / 2.0
        rate, complement = 1.0 / (1.0 + exp(-middle)), 1.0 / (1.0 + exp(middle))
        if _log_evidence(hits, misses, rate, complement) >= needed:
            outside, found = middle, (rate, complement)
        else:
            inside = middle
    return found
