"""The general anomaly detector for one series of values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from redis_agent.anomaly.daily import DailyProfile
from redis_agent.anomaly.novelty import WARM_UP, Novelty
from redis_agent.anomaly.runs import Runs
from redis_agent.anomaly.score import ALERT_THRESHOLD, score_of

VIEWS: Final = ("value", "hour", "mean", "median")
"""Value by itself; against its hour of the day; mean of the last `MEAN_OF`; median of the last `MEDIAN_OF`."""

TESTS: Final = 2 * len(VIEWS) + 1
"""What can fire: each view to either side, and a run of equal values."""

MEAN_OF: Final = 24
"""Values in the running mean: what builds up over a few hours, though no single value is extreme."""

MEDIAN_OF: Final = 7
"""Values in the running median: what lasts, unmoved by single spikes now and in the past."""

REST: Final = 60
"""Values without anything that would fire, after which an event is over: ten hours of ten-minute values."""

MOVES_BEFORE_USE: Final = 10
"""Changes of value before anything is judged: a series that never or hardly moved has no scale yet."""

LEAST_DISPERSION: Final = 0.5
"""Variance in units of the mean from which whole numbers can be counts; 1 is Poisson's."""

_GREATEST: Final = 1e150
_LEAST: Final = 1e-140
"""Beyond these a square would overflow, or vanish: greater magnitudes are cut, smaller ones are zero."""

_SILENT: Final = score_of(1.0)


@dataclass(frozen=True)
class Finding:
    """Why a value was an anomaly: what was looked at, what it was, and what it had been before."""

    view: str
    observed: float
    level: float
    scale: float
    low: float
    high: float
    tail_probability: float


class _Look(NamedTuple):
    """What a view shows now, and what bounds how improbable it can be."""

    view: str
    observed: float
    least_variance: float
    most_deviations: float


