"""What a series' own history says about the tail of its surprises: what happens often surprises nobody."""

from __future__ import annotations

from typing import Final

# So many imagined exceedances of a perfect model stand behind the first real ones.
_PRIOR_EXCEEDANCES: Final = 20.0
# One exceedance teaches no more than this, in nats.
_MOST: Final = 10.0
# What is left of what was learned after one more exceedance, and after a day.
_PER_EXCEEDANCE: Final = 0.99
_PER_DAY: Final = 0.93
_ROUNDING: Final = 4


class TailHistory:
    """The scale of a surprise's tail, from its exceedances of a threshold.

    The surprise of a perfect model, ``u = -ln p``, is exponential with scale 1, or smaller with discrete counts. Where
    the model is too narrow, the mean excess over a threshold ``u0`` says by how much (peaks over a threshold: Pickands
    1975; Davison and Smith 1990, with shape 0), and surprises beyond it are divided by that. The scale is never
    below 1: a model that was too wide so far earns no trust.

    Args:
        threshold: u0, in nats.
    """

    __slots__ = ("_excess", "_number", "_threshold", "scale")

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._number = 0.0
        self._excess = 0.0
        self.scale = 1.0
        """How much heavier than the model's the tail is."""

    def calibrated(self, surprise: float) -> float:
        """The surprise that is left once the history is known; never more than before."""
        if surprise <= self._threshold:
            return surprise
        return self._threshold + (surprise - self._threshold) / self.scale

    def learn(self, surprise: float) -> None:
        """Takes one exceedance in; independent ones, so one a burst."""
        excess = surprise - self._threshold
        if excess <= 0.0:
            return
        self._number = round(self._number * _PER_EXCEEDANCE + 1.0, _ROUNDING)
        self._excess = round(self._excess * _PER_EXCEEDANCE + min(excess, _MOST), _ROUNDING)
        self._rescale()

    def fade(self) -> None:
        """Forgets a day's share."""
        self._number = round(self._number * _PER_DAY, _ROUNDING)
        self._excess = round(self._excess * _PER_DAY, _ROUNDING)
        self._rescale()

    def _rescale(self) -> None:
        self.scale = max(1.0, (_PRIOR_EXCEEDANCES + self._excess) / (_PRIOR_EXCEEDANCES + self._number))

    def state(self) -> list[float]:
        """What is to be kept."""
        return [self._number, self._excess]

    def restore(self, state: list[float]) -> None:
        """Goes on from what was kept."""
        self._number, self._excess = state
        self._rescale()
