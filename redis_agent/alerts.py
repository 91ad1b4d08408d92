"""Alerts as the Orchestrator reads them: what they say and how they are told apart. Pure."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import isfinite
from typing import Any

from redis_agent.clock import iso
from redis_agent.lifecycle import FLAPS, Reason

SOURCE = "redis_agent"
# An alert is pasted into a prompt whole; texts from events are cut to this many characters.
MAX_TEXT = 500
# Whole numbers below this are shown as such.
_WHOLE = 1e15
# Verdicts that a completion lists; those beyond are counted.
MAX_VERDICTS = 50
# What a summary covers: an interval of the schedule, or a day.
INTERVAL, DAY = "interval", "day"
# Alerts that concern no single experiment.
ALL_EXPERIMENTS = "all"


class AlertType(StrEnum):
    """The types of the contract, and `cleared`, which is off unless it is asked for."""

    SUCCESS = "success_threshold"
    FAILURE = "failure_threshold"
    ERROR = "error"
    SUMMARY = "periodic_summary"
    ANOMALY = "anomaly"
    COMPLETED = "experiment_completed"
    CLEARED = "cleared"


class Severity(StrEnum):
    """How much it matters."""

    INFO = "info"
    MEDIUM = "medium"
    HIGH = "high"


# The Orchestrator's own scale, beside the severity.
_PRIORITY = {Severity.INFO: "low", Severity.MEDIUM: "medium", Severity.HIGH: "high"}
# An early crossing is told one severity lower.
_LOWER = {Severity.HIGH: Severity.MEDIUM, Severity.MEDIUM: Severity.INFO}


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        alert_id: unique.
        type: what kind.
        experiment_id: which experiment, or "all".
        severity: how much it matters.
        message: makes sense alone.
        timestamp: when it was raised, UTC.
        fingerprint: tells alerts of one type and experiment apart; names the cooldown.
        details: further fields of the JSON object, those of the contract first.
    """

    alert_id: str
    type: AlertType
    experiment_id: str
    severity: Severity
    message: str
    timestamp: datetime
    fingerprint: str
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The JSON object that goes to the Orchestrator."""
        return {
            "type": self.type.value,
            "experiment_id": self.experiment_id,
            "message": self.message,
            "severity": self.severity.value,
            "timestamp": iso(self.timestamp),
            "source": SOURCE,
            "alert_id": self.alert_id,
            "alert_type": self.type.value,
            "priority": _PRIORITY[self.severity],
            **{name: value for name, value in self.details.items() if value is not None},
        }

    def dumps(self) -> str:
        """The JSON text."""
        return json.dumps(self.as_json(), ensure_ascii=False, separators=(",", ":"))


# What may stand in the outbox; also what other versions of the agent put there.
_KNOWN_TYPES = frozenset(AlertType)


@dataclass(frozen=True, slots=True)
class Told:
    """What an alert in the outbox says of itself, fit for labels and logs.

    Attributes:
        type, severity: of the fixed sets, or "other".
        alert_id: its own, or "?".
        experiment_id: its own, or "".
        lasting: whether it is told although a newer one of its kind has come: a daily summary among hourly ones.
    """

    type: str
    severity: str
    alert_id: str
    experiment_id: str = ""
    lasting: bool = False


def told(data: str) -> Told:
    """Read an alert's JSON; what somebody else wrote to the outbox is "other"."""
    try:
        alert = json.loads(data)
        kind, severity, alert_id = (str(alert.get(name, "?")) for name in ("type", "severity", "alert_id"))
    except (ValueError, AttributeError, RecursionError):
        return Told("other", "other", "?")
    return Told(
        type=kind if kind in _KNOWN_TYPES else "other",
        severity=severity if severity in set(Severity) else "other",
        alert_id=alert_id,
        experiment_id=str(alert.get("experiment_id", "")),
        lasting=alert.get("period") == DAY,
    )


