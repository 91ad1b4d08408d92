"""Criteria as people and LLMs write them, read into the same expression as the formal grammar.

Deterministic: a sentence is cut into pieces (``phrases``, ``quantities``), freed of reasons and clauses
(``sentence``, ``clauses``, ``samples``), split at ``or`` and ``and``, and each comparison is read by the first of
the patterns of ``statements`` (``anatomy``) that fits, its words matched to metrics (``vocabulary``, ``matching``).
Whatever is left over and could change the meaning makes the whole unsupported: a criterion that is
not judged costs a look, one that is guessed costs the trust in all others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from redis_agent.criteria.clauses import Clauses, take_clauses
from redis_agent.criteria.expression import (
    UNITS,
    AfterCount,
    AfterTime,
    And,
    Arithmetic,
    AtEnd,
    Bounded,
    Clause,
    Comparison,
    Condition,
    Criterion,
    CriterionError,
    Name,
    Or,
    Term,
    Within,
    print_condition,
)
from redis_agent.criteria.grammar import parse
from redis_agent.criteria.pieces import NotUnderstoodError, Piece, Quantity
from redis_agent.criteria.sentence import sentence_of
from redis_agent.criteria.statements import MISSED, Statement, read_statement
from redis_agent.criteria.tokens import MAX_TEXT
from redis_agent.criteria.vocabulary import Subject, Vocabulary, threshold

CriterionKind: TypeAlias = Literal["success", "failure"]

_MAX_ALTERNATIVES: Final = 10
_UNDERSCORED: Final = re.compile(r"\w_\w")
_FORMAL: Final = re.compile(r"^\s*[\w(`].*[`&|<>=!*/(]", re.DOTALL)
_STOP_IF: Final = re.compile(
    r"^\s*(?:(?:stop|abort|kill|pause|cancel|fail|end)\s+(?:it\s+|the\s+\w+\s+)?)?(?:if|when)\s+", re.IGNORECASE
)
_PHRASE: Final = re.compile(r"[^\W\d_]{2,}\s+[^\W\d_]{2,}")


def is_prose(text: object) -> bool:
    """Whether something is a text that is looked at at all; the length is asked before anything else."""
    return isinstance(text, str) and len(text) <= MAX_TEXT and not text.isspace() and text != ""


def looks_formal(text: str) -> bool:
    """Whether a text was meant as the grammar: its signs, and no two plain words in a row."""
    if _PHRASE.search(text) is not None and not _UNDERSCORED.search(text):
        return False
    return _FORMAL.search(text) is not None


def read_prose(text: str, vocabulary: Vocabulary, kind: CriterionKind) -> Criterion:
    """Reads a criterion in prose.

    Args:
        text: At most 2,000 characters and 60 words.
        vocabulary: The experiment's metrics.
        kind: A failure criterion says what failing is: ``Don't reach 5 replies`` is then judged
            at the end, and is in a list of successes a limit.

    Raises:
        NotUnderstoodError: Nothing in it can be judged, or a reader could take it in two ways.
    """
    if len(text) > MAX_TEXT:
        raise NotUnderstoodError(f"this text has {len(text)} characters, more than {MAX_TEXT}")
    try:
        spelled = vocabulary.spelled(text)
        return _criterion(_STOP_IF.sub("", spelled) if kind == "failure" else spelled, vocabulary, kind)
    except NotUnderstoodError as error:
        if error.hint:
            raise
        name = vocabulary.mentioned(text)
        nearest = f"{name} compared with a number" if name else "a number of something, as in 'at least 3 replies'"
        raise NotUnderstoodError(error.message, nearest) from error


def _criterion(text: str, vocabulary: Vocabulary, kind: CriterionKind) -> Criterion:
    sentence = sentence_of(text)
    clauses = sentence.clauses
    statements, condition = _read(sentence.pieces, clauses, vocabulary, kind)
    _check_asides(sentence.asides, statements, vocabulary)
    if kind == "failure":
        _check_failure(statements, condition)
    found = _clauses(statements, clauses, kind)
    criterion = Criterion(
        Bounded(condition, found) if found else condition,
        frozenset(statement.subject.name for statement in statements if not statement.subject.declared),
    )
    try:
        same = parse(criterion.text) == criterion
    except CriterionError:
        same = False
    if not same:
        raise NotUnderstoodError("it has a name or a number that the grammar cannot write", criterion.text[:200])
    return criterion


def _check_asides(asides: Sequence[Sequence[Piece]], statements: Sequence[Statement], vocabulary: Vocabulary) -> None:
    """What stands in parentheses explains, unless it asks for more, or for something else.

    Raises:
        NotUnderstoodError: ``Reply rate >= 8% (bounce rate < 5%)``.
    """
    names = {statement.subject.name for statement in statements}
    formulas = [one.subject.spec.formula for one in statements if one.subject.spec is not None]
    parts = [name for formula in formulas if formula is not None for name in formula.names]
    of_a_share = any(statement.quantity.percent for statement in statements)
    for aside in asides:
        asks = aside[0].kind == "operator" and aside[0].text[0].isalpha()  # 5 demos (at least 3 with CTOs)
        if asks and not of_a_share:
            raise NotUnderstoodError("what is said beside it asks for more: write a criterion for each")
        try:
            statement = read_statement(take_clauses(aside, Clauses()), vocabulary)
        except NotUnderstoodError:
            if asks:
                raise
            continue
        subject = statement.subject
        explains = statement.counted and (not parts or subject.name in parts)
        if subject.declared and not explains and subject.name not in names:
            raise NotUnderstoodError(f"{subject.name} is compared beside it: write a criterion for each")


def _check_failure(statements: Sequence[Statement], condition: Condition) -> None:
    """A failure says what must not be; a wish among failures could mean its opposite.

    Raises:
        NotUnderstoodError: ``Keep bounce rate under 5%``, ``Don't exceed 5% bounce rate``.
    """
    for statement in statements:
        rule = statement.negation == "do not" or (statement.negation == "can not" and not statement.counted)
        wish = statement.wish and statement.negation not in MISSED
        if wish or (rule and not statement.wish and statement.operator == ">"):
            text = print_condition(condition)
            raise NotUnderstoodError(
                "this says what is wanted, but stands among the failures", f"{text}, or not {text}"
            )


def _read(
    pieces: list[Piece], clauses: Clauses, vocabulary: Vocabulary, kind: CriterionKind
) -> tuple[list[Statement], Condition]:
    """The comparisons of a sentence, and the condition that they make together."""
    if pieces and pieces[0].text in ("either", "both") and any(piece.kind in ("or", "and") for piece in pieces):
        pieces = pieces[1:]
    if not any(piece.kind in ("number", "zero") for piece in pieces):
        return _lasting(pieces, clauses, vocabulary)
    parts, word = _alternatives(pieces)
    if word == "":
        statement = read_statement(pieces, vocabulary)
        return [statement], statement.condition()
    numbered = [any(piece.kind in ("number", "zero") for piece in part) for part in parts]
    if all(numbered):
        statements = [read_statement(part, vocabulary) for part in parts]
        if any(statement.negation for statement in statements):
            raise NotUnderstoodError("it is not clear how much of it the negation is about")
        if clauses.clauses:
            raise NotUnderstoodError("it is not clear which of the comparisons the time or count belongs to")
        if any(map(_is_bounded_above, parts)) and not all(map(_has_direction, parts)):
            raise NotUnderstoodError("it is not clear whether 'fewer than' is said of all: write a criterion for each")
        late = [kind == "failure" and word == "or" and _is_few(statement) for statement in statements]
        items = tuple(
            Bounded(statement.condition(), (AtEnd(),)) if waits and not all(late) else statement.condition()
            for statement, waits in zip(statements, late, strict=True)
        )
        return statements, Or(items) if word == "or" else And(items)
    if numbered.count(True) != 1 or not (numbered[0] or numbered[-1]):
        raise NotUnderstoodError("it is not clear which number belongs to what: write a criterion for each")
    return _shared(parts, word, vocabulary, first=numbered[0])


def _is_bounded_above(part: Sequence[Piece]) -> bool:
    return any(piece.operator in ("<", "<=") for piece in part)


def _has_direction(part: Sequence[Piece]) -> bool:
    return any(
        piece.operator is not None or piece.kind == "zero" or (piece.quantity is not None and piece.quantity.plus)
        for piece in part
    )


def _alternatives(pieces: Sequence[Piece]) -> tuple[list[list[Piece]], str]:
    """The parts between ``or``, or between ``and``."""
    words = {piece.kind for piece in pieces if piece.kind in ("or", "and")}
    if not words:
        return [list(pieces)], ""
    if len(words) > 1:
        raise NotUnderstoodError("'and' and 'or' are mixed: write a criterion for each, or use parentheses")
    word = next(iter(words))
    parts: list[list[Piece]] = [[]]
    for piece in pieces:
        if piece.kind == word:
            parts.append([])
        else:
            parts[-1].append(piece)
    if any(not part for part in parts) or len(parts) > _MAX_ALTERNATIVES:
        raise NotUnderstoodError(f"'{word}' joins nothing, or too much")
    return parts, word


def _shared(
    parts: list[list[Piece]], word: str, vocabulary: Vocabulary, *, first: bool
) -> tuple[list[Statement], Condition]:
    """``More than 5 unsubscribes or negative replies``: one number for several things.

    What is met must be met however one reads it. So ``more than 5`` is asked of each alone, ``fewer
    than 5`` of all together, and ``no`` of every one.
    """
    whole = parts[0] if first else parts[-1]
    statements = [read_statement(whole, vocabulary)]
    place = next(index for index, piece in enumerate(whole) if piece.kind in ("number", "zero"))
    for part in parts[1:] if first else parts[:-1]:
        shared = [*whole[: place + 1], *part] if first else [*part, *_from_link(whole)]
        statements.append(read_statement(shared, vocabulary))
    if not first:
        statements.reverse()
    one = statements[0]
    undeclared = any(not statement.subject.declared for statement in statements)
    if (undeclared and one.quantity.value == 1) or any(statement.upper is not None for statement in statements):
        raise NotUnderstoodError("it is not clear what the number belongs to: write a criterion for each")
    zero = one.asked == "==" and one.value == 0
    if word == "and" and not zero:
        raise NotUnderstoodError("it is not clear whether the number is for each or for all together")
    items = tuple(statement.condition() for statement in statements)
    if zero:
        return statements, And(items)
    if one.asked in (">", ">="):
        return statements, Or(items)
    if one.quantity.percent or one.asked == "==":
        raise NotUnderstoodError("it is not clear how these are counted together")
    total: Term = Name(statements[0].subject.name)
    for statement in statements[1:]:
        total = Arithmetic("+", total, Name(statement.subject.name))
    return statements, Comparison((total, items[0].operands[1]), (one.asked,))


def _from_link(whole: Sequence[Piece]) -> list[Piece]:
    """From the operator on: ``exceed 5``, ``> 5``."""
    start = next(index for index, piece in enumerate(whole) if piece.kind in ("number", "zero"))
    while start > 0 and (
        whole[start - 1].kind == "operator" or whole[start - 1].text in ("of", "exceed", "reach", "is", "are")
    ):
        start -= 1
    return list(whole[start:])


def _lasting(pieces: Sequence[Piece], clauses: Clauses, vocabulary: Vocabulary) -> tuple[list[Statement], Condition]:
    """``Time to first reply within 72 hours``: a deadline that is the value of a duration."""
    words = [piece.text for piece in pieces if piece.kind == "word"]
    deadline = clauses.clauses[0] if len(clauses.clauses) == 1 else None
    subject: Subject | None = None
    if isinstance(deadline, Within) and len(words) == len(pieces):
        subject = vocabulary.declared([word for word in words if word not in ("is", "the")])
    lasts = subject is not None and subject.spec is not None
    if not lasts or subject is None or subject.spec is None or not isinstance(deadline, Within):
        raise NotUnderstoodError("this names no number to compare with, so nothing can decide it")
    if subject.spec.type != "duration" and subject.spec.unit.lower() not in UNITS:
        raise NotUnderstoodError(f"{subject.name} is no length of time")
    clauses.clauses.clear()
    quantity = Quantity(deadline.duration.amount, unit=deadline.duration.unit)
    statement = Statement(subject, "<=", quantity, quantity.value, counted=False, negation="")
    number = threshold(subject, quantity.value, quantity)
    return [statement], Comparison((Name(subject.name), number), ("<=",))


def _clauses(statements: Sequence[Statement], found: Clauses, kind: CriterionKind) -> tuple[Clause, ...]:
    """When it is judged.

    What counts up from 0 is below any bound at first. So ``fewer than 5 replies within 7 days`` is
    judged when the 7 days are over; what ``can't`` be reached, and a failure that is ``no replies`` and
    names no time, when the experiment is.
    """
    missed = any(
        statement.operator == ">=" if kind == "success" else statement.operator in (">", ">=")
        for statement in statements
        if statement.negation in MISSED or (statement.negation in ("not", "do not") and kind == "failure")
    )
    growing = all(statement.grows and not statement.is_upper_bound for statement in statements)
    late = missed or any(_shows_late(statement, kind) for statement in statements)
    late = late or (found.at_moment and not growing)
    clauses: list[Clause] = [
        AfterTime(clause.duration) if late and isinstance(clause, Within) else clause for clause in found.clauses
    ]
    if found.sample is not None:
        clauses += _size(statements, found.sample, first=found.first, waits=missed)
    if found.any_time and kind == "failure" and not late:
        raise NotUnderstoodError("it is not clear whether it is about the first time or about any")
    waits = any(isinstance(clause, (AfterTime, AfterCount)) for clause in clauses)
    few = kind == "failure" and not clauses and all(map(_is_few, statements))
    if (missed and not waits) or few or (found.by_end and not growing):
        clauses.insert(0, AtEnd())
    return tuple(clauses)


def _size(statements: Sequence[Statement], size: AfterCount, *, first: bool, waits: bool) -> list[Clause]:
    """What a planned size says: no replies from 50 emails are none not before there are so many."""
    if waits or any(statement.is_upper_bound for statement in statements):
        return [size]
    if first and not all(statement.quantity.percent for statement in statements):
        raise NotUnderstoodError(f"what is to be in the first {size.count:g} {size.noun} is not counted by itself")
    return [size] if first else []


def _is_few(statement: Statement) -> bool:
    """``Fewer than 5 replies``: so it is in every experiment that has just begun."""
    return statement.grows and statement.is_upper_bound


def _shows_late(statement: Statement, kind: CriterionKind) -> bool:
    """Whether it can be judged only when its deadline has passed.

    What counts up from 0 is below a bound at first, and what is to stay where it is may still change. A failure to
    be above a bound is one in the end; but a value that drops below it has failed at once.
    """
    if statement.manner == "stays":
        return not (statement.grows and not statement.is_upper_bound)
    return statement.is_upper_bound and (statement.grows or (kind == "failure" and statement.manner != "falls"))
