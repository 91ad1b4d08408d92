"""The typed expression that a criterion is, its canonical text, and its plan for judging.

Nodes are plain frozen values. A *term* has a number (``replies / emails_sent``), a *condition* is
met or not (``replies > 3``). The printer and the grammar are inverse: ``parse(criterion.text)``
gives an equal criterion.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, TypeAlias

ComparisonOperator: TypeAlias = Literal["<", "<=", ">", ">=", "==", "!="]
LESS: Final[tuple[ComparisonOperator, ...]] = ("<", "<=")
ArithmeticOperator: TypeAlias = Literal["+", "-", "*", "/"]

RESERVED: Final = frozenset({"and", "or", "not", "true", "false", "after", "within"})
"""Words that mean something in the grammar; a metric of such a name is written in backticks."""

SECONDS_PER_UNIT: Final[dict[str, int]] = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,  # 30 days: an experiment has no calendar
    "year": 31_536_000,
}

UNITS: Final[dict[str, str]] = {
    spelling: unit
    for unit, spellings in {
        "second": "s sec secs second seconds",
        "minute": "min mins minute minutes",
        "hour": "h hr hrs hour hours",
        "day": "d day days",
        "week": "w wk wks week weeks",
        "month": "month months",
        "year": "y yr yrs year years",
    }.items()
    for spelling in spellings.split()
}
"""Every spelling of a unit of time. ``m`` is none: it could be minutes, or months."""

NAME: Final = re.compile(r"[^\W\d]\w*(?:\.\w+)*")
"""A name that needs no backticks: letters, digits and ``_``, dots inside, no digit first."""

_NEGATED: Final[dict[ComparisonOperator, ComparisonOperator]] = {
    "<": ">=",
    "<=": ">",
    ">": "<=",
    ">=": "<",
    "==": "!=",
    "!=": "==",
}
_MIRRORED: Final[dict[ComparisonOperator, ComparisonOperator]] = {
    "<": ">",
    "<=": ">=",
    ">": "<",
    ">=": "<=",
    "==": "==",
    "!=": "!=",
}


class CriterionError(ValueError):
    """A text is not a criterion (or not a formula) of the grammar.

    Attributes:
        message: What is wrong, without the place.
        position: Index of the character where it is wrong, from 0.
        hint: One line that says what could stand there, or "".
    """

    def __init__(self, message: str, position: int = 0, hint: str = "") -> None:
        """Builds the one-line text from its parts."""
        self.message = message
        self.position = position
        self.hint = hint
        tail = f"; {hint}" if hint else ""
        super().__init__(f"{message} at character {position + 1}{tail}")


@dataclass(frozen=True, slots=True)
class Number:
    """A literal: ``0.1``, ``1,000`` or ``10%`` (``value`` 10, ``percent`` True)."""

    value: float
    percent: bool = False

    def at(self, scale: float) -> float:
        """The value where a ratio of 1 reads as ``scale``."""
        return self.value / 100.0 * scale if self.percent else self.value


@dataclass(frozen=True, slots=True)
class Name:
    """A metric, by the name that the author wrote."""

    name: str


@dataclass(frozen=True, slots=True)
class Negative:
    """Unary minus."""

    operand: Term


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``left operator right``."""

    operator: ArithmeticOperator
    left: Term
    right: Term


Term: TypeAlias = Number | Name | Negative | Arithmetic


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison, or a chain of them: ``0.1 < x <= 0.3`` has three operands, two operators."""

    operands: tuple[Term, ...]
    operators: tuple[ComparisonOperator, ...]


@dataclass(frozen=True, slots=True)
class Flag:
    """``name: true`` (any value but 0) or ``name: false`` (0)."""

    name: str
    expected: bool


@dataclass(frozen=True, slots=True)
class And:
    """All of the items; an item is never itself an ``And``."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of the items; an item is never itself an ``Or``."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of the item."""

    item: Condition


@dataclass(frozen=True, slots=True)
class AfterCount:
    """``after 100 sends``: from then on the author wants the comparison taken literally."""

    count: float
    noun: str


@dataclass(frozen=True, slots=True)
class Duration:
    """An amount of a unit of ``SECONDS_PER_UNIT``, kept as the author wrote it."""

    amount: float
    unit: str

    @property
    def seconds(self) -> float:
        """The length in seconds; a month has 30 days."""
        return self.amount * SECONDS_PER_UNIT[self.unit]

    @property
    def delta(self) -> timedelta:
        """The length as a timedelta (the grammar bounds it to 100 years)."""
        return timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class AfterTime:
    """``after 7 days`` from the experiment's start: before that nothing is judged."""

    duration: Duration


@dataclass(frozen=True, slots=True)
class Within:
    """``within 2 weeks`` of the experiment's start: past it the values are judged as final."""

    duration: Duration


