"""The facts about one experiment that an analysis may speak of, and how numbers and texts stand in them. Pure.

Model and template are given the same facts. `gathering` chooses them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Literal

from redis_agent.alerts import cut
from redis_agent.windows import WindowSums

HOUR: Final = 3_600
DAY: Final = 86_400

# A larger number is none that was measured.
_LARGEST: Final = 1e300
_SECRETS: Final = re.compile(r"(?<=://)[^/\s@]*@|AIza[0-9A-Za-z_-]{20,}")

Standing = Literal["met", "early", "not_met", "missed", "unknown", "unsupported"]


@dataclass(frozen=True, slots=True)
class CriterionFact:
    """A criterion and where it stands.

    Attributes:
        kind: "success" or "failure".
        text: as its author wrote it.
        standing: met for certain, met early, not met, not met by its deadline, unknown, or not understood.
        metric, operator, threshold, value: the comparison that decided; None where there was none.
        successes, samples: the counts behind a rate.
        interval: where the rate lies, on the metric's own scale.
        scale: what a ratio of 1 reads as.
        since: since when it is met, where it was told.
        reason: one sentence.
    """

    kind: str
    text: str
    standing: Standing
    reason: str
    metric: str | None = None
    operator: str | None = None
    threshold: float | None = None
    value: float | None = None
    successes: int | None = None
    samples: int | None = None
    interval: tuple[float, float] | None = None
    scale: float = 1.0
    since: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What a model is given."""
        found = {
            "kind": self.kind,
            "criterion": self.text,
            "state": self.standing,
            "metric": self.metric,
            "operator": self.operator,
            "threshold": self.threshold,
            "value": self.value,
            "percent": percent(self.value, self.scale) if self.samples is not None else None,
            "successes": self.successes,
            "samples": self.samples,
            "interval": list(self.interval) if self.interval else None,
            "since": self.since,
            "reason": self.reason,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class MetricFact:
    """A metric: all in all, in the latest span of time, and in the one before.

    Attributes:
        name: its name.
        kind: "counter", "rate", or what else the metric is.
        value: all in all.
        successes, samples: the counts behind a rate.
        recent, before: its value in the two spans; None where nothing is known of one.
        recent_samples, before_samples: trials behind these, if it is a rate.
        scale: what a ratio of 1 reads as.
    """

    name: str
    kind: str
    value: float | None
    successes: int | None = None
    samples: int | None = None
    recent: float | None = None
    before: float | None = None
    recent_samples: int | None = None
    before_samples: int | None = None
    scale: float = 1.0

    @property
    def is_rate(self) -> bool:
        """Whether it is counts over counts."""
        return self.kind == "rate"

    def as_json(self) -> dict[str, Any]:
        """What a model is given."""
        found = {
            "name": self.name,
            "kind": self.kind,
            "value": self.value,
            "percent": percent(self.value, self.scale) if self.is_rate else None,
            "successes": self.successes,
            "samples": self.samples,
            "recent": self.recent,
            "recent_percent": percent(self.recent, self.scale) if self.is_rate else None,
            "recent_samples": self.recent_samples,
            "before": self.before,
            "before_percent": percent(self.before, self.scale) if self.is_rate else None,
            "before_samples": self.before_samples,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Past:
    """An alert of the history, as far as an analysis speaks of it."""

    type: str
    severity: str
    at: str
    message: str

    def as_json(self) -> dict[str, Any]:
        """What a model is given."""
        return {"type": self.type, "severity": self.severity, "at": self.at, "message": self.message}


@dataclass(frozen=True, slots=True)
class Spans:
    """The two spans of time that are compared: the latest `seconds`, and as long before.

    Attributes:
        seconds: an hour or a day.
        recent, before: what the experiment's events added up to in them.
    """

    seconds: int
    recent: WindowSums
    before: WindowSums

    @property
    def words(self) -> str:
        """The name of the latest span."""
        return "the last 24 hours" if self.seconds == DAY else "the last hour"

    @property
    def words_before(self) -> str:
        """The name of the one before."""
        return "the 24 hours before" if self.seconds == DAY else "the hour before"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one experiment.

    Attributes:
        experiment_id: which.
        hypothesis: as its author wrote it.
        state: of the definition; "" for none.
        age: in words; "" where it is not known.
        events: so far.
        tally: kind of criterion -> standing -> how many, of all criteria.
        criteria, metrics, alerts: the most important first.
        alert: the alert that is analysed; None where none is.
        recent, before: what the two spans of the metrics are called.
        left_out: what there was no room for: "criteria", "metrics", "alerts" -> how many.
    """

    experiment_id: str
    hypothesis: str = ""
    state: str = ""
    age: str = ""
    events: int = 0
    tally: Mapping[str, Mapping[str, int]] | None = None
    criteria: tuple[CriterionFact, ...] = ()
    metrics: tuple[MetricFact, ...] = ()
    alerts: tuple[Past, ...] = ()
    alert: Mapping[str, Any] | None = None
    recent: str = ""
    before: str = ""
    left_out: Mapping[str, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that a model is given; its JSON text has at most the bytes that were asked for."""
        return {
            **self.head(),
            "criteria": [one.as_json() for one in self.criteria],
            "metrics": [one.as_json() for one in self.metrics],
            "recent_alerts": [one.as_json() for one in self.alerts],
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
        }

    def head(self) -> dict[str, Any]:
        """What is there whatever else has room."""
        return {
            **({"alert": dict(self.alert)} if self.alert is not None else {}),
            "experiment": {
                "id": self.experiment_id,
                "hypothesis": self.hypothesis,
                "state": self.state or "active",
                "age": self.age or "unknown",
                "events": self.events,
            },
            "criteria_by_state": {kind: dict(states) for kind, states in (self.tally or {}).items()},
            **({"recent": self.recent, "before": self.before} if self.recent else {}),
        }

    def count(self, kind: str, *standings: Standing) -> int:
        """How many criteria of a kind stand so."""
        return sum((self.tally or {}).get(kind, {}).get(standing, 0) for standing in standings)

    def metric(self, name: str | None) -> MetricFact | None:
        """The metric of this name."""
        return next((one for one in self.metrics if one.name == name), None)


# Texts and numbers ---------------------------------------------------------------------------------------------


def clean(text: str, limit: int) -> str:
    """Somebody else's text: on one line, shortened, and without what looks like a password or a key."""
    return cut(_SECRETS.sub(lambda found: "***@" if found[0].endswith("@") else "***", text[: 4 * limit]), limit)


def number(value: Any) -> float | int | None:
    """Six significant digits, whole numbers as such; None for what is no number."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) < _LARGEST
        or not isfinite(value)
    ):
        return None
    rounded = float(f"{value:.6g}") if abs(value) < 1e15 else float(value)
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def percent(value: float | None, scale: float) -> float | int | None:
    """A rate in percent, three digits."""
    return None if value is None else number(float(f"{100 * value / scale:.3g}"))


def duration(seconds: float) -> str:
    """A time in words, to its largest unit: "3 days"."""
    for unit, size in (("day", DAY), ("hour", HOUR), ("minute", 60)):
        if seconds >= 2 * size or (unit == "minute" and seconds >= size):
            count = int(seconds // size)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "less than a minute"
