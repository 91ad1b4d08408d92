"""What a model is asked to answer."""

from typing import Literal

from pydantic import BaseModel


class AlertAnalysis(BaseModel):
    """What an alert means."""

    status: Literal["on_track", "at_risk", "failing", "succeeded"]
    key_metric: str
    insight: str
    action: str


class SummaryAnalysis(BaseModel):
    """A summary of all experiments."""

    headline: str
    wins: list[str]
    concerns: list[str]
    changes: list[str]
    quiet: list[str]
