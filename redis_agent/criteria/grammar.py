"""The formal grammar of criteria: a precedence parser (Pratt 1973) without evaluation.

From loosest to tightest::

    or  ||            a > 1 or b > 1
    and  &&           a > 1 and b > 1
    not  !            not a > 1
    clauses           a > 1 after 100 sends, a > 1 after 7 days, a > 1 within 2 weeks, a < 1 at end
    comparisons       < <= > >= == != (also = ≤ ≥ ≠ <>), chains 0.1 < x <= 0.3, flags x: true
    + -               a + b
    * /               replies / emails_sent * 100
    unary -           -a

Words are not case-sensitive. A bare name is a flag: ``account_restricted`` means
``account_restricted: true``. Names are letters, digits and ``_``, with dots inside
(``latency.p99``). A hyphen is always a minus, so that ``sent-bounced`` is a subtraction; a name
with a hyphen, a space or a reserved word is written in backticks. Numbers are ``1000``, ``1,000``,
``1_000``, ``1e3``, ``.5`` and ``10%``. A month has 30 days; ``m`` could be minutes or months and is refused.

Nothing recurses out: a text has at most 2,000 characters, a tree at most ``MAX_DEPTH`` levels
(a sum of 50 terms is such a tree; ``and`` and ``or`` are flat).
"""

from __future__ import annotations

from typing import Final, TypeAlias

from redis_agent.criteria.expression import (
    SECONDS_PER_UNIT,
    UNITS,
    AfterCount,
    AfterTime,
    And,
    Arithmetic,
    ArithmeticOperator,
    AtEnd,
    Bounded,
    Clause,
    Comparison,
    ComparisonOperator,
    Condition,
    Criterion,
    CriterionError,
    Duration,
    Flag,
    Formula,
    Name,
    Negative,
    Not,
    Number,
    Or,
    Term,
    Within,
    print_name,
)
from redis_agent.criteria.tokens import Token, tokenize

MAX_DEPTH: Final = 50
"""Levels in the tree of a criterion or formula."""

_MAX_SECONDS: Final = 100 * SECONDS_PER_UNIT["year"]
_MAX_NOUN_WORDS: Final = 5

_COMPARISONS: Final[dict[str, ComparisonOperator]] = {
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
    "==": "==",
    "!=": "!=",
}
_ARITHMETIC: Final[dict[str, ArithmeticOperator]] = {"+": "+", "-": "-", "*": "*", "/": "/"}
_POWERS: Final = {
    "or": 1,
    "and": 2,
    "after": 4,
    "within": 4,
    **dict.fromkeys(_COMPARISONS, 5),
    ":": 5,
    "+": 6,
    "-": 6,
    "*": 7,
    "/": 7,
}
_NOT_POWER: Final = 3
_MINUS_POWER: Final = 8

_TRUTHS: Final = {"true": True, "false": False}
_TRUTHS_AFTER_COLON: Final = {**_TRUTHS, "yes": True, "no": False}

_CONDITION_HINT: Final = "compare a metric with a number, for example replies > 3"


class _Truth:
    """``true`` or ``false``, which only lives until its flag is built."""

    __slots__ = ("value",)

    def __init__(self, value: bool) -> None:
        self.value = value


_Node: TypeAlias = Term | Condition | _Truth


def parse(text: str) -> Criterion:
    """Reads a criterion of the formal grammar.

    Args:
        text: At most 2,000 characters.

    Returns:
        The criterion; ``parse(parse(text).text)`` equals it.

    Raises:
        CriterionError: The text is not of the grammar. Nothing else is ever raised.
    """
    parser = _Parser(tokenize(text))
    node, _ = parser.expression(0)
    parser.expect_end()
    criterion = Criterion(_condition(node, 0))
    if not criterion.names:
        raise CriterionError("this names no metric", 0, _CONDITION_HINT)
    return criterion


def parse_flag(name: str, expected: bool) -> Criterion:
    """The criterion that a one-key object such as ``{"account_restricted": true}`` means.

    Raises:
        CriterionError: The name is empty, too long, or holds a backtick.
    """
    text = f"{print_name(name.strip())}: {'true' if expected else 'false'}"
    return parse(text)


