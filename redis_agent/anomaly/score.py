"""From a p-value to the one score that means the same on every series: how probable it is that this is an anomaly."""

from __future__ import annotations

from math import e, log
from typing import Final

PRIOR: Final = 1e-4
"""How probable an anomaly is in any one window before it is looked at: one in ten weeks of ten-minute windows."""

ALERT_THRESHOLD: Final = 0.5
"""From here on an anomaly is more probable than not; the only threshold of the product. It is p = 2.9e-6."""

_SMALLEST: Final = 1e-300


def score_of(p: float) -> float:
    """The posterior probability of an anomaly, given the p-value of what was seen.

    Prior odds times ``1 / (-e p ln p)``, the largest Bayes factor that any reasonable alternative can claim from a
    p-value (Sellke, Bayarri and Berger 2001); for p >= 1/e the factor is 1.

    Args:
        p: A probability; what lies outside 0 to 1 is taken as the nearer end, NaN as 1.

    Returns:
        Between `PRIOR` and 1.
    """
    if not p < 1.0 / e:
        return PRIOR
    p = max(p, _SMALLEST)
    odds = PRIOR / (1.0 - PRIOR) / (-e * p * log(p))
    return odds / (1.0 + odds)
