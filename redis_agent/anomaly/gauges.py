"""Gauges in closed windows: a value that somebody else measured, such as a queue's length."""

from __future__ import annotations

from datetime import UTC, datetime
from math import sqrt
from typing import Any, ClassVar, Final, Protocol, Self

from redis_agent.anomaly.agreement import Agreement
from redis_agent.anomaly.episode import Verdict
from redis_agent.anomaly.score import ALERT_THRESHOLD, PRIOR
from redis_agent.anomaly.shift import Excursion
from redis_agent.anomaly.watcher import DAY, Watcher

_Z: Final = 1.96
# The range fades by so many windows.
_MEMORY: Final = 288.0
# Until so many windows came, nothing is far out.
_FIRST: Final = 12
_LARGEST: Final = 1e150
"""Squares of what is larger are infinite."""

# Evidence for the end that one calm window gives, in nats.
_CALM: Final = 2.4


class ValueDetector(Protocol):
    """A detector for one series of values, such as `redis_agent.anomaly.Detector`."""

    def update(self, timestamp: datetime, value: float) -> float:
        """The score of the value, 0 to 1."""
        ...

    def state(self) -> Any:
        """Everything that the next value needs, as plain JSON."""
        ...

    def restore(self, state: Any) -> Any:
        """Goes on from a state; returns the detector, or None when it changed itself."""
        ...


class GaugeSeries(Watcher):
    """A gauge, window after window: a general detector's scores, told as episodes.

    The mean of a window is what the detector sees. A score of `ALERT_THRESHOLD` opens an episode; it is over when the
    scores are low and the mean is back in its range for the merge time, or after `adopt_seconds`. The range is the
    discounted mean with 1.96 standard deviations, which windows far outside teach only up to three of them (Huber
    1964). The peak that is told is the most extreme sample of the episode.

    Args:
        detector: A fresh detector; an `Agreement` when none is given.
        warm_up_seconds: Watched time before anything may be told.
        merge_seconds: What comes again within it belongs to the same episode.
        adopt_seconds: An episode that lasts so long is what is usual now.
    """

    _NUMBERS: ClassVar[tuple[str, ...]] = ("_history", "_windows", "_mean", "_variance")

    def __init__(
        self,
        detector: ValueDetector | None = None,
        *,
        warm_up_seconds: float = DAY,
        merge_seconds: float = 1800.0,
        adopt_seconds: float = DAY,
    ) -> None:
        # The detector finds what rose or fell; the CUSUMs stay empty.
        super().__init__(
            {}, Excursion((2.0,)), Excursion((0.5,)), merge_seconds=merge_seconds, adopt_seconds=adopt_seconds
        )
        self._detector: ValueDetector = detector if detector is not None else _general_detector()
        self._warm_up_seconds = warm_up_seconds
        self._history = 0.0
        self._windows = 0
        self._mean = self._variance = 0.0

    def examine(  # noqa: PLR0917 - what a window of a gauge consists of
        self, start_ms: int, seconds: float, mean: float, low: float, high: float, samples: int
    ) -> Verdict:
        """Judges the window against what came before it, then learns from it.

        Args:
            start_ms: Its start, epoch milliseconds. A window that begins before the last one ended is ignored.
            seconds: Its length.
            mean: Of the samples.
            low: The smallest of them.
            high: The largest.
            samples: How many; 0 says nothing.
        """
        last_end_ms, tracker = self._end_ms, self._tracker
        if samples <= 0 or not max(abs(mean), abs(low), abs(high)) <= _LARGEST:
            return self._unmeasured()
        window = self._enter(start_ms, seconds)
        if window is None:
            return self._unmeasured()
        expected = self._range()
        score = self._detector.update(datetime.fromtimestamp(window.end_ms / 1000.0, UTC), mean)
        self._history += seconds + min(window.gap_seconds, DAY)
        score = min(1.0, max(0.0, score)) if self._history > self._warm_up_seconds else PRIOR
        inside = expected[0] <= mean <= expected[1]
        self._learn(mean)
        if tracker.episode is not None:
            if self._adoptable(window):
                return Verdict(score, expected, mean, tracker.close(max(last_end_ms, 0)), "ended")
            calm = _CALM if inside and score < ALERT_THRESHOLD else -_CALM
            extreme = high if tracker.rising else low
            phase = tracker.go_on(start_ms, window.end_ms, extreme, expected, score, calm)
            return Verdict(score, expected, mean, tracker.closed if phase == "ended" else tracker.episode, phase)
        if score < ALERT_THRESHOLD:
            return Verdict(score, expected, mean, None, "none")
        if mean >= sum(expected) / 2.0:
            episode = tracker.open("high", start_ms, start_ms, high, expected, score)
        else:
            episode = tracker.open("low", start_ms, start_ms, low, expected, score)
        return Verdict(score, expected, mean, episode, "opened")

    def _range(self) -> tuple[float, float]:
        deviation = _Z * sqrt(self._variance)
        return self._mean - deviation, self._mean + deviation

    def _learn(self, mean: float) -> None:
        """Takes the window in; what lies far out only up to a bound."""
        self._windows += 1
        weight = 1.0 / min(self._windows, _MEMORY)
        off = mean - self._mean
        if self._windows > _FIRST:
            bound = 3.0 * sqrt(self._variance) + 1e-9 * abs(self._mean)
            off = min(max(off, -bound), bound)
        self._mean += weight * off
        self._variance = (1.0 - weight) * (self._variance + weight * off * off)

    def _extra_state(self) -> list[Any]:
        return [self._detector.state()]

    def _restore_extra(self, state: list[Any]) -> None:
        restored = self._detector.restore(state[0])
        if restored is not None:
            self._detector = restored

    @classmethod
    def restore(cls, state: list[Any], detector: ValueDetector | None = None, **settings: Any) -> Self:
        """A series that goes on where the one whose state it was stopped.

        Args:
            state: What `state` returned, before or after JSON.
            detector: A fresh detector of the kind that it had.
            settings: As for the constructor; they are not kept.

        Raises:
            ValueError: The state is of another version, or not a state.
        """
        return super().restore(state, detector=detector, **settings)


def _general_detector() -> ValueDetector:
    """The product's detector of gauges."""
    return Agreement()