@dataclass(frozen=True, slots=True)
class AtEnd:
    """``at end``: judged only when the experiment is over; before that nothing is."""


Clause: TypeAlias = AtEnd | AfterCount | AfterTime | Within


@dataclass(frozen=True, slots=True)
class Bounded:
    """A condition with clauses; the condition is never itself ``Bounded``.

    An ``AtEnd`` stands first, once: behind ``after 100 sends`` its words would belong to the noun.
    """

    condition: Condition
    clauses: tuple[Clause, ...]


Condition: TypeAlias = Comparison | Flag | And | Or | Not | Bounded


@dataclass(frozen=True, slots=True)
class Plain:
    """``name operator literal``, the commonest plan, taken apart: nothing is walked to judge it."""

    name: str
    operator: ComparisonOperator
    literal: Number


@dataclass(frozen=True, slots=True)
class Criterion:
    """A criterion that was understood.

    Attributes:
        condition: What the author wrote, as a tree. Equality is equality of this tree.
        text: The canonical text; parsing it gives an equal criterion.
        plan: The same condition without ``Not`` and chains, metrics on the left: what is judged.
            Negations are pushed down to the comparisons, so that a criterion which still waits, or
            a rate on too little data, is never turned into a met one by a ``not`` above it.
        plain: The plan once more where it is a metric compared with a literal, else None.
        names: The metrics it reads, in order, each once.
        has_time_clause: Whether its truth can change by the clock alone.
        asks_for_less: Whether it has a comparison that is met by being below something.
        spoken: Names out of prose that nobody declared: an event with the same words in another
            order, or with a filler more or less, is what they mean.
    """

    condition: Condition
    spoken: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    text: str = field(init=False, compare=False)
    plan: Condition = field(init=False, compare=False, repr=False)
    plain: Plain | None = field(init=False, compare=False, repr=False)
    names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    has_time_clause: bool = field(init=False, compare=False, repr=False)
    asks_for_less: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Derives what judging needs, once."""
        plan = affirmed(self.condition)
        object.__setattr__(self, "text", print_condition(self.condition))
        object.__setattr__(self, "plan", plan)
        object.__setattr__(self, "plain", _plain(plan))
        object.__setattr__(self, "names", names_of(plan))
        object.__setattr__(self, "has_time_clause", _has_time_clause(plan))
        object.__setattr__(self, "asks_for_less", _asks_for_less(plan))

    @property
    def is_bare_flag(self) -> bool:
        """Whether it is a name alone, or a name with clauses."""
        inner = self.condition.condition if isinstance(self.condition, Bounded) else self.condition
        return isinstance(inner, Flag)

    def __str__(self) -> str:
        """The canonical text."""
        return self.text


@dataclass(frozen=True, slots=True)
class Formula:
    """The arithmetic of a derived metric.

    Attributes:
        term: The expression.
        text: The canonical text.
        names: Its operands, in order, each once.
        scale: 100.0 when the formula multiplies a ratio to a percentage, else 1.0.
    """

    term: Term
    text: str = field(init=False, compare=False)
    names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    scale: float = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Derives what reading needs, once."""
        object.__setattr__(self, "text", print_term(self.term))
        object.__setattr__(self, "names", names_of(self.term))
        object.__setattr__(self, "scale", 100.0 if _makes_percentage(self.term) else 1.0)

    def __str__(self) -> str:
        """The canonical text."""
        return self.text


def print_name(name: str) -> str:
    """A name as the grammar reads it, in backticks when it must be."""
    plain = NAME.fullmatch(name) and name.lower() not in RESERVED
    return name if plain else f"`{name}`"