def parse_formula(text: str) -> Formula:
    """Reads the arithmetic of a derived metric: ``(replies / emails_sent) * 100``.

    Raises:
        CriterionError: The text is not arithmetic. Nothing else is ever raised.
    """
    parser = _Parser(tokenize(text))
    node, _ = parser.expression(0)
    parser.expect_end()
    return Formula(_term(node, 0, "a formula is arithmetic, for example replies / emails_sent"))


class _Parser:
    """Reads tokens once, left to right; every method returns a node and the depth of its tree."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._index = 0
        self._open = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._index]

    def _take(self) -> Token:
        token = self._tokens[self._index]
        self._index += 1
        return token

    def expect_end(self) -> None:
        """Raises unless every token was read."""
        token = self._next
        if token.kind != "end":
            raise CriterionError(
                f"unexpected {token.text[:40]!r}",
                token.position,
                "expected an operator, and, or, after, within, or the end",
            )

    def expression(self, minimum: int) -> tuple[_Node, int]:
        """The longest expression whose operators all bind tighter than ``minimum``."""
        self._open += 1
        node, depth = self._prefix()
        while True:
            token = self._next
            power = _POWERS.get(token.text, 0) if token.kind == "operator" else 0
            if token.kind == "name" and self._at_end():
                power = _POWERS["after"]
            if power <= minimum:
                self._open -= 1
                return node, depth
            node, depth = self._infix(node, depth, token, power)

    def _prefix(self) -> tuple[_Node, int]:
        token = self._take()
        self._check(self._open, token)
        if token.kind in ("number", "percent"):
            return Number(token.value, token.kind == "percent"), 1
        if token.kind == "quoted":
            return Name(token.text), 1
        if token.kind == "name":
            truth = _TRUTHS.get(token.text.lower())
            return (Name(token.text) if truth is None else _Truth(truth)), 1
        if token.text == "(":
            return self._parenthesised(token)
        if token.text == "not":
            node, depth = self.expression(_NOT_POWER)
            self._check(depth + 1, token)
            return Not(_condition(node, token.position)), depth + 1
        if token.text == "-":
            node, depth = self.expression(_MINUS_POWER)
            self._check(depth + 1, token)
            return Negative(_term(node, token.position)), depth + 1
        raise CriterionError(
            f"unexpected {token.text[:40]!r}" if token.kind == "operator" else "this ends too soon",
            token.position,
            "expected a metric or a number",
        )

    def _parenthesised(self, opening: Token) -> tuple[_Node, int]:
        node, depth = self.expression(0)
        closing = self._take()
        if closing.text != ")" or closing.kind != "operator":
            raise CriterionError(
                f"expected ')' but found {closing.text[:40]!r}",
                closing.position,
                f"the '(' at character {opening.position + 1} is open",
            )
        return node, depth

    def _infix(self, left: _Node, depth: int, token: Token, power: int) -> tuple[_Node, int]:
        if power == _POWERS["after"]:
            return self._clause(left, depth)
        if power == _POWERS["<"]:
            return self._comparison(left, depth)
        self._take()
        right, right_depth = self.expression(power)
        depth = max(depth, right_depth) + 1
        node: _Node
        if token.text in _ARITHMETIC:
            self._check(depth, token)
            place = token.position
            node = Arithmetic(_ARITHMETIC[token.text], _term(left, place), _term(right, place))
            return node, depth
        items = (_condition(left, token.position), _condition(right, token.position))
        node, flat = (And(_flat(items, And)), And) if token.text == "and" else (Or(_flat(items, Or)), Or)
        if isinstance(left, flat):
            depth -= 1  # the left items moved up by one level
        depth = max(depth, right_depth + 1)
        self._check(depth, token)
        return node, depth

    def _comparison(self, left: _Node, depth: int) -> tuple[_Node, int]:
        operands: list[_Node] = [left]
        operators: list[ComparisonOperator] = []
        first = self._next
        while self._next.kind == "operator" and self._next.text in _COMPARISONS:
            operators.append(_COMPARISONS[self._take().text])
            operand, operand_depth = self.expression(_POWERS["<"])
            operands.append(operand)
            depth = max(depth, operand_depth)
        if not operators:
            return self._after_colon(left), depth
        self._check(depth + 1, first)
        if any(isinstance(operand, _Truth) for operand in operands):
            return _flag(operands, operators, first), depth + 1
        terms = tuple(_term(operand, first.position, _CONDITION_HINT) for operand in operands)
        return Comparison(terms, tuple(operators)), depth + 1

    def _after_colon(self, left: _Node) -> Flag:
        colon, word = self._take(), self._take()
        truth = _TRUTHS_AFTER_COLON.get(word.text.lower()) if word.kind == "name" else None
        if truth is None or not isinstance(left, Name):
            raise CriterionError("unexpected ':'", colon.position, "a flag is written name: true or name: false")
        return Flag(left.name, truth)

    def _clause(self, left: _Node, depth: int) -> tuple[_Node, int]:
        token = self._take()
        clause = self._clause_body(token)
        condition = _condition(left, token.position)
        if isinstance(condition, Bounded):
            return Bounded(condition.condition, _with(clause, condition.clauses)), depth
        self._check(depth + 1, token)
        return Bounded(condition, (clause,)), depth + 1

    def _at_end(self) -> bool:
        """Whether the next two words are ``at end``; they are names anywhere else."""
        words = self._tokens[self._index : self._index + 2]
        return [(word.kind, word.text.lower()) for word in words] == [("name", "at"), ("name", "end")]

    def _clause_body(self, word: Token) -> Clause:
        if word.kind == "name":
            self._take()
            return AtEnd()
        amount = self._take()
        if amount.kind != "number":
            raise CriterionError(
                f"{word.text!r} needs a number",
                amount.position,
                f"for example {word.text} 7 days",
            )
        words: list[str] = []
        while self._next.kind == "name" and self._next.text.lower() not in _TRUTHS:
            if words and words[0].lower() in UNITS and self._at_end():
                break
            words.append(self._take().text)
        unit = UNITS.get(words[0].lower()) if len(words) == 1 else None
        if unit is not None:
            duration = Duration(amount.value, unit)
            if duration.seconds > _MAX_SECONDS:
                raise CriterionError("this time is longer than 100 years", amount.position)
            return (AfterTime if word.text == "after" else Within)(duration)
        if words and words[0].lower() == "m":
            raise CriterionError("'m' could be minutes or months", amount.position, "write min or month")
        if word.text == "within":
            raise CriterionError("'within' needs a time", amount.position, "for example 2 weeks")
        if words and words[0].lower() in UNITS:
            raise CriterionError(f"unexpected {words[1][:40]!r} behind a time", amount.position, "end it at the unit")
        if not words or len(words) > _MAX_NOUN_WORDS:
            raise CriterionError(
                "'after' needs to know what to count",
                amount.position,
                "for example after 100 sends, or after 7 days",
            )
        return AfterCount(amount.value, " ".join(words))

    def _check(self, depth: int, token: Token) -> None:
        if depth > MAX_DEPTH:
            raise CriterionError(f"this is nested deeper than {MAX_DEPTH} levels", token.position)


def _with(clause: Clause, clauses: tuple[Clause, ...]) -> tuple[Clause, ...]:
    """One more clause; ``at end`` comes first, once."""
    if not isinstance(clause, AtEnd):
        return (*clauses, clause)
    return clauses if clause in clauses else (clause, *clauses)


def _flat(items: tuple[Condition, ...], kind: type[And] | type[Or]) -> tuple[Condition, ...]:
    flat: list[Condition] = []
    for item in items:
        flat.extend(item.items if isinstance(item, kind) else (item,))
    return tuple(flat)


def _flag(operands: list[_Node], operators: list[ComparisonOperator], first: Token) -> Condition:
    if len(operands) == 2 and operators[0] in ("==", "!="):
        name, truth = operands if isinstance(operands[1], _Truth) else reversed(operands)
        if isinstance(name, Name) and isinstance(truth, _Truth):
            return Flag(name.name, truth.value == (operators[0] == "=="))
    raise CriterionError(
        "true and false can only be compared with a metric",
        first.position,
        "write account_restricted: true",
    )


def _condition(node: _Node, position: int) -> Condition:
    """The node as something that is met or not; a bare name is a flag."""
    if isinstance(node, Name):
        return Flag(node.name, expected=True)
    if isinstance(node, (Number, Negative, Arithmetic, _Truth)):
        raise CriterionError("a number is no condition", position, _CONDITION_HINT)
    return node


def _term(node: _Node, position: int, hint: str = "") -> Term:
    """The node as something that has a number."""
    if isinstance(node, (Number, Name, Negative, Arithmetic)):
        return node
    raise CriterionError("a condition is no number", position, hint)
