"""The usual rate of a series by hour of day and day of week, as far as its history supports one.

Counts and exposures are kept for 24 hours of the day and 7 days of the week (UTC). How far an hour's own rate is
trusted against the mean of all is Buehlmann and Straub's credibility (1970), with the variance between hours estimated
from the data: where the hours do not differ by more than chance, every hour has the mean rate, and nothing is lost by
having looked.
"""

from __future__ import annotations

from math import exp, inf, sqrt
from typing import Any, Final

_HOURS: Final = 24
_DAYS: Final = 7
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_THURSDAY: Final = 3
"""1 January 1970, where Monday is 0."""

# An hour's own past fades by this many hours' worth of it: two weeks.
_HOUR_MEMORY_SECONDS: Final = 14 * 3600.0
# A day's, by six weeks.
_DAY_MEMORY_SECONDS: Final = 6 * 86_400.0
# A day with hardly an event is no chance deviation from the mean: it is drawn to it by so many events at most.
_EMPTY_DAY: Final = 2.0
# Deviations between hours must exceed what chance makes by so many of its standard deviations.
_BEYOND_CHANCE: Final = 2.0
# The highest known rate fades by four weeks.
_PEAK_MEMORY_SECONDS: Final = 28 * 86_400.0
# A scaled profile keeps this much at least of what it knew.
_LEAST_SCALE: Final = 0.01
# The quietest so many hours are looked for, after so much time.
_QUIET_HOURS: Final = 6
_DAWN_SECONDS: Final = 30 * 3600.0
# So many bins must have been seen before they are compared.
_FEWEST: Final = 5
# Decimals of what is kept: the live value is the rounded one, so that text keeps it exactly.
_ROUNDING: Final = 3


