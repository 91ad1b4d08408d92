"""The clauses of prose: ``after 7 days``, ``within the first 2 weeks``, ``by the end``, ``from 200 emails``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from redis_agent.criteria.expression import SECONDS_PER_UNIT, AfterCount, AfterTime, Clause, Duration, Within
from redis_agent.criteria.phrases import UNITS, NotUnderstoodError, Piece, Quantity

_AFTER: Final = frozenset({"after", "once", "following"})
_WITHIN: Final = frozenset({"within", "in", "inside", "over", "during", "by"})
_LEAD_INS: Final = frozenset({"the", "first", "next", "initial", "a", "an", "of", "our"})
_ONE: Final = frozenset({"a", "an", "first", "the"})
_WHOLE: Final = frozenset({"experiment", "test", "campaign", "trial", "pilot", "run", "period"})
_END_WORDS: Final = frozenset({"end", "close", "conclusion"})
_SAMPLED: Final = frozenset({"from", "of", "across", "among", "in", "out"})
_AUXILIARIES: Final = frozenset({"are", "were", "is", "was", "have", "been", "has", "the", "had"})
_STOPS: Final = frozenset({"within", "after", "by", "in", "with", "and", "or", "if", "because", "at", "from", "to"})
_MAX_NOUN: Final = 4
_MAX_SECONDS: Final = 100 * SECONDS_PER_UNIT["year"]


@dataclass(slots=True)
class Clauses:
    """What a sentence says about when it holds.

    Attributes:
        clauses: In their order.
        by_end: ``by the end of the experiment``.
        sample: ``from 200 emails``, the planned size.
    """

    clauses: list[Clause] = field(default_factory=list)
    by_end: bool = False
    sample: AfterCount | None = None


def take_clauses(pieces: Sequence[Piece], into: Clauses) -> list[Piece]:
    """Moves the clauses out of a sentence; returns the rest."""
    rest: list[Piece] = []
    index = 0
    while index < len(pieces):
        counted = any(piece.kind in ("number", "zero") for piece in rest)
        # "time to reply over 2 days" compares, "5 replies over 2 days" has a deadline
        end = _clause(pieces, index, into) if counted or pieces[index].text != "over" else index
        if end == index and counted:
            end = _sample(pieces, index, into)
        if end == index:
            rest.append(pieces[index])
            end += 1
        index = end
    return rest


def is_clauses(pieces: Sequence[Piece], into: Clauses) -> bool:
    """Whether some words are clauses and nothing else; if so they are moved."""
    found = Clauses()
    if not pieces or take_clauses(pieces, found):
        return False
    into.clauses += found.clauses
    into.by_end |= found.by_end
    return True


def _clause(pieces: Sequence[Piece], start: int, into: Clauses) -> int:
    """The index behind the clause that starts here, or ``start``."""
    word = pieces[start].text
    if pieces[start].kind not in ("word", "operator"):
        return start
    if word in _AFTER:
        return _after(pieces, start, into)
    if word in ("by", "at", "in", "over", "during", "across", "for"):
        end = _whole_experiment(pieces, start, into)
        if end != start:
            return end
    if word in _WITHIN:
        return _within(pieces, start, into)
    return start


def _after(pieces: Sequence[Piece], start: int, into: Clauses) -> int:
    index = _skip(pieces, start + 1, _LEAD_INS)
    timed = _time(pieces, index)
    if timed is None and index > start + 1:
        timed = _time(pieces, index - 1)
    if timed is not None:
        into.clauses.append(AfterTime(timed[0]))
        return timed[1]
    if index < len(pieces) and pieces[index].text.endswith("ing") and pieces[index].kind == "word":
        index += 1
    quantity = _count(pieces, index)
    if quantity is None:
        return start
    nouns, index = _nouns(pieces, index + 1)
    if not 0 < len(nouns) <= _MAX_NOUN or nouns[0] in UNITS:
        raise NotUnderstoodError(f"it is not clear what is counted in 'after {quantity.text}'", "after 100 sends")
    into.clauses.append(AfterCount(quantity.value, " ".join(nouns)))
    return index


def _within(pieces: Sequence[Piece], start: int, into: Clauses) -> int:
    index = start + 1
    if pieces[start].text == "in" and index < len(pieces) and pieces[index].text in ("under", "less than"):
        index += 1
    if pieces[start].text == "by":  # by the end of week 2
        index = _skip(pieces, index, frozenset({"the"}))
        if [piece.text for piece in pieces[index : index + 2]] == ["end", "of"]:
            index += 2
        timed = _time(pieces, index) or _time(pieces, _skip(pieces, index, frozenset({"the"})))
        if timed is None or _count(pieces, index) is not None:
            return start  # by 7 days is no deadline, and by 20% no clause
    else:
        index = _skip(pieces, index, _LEAD_INS)
        timed = _time(pieces, index) or (_time(pieces, index - 1) if index > start + 1 else None)
    if timed is None:
        return start
    into.clauses.append(Within(timed[0]))
    return timed[1]


def _whole_experiment(pieces: Sequence[Piece], start: int, into: Clauses) -> int:
    """``by the end``, ``at the end of the campaign``, ``during the experiment``, ``in total``."""
    texts = [piece.text for piece in pieces[start:]]
    if texts[:2] == ["in", "total"]:
        return start + 2
    index = 1 + (texts[1:2] == ["the"])
    ends = texts[index : index + 1] != [] and texts[index] in _END_WORDS and texts[0] in ("by", "at")
    if ends:
        index += 1
        into.by_end = True
        if texts[index : index + 1] != ["of"]:
            return start + index
        index += 1 + (texts[index + 1 : index + 2] == ["the"])
    if texts[index : index + 1] and texts[index] in _WHOLE:
        return start + index + 1
    if ends:  # by the end of something else
        into.by_end = False
    return start


def _sample(pieces: Sequence[Piece], start: int, into: Clauses) -> int:
    """``from 200 emails`` behind a number: the size that was planned, no condition."""
    if pieces[start].text not in _SAMPLED or pieces[start].kind != "word" or pieces[start - 1].kind == "number":
        return start
    index = _skip(pieces, start + 1, _LEAD_INS)
    quantity = _count(pieces, index)
    if quantity is None or _time(pieces, index) is not None:
        return start
    index += 1
    nouns, index = _nouns(pieces, index)
    if not 0 < len(nouns) <= _MAX_NOUN or into.sample is not None:
        return start
    into.sample = AfterCount(quantity.value, " ".join(nouns))
    return index


def _nouns(pieces: Sequence[Piece], index: int) -> tuple[list[str], int]:
    """What is counted, and the index behind it."""
    nouns: list[str] = []
    while index < len(pieces) and pieces[index].kind == "word" and pieces[index].text not in _STOPS:
        nouns.append(pieces[index].text.replace("-", "_").replace("'", ""))
        index += 1
    return [noun for noun in nouns if noun not in _AUXILIARIES], index


def _skip(pieces: Sequence[Piece], index: int, words: frozenset[str]) -> int:
    while index < len(pieces) and pieces[index].kind == "word" and pieces[index].text in words:
        index += 1
    return index


def _count(pieces: Sequence[Piece], index: int) -> Quantity | None:
    """A number that can be counted to."""
    quantity = pieces[index].quantity if index < len(pieces) else None
    if quantity is None or quantity.percent or quantity.money or quantity.upper is not None or quantity.unit:
        return None
    return quantity


def _time(pieces: Sequence[Piece], index: int) -> tuple[Duration, int] | None:
    """``7 days``, ``7d``, ``a week``, ``first week``, ``day 7``, and the index behind it."""
    if index >= len(pieces):
        return None
    quantity = pieces[index].quantity
    following = pieces[index + 1] if index + 1 < len(pieces) else None
    unit = UNITS.get(following.text, "") if following is not None and following.kind == "word" else ""
    if quantity is not None:
        amount, unit, end = quantity.value, quantity.unit or unit, index + (1 if quantity.unit else 2)
        if quantity.upper is not None or quantity.percent or quantity.money or amount <= 0:
            return None
    elif pieces[index].text in _ONE and unit:
        amount, end = 1.0, index + 2
    elif pieces[index].text in ("day", "week", "month") and following is not None and following.quantity is not None:
        amount, unit, end = following.quantity.value, pieces[index].text, index + 2
    else:
        return None
    if not unit or amount * SECONDS_PER_UNIT[unit] > _MAX_SECONDS:
        return None
    return Duration(amount, unit), end
