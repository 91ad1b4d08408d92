"""Anomalies in series of values: pure detectors with a small state that a store can keep."""

from __future__ import annotations

from redis_agent.anomaly.detector import Detector
from redis_agent.anomaly.score import ALERT_THRESHOLD

__all__ = ["ALERT_THRESHOLD", "Detector"]
