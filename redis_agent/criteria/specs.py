"""The metrics that an experiment declares, out of a decoded document."""

from __future__ import annotations

from typing import Any, Final

from redis_agent.criteria.documents import kind_of, shown, text_of
from redis_agent.criteria.expression import CriterionError, Formula, Number
from redis_agent.criteria.grammar import parse_formula
from redis_agent.criteria.metrics import MetricSpec

MAX_METRICS: Final = 200
_MAX_NAME: Final = 200


def metric_specs(entries: object, problems: list[str]) -> list[MetricSpec]:
    """The metrics of a list of objects, of names, or of an object by name.

    Args:
        entries: What a document holds; None is no metrics.
        problems: Gets a line for whatever is not understood; the rest is kept.

    Returns:
        At most ``MAX_METRICS`` metrics with distinct names.
    """
    if entries is None:
        return []
    if isinstance(entries, dict):  # {"emails_sent": {"type": "counter"}}
        entries = [
            {"name": name, **(entry if isinstance(entry, dict) else {})}
            for name, entry in list(entries.items())[: MAX_METRICS + 1]
        ]
    if not isinstance(entries, list):
        problems.append(f"metrics is {kind_of(entries)}, not a list")
        return []
    if len(entries) > MAX_METRICS:
        problems.append(f"only the first {MAX_METRICS} metrics are read")
    specs: dict[str, MetricSpec] = {}
    for index, entry in enumerate(entries[:MAX_METRICS], start=1):
        spec = _metric(entry, index, problems)
        if spec is not None and spec.name in specs:
            problems.append(f"metric {shown(spec.name)} is declared twice; the first counts")
        elif spec is not None:
            specs[spec.name] = spec
    return list(specs.values())


def _metric(entry: object, index: int, problems: list[str]) -> MetricSpec | None:
    fields: dict[Any, Any] = entry if isinstance(entry, dict) else {"name": entry}
    name = fields.get("name")
    if not isinstance(name, str) or not 0 < len(name.strip()) <= _MAX_NAME:
        problems.append(f"metric {index} has no name that can be used")
        return None
    name = name.strip()
    formula: Formula | None = None
    written = fields.get("formula") or fields.get("calculation")
    if written is not None:
        try:
            formula = parse_formula(written)
        except CriterionError as error:
            problems.append(f"the formula of {name} is not understood: {error}")
    thresholds = [
        _threshold(name, key, fields.get(key), problems) for key in ("success_threshold", "failure_threshold", "target")
    ]
    return MetricSpec(
        name=name,
        type=text_of(fields.get("type")).lower(),
        formula=formula,
        success_threshold=thresholds[0],
        failure_threshold=thresholds[1],
        target=thresholds[2],
        unit=text_of(fields.get("unit")),
        description=text_of(fields.get("description")),
    )


def _threshold(name: str, key: str, value: object, problems: list[str]) -> Number | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) < 1e300:
            return Number(float(value))
    elif isinstance(value, str):
        try:
            term = parse_formula(value).term
        except CriterionError:
            term = None
        if isinstance(term, Number):
            return term
    problems.append(f"the {key} of {name} is no number: {shown(value)}")
    return None
