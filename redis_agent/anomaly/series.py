"""The series of an experiment: one object each, `examine` once for every closed window."""

from __future__ import annotations

from redis_agent.anomaly.counts import CountSeries
from redis_agent.anomaly.episode import Verdict
from redis_agent.anomaly.gauges import GaugeSeries, ValueDetector
from redis_agent.anomaly.rates import RateSeries

__all__ = ["CountSeries", "GaugeSeries", "RateSeries", "ValueDetector", "Verdict"]
