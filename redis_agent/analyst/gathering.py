"""Chooses the facts for an analysis: by importance, to a size. Pure.

Texts that others wrote are shortened and put on one line, and what looks like a password in them is taken out. The same
state of things makes the same facts, in the same order.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from redis_agent.aggregate import events_total
from redis_agent.analyst.facts import (
    DAY,
    HOUR,
    CriterionFact,
    Facts,
    MetricFact,
    Past,
    Spans,
    Standing,
    clean,
    duration,
    number,
)
from redis_agent.criteria import Metrics, Reading
from redis_agent.criteria.names import name_key
from redis_agent.experiments import Experiment, Verdict, parse_moment
from redis_agent.lifecycle import CriterionState
from redis_agent.windows import SECONDS, Window, WindowKind, WindowSums

# Bytes of the facts' JSON: with the instructions around them a prompt stays far below 20 kB.
MAX_BYTES: Final = 8_000
_MAX_CRITERIA: Final = 20
_MAX_METRICS: Final = 15
_MAX_ALERTS: Final = 8
_NAME: Final = 100
_TEXT: Final = 200
_HYPOTHESIS: Final = 400
_MESSAGE: Final = 300

# A younger experiment is compared by the hour, an older one by the day.
_DAYS_FROM: Final = 43_200

# Of an alert's JSON, what an analysis needs: the rest is said by the experiment's own facts.
_ALERT_NUMBERS: Final = ("value", "threshold", "samples")
_ALERT_TEXTS: Final = {
    "type": 40,
    "severity": 20,
    "timestamp": 30,
    "metric": _NAME,
    "operator": 10,
    "evidence": 20,
    "anomaly": 20,
    "since": 30,
}
_ALERT_LISTS: Final = ("interval", "expected")
_ALERT_FLAGS: Final = ("repeated", "flapping")
_FINAL_STATES: Final = ("met", "not_met", "unknown", "unsupported")
# Where a few long texts take too much of the room, they are cut to these shares of their length.
_SHARES: Final = (1.0, 0.5, 0.25, 0.125)


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


def comparison_seconds(material: Material, now: datetime) -> int:
    """Which span suits the experiment: a day, or an hour while it is young."""
    started = _started(material)
    return HOUR if started is not None and (now - started).total_seconds() < _DAYS_FROM else DAY


def comparison_windows(seconds: int, now_s: int) -> tuple[Sequence[Window], Sequence[Window]]:
    """The windows of the latest span, the present one included, and those of the span before."""
    kind: WindowKind = "minute" if seconds == HOUR else "hour"
    length = 60 if kind == "minute" else HOUR
    count = seconds // length
    return _windows(kind, now_s // length * length, count), _windows(kind, now_s // length * length - seconds, count)


@lru_cache(maxsize=4)
def _windows(kind: WindowKind, last: int, count: int) -> tuple[Window, ...]:
    """So many windows, the last one first: the same for all alerts of a minute or an hour."""
    return tuple(Window(kind, last - n * SECONDS[kind]) for n in range(count))


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
    verdicts = sorted(_without_repeats(material.verdicts), key=lambda verdict: _rank(verdict, alert))
    criteria = [_criterion(verdict, material.states or {}) for verdict in verdicts]
    spans = material.spans if material.spans is not None and material.spans.recent.events else None
    names = iter(_names(material, criteria, alert).items())
    readable = (fact for fact in _metrics(material, names, spans) if fact.value is not None)
    metrics = list(islice(readable, _MAX_METRICS))
    own = None if alert is None else alert.get("alert_id")
    past = [_past(one) for one in material.history if own is None or one.get("alert_id") != own]
    bare = replace(
        _head(material, alert, now, max_bytes // 2),
        tally=_tally(criteria),
        recent=spans.words if spans else "",
        before=spans.words_before if spans else "",
    )
    return _chosen(bare, criteria, metrics, past, max_bytes, more_metrics=sum(1 for _ in names))


def _head(material: Material, alert: Mapping[str, Any] | None, now: datetime, max_bytes: int) -> Facts:
    """What is there whatever else has room; its long texts cut until it keeps to a size, as far as that goes."""
    experiment, started = material.experiment, _started(material)
    for share in _SHARES:
        head = Facts(
            experiment_id=clean(material.experiment_id, _NAME),
            hypothesis="" if experiment is None else clean(experiment.hypothesis, int(share * _HYPOTHESIS)),
            state="" if experiment is None else clean(experiment.state, 20),
            age="" if started is None else duration((now - started).total_seconds()),
            events=events_total(material.fields),
            alert=None if alert is None else _alert(alert, share),
        )
        if _size(head.as_json()) <= max_bytes:
            break
    return head


def _chosen(
    bare: Facts,
    criteria: Sequence[CriterionFact],
    metrics: Sequence[MetricFact],
    past: Sequence[Past],
    max_bytes: int,
    *,
    more_metrics: int,
) -> Facts:
    """Add the criteria, metrics and alerts in turn, the most important of each first, until the room is used up."""
    room = max_bytes - _size(bare.as_json()) - _size({"left_out": {"criteria": 999, "metrics": 999, "alerts": 999}})
    kept: dict[str, list[Any]] = {"criteria": [], "metrics": [], "alerts": []}
    waiting: list[tuple[str, Iterator[Any]]] = [
        ("criteria", iter(criteria[:_MAX_CRITERIA])),
        ("metrics", iter(metrics)),
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
    left["metrics"] += more_metrics
    return replace(
        bare,
        criteria=tuple(kept["criteria"]),
        metrics=tuple(kept["metrics"]),
        alerts=tuple(kept["alerts"]),
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
    return "missed" if verdict.missed else verdict.state


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


def _names(material: Material, criteria: Sequence[CriterionFact], alert: Mapping[str, Any] | None) -> dict[str, bool]:
    """The metrics by importance, and whether alert or criteria name them: these first, then formulas, then the rest."""
    experiment = material.experiment
    declared = () if experiment is None else experiment.metrics
    told = alert.get("metric") if alert is not None else None
    counts = {field.removesuffix("_count"): field for field in material.fields if field.endswith("_count")}
    gauges = [field.removesuffix("_latest") for field in material.fields if field.endswith("_latest")]
    named = [
        *([told] if isinstance(told, str) and told else []),
        *(one.metric for one in criteria if one.metric is not None),
    ]
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


def _metrics(material: Material, names: Iterable[tuple[str, bool]], spans: Spans | None) -> Iterator[MetricFact]:
    """The metrics of these names; of what nobody has counted yet only those that are asked for."""
    specs = {} if material.experiment is None else material.experiment.specs
    now = Metrics.from_hash(material.fields, specs)
    recent = None if spans is None else Metrics.from_hash(window_fields(spans.recent), specs)
    # Before an experiment began there is nothing to compare with.
    before = None if spans is None or not spans.before.events else Metrics.from_hash(window_fields(spans.before), specs)
    for name, asked in names:
        whole = now.read(name)
        if whole.assumed and not asked:
            continue
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


# The alert and its history -----


def _alert(alert: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The alert to be analysed, as far as it says what the experiment's facts do not; long texts to a share."""
    texts = {n: clean(alert[n], limit) for n, limit in _ALERT_TEXTS.items() if isinstance(alert.get(n), str)}
    numbers = {name: found for name in _ALERT_NUMBERS if (found := number(alert.get(name))) is not None}
    lists = {
        name: [number(item) for item in alert[name][:2]] for name in _ALERT_LISTS if isinstance(alert.get(name), list)
    }
    flags = {name: True for name in _ALERT_FLAGS if alert.get(name) is True}
    criterion = alert.get("criterion")
    named = {"criterion": clean(criterion, int(share * _TEXT))} if isinstance(criterion, str) else {}
    message = clean(str(alert.get("message", "")), int(share * _MESSAGE))
    return {**texts, **named, **numbers, **lists, **flags, "message": message, **_verdicts(alert)}


def _verdicts(alert: Mapping[str, Any]) -> dict[str, Any]:
    """Of a completion: how many of its verdicts came to what, which is final whatever came since."""
    verdicts = alert.get("verdicts")
    if not isinstance(verdicts, list):
        return {}
    tally: dict[str, Counter[str]] = {"success": Counter(), "failure": Counter()}
    for verdict in verdicts:
        if isinstance(verdict, dict) and verdict.get("kind") in ("success", "failure"):
            state = verdict.get("state")
            tally[verdict["kind"]][state if state in _FINAL_STATES else "other"] += 1
    return {"final": {kind: dict(sorted(states.items())) for kind, states in tally.items() if states}}


def _past(alert: Mapping[str, Any]) -> Past:
    kind, severity, at, message = (str(alert.get(name, "")) for name in ("type", "severity", "timestamp", "message"))
    return Past(clean(kind, 40), clean(severity, 20), clean(at, 30), clean(message, _TEXT))


def _started(material: Material) -> datetime | None:
    experiment = material.experiment
    created = None if experiment is None else experiment.created_at
    return created or parse_moment(material.fields.get("first_event_at"))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
