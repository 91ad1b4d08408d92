"""Too few, or none at all, by three clocks."""

from __future__ import annotations

from typing import Any, Final

from redis_agent.anomaly.shift import DOWN, Excursion
from redis_agent.anomaly.window import Window

_CLOCKS: Final = 3
_CHANGE: Final = 3.0
# Silence must have lasted so long.
_QUIET_MS: Final = 1_800_000
_ROUNDING: Final = 4


class Fall:
    """Evidence that the level fell, and what was expected since the last event.

    Both are kept by the profile as it is, and by the profile an hour earlier and an hour later: clocks are changed
    twice a year, and offices open late. Only what is too little by all three is too little. As clocks change between
    one day and the next, evidence by one of them is never more than a little above that by another: the level fell
    only if no sequence of clocks explains it, a change of clocks costing 3 nats.

    Args:
        following_seconds: As for `Excursion`.
    """

    __slots__ = ("_alike", "_others", "_peak", "_quiet", "excursion", "quiet_since_ms")

    def __init__(self, following_seconds: float) -> None:
        self.excursion = Excursion(DOWN, following_seconds)
        self._others = tuple(Excursion(DOWN, following_seconds) for _ in range(_CLOCKS - 1))
        self._begin()

    def reset(self) -> None:
        """Forgets what was seen."""
        self.excursion.reset()
        for other in self._others:
            other.reset()
        self._begin()

    def _begin(self) -> None:
        self._alike = False
        self._quiet = [0.0] * _CLOCKS
        self.quiet_since_ms = 0
        self._peak = 0.0

    def update(
        self, window: Window, count: float, bases: tuple[float, float, float], factor: float, dispersion: float
    ) -> tuple[float, float]:
        """Adds a window.

        Args:
            window: When.
            count: What was counted.
            bases: What the profile expects of it now, an hour earlier and an hour later.
            factor: The least that is usual, as a multiple of these.
            dispersion: Variance over mean.

        Returns:
            The peak of an excursion, and the expected events of a silence, that are over with this window; else 0.
        """
        ended = 0.0
        if count > 0.0:
            if self._quiet[0] > 0.0:
                ended = min(self._quiet)
                self._quiet = [0.0] * _CLOCKS
        else:
            share = factor / dispersion
            if self._quiet[0] <= 0.0:
                self.quiet_since_ms = window.start_ms
            quiets = [round(quiet + base * share, _ROUNDING) for quiet, base in zip(self._quiet, bases, strict=True)]
            most = min(quiets) + _CHANGE
            self._quiet = [min(quiet, most) for quiet in quiets]
        before = self.excursion.windows
        self.excursion.update(window, count, bases[0], factor, dispersion)
        if not self.excursion.windows:
            peak, self._peak = self._peak, 0.0
            if before:
                for other in self._others:
                    other.reset()
            return peak, ended
        earlier, later = bases[1:]
        self._alike = earlier == bases[0] == later
        for other, base in zip(self._others, (earlier, later), strict=True):
            if not self._alike:
                other.update(window, count, base, factor, dispersion)
            elif other.windows:
                other.reset()
        if not self._alike and self.excursion.largest > _CHANGE:
            excursions = (self.excursion, *self._others)
            limits = [round(min(sums) + _CHANGE, _ROUNDING) for sums in zip(*(e.sums for e in excursions), strict=True)]
            for excursion in excursions:
                excursion.limit(limits)
        self._peak = max(self._peak, round(self.surprise, _ROUNDING))
        return 0.0, ended

    @property
    def surprise(self) -> float:
        """Of the least surprised clock; without a profile all of them show the same."""
        if self._alike:
            return self.excursion.surprise
        first, second = self._others
        return min(self.excursion.surprise, first.surprise, second.surprise)

    @property
    def quiet(self) -> float:
        """Expected since the last event, in dispersions."""
        return min(self._quiet)

    def silent(self, window: Window) -> bool:
        """Whether there was no event for so long that this is most of what speaks for a fall."""
        quiet = self.quiet
        return quiet > 0.0 and window.end_ms - self.quiet_since_ms >= _QUIET_MS and 2.0 * quiet >= self.surprise

    def state(self) -> list[Any]:
        """What is to be kept besides the excursion of the first clock."""
        others = [other.state() for other in self._others]
        return [self._peak, self.quiet_since_ms, self._quiet, *others]

    def restore(self, state: list[Any]) -> None:
        """Goes on from what was kept."""
        self._peak, self.quiet_since_ms, self._quiet, *others = state
        for other, kept in zip(self._others, others, strict=True):
            other.restore(kept)
