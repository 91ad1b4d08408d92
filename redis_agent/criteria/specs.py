"""The metrics that an experiment declares, out of a decoded document."""

from __future__ import annotations

import re
from typing import Any, Final

from redis_agent.criteria.documents import kind_of, shown, text_of
from redis_agent.criteria.expression import CriterionError, Formula, Negative, Number
from redis_agent.criteria.grammar import parse_formula
from redis_agent.criteria.metrics import Direction, MetricSpec

MAX_METRICS: Final = 200
_MAX_NAME: Final = 200

# A threshold in words: "< 5%", ">= 1,000", "72 hours".
_THRESHOLD: Final = re.compile(
    r"([<>]=?|=<|=>|[\u2264\u2265])?\s*([-+]?[\d.,_]+(?:[eE][-+]?\d+)?)\s*(%?)\s*([^\W\d_]{0,30})"
)
_DIRECTIONS: Final[dict[str, Direction]] = {
    **dict.fromkeys(("lower", "lower_is_better", "down", "decrease", "minimize", "min"), "lower"),
    **dict.fromkeys(("higher", "higher_is_better", "up", "increase", "maximize", "max"), "higher"),
}


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
    fields = _fields_of(entry)
    # A number or a truth is a name too, where YAML has made one of it.
    name = text_of(fields.get("name"))
    if not 0 < len(name) <= _MAX_NAME:
        problems.append(f"metric {index} has no name that can be used")
        return None
    formula: Formula | None = None
    written = fields.get("formula") or fields.get("calculation")
    if written is not None:
        try:
            formula = parse_formula(text_of(written) if isinstance(written, (int, float)) else written)
        except CriterionError as error:
            problems.append(f"the formula of {name} is not understood: {error}")
    unit = text_of(fields.get("unit"))
    success, succeeds = _threshold(name, "success_threshold", fields.get("success_threshold"), unit, problems)
    failure, fails = _threshold(name, "failure_threshold", fields.get("failure_threshold"), unit, problems)
    target, reaches = _threshold(name, "target", fields.get("target"), unit, problems)
    # What fails below is better when higher.
    opposite: Direction = "higher" if fails == "lower" else "lower" if fails == "higher" else ""
    return MetricSpec(
        name=name,
        type=text_of(fields.get("type")).lower(),
        formula=formula,
        success_threshold=success,
        failure_threshold=failure,
        target=target,
        unit=unit,
        description=text_of(fields.get("description")),
        direction=_DIRECTIONS.get(text_of(fields.get("direction")).lower()) or succeeds or opposite or reaches,
    )


def _fields_of(entry: object) -> dict[Any, Any]:
    """A metric's fields: an object with a name, an object under its name, or the name alone."""
    if not isinstance(entry, dict):
        return {"name": entry}
    if "name" not in entry and len(entry) == 1:
        name, fields = next(iter(entry.items()))
        if fields is None or isinstance(fields, dict):
            return {"name": name, **(fields or {})}
    return entry


def _threshold(name: str, key: str, value: object, unit: str, problems: list[str]) -> tuple[Number | None, Direction]:
    """A threshold, and which way it is reached where that is written with it."""
    if value is None:
        return None, ""
    number: Number | None = None
    direction: Direction = ""
    if isinstance(value, str):
        number, direction = _written_threshold(value.strip(), unit)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        number = Number(float(value))
    if number is None:
        problems.append(f"the {key} of {name} is no number: {shown(value)}")
    return number, direction


def _written_threshold(text: str, unit: str) -> tuple[Number | None, Direction]:
    found = _THRESHOLD.fullmatch(text) if len(text) <= 100 else None
    if found is None or not _is_unit(found[4], unit):
        return None, ""
    percent = "%" if found[3] or found[4].lower() == "percent" else ""
    try:
        term = parse_formula(found[2].removeprefix("+") + percent).term
    except CriterionError:
        return None, ""
    if isinstance(term, Negative) and isinstance(term.operand, Number):
        term = Number(-term.operand.value, term.operand.percent)
    sign = found[1] or ""
    direction: Direction = "lower" if "<" in sign or sign == "\u2264" else "higher" if sign else ""
    return (term, direction) if isinstance(term, Number) else (None, "")


def _is_unit(word: str, unit: str) -> bool:
    """Whether a word behind a number may be its unit: not another one than the metric's own."""
    if not word or not unit or word.lower() == "percent":
        return True
    return word.lower().rstrip("s") == unit.lower().rstrip("s")
