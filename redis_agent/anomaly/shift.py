"""A change of level that persists: two-sided CUSUM over a mixture of alternatives."""

from __future__ import annotations

from functools import cache
from math import log, log1p
from typing import Any, Final

from redis_agent.anomaly.window import Window

UP: Final = (1.7, 3.5, 8.0)
DOWN: Final = (0.5, 0.2)
"""Levels that are looked for, as ratios to the usual one."""

# One window adds no more than this, in nats: a change must last to be told.
_MOST: Final = 6.0
# Of a window that expects less than this nothing is learned, in dispersions; a night has many of them.
_NOTHING: Final = 5e-4
# Nor may a sum run away while nobody is told.
_CEILING: Final = 60.0
_ROUNDING: Final = 3


class Excursion:
    """Evidence that the level went one way, since when, and what was seen since.

    For each ratio r the statistic is ``S = max(0, S + l)`` with the log likelihood ratio of a Poisson window
    ``l = (x ln r - m (r - 1)) / phi`` (Page 1954; for counts Lucas 1985), phi the dispersion; of a binomial one with
    r a ratio of odds, ``l = (s ln r - n ln(1 + (r - 1) p)) / phi``. With the level known, the average run length to
    ``S >= h`` is at least ``exp(h)`` windows (Lorden 1971, theorem 2), so that ``exp(-S)`` serves as the p-value of a
    window. Of k ratios the largest sum counts, less ``ln k``, which keeps the bound (a mixture of e-detectors: Shin,
    Ramdas and Rinaldo 2024).

    Args:
        ratios: Alternatives, all on one side of 1, the nearest to it first.
        following_seconds: What is usual follows an excursion within so long.
    """

    __slots__ = (
        "_began_ms",
        "_edge",
        "_following_seconds",
        "_logs",
        "_price",
        "_ratios",
        "_rising",
        "count",
        "expected",
        "factor",
        "peak",
        "sums",
        "surprise",
        "windows",
    )

    def __init__(self, ratios: tuple[float, ...], following_seconds: float = 86_400.0) -> None:
        self._following_seconds = following_seconds
        self._ratios = ratios
        self._rising = ratios[0] > 1.0
        self._price, self._edge, self._logs = _constants(ratios)
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen."""
        self.sums = [0.0] * len(self._ratios)
        self._began_ms = [0] * len(self._ratios)
        self.windows = 0
        self.count = 0.0
        self.expected = 0.0
        self.factor = 1.0
        self.surprise = 0.0
        self.peak = 0.0

    def update(
        self,
        window: Window,
        count: float,
        base: float,
        factor: float,
        dispersion: float,
        *,
        trials: float = 0.0,
    ) -> float:
        """Adds a window.

        Args:
            window: When.
            count: What was counted.
            base: What the profile expects.
            factor: The most (for ratios above 1; else the least) that is usual, as a multiple of it. During an
                excursion it follows only slowly: the level is not to learn at once what it is to be tested by.
            dispersion: Variance over mean (of a Poisson, or of a binomial).
            trials: For rates, among how many it was counted; the ratios are then ratios of odds.

        Returns:
            The peak of an excursion that is over with this window, else 0.
        """
        if self.windows and (factor > self.factor) is self._rising:
            factor = self.factor + (factor - self.factor) * min(1.0, window.seconds / self._following_seconds)
        expected = base * factor
        if trials <= 0.0:
            if not self.windows and (count > expected * self._edge) is not self._rising:
                return 0.0
            if count <= 0.0 and expected < _NOTHING * dispersion:
                return 0.0
        sums, largest = self.sums, 0.0
        for index, ratio in enumerate(self._ratios):
            cost = expected * (ratio - 1.0)
            if trials > 0.0:
                cost = trials * log1p(cost / trials)
            total = sums[index] + min((count * self._logs[index] - cost) / dispersion, _MOST)
            if total <= 0.0:
                sums[index] = 0.0
                continue
            if sums[index] <= 0.0:
                self._began_ms[index] = window.start_ms
            total = sums[index] = round(min(total, _CEILING), _ROUNDING)
            largest = max(largest, total)
        if largest <= 0.0:
            peak = self.peak
            if self.windows:
                self.reset()
            return peak
        self.factor = round(factor, _ROUNDING)
        self.windows += 1
        self.count += count
        self.expected = round(self.expected + expected, _ROUNDING)
        self.surprise = max(0.0, largest - self._price)
        self.peak = max(self.peak, round(self.surprise, _ROUNDING))
        return 0.0

    def limit(self, most: list[float]) -> None:
        """Lets no sum be above its limit."""
        self.sums = [min(total, limit) for total, limit in zip(self.sums, most, strict=True)]
        self.surprise = max(0.0, max(self.sums) - self._price)

    @property
    def largest(self) -> float:
        """The largest of the sums."""
        return max(self.sums)

    @property
    def began_ms(self) -> int:
        """When the level changed, most likely: since when the largest of the sums is above 0."""
        return self._began_ms[self.sums.index(max(self.sums))]

    @property
    def ratio(self) -> float:
        """What was counted since it began, over what was expected."""
        return self.count / self.expected if self.expected > 0.0 else 0.0

    def state(self) -> list[Any]:
        """What is to be kept; nothing while there is no excursion."""
        if not self.windows:
            return []
        return [*self.sums, *self._began_ms, self.windows, self.count, self.expected, self.factor, self.peak]

    def restore(self, state: list[Any]) -> None:
        """Goes on from what was kept."""
        self.reset()
        if state:
            number = len(self._ratios)
            self.sums = list(state[:number])
            self._began_ms = list(state[number : 2 * number])
            self.windows, self.count, self.expected, self.factor, self.peak = state[2 * number :]
            self.surprise = max(0.0, max(self.sums) - self._price)


@cache
def _constants(ratios: tuple[float, ...]) -> tuple[float, float, tuple[float, ...]]:
    """The price of choosing among the ratios, the edge, and their logarithms: a series is made for each window.

    The edge: where the first ratio, the nearest to 1, gains nothing, none does.
    """
    return log(len(ratios)), (ratios[0] - 1.0) / log(ratios[0]), tuple(log(ratio) for ratio in ratios)
