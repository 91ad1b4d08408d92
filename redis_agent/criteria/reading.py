"""What a metric reads as, and arithmetic on readings that does not forget where they come from.

A count divided by a count is a *rate* and keeps its successes and trials, so that evidence can be
asked of it; ``rate * 100`` is the same rate on another scale. Any other arithmetic on a rate has a
number only, and remembers the fewest trials that went into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from redis_agent.criteria.expression import (
    Arithmetic,
    ArithmeticOperator,
    Name,
    Negative,
    Number,
    Term,
    print_term,
)

ReadingKind: TypeAlias = Literal["counter", "gauge", "fact", "rate", "derived", "missing"]

_LARGEST_COUNT: Final = 2.0**63


class Reading(NamedTuple):
    """The value of a metric or a term at one moment; a tuple, which Python builds quickest.

    Attributes:
        name: The metric's name, "" for the result of arithmetic.
        value: A finite number, or None when it is unknown.
        reason: Why the value is unknown, else "".
        kind: ``counter`` (a sum of events), ``gauge`` (somebody's latest value), ``fact`` (a plain
            field or a literal), ``rate`` (counts over counts), ``derived`` (any other formula),
            ``missing`` (unknown).
        successes: Numerator of a rate.
        trials: Denominator of a rate; for a derived value that has rates in it, the fewest.
        scale: What a ratio of 1 reads as: 1.0, or 100.0 for percentages. A rate's value is
            ``successes / trials * scale``; ``10%`` is a tenth of the scale.
        assumed: A declared counter without an event of its own went in as 0.
    """

    name: str
    value: float | None
    reason: str = ""
    kind: ReadingKind = "fact"
    successes: int | None = None
    trials: int | None = None
    scale: float = 1.0
    assumed: bool = False

    def under(self, name: str, scale: float) -> Reading:
        """The same reading under another name (cheaper than ``_replace``)."""
        return Reading(name, self.value, self.reason, self.kind, self.successes, self.trials, scale, self.assumed)


def unknown(name: str, reason: str, scale: float = 1.0) -> Reading:
    """A reading without a value."""
    return Reading(name, None, reason, "missing", scale=scale)


def as_number(field: object) -> float | None:
    """A finite number from a field of the aggregate hash, or None; never raises."""
    try:
        value = float(field)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        truth = {"true": 1.0, "false": 0.0}
        return truth.get(field.strip().lower()) if isinstance(field, str) else None
    return value if math.isfinite(value) else None


def value_of(term: Term, read: Callable[[str], Reading], percent_scale: float = 1.0) -> Reading:
    """Computes a term.

    Args:
        term: At most ``grammar.MAX_DEPTH`` deep, which bounds the recursion.
        read: Gives the reading of a metric.
        percent_scale: What 100% means here: the scale of what the term is compared with.

    Returns:
        The reading; its name is "" unless the term is a bare name.
    """
    if isinstance(term, Name):
        return read(term.name)
    if isinstance(term, Number):
        return Reading("", term.at(percent_scale))
    if isinstance(term, Negative):
        inner = value_of(term.operand, read, percent_scale)
        if inner.value is None:
            return inner
        return Reading("", -inner.value, "", _mixed(inner), None, inner.trials, inner.scale)
    return _combined(term, read, percent_scale)


def _combined(term: Arithmetic, read: Callable[[str], Reading], percent_scale: float) -> Reading:
    additive = term.operator in "+-"
    if additive and _is_percent(term.left) and not _is_percent(term.right):
        right = value_of(term.right, read, percent_scale)
        left = value_of(term.left, read, right.scale)
    else:
        left = value_of(term.left, read, percent_scale if additive else 1.0)
        within = left.scale if additive and _is_percent(term.right) else 1.0
        right = value_of(term.right, read, within)
    if left.value is None or right.value is None:
        return left if left.value is None else right
    result = _apply(term.operator, left.value, right.value)
    if result is None:
        return unknown("", f"{print_term(term)} divides by 0: {print_term(term.right)} is 0")
    if not math.isfinite(result):
        return unknown("", f"{print_term(term)} is too large to be a number")
    return _with_origin(term, left, right, result)


def _apply(operator: ArithmeticOperator, left: float, right: float) -> float | None:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    return None if right == 0 else left / right


def _with_origin(term: Arithmetic, left: Reading, right: Reading, value: float) -> Reading:
    """The result, as a count or a rate where it still is one."""
    assumed = left.assumed or right.assumed
    operator = term.operator
    if operator == "/" and _is_count(left) and _is_count(right) and right.scale == 1.0:
        ratio = value / left.scale
        if math.isfinite(ratio) and left.value is not None and right.value is not None:
            return Reading(
                "",
                value,
                "",
                "rate",
                round(left.value / left.scale),
                round(right.value),
                left.scale,
                assumed,
            )
    factor = _factor(term, left, right)
    if factor is not None:
        kept = left if isinstance(term.right, Number) else right
        scale = kept.scale * factor
        if kept.kind in ("rate", "counter") and 1e-9 < scale < 1e9:
            return Reading("", value, "", kept.kind, kept.successes, kept.trials, scale, assumed)
    if operator in "+-" and _is_whole(left) and _is_whole(right):
        kind: ReadingKind = "fact" if left.kind == right.kind == "fact" else "counter"
        return Reading("", value, kind=kind, assumed=assumed)
    trials = [side.trials for side in (left, right) if side.trials is not None]
    return Reading(
        "",
        value,
        kind=_mixed(left, right),
        trials=min(trials, default=None),
        scale=_scale(term, left, right),
        assumed=assumed,
    )


def _factor(term: Arithmetic, left: Reading, right: Reading) -> float | None:
    """The positive literal that scales the other side, if the operation is that."""
    factor: float | None = None
    if term.operator == "*":
        side = right if isinstance(term.right, Number) else left
        if isinstance(term.right, Number) or isinstance(term.left, Number):
            factor = side.value
    elif term.operator == "/" and isinstance(term.right, Number) and right.value:
        factor = 1.0 / right.value
    return factor if factor is not None and factor > 0 else None


def _scale(term: Arithmetic, left: Reading, right: Reading) -> float:
    if term.operator in "+-":
        return max(left.scale, right.scale)
    if term.operator == "*" and Number(100.0) in (term.left, term.right):
        return 100.0
    return left.scale if term.operator == "/" and isinstance(term.right, Number) else 1.0


def _is_whole(reading: Reading) -> bool:
    """What a sum of counts may have in it: unscaled counts, and whole facts and literals."""
    if reading.value is None or reading.scale != 1.0:
        return False
    return reading.kind in ("counter", "fact") and reading.value.is_integer()


def _is_count(reading: Reading) -> bool:
    """A whole number of events."""
    if reading.kind != "counter" or reading.value is None:
        return False
    base = reading.value / reading.scale
    return abs(base) < _LARGEST_COUNT and abs(base - round(base)) <= 1e-9 * max(1.0, abs(base))


def _mixed(*readings: Reading) -> ReadingKind:
    return "fact" if all(reading.kind == "fact" for reading in readings) else "derived"


def _is_percent(term: Term) -> bool:
    return isinstance(term, Number) and term.percent
