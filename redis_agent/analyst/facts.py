"""What an analysis may speak of: the facts about one experiment, chosen by importance to a size limit. Pure.

Model and template are given the same facts. Texts that others wrote are shortened and put on one line, and what looks
like a password in them is taken out. The same state of things makes the same facts, in the same order.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final, Literal

from redis_agent.aggregate import events_total
from redis_agent.alerts import cut
from redis_agent.criteria import Metrics, Reading
from redis_agent.criteria.names import name_key
from redis_agent.experiments import Experiment, Verdict, parse_moment
from redis_agent.lifecycle import CriterionState
from redis_agent.windows import Window, WindowSums

# Bytes of the facts' JSON: with the instructions around them a prompt stays far below 20 kB.
MAX_BYTES: Final = 8_000
_MAX_CRITERIA: Final = 20
_MAX_METRICS: Final = 15
_MAX_ALERTS: Final = 8
_NAME: Final = 100
_TEXT: Final = 200
_HYPOTHESIS: Final = 400
_MESSAGE: Final = 300

_HOUR: Final = 3_600
_DAY: Final = 86_400
# A younger experiment is compared by the hour, an older one by the day.
_DAYS_FROM: Final = 43_200

# Of an alert's JSON, what an analysis needs: the rest is said by the experiment's own facts.
_ALERT_NUMBERS: Final = ("value", "threshold", "samples")
_ALERT_TEXTS: Final = (
    "type",
    "severity",
    "timestamp",
    "metric",
    "operator",
    "criterion",
    "evidence",
    "anomaly",
    "since",
)
_ALERT_LISTS: Final = ("interval", "expected")
_ALERT_FLAGS: Final = ("repeated", "flapping")

_SECRETS: Final = re.compile(r"(?<=://)[^/\s@]*@|AIza[0-9A-Za-z_-]{20,}")

_DEADLINE_PASSED: Final = re.compile(r"since the deadline .* has passed")

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
        return "the last 24 hours" if self.seconds == _DAY else "the last hour"

    @property
    def words_before(self) -> str:
        """The name of the one before."""
        return "the 24 hours before" if self.seconds == _DAY else "the hour before"


@dataclass(frozen=True, slots=True)
class Material:
    """What is known of an experiment, before anything is chosen.

    Attributes:
        experiment_id: which.
        experiment: its definition; None where it has none.
        fields: its aggregate hash.
        verdicts: its criteria as judged now.
        states: fingerprint -> what is remembered of a criterion.
        spans: its windows; None where none are kept.
        history: its latest alerts as JSON objects, newest first.
    """

    experiment_id: str
    experiment: Experiment | None
    fields: Mapping[str, str]
    verdicts: Sequence[Verdict] = ()
    states: Mapping[str, CriterionState] | None = None
    spans: Spans | None = None
    history: Sequence[Mapping[str, Any]] = ()


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


def comparison_seconds(material: Material, now: datetime) -> int:
    """Which span suits the experiment: a day, or an hour while it is young."""
    started = _started(material)
    return _HOUR if started is not None and (now - started).total_seconds() < _DAYS_FROM else _DAY


def comparison_windows(seconds: int, now_s: int) -> tuple[list[Window], list[Window]]:
    """The windows of the latest span, the present one included, and those of the span before."""
    kind: Literal["minute", "hour"] = "minute" if seconds == _HOUR else "hour"
    length = 60 if kind == "minute" else _HOUR
    count = seconds // length
    last = now_s // length * length
    recent = [Window(kind, last - n * length) for n in range(count)]
    return recent, [Window(kind, last - n * length) for n in range(count, 2 * count)]


def gather(
    material: Material, *, now: datetime, alert: Mapping[str, Any] | None = None, max_bytes: int = MAX_BYTES
) -> Facts:
    """The facts, as many as fit.

    Args:
        material: all that is known.
        now: the time.
        alert: the alert to be analysed, if there is one: its own criterion and metric come first.
        max_bytes: of the facts' JSON text in UTF-8.
    """
    experiment = material.experiment
    about = None if alert is None else _alert(alert)
    verdicts = sorted(_without_repeats(material.verdicts), key=lambda verdict: _rank(verdict, alert))
    criteria = [_criterion(verdict, material.states or {}) for verdict in verdicts]
    spans = material.spans if material.spans is not None and material.spans.recent.events else None
    names = _metric_names(material, criteria, about)
    metrics = [fact for fact in _metrics(material, names, spans) if fact.value is not None]
    past = [_past(one) for one in material.history if alert is None or one.get("alert_id") != alert.get("alert_id")]
    started = _started(material)
    bare = Facts(
        experiment_id=clean(material.experiment_id, _NAME),
        hypothesis="" if experiment is None else clean(experiment.hypothesis, _HYPOTHESIS),
        state="" if experiment is None else experiment.state,
        age="" if started is None else duration((now - started).total_seconds()),
        events=events_total(material.fields),
        tally=_tally(criteria),
        alert=about,
        recent=spans.words if spans else "",
        before=spans.words_before if spans else "",
    )
    return _chosen(bare, criteria, metrics, past, max_bytes)


def _chosen(
    bare: Facts, criteria: Sequence[CriterionFact], metrics: Sequence[MetricFact], past: Sequence[Past], max_bytes: int
) -> Facts:
    """Add the criteria, metrics and alerts in turn, the most important of each first, until the room is used up."""
    room = max_bytes - _size(bare.as_json()) - _size({"left_out": {"criteria": 999, "metrics": 999, "alerts": 999}})
    kept: dict[str, list[Any]] = {"criteria": [], "metrics": [], "alerts": []}
    waiting: list[tuple[str, Iterator[Any]]] = [
        ("criteria", iter(criteria[:_MAX_CRITERIA])),
        ("metrics", iter(metrics[:_MAX_METRICS])),
        ("alerts", iter(past[:_MAX_ALERTS])),
    ]
    while waiting:
        section, items = waiting.pop(0)
        item = next(items, None)
        if item is None:
            continue
        needed = _size(item.as_json()) + 1
        if needed <= room:
            room -= needed
            kept[section].append(item)
            waiting.append((section, items))
    all_of: dict[str, Sequence[Any]] = {"criteria": criteria, "metrics": metrics, "alerts": past}
    left = {section: len(found) - len(kept[section]) for section, found in all_of.items()}
    return Facts(
        experiment_id=bare.experiment_id,
        hypothesis=bare.hypothesis,
        state=bare.state,
        age=bare.age,
        events=bare.events,
        tally=bare.tally,
        criteria=tuple(kept["criteria"]),
        metrics=tuple(kept["metrics"]),
        alerts=tuple(kept["alerts"]),
        alert=bare.alert,
        recent=bare.recent,
        before=bare.before,
        left_out={section: count for section, count in left.items() if count},
    )


def _size(document: Mapping[str, Any]) -> int:
    """Bytes of its JSON text, in the longer of the two forms that JSON has."""
    return len(json.dumps(document))


# Criteria ------------------------------------------------------------------------------------------------------


def _without_repeats(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Leave out thresholds of metrics that say what a listed criterion says: authors often write both."""
    listed = {_bound(verdict) for verdict in verdicts if verdict.entry.listed} - {None}
    return [verdict for verdict in verdicts if verdict.entry.listed or _bound(verdict) not in listed]


