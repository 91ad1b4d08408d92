"""What a criterion evaluates to, and how evaluations combine: Kleene's three values, with reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from redis_agent.criteria.evidence import Evidence
from redis_agent.criteria.expression import ComparisonOperator

State: TypeAlias = Literal["met", "not_met", "unknown"]
Strength: TypeAlias = Literal["fact", "early", "confirmed"]

_STRENGTHS: Final[dict[Strength | None, int]] = {None: 0, "early": 1, "confirmed": 2, "fact": 3}
_MAX_REASONS: Final = 3

_MET_WORDS: Final[dict[ComparisonOperator, str]] = {
    ">": "above",
    ">=": "at least",
    "<": "below",
    "<=": "at most",
    "==": "equal to",
    "!=": "different from",
}


class Evaluation(NamedTuple):
    """What a criterion evaluates to.

    A tuple, because every event makes one for each criterion of its experiment, and a tuple is what
    Python builds quickest. Its words are wanted when somebody is told, which is seldom: those of a
    plain comparison are put together when they are first asked for.

    Attributes:
        state: ``met``, ``not_met`` or ``unknown``.
        said: The reason; None where the comparison, as the other fields have it, is all there is to say.
        metric: What the deciding comparison reads; of a compound, the first that decides, and of
            several met ones the weakest of an ``and``, the strongest of an ``or``.
        operator: Of the deciding comparison, the metric being on its left.
        threshold: On the metric's own scale.
        value: On the metric's own scale, or None.
        samples: Denominator of a rate, or None.
        evidence: How sure a met criterion is, or None.
        proof: The counts of a rate compared with a number, or None.
        scale: What a ratio of 1 reads as in ``value``, ``threshold`` and ``interval``.
    """

    state: State
    said: str | None
    metric: str | None = None
    operator: ComparisonOperator | None = None
    threshold: float | None = None
    value: float | None = None
    samples: int | None = None
    evidence: Strength | None = None
    proof: Evidence | None = None
    scale: float = 1.0

    @property
    def reason(self) -> str:
        """One sentence with the numbers."""
        if self.said is not None:
            return self.said
        if self.metric is None or self.operator is None or self.value is None or self.threshold is None:
            return self.state
        return compared(self.metric, self.value, self.operator, self.threshold, met=self.state == "met")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The rate's confidence interval on the metric's own scale; computed when asked for."""
        bounds = None if self.proof is None else self.proof.interval
        return None if bounds is None else (bounds[0] * self.scale, bounds[1] * self.scale)


def compared(
    metric: str,
    value: float,
    operator: ComparisonOperator,
    threshold: float,
    *,
    met: bool,
    counts: str = "",
    against: str = "",
) -> str:
    """A comparison in words; ``counts`` is said of the value, ``against`` of the threshold."""
    is_not = "" if met else "not "
    return f"{metric} is {shown(value)}{counts}, {is_not}{_MET_WORDS[operator]} {against}{shown(threshold)}"


def all_of(results: Iterable[Evaluation]) -> Evaluation:
    """Kleene's conjunction."""
    met: list[Evaluation] = []
    first_unknown: Evaluation | None = None
    for result in results:
        if result.state == "not_met":
            return result
        if result.state == "unknown":
            first_unknown = first_unknown or result
        else:
            met.append(result)
    if first_unknown is not None:
        return first_unknown
    weakest = min(met, key=lambda result: _STRENGTHS[result.evidence])
    return weakest._replace(said=_joined(met))


def any_of(results: Sequence[Evaluation]) -> Evaluation:
    """Kleene's disjunction."""
    met = [result for result in results if result.state == "met"]
    if met:
        return max(met, key=lambda result: _STRENGTHS[result.evidence])
    for result in results:
        if result.state == "unknown":
            return result
    return results[0]._replace(said=_joined(results))


def _joined(results: Sequence[Evaluation]) -> str:
    reasons = [result.reason for result in results]
    more = len(reasons) - _MAX_REASONS
    tail = f" (and {more} more)" if more > 0 else ""
    return " and ".join(reasons[:_MAX_REASONS]) + tail


def shown(value: float) -> str:
    """A number for people: six digits, whole numbers whole."""
    if abs(value) < 1e15 and value == int(value):
        return str(int(value))
    return f"{value:.6g}"