def weekday_of(at_ms: int) -> int:
    """Day of the week, UTC; Monday is 0."""
    return (at_ms // _DAY_MS + _THURSDAY) % _DAYS


class Profile:
    """Expected events per second at a time of the week, with the variance of that expectation.

    Cost: a window touches one hour and one day; once an hour all of them are weighed anew.
    """

    __slots__ = (
        "_after",
        "_before",
        "_dawn",
        "_day_counts",
        "_day_credibility",
        "_day_expected",
        "_hour_counts",
        "_hour_credibility",
        "_hour_seconds",
        "_slot",
        "mean",
        "peak",
        "total",
    )

    def __init__(self) -> None:
        self._hour_counts = [0.0] * _HOURS
        self._hour_seconds = [0.0] * _HOURS
        self._day_counts = [0.0] * _DAYS
        self._day_expected = [0.0] * _DAYS
        # Exposure at which an hour's own rate weighs as much as the mean, seconds; infinite: never.
        self._hour_credibility = inf
        self._day_credibility = inf
        self._slot = -1
        self._before = self._after = 0.0
        # The hour (UTC) at which a day begins: in the quietest hours, wherever on earth they are; -1 until known.
        self._dawn = -1
        self.mean = 0.0
        self.peak = 0.0
        self.total = 0.0

    def rate(self, at_ms: int, dispersion: float) -> tuple[float, float, float, float]:
        """Expected rate at this time, per second.

        Args:
            at_ms: Middle of the window.
            dispersion: Variance of a count over its mean.

        Returns:
            The rate, its variance, and the rates of an hour before and after.
        """
        slot = at_ms // _HOUR_MS
        if slot != self._slot:
            self._weigh(at_ms, dispersion)
        rate, variance = self._hour_rate(slot % _HOURS, dispersion)
        factor = self._day_factor(self._day_of(at_ms))
        rate *= factor
        return rate, variance * factor * factor, self._before, self._after

    def _hour_rate(self, hour: int, dispersion: float) -> tuple[float, float]:
        credibility = self._hour_credibility
        mean = self.mean
        spread = dispersion * mean
        if credibility == inf:
            total = self.total
            return mean, spread * mean / total if total > 0.0 else 0.0
        seconds = self._hour_seconds[hour]
        weight = seconds / (seconds + credibility)
        return mean + weight * (self._hour_counts[hour] / seconds - mean if seconds else 0.0), (1.0 - weight) * (
            spread / credibility
        )

    def _day_of(self, at_ms: int) -> int:
        return weekday_of(at_ms - max(self._dawn, 0) * _HOUR_MS)

    def _find_dawn(self) -> None:
        """Once hours differ: the middle of the quietest hours. Days are counted from then on."""
        rates = [count / max(seconds, 1) for count, seconds in zip(self._hour_counts, self._hour_seconds, strict=True)]
        quietest = min(range(_HOURS), key=lambda first: sum((rates + rates)[first : first + _QUIET_HOURS]))
        self._dawn = (quietest + _QUIET_HOURS // 2) % _HOURS
        self._day_counts = [0.0] * _DAYS
        self._day_expected = [0.0] * _DAYS

    def _day_factor(self, day: int) -> float:
        if self._day_credibility == inf:
            return 1.0
        count = self._day_counts[day]
        credibility = min(self._day_credibility, count + _EMPTY_DAY)
        return (count + credibility) / (self._day_expected[day] + credibility)

    def learn(self, at_ms: int, seconds: float, count: float, *, new_day: bool = False) -> None:
        """Takes a window in; one of a new kind of day teaches that day alone."""
        hour, day = at_ms // _HOUR_MS % _HOURS, self._day_of(at_ms)
        factor = self._day_factor(day)
        if not new_day:
            fade = exp(-seconds / _HOUR_MEMORY_SECONDS)
            self._hour_counts[hour] = round(self._hour_counts[hour] * fade + count, _ROUNDING)
            self._hour_seconds[hour] = round(self._hour_seconds[hour] * fade + seconds * factor)
        expected = self._hour_rate(hour, 1.0)[0] * seconds
        fade = exp(-seconds / _DAY_MEMORY_SECONDS)
        self._day_counts[day] = round(self._day_counts[day] * fade + count, _ROUNDING)
        self._day_expected[day] = round(self._day_expected[day] * fade + expected, _ROUNDING)
        if self.mean <= 0.0:
            self.mean = count / seconds
            self.total = count

    def scale(self, ratio: float) -> None:
        """Moves the whole profile to another level; its shape stays."""
        ratio = max(ratio, _LEAST_SCALE)
        self._hour_counts = [round(count * ratio, _ROUNDING) for count in self._hour_counts]
        self._day_counts = [round(count * ratio, _ROUNDING) for count in self._day_counts]
        self._day_expected = [round(count * ratio, _ROUNDING) for count in self._day_expected]
        self.mean *= ratio
        self.total *= ratio
        self._slot = -1

    def _weigh(self, at_ms: int, dispersion: float) -> None:
        """Once an hour: the mean, how much hours and days differ, and the highest rate known."""
        slot = at_ms // _HOUR_MS
        elapsed = (slot - self._slot) * _HOUR_MS / 1000.0 if self._slot >= 0 else 0.0
        self._slot = slot
        self.total = round(sum(self._hour_counts), _ROUNDING)
        seconds = sum(self._hour_seconds)
        if seconds > 0.0:
            self.mean = _short(self.total / seconds)
            self._hour_credibility = _credibility(self._hour_counts, self._hour_seconds, self.mean, dispersion)
        if self._dawn < 0 and seconds >= _DAWN_SECONDS and self._hour_credibility != inf:
            self._find_dawn()
        expected = sum(self._day_expected)
        if expected > 0.0:
            ratio = sum(self._day_counts) / expected
            self._day_credibility = _credibility(self._day_counts, self._day_expected, ratio, dispersion)
        highest = max(self._hour_rate(hour, dispersion)[0] for hour in range(_HOURS))
        highest *= max(self._day_factor(day) for day in range(_DAYS))
        faded = self.peak * exp(-min(elapsed, _PEAK_MEMORY_SECONDS) / _PEAK_MEMORY_SECONDS)
        self.peak = _short(max(highest, faded))
        self._before, self._after = (
            _short(self._hour_rate(near // _HOUR_MS % _HOURS, dispersion)[0] * self._day_factor(self._day_of(near)))
            for near in (at_ms - _HOUR_MS, at_ms + _HOUR_MS)
        )

    def supported(self) -> bool:
        """Whether hours or days are told apart."""
        return self._hour_credibility != inf or self._day_credibility != inf

    def state(self) -> list[Any]:
        """What is to be kept."""
        return [
            [_plain(count) for count in self._hour_counts],
            [_plain(seconds) for seconds in self._hour_seconds],
            [_plain(count) for count in self._day_counts],
            [_plain(count) for count in self._day_expected],
            None if self._hour_credibility == inf else self._hour_credibility,
            None if self._day_credibility == inf else self._day_credibility,
            self._slot,
            self._dawn,
            self._before,
            self._after,
            self.mean,
            self.peak,
            self.total,
        ]

    def restore(self, state: list[Any]) -> None:
        """Goes on from what was kept."""
        hours, seconds, days, expected, hour_credibility, day_credibility, *rest = state
        self._hour_counts = [float(count) for count in hours]
        self._hour_seconds = [float(length) for length in seconds]
        self._day_counts = [float(count) for count in days]
        self._day_expected = [float(count) for count in expected]
        self._hour_credibility = inf if hour_credibility is None else hour_credibility
        self._day_credibility = inf if day_credibility is None else day_credibility
        self._slot, self._dawn, self._before, self._after, self.mean, self.peak, self.total = rest


def _short(value: float) -> float:
    """Seven digits: enough, and short as text."""
    return float(f"{value:.6e}")


def _plain(value: float) -> float | int:
    """Whole numbers without ".0": the state is kept as text."""
    whole = int(value)
    return whole if whole == value else value


def _credibility(counts: list[float], exposures: list[float], mean: float, dispersion: float) -> float:
    """The exposure at which a bin is trusted half; infinite where the bins differ by chance alone.

    Buehlmann and Straub (1970): the variance between the bins, from the weighted squares of their deviations less what
    the variance within explains.
    """
    total = squares = deviations = 0.0
    bins = 0
    for count, exposure in zip(counts, exposures, strict=True):
        if exposure > 0.0:
            bins += 1
            total += exposure
            squares += exposure * exposure
            deviation = count - mean * exposure
            deviations += deviation * deviation / exposure
    within = dispersion * mean
    chance = (bins - 1) * within
    if bins < _FEWEST or within <= 0.0 or deviations <= chance + _BEYOND_CHANCE * within * sqrt(2.0 * (bins - 1)):
        return inf
    between = (deviations - chance) / (total - squares / total)
    return _short(within / between)
