"""From a tail probability to a score that means the same on every series."""

from __future__ import annotations

import math
from typing import Final

PRIOR: Final = 1e-4
"""Share of points that begin an anomaly: one in 10,000, about one in five weeks of five-minute points."""

ALERT_THRESHOLD: Final = 0.5
"""A score at or above it is an alert: an anomaly is then at least as likely as not."""


def score_of(tail_probability: float) -> float:
    """Return how probable an anomaly is, given how improbable the point is without one.

    The Bayes factor against "nothing happened" is at most `1 / (-e p ln p)` for `p < 1/e`
    (Sellke, Bayarri and Berger 2001, eq. 2); with `PRIOR` odds it becomes a posterior probability.
    The bound is the one most in favour of an anomaly, so a low score is the firmer statement.

    Args:
        tail_probability: Probability, without an anomaly, of something at least as extreme; in [0, 1].

    Returns:
        A number in [0, 1] that falls as `tail_probability` rises.
    """
    p = max(tail_probability, 1e-300)
    factor = 1.0 if p >= 1.0 / math.e else 1.0 / (-math.e * p * math.log(p))
    odds = PRIOR / (1.0 - PRIOR) * factor
    return odds / (1.0 + odds)