def _bound(verdict: Verdict) -> tuple[str, str, str, float] | None:
    """What a verdict is about: kind, metric, side and threshold."""
    found = verdict.evaluation
    if found is None or found.metric is None or found.operator is None or found.threshold is None:
        return None
    return verdict.kind, name_key(found.metric), found.operator[0], float(f"{found.threshold:.9g}")


def _standing(verdict: Verdict) -> Standing:
    evaluation = verdict.evaluation
    if evaluation is not None and evaluation.state == "met" and evaluation.evidence == "early":
        return "early"
    if verdict.state == "not_met" and verdict.kind == "success" and _DEADLINE_PASSED.search(verdict.reason):
        return "missed"
    return verdict.state


_RANKS: Final[dict[tuple[str, Standing], int]] = {
    ("failure", "met"): 1,
    ("failure", "early"): 2,
    ("success", "missed"): 3,
    ("success", "met"): 4,
    ("success", "early"): 5,
    ("success", "not_met"): 6,
    ("failure", "not_met"): 7,
    ("success", "unknown"): 8,
    ("failure", "unknown"): 9,
}


def _rank(verdict: Verdict, alert: Mapping[str, Any] | None) -> tuple[int, int, int]:
    """What is told comes first, then what is met, then what is open; thresholds after listed criteria."""
    told = alert is not None and alert.get("criterion") == verdict.text
    metric = None if verdict.evaluation is None else verdict.evaluation.metric
    same_metric = alert is not None and metric is not None and alert.get("metric") == metric
    rank = 0 if told else _RANKS.get((verdict.kind, _standing(verdict)), 10)
    return rank, 0 if same_metric else 1, 0 if verdict.entry.listed else 1