@dataclass(frozen=True, slots=True)
class Crossing:
    """A criterion that is met, as the judge found it.

    Attributes:
        kind: "success" or "failure".
        criterion: the author's text.
        fingerprint: stable for this criterion.
        metric, operator, threshold, value: the comparison that decided; None where there was none.
        samples: trials behind the value, if it is a rate.
        interval: where the rate lies, if it is one.
        evidence: "fact", "early" or "confirmed".
        reason: one sentence with the numbers.
        successes: among the samples; None where the value is no rate that was tested.
        scale: what a ratio of 1 reads as in value, threshold and interval.
        confidence: of the interval.
    """

    kind: str
    criterion: str
    fingerprint: str
    metric: str | None
    operator: str | None
    threshold: float | None
    value: float | None
    samples: int | None
    interval: tuple[float, float] | None
    evidence: str | None
    reason: str
    successes: int | None = None
    scale: float = 1.0
    confidence: float | None = None

    @property
    def early(self) -> bool:
        """Whether it is not confirmed yet."""
        return self.evidence == "early"

    @property
    def alert_type(self) -> AlertType:
        """The type of its alert."""
        return threshold_type(self.kind)

    @property
    def severity(self) -> Severity:
        """How much it matters."""
        return threshold_severity(self.kind, early=self.early)


def threshold_type(kind: str) -> AlertType:
    """The type of an alert about a criterion of success or failure."""
    return AlertType.SUCCESS if kind == "success" else AlertType.FAILURE


def threshold_severity(kind: str, *, early: bool) -> Severity:
    """How much it matters that a criterion is met; an early one is one severity lower."""
    severity = Severity.INFO if kind == "success" else Severity.HIGH
    return _LOWER.get(severity, severity) if early else severity


def threshold_alert(
    crossing: Crossing,
    *,
    experiment_id: str,
    alert_id: str,
    now: datetime,
    why: Reason = Reason.ROSE,
    since: datetime | None = None,
) -> Alert:
    """The alert for a criterion that is met.

    Args:
        crossing: what is met; an early one says so.
        experiment_id: whose criterion.
        alert_id: unique.
        now: the time.
        why: the reason why it is told.
        since: since when the criterion is met, where it is not told for the first time.
    """
    success = crossing.kind == "success"
    early = crossing.early
    verdict = f"The {crossing.kind} criterion ({cut(crossing.criterion, 200)}) {'looks' if early else 'is'} met"
    message = f"{experiment_id}: {_finding(crossing)}. {verdict}{_course(why, since)}."
    return Alert(
        alert_id=alert_id,
        type=crossing.alert_type,
        experiment_id=experiment_id,
        severity=crossing.severity,
        message=cut(message, 2 * MAX_TEXT),
        timestamp=now,
        # The first sight of a crossing must not hold back its confirmation.
        fingerprint=f"{crossing.fingerprint}-early" if early else crossing.fingerprint,
        details={
            "criterion": crossing.criterion,
            "current_value": crossing.value,
            "metric": crossing.metric,
            "value": crossing.value,
            "threshold": crossing.threshold,
            "operator": crossing.operator,
            "evidence": crossing.evidence,
            "samples": crossing.samples,
            "interval": list(crossing.interval) if crossing.interval else None,
            "since": iso(since) if since else None,
            "repeated": True if why in (Reason.LASTS, Reason.SETTLED) else None,
            "flapping": True if why is Reason.FLAPS else None,
            "recommendation": _recommendation(success=success, early=early),
        },
    )


_SIDES = {">": "above", ">=": "at or above", "<": "below", "<=": "at or below"}