def print_number(value: float) -> str:
    """The shortest text that reads back as the same float; whole numbers without ``.0``."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def print_term(term: Term) -> str:
    """The canonical text of an arithmetic term."""
    if isinstance(term, Number):
        return print_number(term.value) + ("%" if term.percent else "")
    if isinstance(term, Name):
        return print_name(term.name)
    if isinstance(term, Negative):
        text = print_term(term.operand)
        return f"-({text})" if isinstance(term.operand, Arithmetic) else f"-{text}"
    left, right = print_term(term.left), print_term(term.right)
    product = term.operator in "*/"
    if isinstance(term.left, Arithmetic) and product and term.left.operator in "+-":
        left = f"({left})"
    if isinstance(term.right, Arithmetic) and (product or term.right.operator in "+-"):
        right = f"({right})"
    return f"{left} {term.operator} {right}"


def print_clause(clause: Clause) -> str:
    """The canonical text of a clause."""
    if isinstance(clause, AtEnd):
        return "at end"
    if isinstance(clause, AfterCount):
        return f"after {print_number(clause.count)} {clause.noun}"
    duration = clause.duration
    plural = "" if duration.amount == 1 else "s"
    word = "after" if isinstance(clause, AfterTime) else "within"
    return f"{word} {print_number(duration.amount)} {duration.unit}{plural}"


def print_condition(condition: Condition) -> str:
    """The canonical text of a condition."""
    if isinstance(condition, Comparison):
        parts = [print_term(condition.operands[0])]
        for operator, operand in zip(condition.operators, condition.operands[1:], strict=True):
            parts += [operator, print_term(operand)]
        return " ".join(parts)
    if isinstance(condition, Flag):
        return f"{print_name(condition.name)}: {'true' if condition.expected else 'false'}"
    if isinstance(condition, And):
        return " and ".join(_print_item(item, Or) for item in condition.items)
    if isinstance(condition, Or):
        return " or ".join(print_condition(item) for item in condition.items)
    if isinstance(condition, Not):
        return "not " + _print_item(condition.item, And, Or)
    clauses = " ".join(print_clause(clause) for clause in condition.clauses)
    return f"{_print_item(condition.condition, And, Or, Not)} {clauses}"


def _print_item(condition: Condition, *looser: type[Condition]) -> str:
    text = print_condition(condition)
    return f"({text})" if isinstance(condition, looser) else text


def affirmed(condition: Condition, negated: bool = False) -> Condition:
    """The same truth without ``Not`` and without chains (negation normal form, De Morgan)."""
    if isinstance(condition, Comparison):
        return _affirmed_comparison(condition, negated)
    if isinstance(condition, Flag):
        return Flag(condition.name, condition.expected != negated)
    if isinstance(condition, Not):
        return affirmed(condition.item, not negated)
    if isinstance(condition, Bounded):
        return Bounded(affirmed(condition.condition, negated), condition.clauses)
    items = tuple(affirmed(item, negated) for item in condition.items)
    return And(items) if isinstance(condition, And) != negated else Or(items)


def _affirmed_comparison(chain: Comparison, negated: bool) -> Condition:
    pairs: list[Condition] = []
    for index, written in enumerate(chain.operators):
        operator = _NEGATED[written] if negated else written
        left, right = chain.operands[index], chain.operands[index + 1]
        if not names_of(left) and names_of(right):
            left, right, operator = right, left, _MIRRORED[operator]
        pairs.append(Comparison((left, right), (operator,)))
    if len(pairs) == 1:
        return pairs[0]
    return Or(tuple(pairs)) if negated else And(tuple(pairs))


def _plain(plan: Condition) -> Plain | None:
    if not isinstance(plan, Comparison):
        return None
    (left, right), (operator,) = plan.operands, plan.operators
    if isinstance(left, Name) and isinstance(right, Number):
        return Plain(left.name, operator, right)
    return None


def names_of(node: Term | Condition) -> tuple[str, ...]:
    """The metrics that a node reads, in order, each once (clauses' nouns are not metrics)."""
    found: dict[str, None] = {}
    waiting: list[Term | Condition] = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (Name, Flag)):
            found[item.name] = None
        else:
            waiting.extend(reversed(_children(item)))
    return tuple(found)


def _children(node: Term | Condition) -> tuple[Term | Condition, ...]:
    if isinstance(node, Arithmetic):
        return (node.left, node.right)
    if isinstance(node, Negative):
        return (node.operand,)
    if isinstance(node, Comparison):
        return node.operands
    if isinstance(node, (And, Or)):
        return node.items
    if isinstance(node, Not):
        return (node.item,)
    if isinstance(node, Bounded):
        return (node.condition,)
    return ()


def _has_time_clause(condition: Condition) -> bool:
    if isinstance(condition, Bounded) and any(isinstance(clause, (AfterTime, Within)) for clause in condition.clauses):
        return True
    if isinstance(condition, (Bounded, Not)):
        inner = condition.condition if isinstance(condition, Bounded) else condition.item
        return _has_time_clause(inner)
    if isinstance(condition, (And, Or)):
        return any(_has_time_clause(item) for item in condition.items)
    return False


def _asks_for_less(plan: Condition) -> bool:
    if isinstance(plan, Comparison):
        return plan.operators[0] in LESS
    if isinstance(plan, Bounded):
        return _asks_for_less(plan.condition)
    return isinstance(plan, (And, Or)) and any(_asks_for_less(item) for item in plan.items)


def _makes_percentage(term: Term) -> bool:
    """Whether ``* 100`` stands in the product that the term is, at any place of it."""
    if not isinstance(term, Arithmetic) or term.operator in "+-":
        return False
    if term.operator == "*" and Number(100.0) in (term.left, term.right):
        return True
    if _makes_percentage(term.left):
        return True
    return term.operator == "*" and _makes_percentage(term.right)