def _criterion(verdict: Verdict, states: Mapping[str, CriterionState]) -> CriterionFact:
    evaluation, kept = verdict.evaluation, states.get(verdict.fingerprint)
    since = None
    if kept is not None and kept.active and kept.since_ms > 0:
        since = f"{datetime.fromtimestamp(kept.since_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    text, reason = clean(verdict.text, _TEXT), clean(verdict.reason, _TEXT)
    if evaluation is None:
        return CriterionFact(verdict.kind, text, "unsupported", reason)
    proof = evaluation.proof
    interval = evaluation.interval if evaluation.state == "met" else None
    return CriterionFact(
        kind=verdict.kind,
        text=text,
        standing=_standing(verdict),
        reason=reason,
        metric=None if evaluation.metric is None else clean(evaluation.metric, _NAME),
        operator=evaluation.operator,
        threshold=number(evaluation.threshold),
        value=number(evaluation.value),
        successes=None if proof is None else proof.successes,
        samples=evaluation.samples,
        interval=None if interval is None else (number(interval[0]) or 0.0, number(interval[1]) or 0.0),
        scale=evaluation.scale,
        since=since if evaluation.state == "met" else None,
    )


def _tally(criteria: Iterable[CriterionFact]) -> dict[str, dict[str, int]]:
    tally: dict[str, Counter[str]] = {"success": Counter(), "failure": Counter()}
    for one in criteria:
        tally[one.kind][one.standing] += 1
    return {kind: dict(sorted(states.items())) for kind, states in tally.items() if states}


# Metrics -------------------------------------------------------------------------------------------------------


def _metric_names(
    material: Material, criteria: Sequence[CriterionFact], alert: Mapping[str, Any] | None
) -> dict[str, bool]:
    """The metrics by importance, and whether alert or criteria name them: these first, then formulas, then the rest."""
    experiment = material.experiment
    declared = () if experiment is None else experiment.metrics
    told = str(alert["metric"]) if alert is not None and "metric" in alert else None
    counts = {field.removesuffix("_count"): field for field in material.fields if field.endswith("_count")}
    gauges = [field.removesuffix("_latest") for field in material.fields if field.endswith("_latest")]
    named = [*([told] if told else []), *(one.metric for one in criteria if one.metric is not None)]
    names = [
        *named,
        *(spec.name for spec in declared if spec.formula is not None),
        *(spec.name for spec in declared if spec.formula is None),
        *sorted(counts, key=lambda name: (-_whole(material.fields[counts[name]]), name)),
        *sorted(gauges),
    ]
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name_key(name) or name, name)
    return {name: name in named for name in found.values()}