def _finding(crossing: Crossing) -> str:
    """What is, what was expected, from how many, and how sure; without a full stop.

    A single comparison with a number is worded in full; what is more than that is said by its reason.
    """
    head, _, more = crossing.reason.partition("; ")
    side = _SIDES.get(crossing.operator or "")
    single = head.startswith(f"{crossing.metric} is ") and head.count(", ") == 1 and " and " not in crossing.reason
    if not single or side is None or crossing.value is None or crossing.threshold is None:
        return cut(crossing.reason, MAX_TEXT)
    rate = crossing.successes is not None and crossing.samples is not None
    counts = f" ({crossing.successes} of {crossing.samples})" if rate else ""
    value, threshold = (_shown(number, crossing, rate=rate) for number in (crossing.value, crossing.threshold))
    metric = cut(crossing.metric or "", 200)
    said = f"{metric} {value}{counts} is {side} the {crossing.kind} threshold of {threshold}"
    if crossing.interval is not None and crossing.confidence is not None:
        low, high = (100 * end / crossing.scale for end in crossing.interval)
        digits = 1 if high >= 1 else 4
        more += f" ({100 * crossing.confidence:.4g} % interval {low:.{digits}f} to {high:.{digits}f} %)"
    return f"{said}; {cut(more, MAX_TEXT)}" if more else said


def _shown(number: float, crossing: Crossing, *, rate: bool) -> str:
    """A number for people: a rate in percent with three digits, anything else with six."""
    if rate:
        return f"{100 * number / crossing.scale:.3g} %"
    return str(int(number)) if abs(number) < _WHOLE and number == int(number) else f"{number:.6g}"


def cleared_alert(crossing: Crossing, *, experiment_id: str, alert_id: str, now: datetime) -> Alert:
    """The notice that a criterion is not met any more."""
    verdict = f"The {crossing.kind} criterion ({cut(crossing.criterion, 200)}) is not met any more"
    return Alert(
        alert_id=alert_id,
        type=AlertType.CLEARED,
        experiment_id=experiment_id,
        severity=Severity.INFO,
        message=f"{experiment_id}: {cut(crossing.reason, MAX_TEXT)}. {verdict}.",
        timestamp=now,
        fingerprint=crossing.fingerprint,
        details={
            "criterion": crossing.criterion,
            "current_value": crossing.value,
            "metric": crossing.metric,
            "value": crossing.value,
            "threshold": crossing.threshold,
            "operator": crossing.operator,
            "samples": crossing.samples,
            "recommendation": "What was told about this criterion no longer holds; it may come back.",
        },
    )


@dataclass(frozen=True, slots=True)
class FinalVerdict:
    """What a criterion came to in the end.

    Attributes:
        kind: "success" or "failure".
        criterion: the author's text.
        state: "met", "not_met", "unknown" or "unsupported".
        value: of the metric that decided, if there is one.
        reason: one sentence with the numbers.
    """

    kind: str
    criterion: str
    state: str
    value: float | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The object in the alert's `verdicts`."""
        return {
            "kind": self.kind,
            "criterion": cut(self.criterion, 200),
            "state": self.state,
            "value": self.value if self.value is not None and isfinite(self.value) else None,
            "reason": cut(self.reason, 300),
        }


def completed_alert(
    verdicts: Sequence[FinalVerdict], *, experiment_id: str, alert_id: str, now: datetime, run_id: str | None
) -> Alert:
    """The notice that an experiment is over, with the final verdict for each criterion."""
    counts = "; ".join(filter(None, (_tally(verdicts, "success"), _tally(verdicts, "failure"))))
    met = [verdict for verdict in verdicts if verdict.state == "met"]
    named = " ".join(f"{v.kind.capitalize()} ({cut(v.criterion, 100)}): {cut(v.reason, 200)}." for v in met)
    message = f"{experiment_id}: the experiment is completed. {counts or 'It has no criteria'}. {named}"
    failed = any(verdict.kind == "failure" for verdict in met)
    return Alert(
        alert_id=alert_id,
        type=AlertType.COMPLETED,
        experiment_id=experiment_id,
        severity=Severity.INFO,
        message=cut(message, 2 * MAX_TEXT),
        timestamp=now,
        fingerprint="",
        details={
            "verdicts": [verdict.as_json() for verdict in verdicts[:MAX_VERDICTS]],
            "verdicts_left_out": max(0, len(verdicts) - MAX_VERDICTS) or None,
            "run_id": cut(run_id, 200) if run_id else None,
            "recommendation": (
                "It ended with a failure criterion met: review what went wrong before it is repeated."
                if failed
                else "Review the results and decide what comes next."
            ),
        },
    )


