"""What is expected of a window's count: the profile of the series, its recent level, and how far counts scatter."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log1p, sqrt
from typing import Any, Final

from redis_agent.anomaly.profile import Profile
from redis_agent.anomaly.window import Window

_HOUR: Final = 3600.0

# The dispersion fades by five days; five events at 1.5 stand in for what is not known yet.
_DISPERSION_MEMORY: Final = 5 * 24 * _HOUR
_DISPERSION_EVENTS: Final = 5.0
_DISPERSION_PRIOR: Final = 1.5
# Blocks of three hours, faded by 80 of them that had events.
_BLOCK_MS: Final = 10_800_000
_PER_BLOCK: Final = 0.9875
_CLUSTERING_EVENTS: Final = 10.0
# The recent level, as a ratio to the profile, fades by so many expected events, or those of so long if they are more.
_LEVEL_EVENTS: Final = 100.0
_LEVEL_SECONDS: Final = 12 * _HOUR
_LEVEL_PRIOR: Final = 5.0
# A trend is taken to go on: upwards by half of what it was, downwards by all of it, for campaigns fade out.
_GROWTH: Final = 1.5
_FADE: Final = 2.0
# What is further out than so many deviations teaches no more than them.
_FAR_OUT: Final = 4.0
# Nor does the window that was told as an anomaly, than so many.
_STARTLING: Final = 12.0
_ROUNDING: Final = 5


@dataclass(slots=True)
class Forecast:
    """What is expected of a window's count.

    Attributes:
        base: what the profile says.
        earlier: what it says of an hour before.
        later: what it says of an hour after.
        mean: base times the recent level.
        falling: the lowest level, as a factor of the base, that would still be usual.
        rising: the highest.
        variance: of the predictive distribution around the mean.
        peak: what a window of the busiest hour known has.
        dispersion: variance over mean for a known level.
        clustering: variance over mean of the counts of hours: more, where events bring others.
    """

    base: float
    earlier: float
    later: float
    mean: float
    falling: float
    rising: float
    variance: float
    peak: float
    dispersion: float
    clustering: float

    @property
    def high(self) -> float:
        """The highest mean that would still be usual."""
        return self.base * self.rising


class Expectation:
    """A Gamma-Poisson level on a profile, with a dispersion.

    The level is Gamma with events over expected events, both discounted (the power steady model: Smith 1979; West and
    Harrison 1997). The dispersion is the discounted sum of squared deviations over that of means, Pearson's
    estimate weighted by the mean (McCullagh and Nelder 1989). So the predictive distribution is a negative
    binomial with the mean ``b L`` and the variance ``phi b L + (phi / E) b^2 L + L^2 V``: of the counts, of the level L
    after E expected events, and V of the profile's rate b.
    """

    __slots__ = (
        "_block",
        "_block_mean",
        "_block_off",
        "_events",
        "_expected",
        "_long",
        "_means",
        "_squares",
        "profile",
    )

    def __init__(self) -> None:
        self.profile = Profile()
        self._squares = self._means = 0.0
        self._events = self._expected = 0.0
        self._block = -1
        self._block_off = self._block_mean = 0.0
        # Squares and means of whole blocks.
        self._long = (0.0, 0.0)

    @property
    def dispersion(self) -> float:
        """Variance of a window's count over its mean; at least 1."""
        known = self._means + _DISPERSION_EVENTS
        return max(1.0, (self._squares + _DISPERSION_EVENTS * _DISPERSION_PRIOR) / known)

    def clustering(self, dispersion: float) -> float:
        """The dispersion over blocks of hours; at least that of windows."""
        squares, means = self._long
        return max(dispersion, (squares + _CLUSTERING_EVENTS * dispersion) / (means + _CLUSTERING_EVENTS))

    def forecast(self, window: Window) -> Forecast:
        """What the next window is expected to bring."""
        dispersion, seconds, profile = self.dispersion, window.seconds, self.profile
        rate, doubt, earlier, later = profile.rate(window.middle_ms, dispersion)
        prior = _LEVEL_PRIOR * dispersion
        known = self._expected + prior
        level = (self._events + prior) / known
        unsure = 1.0 + sqrt(dispersion / profile.total) if profile.total > dispersion else 2.0
        base = rate * seconds
        mean = base * level
        variance = dispersion * mean + base * mean * dispersion / known + (level * seconds) ** 2 * doubt
        falling = (level**_FADE if level < 1.0 else 1.0) / unsure
        rising = (level**_GROWTH if level > 1.0 else 1.0) * unsure
        return Forecast(
            base,
            earlier * seconds,
            later * seconds,
            mean,
            falling,
            rising,
            variance,
            profile.peak * seconds,
            dispersion,
            self.clustering(dispersion),
        )

    def doubted(self, surprise: float, dispersion: float) -> float:
        """What is left of a surprise q at a known level when the level is Gamma with shape a: ``a ln(1 + q / a)``.

        For silence this is exact: -ln P(no event), over q expected events.
        """
        shape = self.profile.total / dispersion + 1.0
        return shape * log1p(surprise / shape)

    def learn(self, window: Window, count: float, forecast: Forecast, *, known: bool, new_day: bool) -> None:
        """Takes a window in.

        Args:
            window: The window.
            count: What was counted.
            forecast: What was expected of it.
            known: The series has a history: what lies far out teaches only up to a bound (Huber 1964).
            new_day: A day of the week that was never seen teaches only what such days are like, not the level.
        """
        taught, mean, dispersion = count, forecast.mean, forecast.dispersion
        if known:
            bound = forecast.high + _FAR_OUT * (sqrt(forecast.variance) + dispersion)
            taught = min(count, max(bound, forecast.peak))
        self.profile.learn(window.middle_ms, window.seconds, taught, new_day=new_day)
        if new_day:
            return
        fade = exp(-window.seconds / _DISPERSION_MEMORY)
        if self._expected > 0.0:
            self._squares = round(self._squares * fade + (taught - mean) ** 2, _ROUNDING)
            self._means = round(self._means * fade + mean, _ROUNDING)
            self._learn_block(window.start_ms // _BLOCK_MS, taught - mean, forecast)
        fade = exp(-forecast.base / max(_LEVEL_EVENTS * dispersion, _LEVEL_SECONDS * self.profile.mean))
        self._events = round(self._events * fade + taught, _ROUNDING)
        self._expected = round(self._expected * fade + forecast.base, _ROUNDING)

    def _learn_block(self, block: int, off: float, forecast: Forecast) -> None:
        """Adds up blocks of hours; one far out teaches no more than two deviations (Huber 1964)."""
        if block != self._block:
            squares, means = self._long
            most = _FAR_OUT * forecast.clustering * self._block_mean
            squares = round(squares * _PER_BLOCK + min(self._block_off * self._block_off, most), _ROUNDING)
            self._long = squares, round(means * _PER_BLOCK + self._block_mean, _ROUNDING)
            self._block, self._block_off, self._block_mean = block, 0.0, 0.0
        self._block_off = round(self._block_off + off, _ROUNDING)
        self._block_mean = round(self._block_mean + forecast.mean, _ROUNDING)

    def startle(self, count: float, forecast: Forecast) -> None:
        """Takes in that a series can do this at all, for the dispersion alone: what comes again surprises less."""
        bound = _STARTLING * (sqrt(forecast.variance) + forecast.dispersion)
        off = min(max(count - forecast.mean, 0.0), bound)
        self._squares = round(self._squares + off * off, _ROUNDING)

    def level(self, count: float, expected: float) -> None:
        """Sets the recent level by what was counted where so much was expected."""
        self._events, self._expected = round(count, _ROUNDING), round(expected, _ROUNDING)

    def scale(self, ratio: float) -> None:
        """Moves to another level for good."""
        self.profile.scale(ratio)
        self._events = self._expected = 0.0

    def state(self) -> list[Any]:
        """What is to be kept."""
        block = [self._block, self._block_off, self._block_mean, *self._long]
        return [self._squares, self._means, self._events, self._expected, block, self.profile.state()]

    def restore(self, state: list[Any]) -> None:
        """Goes on from what was kept."""
        self._squares, self._means, self._events, self._expected, block, profile = state
        self._block, self._block_off, self._block_mean, *long = block
        self._long = (long[0], long[1])
        self.profile.restore(profile)
