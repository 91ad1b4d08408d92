"""What a series usually is at this hour of a working day, or of a weekend."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

HOURS: Final = 48
"""Those of a working day, then those of a weekend day: what people do differs most between the two."""

DAYS_BEFORE_USE: Final = 2
"""Visits of an hour before its mean says anything: two working days, or one weekend."""

_NEWEST: Final = 0.2
"""Weight of the newest visit once there are five: the profile follows a change within a working week."""

_NEWEST_RESIDUAL: Final = 0.02
"""Weight of the newest value in the variance of its hour once there are fifty."""


class DailyProfile:
    """Mean of the values in each of `HOURS`, over the last days.

    Each visit of an hour (one day's values in it, many or one) counts once, so that a dense day does not
    outweigh a sparse one. A visit is learnt when the next begins, so that it is not compared with itself.
    How far values lie from the mean is kept for each hour too: nights are quiet, and office hours are not.
    """

    __slots__ = ("_count", "_day", "_hour", "_means", "_residuals", "_sum", "_variances", "_visits")

    def __init__(self) -> None:
        self._means = [0.0] * HOURS
        self._visits = [0] * HOURS
        self._variances = [0.0] * HOURS
        self._residuals = [0] * HOURS
        self._day = self._hour = -1
        self._sum = 0.0
        self._count = 0

    def expected(self, timestamp: datetime) -> float | None:
        """Return the usual value at this hour, or None until it was seen on `DAYS_BEFORE_USE` days."""
        hour = _hour(timestamp)
        return self._means[hour] if self._visits[hour] >= DAYS_BEFORE_USE else None

    def variance(self, timestamp: datetime) -> float:
        """Return the mean square of what lay between the values of this hour and what was expected; 0 if unknown."""
        return self._variances[_hour(timestamp)]

    def learn(self, timestamp: datetime, value: float) -> None:
        """Take a value in. A timestamp that steps back opens a new visit, no more."""
        hour, day = _hour(timestamp), timestamp.toordinal()
        if hour != self._hour or day != self._day:
            self._close()
            self._hour, self._day = hour, day
        self._sum += value
        self._count += 1
        if self._visits[hour] >= DAYS_BEFORE_USE:
            self._residuals[hour] = min(self._residuals[hour] + 1, round(1 / _NEWEST_RESIDUAL))
            square = (value - self._means[hour]) ** 2
            self._variances[hour] += (square - self._variances[hour]) / self._residuals[hour]

    def _close(self) -> None:
        if not self._count:
            return
        hour = self._hour
        self._visits[hour] = min(self._visits[hour] + 1, round(1 / _NEWEST))
        self._means[hour] += (self._sum / self._count - self._means[hour]) / self._visits[hour]
        self._sum = 0.0
        self._count = 0

    def state(self) -> dict[str, Any]:
        """Return all that is remembered, as plain JSON values."""
        return {
            "means": list(self._means),
            "visits": list(self._visits),
            "variances": list(self._variances),
            "residuals": list(self._residuals),
            "open": [self._day, self._hour, self._sum, self._count],
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> DailyProfile:
        """Return what `state` described."""
        profile = cls()
        profile._means = list(state["means"])
        profile._visits = list(state["visits"])
        profile._variances = list(state["variances"])
        profile._residuals = list(state["residuals"])
        profile._day, profile._hour, profile._sum, profile._count = state["open"]
        return profile


def _hour(timestamp: datetime) -> int:
    """Return which of `HOURS` it is."""
    return timestamp.hour + (24 if timestamp.weekday() >= 5 else 0)
