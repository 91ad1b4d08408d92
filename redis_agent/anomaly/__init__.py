"""Anomalies: what does not fit the history of its series, told once, and worth four minutes of somebody's time.

Pure: no clock, no client, no settings. A series takes one closed window after the other and answers each with a
`Verdict`; `phase == "opened"` is what makes an alert. What each detector does, with sources and figures:
docs/anomalies-series.md.
"""

from __future__ import annotations

from redis_agent.anomaly.detector import Detector
from redis_agent.anomaly.episode import Episode, Kind, Phase, Verdict
from redis_agent.anomaly.score import ALERT_THRESHOLD, PRIOR, score_of
from redis_agent.anomaly.series import CountSeries, GaugeSeries, RateSeries, ValueDetector

__all__ = [
    "ALERT_THRESHOLD",
    "PRIOR",
    "CountSeries",
    "Detector",
    "Episode",
    "GaugeSeries",
    "Kind",
    "Phase",
    "RateSeries",
    "ValueDetector",
    "Verdict",
    "score_of",
]