class Detector:
    """Scores each value of a series for how probably an anomaly begins there.

    Four views of the series (`VIEWS`) are each watched for novelty: values beyond all that the view has
    shown, by a margin, and improbable under a normal distribution of its past. The least of the tail
    probabilities, and that of a value repeated for too long (`Runs`), times the number of `TESTS`
    (Bonferroni), becomes a posterior probability in `score_of`. `ALERT_THRESHOLD` is then near five standard
    deviations on every series.

    Series of whole numbers from 0 are also held to the spread that independent counts would have: twice the
    difference of the square roots is nearly standard normal (Anscombe 1948), and a value must be extreme in
    that measure too. The first 4 where 0 and 1 were usual is no anomaly.

    Promises: causal and deterministic; bounded state and cost per value; a series continued from `state()`,
    also through JSON and in another process, gives the same scores bit for bit; from an alert until `REST`
    values have come of which none would fire, values are learnt but not scored; no score reaches the
    threshold before `novelty.WARM_UP` values, or on a constant series. Values that are not finite are
    ignored. Timestamps serve only to tell the hour and the day of the week, in the zone they are given in;
    they may repeat and step back.
    """

    __slots__ = ("_counts", "_finding", "_novelty", "_profile", "_recent", "_runs", "_since_alert")

    def __init__(self) -> None:
        self._novelty = {view: Novelty(_warm_up(view)) for view in VIEWS}
        self._profile = DailyProfile()
        self._recent: list[float] = []
        self._runs = Runs()
        self._counts = True
        self._since_alert = REST
        self._finding: Finding | None = None

    @property
    def finding(self) -> Finding | None:
        """Why the latest value scored at or above `ALERT_THRESHOLD`; None when it did not. Not part of the state."""
        return self._finding

    def update(self, timestamp: datetime, value: float) -> float:
        """Learn the next value and return its score.

        Args:
            timestamp: When it was measured; naive, or aware in the zone whose days matter.
            value: The measured value.

        Returns:
            The posterior probability, in [0, 1], that an anomaly begins with this value.
        """
        self._finding = None
        if not math.isfinite(value):
            return _SILENT
        value = _within_bounds(value)
        self._note(value)
        looks = self._look(timestamp, value)
        magnitude = self._novelty["value"].level
        # Whole numbers repeat for many reasons, and a long silence of counts is for who knows when they flow.
        run = 1.0 if self._counts else self._runs.tail_probability()
        found: tuple[float, str, float] = (run, "run", self._runs.length)
        for look in looks:
            tail = self._novelty[look.view].tail_probability(
                look.observed, magnitude, least_variance=look.least_variance, most_deviations=look.most_deviations
            )
            if tail < found[0]:
                found = (tail, look.view, look.observed)
        score = self._judge(*found)
        for look in looks:
            self._novelty[look.view].learn(look.observed)
        self._profile.learn(timestamp, value)
        return score

    def _judge(self, tail: float, view: str, observed: float) -> float:
        """Return the score of the least tail probability, and rest after an alert."""
        if self._runs.moves < MOVES_BEFORE_USE:
            return _SILENT
        resting = self._since_alert < REST
        self._since_alert = min(self._since_alert + 1, REST)
        tail = min(1.0, TESTS * tail)
        score = score_of(tail)
        if score >= ALERT_THRESHOLD:
            self._since_alert = 0
        if resting:
            return _SILENT
        if score >= ALERT_THRESHOLD:
            self._finding = self._explain(view, observed, tail)
        return score

    def _explain(self, view: str, observed: float, tail: float) -> Finding:
        """Return what was found, beside what had been usual."""
        if view == "run":
            share = self._runs.share
            usual = share / (1.0 - share)
            return Finding(view, observed, usual, math.sqrt(usual / (1.0 - share)), 0.0, self._runs.longest, tail)
        novelty = self._novelty[view]
        return Finding(view, observed, novelty.level, novelty.scale, *novelty.range, tail)

    def _note(self, value: float) -> None:
        """Keep what the views need of the values themselves."""
        self._runs.learn(value)
        if self._counts and (value < 0.0 or not value.is_integer()):
            self._counts = False
        self._recent.append(value)
        if len(self._recent) > MEAN_OF:
            del self._recent[0]

    def _look(self, timestamp: datetime, value: float) -> list[_Look]:
        """Return each view that has a value now."""
        whole = self._novelty["value"]
        looks = [_Look("value", value, 0.0, self._most(value, whole.level, whole.variance, 1))]
        expected = self._profile.expected(timestamp)
        if expected is not None:
            variance = max(self._profile.variance(timestamp), self._novelty["hour"].variance)
            looks.append(_Look("hour", value - expected, variance, self._most(value, expected, variance, 1)))
        recent = self._recent
        if len(recent) == MEAN_OF:
            mean = math.fsum(recent) / MEAN_OF
            looks.append(_Look("mean", mean, 0.0, self._most(mean, whole.level, whole.variance, MEAN_OF)))
        if len(recent) >= MEDIAN_OF:
            median = sorted(recent[-MEDIAN_OF:])[MEDIAN_OF // 2]
            # The median of n values varies as the mean of 2n/pi (Laplace).
            values = MEDIAN_OF * 2.0 / math.pi
            looks.append(_Look("median", median, 0.0, self._most(median, whole.level, whole.variance, values)))
        return looks

    def _most(self, observed: float, expected: float, variance: float, values: float) -> float:
        """Return how many deviations the mean of so many values is out if they are independent counts.

        Whole numbers that vary much less than counts would, such as a rounded temperature, are none.
        """
        if not self._counts or variance < LEAST_DISPERSION * expected:
            return math.inf
        return 2.0 * math.sqrt(values) * abs(math.sqrt(observed) - math.sqrt(max(expected, 0.0)))

    def state(self) -> dict[str, Any]:
        """Return all that is remembered, as plain JSON values (at most 4 kB as text)."""
        return {
            "version": 1,
            "novelty": {view: novelty.state() for view, novelty in self._novelty.items()},
            "profile": self._profile.state(),
            "recent": list(self._recent),
            "runs": self._runs.state(),
            "counts": self._counts,
            "since_alert": self._since_alert,
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Detector:
        """Return a detector that goes on exactly where `state` was taken.

        Raises:
            ValueError: The state is of another version.
        """
        if state.get("version") != 1:
            raise ValueError(f"a detector's state of version 1 is needed, not {state.get('version')!r}")
        detector = cls()
        detector._novelty = {view: Novelty.restore(state["novelty"][view], _warm_up(view)) for view in VIEWS}
        detector._profile = DailyProfile.restore(state["profile"])
        detector._recent = list(state["recent"])
        detector._runs = Runs.restore(state["runs"])
        detector._counts = state["counts"]
        detector._since_alert = state["since_alert"]
        return detector


def _warm_up(view: str) -> int:
    """Return how many values of a view are learnt first: twice as many where what is expected is still learnt too."""
    return 2 * WARM_UP if view == "hour" else WARM_UP


def _within_bounds(value: float) -> float:
    """Return the value with its magnitude held where squares are exact enough."""
    if abs(value) < _LEAST:
        return 0.0
    return min(max(float(value), -_GREATEST), _GREATEST)