def _tally(verdicts: Sequence[FinalVerdict], kind: str) -> str:
    """How many criteria of a kind came to what; "" if there are none."""
    states = Counter(verdict.state for verdict in verdicts if verdict.kind == kind)
    if not states:
        return ""
    others = [f"{states[state]} {state}" for state in ("unknown", "unsupported") if states[state]]
    more = f" ({', '.join(others)})" if others else ""
    return f"{states['met']} of {states.total()} {kind} criteria met{more}"


def _course(why: Reason, since: datetime | None) -> str:
    """How the criterion came to be told, where that is not its first crossing."""
    if why is Reason.FLAPS:
        return (
            f"; it keeps coming and going, {FLAPS} times within a day, and is not told again until it has held for"
            " an hour or longer"
        )
    if since is None or why not in (Reason.LASTS, Reason.SETTLED):
        return ""
    flapped = ", and came and went before" if why is Reason.SETTLED else ""
    return f"; it has been so since {since:%Y-%m-%d %H:%M} UTC{flapped}"


def _recommendation(*, success: bool, early: bool) -> str:
    if early:
        return "Early sign only: wait for more data before acting on it."
    if success:
        return "Review whether the experiment has reached its goal."
    return "Review whether the experiment should go on."


def error_alert(
    *,
    experiment_id: str,
    alert_id: str,
    now: datetime,
    message: str | None,
    error_type: str | None,
    run_id: str | None,
) -> Alert:
    """The alert for an `error` event."""
    said = cut(message or "no message was given", MAX_TEXT)
    kind = f" ({cut(error_type, 100)})" if error_type else ""
    return Alert(
        alert_id=alert_id,
        type=AlertType.ERROR,
        experiment_id=experiment_id,
        severity=Severity.HIGH,
        message=f"{experiment_id}: an error was reported{kind}: {said}",
        timestamp=now,
        fingerprint=error_fingerprint(error_type, message),
        details={
            "metric": "error",
            "error_type": cut(error_type, 100) if error_type else None,
            "run_id": cut(run_id, 200) if run_id else None,
            "recommendation": "Look into the error; the experiment may need attention.",
        },
    )


def summary_alert(
    *,
    alert_id: str,
    now: datetime,
    summary: str,
    experiments: int,
    period: str = INTERVAL,
    since: datetime | None = None,
    worded_by: str | None = None,
) -> Alert:
    """The periodic summary.

    Args:
        alert_id: unique.
        now: the time.
        summary: the text; its first line makes sense alone.
        experiments: of how many it speaks.
        period: `INTERVAL` or `DAY`.
        since: the beginning of what it covers.
        worded_by: "gemini" or "template".
    """
    return Alert(
        alert_id=alert_id,
        type=AlertType.SUMMARY,
        experiment_id=ALL_EXPERIMENTS,
        severity=Severity.INFO,
        message=summary.partition("\n")[0],
        timestamp=now,
        fingerprint="",
        details={
            "summary": summary,
            "experiment_count": experiments,
            "period": period,
            "since": iso(since) if since else None,
            "worded_by": worded_by,
        },
    )


_VARIABLE_PART = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|\d+|'[^']*'|\"[^\"]*\"")


def error_fingerprint(error_type: str | None, message: str | None) -> str:
    """Errors of one type are one thing; without a type, messages alike but for numbers and quotes are."""
    what = error_type or _VARIABLE_PART.sub("#", (message or "")[:MAX_TEXT]).strip()
    return short_hash(what)


def short_hash(what: str) -> str:
    """Twelve hexadecimal digits that stand for a text in a key."""
    encoded = what.encode("utf-8", "surrogatepass")
    return hashlib.sha1(encoded, usedforsecurity=False).hexdigest()[:12]


def cut(what: str, limit: int) -> str:
    """A text with at most `limit` characters, on one line, without characters that JSON or a terminal stumbles over."""
    line = " ".join(what.encode("utf-8", "replace").decode().split())
    if not line.isprintable():
        line = "".join(c for c in line if c.isprintable())
    return line if len(line) <= limit else line[: limit - 1] + "…"
