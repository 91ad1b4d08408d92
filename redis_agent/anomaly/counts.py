"""Counts of one kind of event in closed windows: bursts, shifts of level, silence."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any, ClassVar, Final

from redis_agent.anomaly.episode import Kind, Verdict
from redis_agent.anomaly.expectation import Expectation, Forecast
from redis_agent.anomaly.fall import Fall
from redis_agent.anomaly.profile import weekday_of
from redis_agent.anomaly.score import ALERT_THRESHOLD, PRIOR, score_of
from redis_agent.anomaly.shift import UP, Excursion
from redis_agent.anomaly.tails import count_range, count_tail
from redis_agent.anomaly.watcher import DAY, Watcher, surprise_of
from redis_agent.anomaly.window import Window

_HOUR: Final = 3600.0
_HOUR_MS: Final = 3_600_000
_SATURDAY: Final = 5
_MOST_EVENTS: Final = 1e15
"""Floats count exactly up to here."""

# Too few may be told on weekends once one was seen.
_WEEK_AND_A_DAY: Final = 8 * DAY
# Without an event for so long, what comes next begins anew.
_FORGOTTEN_MS: Final = 28 * 86_400_000
# A day without events adds nothing more to the history: an hour of tests and a week of nothing is an hour and a day.
_LIVELY_MS: Final = 86_400_000
# What the detectors may spend of the chance of a false alarm.
_SHARES: Final = {"high": 0.4, "up": 0.25, "down": 0.2, "silence": 0.15}

# What is usual follows a fall within so long: campaigns fade out.
_FADING_SECONDS: Final = 12 * _HOUR
# The chance that a window is of the busiest kind known, whatever the hour: campaigns resume at any time.
_RESUMED: Final = 0.02
# A level no higher than this multiple of the highest known is not a new one.
_NOT_ABOVE_PEAK: Final = 1.25
_RECENT: Final = _HOUR
# A deviating window teaches the tail's history no more than this: it may be the anomaly itself.
_TAUGHT_BY_ONE: Final = 8.0
# Up to here it is called a burst or a low, not a shift.
_SHORT_MS: Final = 3_600_000
# A level that was left is known for two weeks, within this ratio.
_KNOWN_MS: Final = 14 * 86_400_000
_SAME_LEVEL: Final = 1.5
# The level of an episode is that of its last hours.
_EPISODE_MEMORY: Final = 6 * _HOUR
# How far from usual an episode's level is taken to be, at least and at most.
_RISEN: Final = 1.5
_FALLEN: Final = (0.05, 0.67)
_ROUNDING: Final = 5


class CountSeries(Watcher):
    """Events of one name, window after window; says when there are too many, too few, or none for too long.

    Expected is a negative binomial, the Gamma-Poisson mixture whose level is discounted with time (the power steady
    model: Smith 1979; West and Harrison 1997), times a profile by hour and day where the data supports one
    (`Profile`), with the dispersion estimated from discounted Pearson residuals (McCullagh and Nelder 1989).
    Four detectors look at a window and share one episode: the upper tail of the window; a CUSUM each for a level that
    rose and for one that fell (`Excursion`); and silence, the probability of no event over all that was expected since
    the last one. Each surprise is put in proportion to the history of its kind (`TailHistory`).

    Nothing is told before the series was watched for `warm_up_seconds` of weekdays since its first event and had events
    in `warm_up_hours` different hours; shifts and silence need twice the time, and too few on a weekend (UTC, from
    Friday noon to Monday noon) eight days, so that one weekend was seen. After four weeks without events all begins
    anew.

    Args:
        warm_up_seconds: Watched time since the first event, Monday to Friday, before a burst may be told.
        warm_up_hours: Clock hours with events before anything may be told.
        merge_seconds: What comes again within it belongs to the same episode.
        adopt_seconds: An episode that lasts so long is the new level.
    """

    _NUMBERS: ClassVar[tuple[str, ...]] = (
        "_history",
        "_workdays",
        "_hours",
        "_event_ms",
        "_recent",
        "_known",
        "_known_ms",
        "_episode_count",
        "_episode_expected",
    )

    def __init__(
        self,
        *,
        warm_up_seconds: float = DAY,
        warm_up_hours: int = 8,
        merge_seconds: float = 1800.0,
        adopt_seconds: float = DAY,
    ) -> None:
        self._fall = Fall(_FADING_SECONDS)
        super().__init__(
            _SHARES,
            Excursion(UP),
            self._fall.excursion,
            merge_seconds=merge_seconds,
            adopt_seconds=adopt_seconds,
        )
        self._warm_up_seconds = warm_up_seconds
        self._warm_up_hours = warm_up_hours
        self._begin()

    def _begin_anew(self) -> None:
        self._begin()
        self._forget_evidence()

    def _begin(self) -> None:
        self._expectation = Expectation()
        self._history = self._workdays = 0.0
        self._hours = 0
        self._event_ms = -1
        self._recent = 0.0
        self._known, self._known_ms = 0.0, 0
        self._episode_count = self._episode_expected = 0.0

    def examine(self, start_ms: int, seconds: float, count: float) -> Verdict:
        """Judges the window against what came before it, then learns from it.

        Args:
            start_ms: Its start, epoch milliseconds. A window that begins before the last one ended is ignored.
            seconds: Its length.
            count: Events in it; 0 when it was watched and none came.
        """
        if not 0.0 <= count <= _MOST_EVENTS:
            return self._unmeasured()
        end_ms = self._end_ms
        window = self._enter(start_ms, seconds)
        if window is None:
            return self._unmeasured()
        count = float(count)
        if self._event_ms < 0 and count == 0.0:
            return Verdict(PRIOR, (0.0, 0.0), count, None, "none")
        if 0 <= self._event_ms < start_ms - _FORGOTTEN_MS and count > 0.0 and self._tracker.episode is None:
            self._begin_anew()
        forecast = self._expectation.forecast(window)
        expected = count_range(forecast.mean, forecast.variance)
        if window.gap_seconds > self._tracker.merge_seconds:
            self._forget_evidence()
            if self._tracker.episode is not None:
                self._learn(window, count, forecast)
                return Verdict(PRIOR, expected, count, self._tracker.close(end_ms), "ended")
        if self._tracker.episode is not None:
            return self._go_on(window, count, forecast, expected)
        return self._watch(window, count, forecast, expected)

    # Watching.

    def _watch(self, window: Window, count: float, forecast: Forecast, expected: tuple[float, float]) -> Verdict:
        found = self._surprises(window, count, forecast)
        name, score = self._strongest(found, window)
        if score >= ALERT_THRESHOLD:
            self._histories[name].learn(found[name])
            if not self._returns(name, window):
                kind, began_ms = self._told_as(name, window)
                self._expectation.startle(count, forecast)
                self._episode_count, self._episode_expected = self._since(name, count, forecast)
                episode = self._tracker.open(kind, began_ms, window.start_ms, count, expected, score)
                return Verdict(score, expected, count, episode, "opened")
            score = PRIOR
        self._learn(window, count, forecast)
        return Verdict(score, expected, count, None, "none")

    def _surprises(self, window: Window, count: float, forecast: Forecast) -> dict[str, float]:
        """What each detector that may speak is surprised by; all of them take the window in."""
        histories, start_ms, dispersion = self._histories, window.start_ms, forecast.clustering
        share = 1.0 - exp(-window.seconds / _RECENT)
        self._recent = round(self._recent + share * (count / window.seconds - self._recent), 9)
        high = self._high(count, forecast)
        self._deviates(window, high)
        histories["high"].learn(min(high, _TAUGHT_BY_ONE))
        histories["up"].learn(self._up.update(window, count, forecast.base, forecast.rising, dispersion))
        bases = (forecast.base, forecast.earlier, forecast.later)
        fell, was_quiet = self._fall.update(window, count, bases, forecast.falling, dispersion)
        histories["down"].learn(fell)
        if was_quiet > 0.0:
            histories["silence"].learn(self._expectation.doubted(was_quiet, dispersion))
        if self._event_ms >= 0 and start_ms - self._event_ms <= _LIVELY_MS:
            self._history += window.seconds
            if weekday_of(start_ms) < _SATURDAY:
                self._workdays += window.seconds
        may_fall = self._knows_weekends or not _is_weekend(start_ms)
        if not may_fall:
            self._fall.reset()
        if self._hours < self._warm_up_hours or self._workdays <= self._warm_up_seconds:
            self._up.reset()
            self._fall.reset()
            return {}
        found = {"high": high}
        if self._workdays <= 2.0 * self._warm_up_seconds:
            self._up.reset()
            self._fall.reset()
            return found
        # What resumes is not new: it must be higher than the busiest hours known, or than a launch will soon be.
        known = _NOT_ABOVE_PEAK * self._expectation.profile.peak * self._up.factor
        if self._lasts(self._up, window) and self._recent > known:
            found["up"] = self._expectation.doubted(self._up.surprise, dispersion)
        if may_fall:
            if self._lasts(self._down, window):
                found["down"] = self._expectation.doubted(self._fall.surprise, dispersion)
            if self._fall.silent(window):
                found["silence"] = self._expectation.doubted(self._fall.quiet, dispersion)
        return found

    def _high(self, count: float, forecast: Forecast) -> float:
        """How surprising so many are: the upper tail around the highest usual mean, or the peak that is known."""
        high, deviation = forecast.high, sqrt(forecast.variance)
        if count <= high + deviation:
            return 0.0
        widened = forecast.variance * high / forecast.mean if forecast.mean > 0.0 else high
        p = count_tail(count, high, widened)
        if forecast.peak > high:
            p += _RESUMED * count_tail(count, forecast.peak, forecast.dispersion * forecast.peak)
        return surprise_of(p)

    def _returns(self, name: str, window: Window) -> bool:
        """Whether a shift only leads back to a level that is known; then that is the recent level at once."""
        excursion = self._down
        returns = (
            name == "down"
            and 0.0 < self._known < 1.0
            and window.start_ms - self._known_ms <= _KNOWN_MS
            and excursion.ratio >= self._known / _SAME_LEVEL
        )
        if returns:
            self._expectation.level(excursion.count, excursion.expected / excursion.factor)
            self._fall.reset()
        return returns

    def _told_as(self, name: str, window: Window) -> tuple[Kind, int]:
        """The kind and the beginning of what was found."""
        if name == "high":
            return "high", self._run_ms
        if name == "silence" or (name == "down" and self._fall.silent(window)):
            return "silence", self._fall.quiet_since_ms
        excursion = self._up if name == "up" else self._down
        short = window.end_ms - excursion.began_ms <= _SHORT_MS
        if name == "up":
            return ("high" if short else "shift_up"), excursion.began_ms
        return ("low" if short else "shift_down"), excursion.began_ms

    def _since(self, name: str, count: float, forecast: Forecast) -> tuple[float, float]:
        """Counted and expected in the episode so far."""
        if name == "high":
            return count, round(forecast.mean, _ROUNDING)
        if name == "silence":
            return 0.0, round(self._fall.quiet * forecast.clustering, _ROUNDING)
        excursion = self._up if name == "up" else self._down
        return excursion.count, excursion.expected

    # An episode goes on.

    def _go_on(self, window: Window, count: float, forecast: Forecast, expected: tuple[float, float]) -> Verdict:
        tracker = self._tracker
        fade = exp(-window.seconds / _EPISODE_MEMORY)
        self._episode_count = round(self._episode_count * fade + count, _ROUNDING)
        self._episode_expected = round(self._episode_expected * fade + forecast.mean, _ROUNDING)
        ratio = self._episode_ratio()
        away = (count * log(ratio) - forecast.mean * (ratio - 1.0)) / forecast.clustering
        score = PRIOR
        if tracker.rising:
            score = score_of(exp(-self._histories["high"].calibrated(self._high(count, forecast))))
        phase = tracker.go_on(window.start_ms, window.end_ms, count, expected, score, -away)
        score = max(score, tracker.standing)
        if phase == "ended":
            self._forget_evidence()
            return Verdict(score, expected, count, tracker.closed, "ended")
        if self._adoptable(window):
            self._adopt(ratio, window)
            return Verdict(score, expected, count, tracker.close(window.end_ms), "ended")
        return Verdict(score, expected, count, tracker.episode, "goes_on")

    def _episode_ratio(self) -> float:
        """How far the episode's level is from the usual one, clearly on its side of it."""
        ratio = self._episode_count / self._episode_expected if self._episode_expected > 0.0 else 1.0
        return max(_RISEN, ratio) if self._tracker.rising else min(max(_FALLEN[0], ratio), _FALLEN[1])

    def _adopt(self, ratio: float, window: Window) -> None:
        """What lasts is the usual level from now on; the one before stays known for a while."""
        if ratio <= _FALLEN[0]:
            # It ended. What comes next has a warm-up of its own; only how busy it was stays known.
            peak = self._expectation.profile.peak
            self._begin_anew()
            self._expectation.profile.peak = peak
            return
        self._expectation.scale(ratio)
        self._known, self._known_ms = 1.0 / ratio, window.end_ms
        self._forget_evidence()

    def _forget_evidence(self) -> None:
        super()._forget_evidence()
        self._fall.reset()

    # Learning.

    def _learn(self, window: Window, count: float, forecast: Forecast) -> None:
        """Takes the window in."""
        if count > 0.0:
            if self._event_ms < 0 or window.start_ms // _HOUR_MS != self._event_ms // _HOUR_MS:
                self._hours += 1
            self._event_ms = window.start_ms
        known = self._history > self._warm_up_seconds
        knows_workdays = self._workdays > self._warm_up_seconds
        new_day = knows_workdays and not self._knows_weekends and weekday_of(window.start_ms) >= _SATURDAY
        self._expectation.learn(window, count, forecast, known=known, new_day=new_day)

    @property
    def _knows_weekends(self) -> bool:
        return self._history > _WEEK_AND_A_DAY

    def _extra_state(self) -> list[Any]:
        return [self._fall.state(), self._expectation.state()]

    def _restore_extra(self, state: list[Any]) -> None:
        fall, expectation = state
        self._fall.restore(fall)
        self._expectation.restore(expectation)


def _is_weekend(at_ms: int) -> bool:
    """Saturday and Sunday anywhere on earth: Friday noon to Monday noon, UTC."""
    day = weekday_of(at_ms)
    hour = at_ms // _HOUR_MS % 24
    return day >= _SATURDAY or (day == 4 and hour >= 12) or (day == 0 and hour < 12)
