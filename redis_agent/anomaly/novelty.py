"""How improbable a value is that lies beyond everything a series has shown so far."""

from __future__ import annotations

import math
from typing import Final

WARM_UP: Final = 120
"""Values that are learnt before one is judged. Fewer make the range of what is normal too narrow:
an independent series shows a new extreme in two values of n."""

MARGIN: Final = 0.05
"""How far beyond the range, in units of the range, a value must lie to be more than the next record.
Lavin and Ahmad 2015 take the same share in the spatial rule of their detectors."""

MEMORY: Final = 4032
"""Values after which old ones begin to be forgotten: two weeks of five-minute values. Level and scale then
weigh the newest most; the range is that of the last one to two memories."""

_SCALE_FLOOR: Final = 1e-6
"""Least scale, in units of the level of the series: a change below a few millionths of it is rounding."""

Numbers = list[float]


class Novelty:
    """Level, scale and range of one number that is watched, in seven numbers.

    A value is novel when it lies beyond the range by `MARGIN`. Its tail probability is that of a normal
    distribution at its distance from the level. Both must hold, and each makes up for the weakness of the
    other. The normal tail alone fires at every spike of a series that always had spikes, for which the
    range has made room. The range alone fires once or twice in 1,000 values of plain noise, where a record
    by a twentieth of the range is nothing.
    """

    __slots__ = ("_high", "_low", "_mean", "_old_high", "_old_low", "_variance", "_warm_up", "count")

    def __init__(self, warm_up: int = WARM_UP) -> None:
        self._warm_up = warm_up
        self.count = 0
        self._mean = 0.0
        self._variance = 0.0
        self._low = self._high = 0.0
        self._old_low = self._old_high = 0.0

    @property
    def level(self) -> float:
        """The mean, with `MEMORY`."""
        return self._mean

    @property
    def scale(self) -> float:
        """The standard deviation, with `MEMORY`."""
        return math.sqrt(self._variance)

    @property
    def variance(self) -> float:
        """The variance, with `MEMORY`."""
        return self._variance

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value of the last one to two memories."""
        if self.count > MEMORY:
            return min(self._low, self._old_low), max(self._high, self._old_high)
        return self._low, self._high

    def tail_probability(
        self, value: float, magnitude: float, *, least_variance: float = 0.0, most_deviations: float = math.inf
    ) -> float:
        """Return the one-sided probability of a value at least as far out; does not learn it.

        Args:
            value: The next value.
            magnitude: The level of the series, to tell rounding from change.
            least_variance: The variance of values like this one, if it is greater than that of all.
            most_deviations: An upper bound on the distance from the level, in standard deviations, from
                what else is known of the values.

        Returns:
            1 within the range, `1 / (count + 1)` just beyond it (the chance that a value is a record when
            any order is as likely), and the normal tail beyond `MARGIN`.
        """
        if self.count < self._warm_up:
            return 1.0
        low, high = self.range
        beyond = value - high if value > high else low - value
        if beyond <= 0.0:
            return 1.0
        record = 1.0 / (self.count + 1)
        floor = _SCALE_FLOOR * abs(magnitude)
        width = high - low
        if width <= 0.0 or beyond < MARGIN * width or beyond <= floor:
            return record
        scale = max(math.sqrt(max(self._variance, least_variance)), floor)
        deviations = min(abs(value - self._mean) / scale, most_deviations) if scale > 0.0 else 0.0
        return min(record, normal_tail(deviations))

    def learn(self, value: float) -> None:
        """Take a value in: level and scale by Welford 1962, with exponential weights once `MEMORY` is full."""
        self.count += 1
        if self.count == 1:
            self._mean = self._low = self._high = value
            return
        difference = value - self._mean
        weight = 1.0 / min(self.count, MEMORY)
        self._mean += weight * difference
        self._variance += weight * (difference * (value - self._mean) - self._variance)
        if self.count % MEMORY == 1:
            self._old_low, self._old_high = self._low, self._high
            self._low = self._high = value
        elif value < self._low:
            self._low = value
        elif value > self._high:
            self._high = value

    def state(self) -> Numbers:
        """Return all that is remembered."""
        return [
            self.count,
            self._mean,
            self._variance,
            self._low,
            self._high,
            self._old_low,
            self._old_high,
        ]

    @classmethod
    def restore(cls, state: Numbers, warm_up: int = WARM_UP) -> Novelty:
        """Return what `state` described."""
        novelty = cls(warm_up)
        count, *rest = state
        novelty.count = int(count)
        (
            novelty._mean,
            novelty._variance,
            novelty._low,
            novelty._high,
            novelty._old_low,
            novelty._old_high,
        ) = rest
        return novelty


def normal_tail(deviations: float) -> float:
    """Return the probability that a standard normal variable exceeds `deviations`."""
    return 0.5 * math.erfc(deviations / math.sqrt(2.0))
