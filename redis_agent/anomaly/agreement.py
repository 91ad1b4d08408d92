"""Two detectors that must agree: one sees the values of a gauge, one their logarithms."""

from __future__ import annotations

from datetime import datetime
from math import asinh, isfinite
from typing import Any, Final, Self

from redis_agent.anomaly.detector import Detector
from redis_agent.anomaly.score import ALERT_THRESHOLD, score_of

# What one has said holds for so many values: the other may need a few more to see it.
_HOLDS: Final = 12
# Magnitudes from which the scale is taken; until then nothing is said.
_MAGNITUDES: Final = 48
# The logarithm begins at this share of the median magnitude.
_LINEAR_SHARE: Final = 0.1
_SILENT: Final = score_of(1.0)


class Agreement:
    """A value is an anomaly when it is one among the values and among their logarithms.

    Durations, sizes and costs are near log-normal: among the values their tail is long, and the normal tail of
    `Detector` takes it for anomalies; among the logarithms what is far out is so for good. Noise around a level looks
    the same to both. The logarithm is `asinh(value / scale)`, which is linear around zero and has a sign (Johnson
    1949; Burbidge, Magee and Robb 1988). The scale is a tenth of the median magnitude of the first 48 values that are
    not zero, and stays.

    A detector in the sense of `ValueDetector`: causal, with a state of plain JSON.
    """

    __slots__ = ("_logarithms", "_magnitudes", "_said", "_scale", "_values")

    def __init__(self, values: Detector | None = None, logarithms: Detector | None = None) -> None:
        self._values, self._logarithms = values or Detector(), logarithms or Detector()
        self._scale = 0.0
        self._magnitudes: list[float] = []
        # Of each detector: the score that it alerted with, and how many values ago.
        self._said = [[0.0, _HOLDS], [0.0, _HOLDS]]

    def update(self, timestamp: datetime, value: float) -> float:
        """Learn the next value; the lower of the two scores, as far as what was said lately holds.

        Args:
            timestamp: When it was measured.
            value: Ignored when it is not finite.
        """
        if not isfinite(value):
            return _SILENT
        scores = [self._values.update(timestamp, value), _SILENT]
        if self._scale:
            scores[1] = self._logarithms.update(timestamp, asinh(value / self._scale))
        elif value:
            self._measure(abs(value))
        for said, score in zip(self._said, scores, strict=True):
            if score >= ALERT_THRESHOLD:
                said[:] = score, 0
            elif said[1] < _HOLDS:
                said[1] += 1
        agreed = min(
            max(score, said[0] if said[1] < _HOLDS else 0.0) for said, score in zip(self._said, scores, strict=True)
        )
        if agreed >= ALERT_THRESHOLD:
            self._said = [[0.0, _HOLDS], [0.0, _HOLDS]]
        return agreed

    def _measure(self, magnitude: float) -> None:
        """Take the scale from the first magnitudes."""
        self._magnitudes.append(magnitude)
        if len(self._magnitudes) == _MAGNITUDES:
            self._scale = _LINEAR_SHARE * sorted(self._magnitudes)[_MAGNITUDES // 2]
            self._magnitudes = []

    def state(self) -> list[Any]:
        """Everything that the next value needs, as plain JSON."""
        return [self._values.state(), self._logarithms.state(), self._scale, self._magnitudes, self._said]

    @classmethod
    def restore(cls, state: list[Any]) -> Self:
        """A detector that goes on exactly where the one whose state it was stopped.

        Raises:
            ValueError: it is no such state.
        """
        try:
            values, logarithms, scale, magnitudes, said = state
        except TypeError as error:
            raise ValueError("not a state") from error
        agreement = cls(Detector.restore(values), Detector.restore(logarithms))
        agreement._scale, agreement._magnitudes = float(scale), list(magnitudes)
        agreement._said = [list(one) for one in said]
        return agreement
