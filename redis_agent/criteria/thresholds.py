"""Criteria out of the thresholds that metrics declare: ``success_threshold`` and ``failure_threshold``.

A threshold counts as reached at its own value. Which way it is reached depends on the metric, and this is how it is
known, the first that says something:

1. the comparison that the threshold itself is written with (``"< 5%"``), or the metric's ``direction``;
2. two of success threshold, failure threshold and target: success and target lie on the better side;
3. a metric of type ``duration`` is better when lower, unless its name speaks of people who stay (``session_length``);
4. so is one whose name speaks of what nobody wants (``bounce_rate``, ``unsubscribes``, ``cost_per_lead``);
5. a counter with nothing but a ``failure_threshold`` counts what nobody wants;
6. more is better.

A failure threshold that a *counter* must not stay below counts when the experiment is over: every counter begins there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from redis_agent.criteria.expression import Comparison, ComparisonOperator, Criterion, Name, Number
from redis_agent.criteria.metrics import MetricSpec

# Beginnings of words, and words.
_UNWANTED: Final = re.compile(
    r"(?:^|[\W_])(?:(?:bounc|unsub|spam|complain|error|fail|churn|refund|block|reject|negativ|latenc|declin|banned|abandon"
    r"|cancel|overdue|delay|crash|timeout|time_to_|opt_?out|opted_out|report(?:ed|s)?_as|flagged)"
    r"|(?:costs?|bans?|drops?|drop_?outs?|cpa|cpl|cac|cpc|cpm)(?:[\W_]|$))"
)
_KEEPS_PEOPLE: Final = re.compile(r"session|watch|listen|dwell|engage|uptime|retention|spent|(?:^|_)on_")


@dataclass(frozen=True, slots=True)
class ThresholdCriterion:
    """A threshold as a criterion.

    Attributes:
        kind: ``success`` or ``failure``.
        text: For people; names the threshold.
        criterion: The comparison.
        only_final: Whether it is met only when the experiment is over.
    """

    kind: Literal["success", "failure"]
    text: str
    criterion: Criterion
    only_final: bool = False


def threshold_criteria(spec: MetricSpec) -> Iterator[ThresholdCriterion]:
    """The criteria of a metric's thresholds, that of success first."""
    lower = _lower_is_better(spec)
    if spec.success_threshold is not None:
        yield _criterion("success", spec, spec.success_threshold, "<=" if lower else ">=")
    if spec.failure_threshold is not None:
        # At a threshold of nothing at all the first one counts, not none.
        worse: ComparisonOperator = ">" if spec.failure_threshold.value == 0 else ">="
        yield _criterion("failure", spec, spec.failure_threshold, worse if lower else "<=")


def _criterion(
    kind: Literal["success", "failure"], spec: MetricSpec, threshold: Number, operator: ComparisonOperator
) -> ThresholdCriterion:
    if spec.is_share and spec.scale == 1.0 and not threshold.percent and threshold.value > 1:
        # A ratio of counts never exceeds 1 like this: the author means 8 %, and the formula gives 0.08.
        threshold = Number(threshold.value, percent=True)
    criterion = Criterion(Comparison((Name(spec.name), threshold), (operator,)))
    only_final = kind == "failure" and operator == "<=" and spec.type == "counter"
    return ThresholdCriterion(kind, f"{criterion.text} ({kind}_threshold)", criterion, only_final)


def _lower_is_better(spec: MetricSpec) -> bool:
    if spec.direction:
        return spec.direction == "lower"
    success, failure, target = (
        None if number is None else number.value * (0.01 * spec.scale if number.percent else 1.0)
        for number in (spec.success_threshold, spec.failure_threshold, spec.target)
    )
    for better, worse in ((success, failure), (target, failure), (target, success)):
        if better is not None and worse is not None and better != worse:
            return better < worse
    name = spec.name.lower()
    if spec.type == "duration":
        return _KEEPS_PEOPLE.search(name) is None
    if _UNWANTED.search(name):
        return True
    return spec.type == "counter" and success is None