def _metrics(material: Material, names: Mapping[str, bool], spans: Spans | None) -> Iterator[MetricFact]:
    specs = {} if material.experiment is None else material.experiment.specs
    now = Metrics.from_hash(material.fields, specs)
    recent = None if spans is None else Metrics.from_hash(window_fields(spans.recent), specs)
    # Before an experiment began there is nothing to compare with.
    before = None if spans is None or not spans.before.events else Metrics.from_hash(window_fields(spans.before), specs)
    asked = {name for name, named in names.items() if named}
    for name in names:
        whole = now.read(name)
        if whole.assumed and name not in asked:
            continue  # nobody has counted it yet, and no criterion waits for it
        latest, earlier = (None if view is None else view.read(name) for view in (recent, before))
        yield MetricFact(
            name=clean(name, _NAME),
            kind=whole.kind,
            value=number(whole.value),
            successes=whole.successes,
            samples=whole.trials,
            recent=_value_in(latest, whole),
            before=_value_in(earlier, whole),
            recent_samples=None if latest is None else latest.trials,
            before_samples=None if earlier is None else earlier.trials,
            scale=whole.scale,
        )


def _value_in(reading: Reading | None, whole: Reading) -> float | None:
    """The value in a span, where it is the same kind of thing as all in all."""
    return number(reading.value) if reading is not None and reading.kind == whole.kind else None


def window_fields(sums: WindowSums) -> dict[str, str]:
    """Windows in the fields of an aggregate, so that metrics are read from them; a gauge reads as its mean."""
    fields = {f"{name}_count": str(times) for name, times in sums.counts.items()}
    fields |= {f"{name}_latest": f"{gauge.mean:.12g}" for name, gauge in sums.gauges.items()}
    return fields | {"events_total": str(sums.events)}


# Texts and numbers ---------------------------------------------------------------------------------------------


def clean(text: str, limit: int) -> str:
    """Somebody else's text: on one line, shortened, and without what looks like a password or a key."""
    return cut(_SECRETS.sub(lambda found: "***@" if found[0].endswith("@") else "***", text[: 4 * limit]), limit)


def number(value: Any) -> float | int | None:
    """Six significant digits, whole numbers as such; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    rounded = float(f"{value:.6g}") if abs(value) < 1e15 else float(value)
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def percent(value: float | None, scale: float) -> float | int | None:
    """A rate in percent, three digits."""
    return None if value is None else number(float(f"{100 * value / scale:.3g}"))


def duration(seconds: float) -> str:
    """A time in words, to its largest unit: "3 days"."""
    for unit, size in (("day", _DAY), ("hour", _HOUR), ("minute", 60)):
        if seconds >= 2 * size or (unit == "minute" and seconds >= size):
            count = int(seconds // size)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "less than a minute"


def _alert(alert: Mapping[str, Any]) -> dict[str, Any]:
    """The alert to be analysed, as far as it says what the experiment's facts do not."""
    texts = {name: clean(alert[name], _TEXT) for name in _ALERT_TEXTS if isinstance(alert.get(name), str)}
    numbers = {name: found for name in _ALERT_NUMBERS if (found := number(alert.get(name))) is not None}
    lists = {
        name: [number(item) for item in alert[name][:2]] for name in _ALERT_LISTS if isinstance(alert.get(name), list)
    }
    flags = {name: True for name in _ALERT_FLAGS if alert.get(name) is True}
    message = clean(str(alert.get("message", "")), _MESSAGE)
    return {**texts, **numbers, **lists, **flags, "message": message, **_verdicts(alert)}


def _verdicts(alert: Mapping[str, Any]) -> dict[str, Any]:
    """Of a completion: how many of its verdicts came to what, which is final whatever came since."""
    verdicts = alert.get("verdicts")
    if not isinstance(verdicts, list):
        return {}
    tally: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        if isinstance(verdict, dict):
            tally.setdefault(clean(str(verdict.get("kind")), _NAME), Counter())[str(verdict.get("state"))[:20]] += 1
    return {"final": {kind: dict(sorted(states.items())) for kind, states in sorted(tally.items())}} if tally else {}


def _past(alert: Mapping[str, Any]) -> Past:
    kind, severity, at, message = (str(alert.get(name, "")) for name in ("type", "severity", "timestamp", "message"))
    return Past(clean(kind, 40), clean(severity, 20), clean(at, 30), clean(message, _TEXT))


def _started(material: Material) -> datetime | None:
    experiment = material.experiment
    created = None if experiment is None else experiment.created_at
    return created or parse_moment(material.fields.get("first_event_at"))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
