"""Rates in closed windows: successes among trials, such as bounces among emails sent."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, log1p, sqrt
from typing import ClassVar, Final

from redis_agent.anomaly.episode import Kind, Verdict
from redis_agent.anomaly.score import ALERT_THRESHOLD, PRIOR, score_of
from redis_agent.anomaly.shift import Excursion
from redis_agent.anomaly.tails import success_range, success_tail
from redis_agent.anomaly.watcher import DAY, Watcher, surprise_of
from redis_agent.anomaly.window import Window

# Ratios of odds that are looked for.
_UP: Final = (2.0, 4.0)
_DOWN: Final = (0.5, 0.2)
# What the detectors may spend of the chance of a false alarm.
_SHARES: Final = {"high": 0.3, "low": 0.2, "up": 0.3, "down": 0.2}

# The rate fades by so many trials, and by so much time.
_TRIALS_MEMORY: Final = 20_000.0
_MEMORY_SECONDS: Final = 14 * DAY
# Jeffreys' prior.
_PRIOR_SHAPE: Final = 0.5
# So much expected variance at this dispersion stands in for what is not known yet.
_DISPERSION_VARIANCE: Final = 5.0
_DISPERSION_PRIOR: Final = 1.3
_NARROWEST: Final = 0.05
"""Sum of the shapes of the widest Beta that is expected."""

_TAUGHT_BY_ONE: Final = 8.0
# What is far out teaches as if it were so many standard deviations and successes away.
_FAR_OUT: Final = (5.0, 3.0)
# So far away at most is what the window that was told as an anomaly teaches.
_STARTLING: Final = 12.0
# Up to here it is called high or low, not a shift.
_SHORT_MS: Final = 3_600_000
# Windows without trials need not be shown: only after so long without one nothing is carried over.
_LONGEST_GAP: Final = DAY
# Less than this says nothing about a rate.
_LEAST_TRIALS: Final = 50.0
_MOST_TRIALS: Final = 10**12
_EPISODE_MEMORY: Final = 6 * 3600.0
# How far the odds of an episode are taken to be from the usual ones, at least.
_RISEN: Final = 1.5
_FALLEN: Final = 0.67
_ROUNDING: Final = 6


@dataclass(slots=True)
class _Outlook:
    """What is expected of a window's successes.

    Attributes:
        rate: mean of the posterior.
        a: first shape of the Beta whose beta-binomial is expected.
        b: second shape.
        dispersion: variance over a binomial's, for a known rate.
        expected: central 95 % of the rate of a window with so many trials.
    """

    rate: float
    a: float
    b: float
    dispersion: float
    expected: tuple[float, float]


class RateSeries(Watcher):
    """A rate, window after window; says when it is too high or too low for its trials.

    Expected is a beta-binomial (Skellam 1948) around a rate whose Beta posterior is discounted (power steady model,
    Smith 1979), widened to the dispersion that the discounted Pearson residuals show (Williams 1982). Two tails of
    the window and two CUSUMs (`Excursion`, on ratios of odds) share one episode, each put in proportion to its own
    history (`TailHistory`).

    What exceeds the trials (a reply comes later than its email) waits for the trials of later windows. Windows without
    trials say nothing, and may as well be left out. Nothing is told before `warm_up_seconds` have passed since the
    first trial, with trials in `warm_up_windows` windows and 50 in all.

    Args:
        warm_up_seconds: Time since the first trial before anything may be told.
        warm_up_windows: Windows with trials before anything may be told.
        merge_seconds: What comes again within it belongs to the same episode.
        adopt_seconds: An episode that lasts so long is the new rate.
    """

    _NUMBERS: ClassVar[tuple[str, ...]] = (
        "_history",
        "_measured",
        "_waiting",
        "_successes",
        "_trials",
        "_squares",
        "_variances",
        "_episode_successes",
        "_episode_trials",
    )

    def __init__(
        self,
        *,
        warm_up_seconds: float = DAY,
        warm_up_windows: int = 10,
        merge_seconds: float = 1800.0,
        adopt_seconds: float = DAY,
    ) -> None:
        super().__init__(
            _SHARES, Excursion(_UP), Excursion(_DOWN), merge_seconds=merge_seconds, adopt_seconds=adopt_seconds
        )
        self._warm_up_seconds = warm_up_seconds
        self._warm_up_windows = warm_up_windows
        self._history = 0.0
        self._measured = 0
        self._waiting = 0
        self._successes = self._trials = 0.0
        self._squares = self._variances = 0.0
        self._episode_successes = self._episode_trials = 0.0

    def examine(self, start_ms: int, seconds: float, successes: int, trials: int) -> Verdict:
        """Judges the window against what came before it, then learns from it.

        Args:
            start_ms: Its start, epoch milliseconds. A window that begins before the last one ended is ignored.
            seconds: Its length.
            successes: Counted in it.
            trials: Among how many; 0 says nothing about the rate.
        """
        if not (0 <= successes <= _MOST_TRIALS and 0 <= trials <= _MOST_TRIALS):
            return self._unmeasured()
        end_ms = self._end_ms
        window = self._enter(start_ms, seconds)
        if window is None:
            return self._unmeasured()
        tracker = self._tracker
        if window.gap_seconds > _LONGEST_GAP:
            self._forget_evidence()
            if tracker.episode is not None:
                return Verdict(PRIOR, (0.0, 0.0), None, tracker.close(end_ms), "ended")
        if self._measured:
            self._history += seconds + min(window.gap_seconds, _LONGEST_GAP)
        hits = min(successes + self._waiting, trials)
        self._waiting = min(successes + self._waiting - hits, _MOST_TRIALS) if self._measured or trials else 0
        if not trials:
            if not self._adoptable(window):
                return self._unmeasured()
            self._adopt()
            return Verdict(PRIOR, (0.0, 0.0), None, tracker.close(window.end_ms), "ended")
        outlook = self._expect(trials)
        if tracker.episode is not None:
            return self._go_on(window, hits, trials, outlook)
        return self._watch(window, hits, trials, outlook)

    # Expecting.

    @property
    def dispersion(self) -> float:
        """Variance of the successes over that of a binomial; at least 1."""
        known = self._variances + _DISPERSION_VARIANCE
        return max(1.0, (self._squares + _DISPERSION_VARIANCE * _DISPERSION_PRIOR) / known)

    def _expect(self, trials: int) -> _Outlook:
        dispersion = self.dispersion
        total = self._trials + 2.0 * _PRIOR_SHAPE
        rate = (self._successes + _PRIOR_SHAPE) / total
        precision = total / dispersion
        if trials > 1:
            # Variance over n p q: the dispersion and n / total of doubt; of a beta-binomial, 1 + (n - 1) / (M + 1).
            widened = dispersion * (1.0 + trials / total)
            precision = min(precision, (trials - 1.0) / max(widened - 1.0, 1e-9) - 1.0)
        precision = max(precision, _NARROWEST)
        a, b = rate * precision, (1.0 - rate) * precision
        low, high = success_range(trials, a, b)
        return _Outlook(rate, a, b, dispersion, (low / trials, high / trials))

    # Watching.

    def _watch(self, window: Window, hits: int, trials: int, outlook: _Outlook) -> Verdict:
        found = self._surprises(window, hits, trials, outlook)
        name, score = self._strongest(found, window)
        value = hits / trials
        if score >= ALERT_THRESHOLD:
            self._histories[name].learn(found[name])
            kind, began_ms = self._told_as(name, window)
            self._startle(hits, trials, outlook)
            self._episode_successes, self._episode_trials = float(hits), float(trials)
            episode = self._tracker.open(kind, began_ms, window.start_ms, value, outlook.expected, score)
            return Verdict(score, outlook.expected, value, episode, "opened")
        self._learn(window, hits, trials, outlook)
        return Verdict(score, outlook.expected, value, None, "none")

    def _surprises(self, window: Window, hits: int, trials: int, outlook: _Outlook) -> dict[str, float]:
        """What each detector that may speak is surprised by; all of them take the window in."""
        rate, usual, histories = outlook.rate, trials * outlook.rate, self._histories
        high = surprise_of(success_tail(hits, trials, outlook.a, outlook.b)) if hits > usual else 0.0
        low = surprise_of(success_tail(trials - hits, trials, outlook.b, outlook.a)) if hits < usual else 0.0
        self._deviates(window, max(high, low))
        histories["high"].learn(min(high, _TAUGHT_BY_ONE))
        histories["low"].learn(min(low, _TAUGHT_BY_ONE))
        doubt = sqrt((1.0 - rate) * outlook.dispersion / (rate * (self._trials + 1.0)))
        for name, excursion, factor in (
            ("up", self._up, min(1.0 + doubt, 1.0 / rate)),
            ("down", self._down, 1.0 / (1.0 + doubt)),
        ):
            over = excursion.update(window, float(hits), usual, factor, outlook.dispersion, trials=float(trials))
            histories[name].learn(over)
        if (
            self._history <= self._warm_up_seconds
            or self._measured < self._warm_up_windows
            or self._trials < _LEAST_TRIALS
        ):
            return {}
        found = {"high": high, "low": low}
        for name, excursion in (("up", self._up), ("down", self._down)):
            if self._lasts(excursion, window):
                found[name] = self._doubted(excursion.surprise, outlook)
        return found

    def _doubted(self, surprise: float, outlook: _Outlook) -> float:
        """What is left of a surprise at a known rate when the rate is as uncertain as a Gamma's (see `CountSeries`)."""
        rarer = min(self._successes, self._trials - self._successes)
        shape = max(rarer, 0.0) / outlook.dispersion + 1.0
        return shape * log1p(surprise / shape)

    def _told_as(self, name: str, window: Window) -> tuple[Kind, int]:
        """The kind and the beginning of what was found."""
        if name == "high":
            return "high", self._run_ms
        if name == "low":
            return "low", self._run_ms
        excursion = self._up if name == "up" else self._down
        short = window.end_ms - excursion.began_ms <= _SHORT_MS
        if name == "up":
            return ("high" if short else "shift_up"), excursion.began_ms
        return ("low" if short else "shift_down"), excursion.began_ms

    # An episode goes on.

    def _go_on(self, window: Window, hits: int, trials: int, outlook: _Outlook) -> Verdict:
        tracker, rate, value = self._tracker, outlook.rate, hits / trials
        fade = exp(-window.seconds / _EPISODE_MEMORY)
        self._episode_successes = round(self._episode_successes * fade + hits, _ROUNDING)
        self._episode_trials = round(self._episode_trials * fade + trials, _ROUNDING)
        odds = self._episode_odds() * (1.0 - rate) / rate
        odds = max(odds, _RISEN) if tracker.rising else min(odds, _FALLEN)
        away = (hits * log(odds) - trials * log1p((odds - 1.0) * rate)) / outlook.dispersion
        rises = hits > trials * rate
        p = 1.0
        if rises == tracker.rising:
            p = (
                success_tail(hits, trials, outlook.a, outlook.b)
                if rises
                else success_tail(trials - hits, trials, outlook.b, outlook.a)
            )
        score = score_of(exp(-self._histories["high" if rises else "low"].calibrated(surprise_of(p))))
        phase = tracker.go_on(window.start_ms, window.end_ms, value, outlook.expected, score, -away)
        score = max(score, tracker.standing)
        if phase == "ended":
            self._forget_evidence()
            return Verdict(score, outlook.expected, value, tracker.closed, "ended")
        if self._adoptable(window):
            self._adopt()
            return Verdict(score, outlook.expected, value, tracker.close(window.end_ms), "ended")
        return Verdict(score, outlook.expected, value, tracker.episode, "goes_on")

    def _adopt(self) -> None:
        """What lasts is usual from now on."""
        self._successes, self._trials = self._episode_successes, self._episode_trials
        self._forget_evidence()

    def _episode_odds(self) -> float:
        misses = self._episode_trials - self._episode_successes
        return (self._episode_successes + _PRIOR_SHAPE) / (max(misses, 0.0) + _PRIOR_SHAPE)

    # Learning.

    def _startle(self, hits: int, trials: int, outlook: _Outlook) -> None:
        """Takes in that a rate can do this at all, for the dispersion alone: what comes again surprises less."""
        usual = trials * outlook.rate
        bound = _STARTLING * (sqrt(usual * (1.0 - outlook.rate) * outlook.dispersion) + 1.0)
        off = min(abs(hits - usual), bound)
        self._squares = round(self._squares + off * off, _ROUNDING)

    def _learn(self, window: Window, hits: int, trials: int, outlook: _Outlook) -> None:
        """Takes the window in; what lies far out only up to a bound (Huber 1964)."""
        self._measured += 1
        usual, taught = trials * outlook.rate, float(hits)
        variance = usual * (1.0 - outlook.rate)
        fade = exp(-window.seconds / _MEMORY_SECONDS - trials / _TRIALS_MEMORY)
        if self._trials:
            deviations, more = _FAR_OUT
            bound = deviations * sqrt(variance * outlook.dispersion) + more
            taught = min(max(taught, usual - bound), usual + bound)
            self._squares = round(self._squares * fade + (taught - usual) ** 2, _ROUNDING)
            self._variances = round(self._variances * fade + variance, _ROUNDING)
        self._successes = round(max(self._successes * fade + taught, 0.0), _ROUNDING)
        self._trials = round(self._trials * fade + trials, _ROUNDING)
