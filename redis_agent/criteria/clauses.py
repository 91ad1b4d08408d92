"""The clauses of prose: ``after 7 days``, ``within the first 2 weeks``, ``by the end``, ``from 200 emails``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from redis_agent.criteria.expression import SECONDS_PER_UNIT, UNITS, AfterCount, AfterTime, Clause, Duration, Within
from redis_agent.criteria.pieces import NotUnderstoodError, Piece
from redis_agent.criteria.samples import MAX_NOUN, count_at, least, nouns_at, planned, skip

_AFTER: Final = frozenset({"after", "once", "following", "when"})
_WITHIN: Final = frozenset({"within", "in", "inside", "over", "during", "by", "at"})
_LEAD_INS: Final = frozenset({"the", "first", "next", "initial", "a", "an", "of", "our"})
_ONE: Final = frozenset({"a", "an", "first", "the"})
_WHOLE: Final = frozenset({"experiment", "test", "campaign", "trial", "pilot", "run", "period"})
_JUDGED: Final = frozenset({"measured", "evaluated", "judged", "assessed", "checked"})
_END_WORDS: Final = frozenset({"end", "close", "conclusion"})
_SENDERS: Final = frozenset({"we", "we've", "you", "have", "has", "had", "been", "team"})
_ORDINALS: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6}
_PERIODS: Final = frozenset({"period", "window", "mark", "point", "timeframe", "span", "sprint"})
_STARTS: Final = frozenset({"launch", "launching", "start", "starting", "kickoff", "kick-off"})
_MAX_SECONDS: Final = 100 * SECONDS_PER_UNIT["year"]


@dataclass(slots=True)
class Clauses:
    """What a sentence says about when it holds.

    Attributes:
        clauses: In their order.
        by_end: ``by the end of the experiment``.
        sample: ``from 200 emails``, the planned size.
        first: ``from the first 200 emails``, which the rest is not to count with.
        at_moment: ``at the end of week 2``: then, not before.
        any_time: ``in a day``, which may be the first or any.
    """

    clauses: list[Clause] = field(default_factory=list)
    by_end: bool = False
    sample: AfterCount | None = None
    first: bool = False
    at_moment: bool = False
    any_time: bool = False


def take_clauses(pieces: Sequence[Piece], into: Clauses) -> list[Piece]:
    """Moves the clauses out of a sentence; returns the rest."""
    rest: list[Piece] = []
    index = 0
    while index < len(pieces):
        counted = any(piece.kind in ("number", "zero") for piece in rest)
        # "time to reply over 2 days" compares, "5 replies over 2 days" has a deadline
        end = _clause(pieces, index, into) if counted or pieces[index].text != "over" else index
        if end == index and counted:
            end = _size(rest, pieces, index, into)
        if end == index:
            rest.append(pieces[index])
            end += 1
        index = end
    return rest


def is_clauses(pieces: Sequence[Piece], into: Clauses) -> bool:
    """Whether some words are clauses and nothing else; if so they are moved."""
    found = Clauses()
    if pieces and pieces[0].text in _JUDGED:
        pieces = pieces[1:]
    if not pieces or take_clauses(pieces, found):
        return False
    into.clauses += found.clauses
    into.by_end |= found.by_end
    into.at_moment |= found.at_moment
    into.any_time |= found.any_time
    return True


def _size(said: Sequence[Piece], pieces: Sequence[Piece], start: int, into: Clauses) -> int:
    """What it is taken over: a least size is a clause, a planned one only a remark."""
    required = least(said, pieces, start)
    if required is not None:
        into.clauses.append(required[0])
        return required[1]
    size = planned(pieces, start) if into.sample is None else None
    if size is None or _time(pieces, skip(pieces, start + 1, _LEAD_INS)) is not None:
        return start
    into.sample = size[0]
    into.first = "first" in (piece.text for piece in pieces[start : size[1]])
    return size[1]


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
    index = skip(pieces, start + 1, _LEAD_INS)
    timed = _time(pieces, index)
    if timed is None and index > start + 1:
        timed = _time(pieces, index - 1)
    if timed is not None:
        into.clauses.append(AfterTime(timed[0]))
        return _behind(pieces, timed[1])
    index = skip(pieces, index, _SENDERS)
    if index + 1 < len(pieces) and pieces[index].kind == "word" and pieces[index].text.endswith(("ing", "ed", "sent")):
        index += 1
    index += index < len(pieces) and pieces[index].operator in (">", ">=")  # after at least 100 sends
    quantity = count_at(pieces, index)
    if quantity is None:
        return start
    nouns, index = nouns_at(pieces, index + 1)
    if not 0 < len(nouns) <= MAX_NOUN or nouns[0] in UNITS:
        raise NotUnderstoodError(f"it is not clear what is counted in 'after {quantity.text}'", "after 100 sends")
    into.clauses.append(AfterCount(quantity.value, " ".join(nouns)))
    return index


def _within(pieces: Sequence[Piece], start: int, into: Clauses) -> int:
    word, index = pieces[start].text, start + 1
    if word == "in" and index < len(pieces) and pieces[index].text in ("under", "less than"):
        index += 1
    if word in ("by", "at"):
        timed = _moment(pieces, index, ends=word == "at")
    else:
        index = skip(pieces, index, _LEAD_INS)
        timed = _time(pieces, index) or (_time(pieces, index - 1) if index > start + 1 else None)
    if timed is None:
        return start
    into.clauses.append(Within(timed[0]))
    into.at_moment |= word == "at"
    into.any_time |= word == "in" and pieces[start + 1].text in ("a", "an")
    return _behind(pieces, timed[1])


def _moment(pieces: Sequence[Piece], index: int, *, ends: bool) -> tuple[Duration, int] | None:
    """``day 7``, ``the end of week 2``, ``the end of the second week``, ``the two-week mark``.

    ``By 7 days`` is no moment, ``by 20%`` no time, and the end of *the* month is the calendar's.
    """
    index = skip(pieces, index, frozenset({"the"}))
    end_of = [piece.text for piece in pieces[index : index + 2]] == ["end", "of"]
    index = skip(pieces, index + 2, frozenset({"the"})) if end_of else index
    ordinal, unit = (pieces[at].text if at < len(pieces) else "" for at in (index, index + 1))
    if end_of and ordinal in _ORDINALS and unit in UNITS:
        return Duration(float(_ORDINALS[ordinal]), UNITS[unit]), index + 2
    timed = _time(pieces, index)
    if timed is None:
        return None
    marked = timed[1] < len(pieces) and pieces[timed[1]].text in ("mark", "point")
    if count_at(pieces, index) is not None:
        return timed if marked else None
    return timed if marked or end_of or not ends else None


def _behind(pieces: Sequence[Piece], index: int) -> int:
    """Behind ``period`` or ``of the launch``, which end a time and add nothing."""
    index = skip(pieces, index, _PERIODS)
    texts = [piece.text for piece in pieces[index : index + 3]]
    if texts[:1] in (["of"], ["after"], ["from"], ["since"]):
        start = 1 + (texts[1:2] in (["the"], ["our"]))
        if start < len(texts) and texts[start] in _STARTS | _WHOLE:
            return index + start + 1
    return index


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
        if not ends and texts[0] in ("by", "at"):  # by campaign end
            into.by_end = texts[index + 1 : index + 2] != [] and texts[index + 1] in _END_WORDS
            return start + index + 2 if into.by_end else start
        return start + index + 1
    if ends:  # by the end of something else
        into.by_end = False
    return start


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
