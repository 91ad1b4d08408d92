"""What a rate is taken over, in prose: ``from 200 emails``, ``on at least 100 sends``, ``n >= 100``.

A planned size (``16 replies from 200 emails``) is no condition. A least size is the author's own rule of when to
believe a rate, and so is a point to look at it (``at 100 sends``): both are an ``after 100 sends``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from redis_agent.criteria.expression import AfterCount
from redis_agent.criteria.lexicon import word_set
from redis_agent.criteria.matching import stem
from redis_agent.criteria.pieces import Piece, Quantity

MAX_NOUN: Final = 4
"""Words in the name of what is counted."""

_PLANNED: Final = frozenset({"from", "of", "across", "among", "in", "out"})
_BASED_ON: Final = frozenset({"with", "on", "over", "across", "from", "given", "of"})
_LEAD_INS: Final = frozenset({"the", "first", "next", "initial", "a", "an", "of", "our"})
_AUXILIARIES: Final = frozenset({"are", "were", "is", "was", "have", "been", "has", "the", "had"})
_STOPS: Final = frozenset({"within", "after", "by", "in", "with", "and", "or", "if", "because", "at", "from", "to"})
_TRIALS: Final = word_set(
    "send sampl deliver recipient contact email messag visitor visit dm invit request dial letter impression session "
    "call lead prospect trial view click"
)
"""Stems of what rates are usually taken over."""

_SIZES: Final = frozenset({"n", "sample", "samples", "size", "of", "is", "the", "a"})
_SAMPLES: Final = "samples"
"""What ``Metrics.count_for`` takes for whatever the rate is divided by."""


def planned(pieces: Sequence[Piece], start: int) -> tuple[AfterCount, int] | None:
    """``from 200 emails`` behind a number, and the index behind it."""
    word, said = pieces[start], pieces[start - 1].quantity
    if word.text not in _PLANNED or word.kind != "word":
        return None
    if said is not None and (word.text in ("of", "out", "among") or not said.percent):  # 5 of 20 are a share
        return None
    return _counted(pieces, skip(pieces, start + 1, _LEAD_INS))


def least(said: Sequence[Piece], pieces: Sequence[Piece], start: int) -> tuple[AfterCount, int] | None:
    """``on at least 100 sends``, ``with 100+ sends``, ``at 100 sends``, and the index behind it.

    Only of a measure, which is ``said`` before: ``5 demos with at least 2 enterprise leads`` are demos of a kind.
    """
    quantities = [piece.quantity for piece in said if piece.quantity is not None]
    measure = said[-1].kind == "number" or any(quantity.percent or quantity.money for quantity in quantities)
    word, following = pieces[start], pieces[start + 1] if start + 1 < len(pieces) else None
    if not measure or following is None or word.kind not in ("word", "operator"):
        return None
    at_least = following.operator == ">=" or (following.quantity is not None and following.quantity.plus)
    found = _counted(pieces, start + 1 + (following.operator == ">="))
    if found is None or word.text not in (_BASED_ON if at_least else ("at",)):
        return None
    usual = {stem(noun) for noun in found[0].noun.split()} & _TRIALS
    return found if at_least or usual else None


def aside(pieces: Sequence[Piece]) -> AfterCount | None:
    """``(min 100 sends)``, ``(n >= 100)``, ``(sample of at least 100)``, ``(200+ emails)``, ``(at 200 emails)``."""
    if pieces[0].text == "at" and (point := _counted(pieces, 1)) is not None and point[1] == len(pieces):
        return point[0]
    rest = [piece for piece in pieces if piece.kind != "word" or piece.text not in _SIZES]
    if rest and rest[-1].text in ("min", "minimum"):
        rest.insert(0, rest.pop())
    named = any(piece.text in ("n", "sample", "samples") for piece in pieces)
    operator = rest.pop(0) if rest and rest[0].operator in (">", ">=") else None
    quantity = count_at(rest, 0)
    if quantity is None or (operator is None and not quantity.plus):
        return None
    nouns, end = nouns_at(rest, 1)
    if end != len(rest) or len(nouns) > 3:
        return None
    required = named or (operator is not None and operator.text.startswith(("min", "a min")))
    if not required and not {stem(noun) for noun in nouns} & _TRIALS:
        return None
    if not nouns and not named:
        return None
    beyond = 1.0 if operator is not None and operator.operator == ">" else 0.0
    return AfterCount(quantity.value + beyond, " ".join(nouns) or _SAMPLES)


def _counted(pieces: Sequence[Piece], index: int) -> tuple[AfterCount, int] | None:
    quantity = count_at(pieces, index)
    if quantity is None:
        return None
    nouns, end = nouns_at(pieces, index + 1)
    return (AfterCount(quantity.value, " ".join(nouns)), end) if 0 < len(nouns) <= MAX_NOUN else None


def nouns_at(pieces: Sequence[Piece], index: int) -> tuple[list[str], int]:
    """What is counted, and the index behind it."""
    nouns: list[str] = []
    while index < len(pieces) and pieces[index].kind == "word" and pieces[index].text not in _STOPS:
        nouns.append(pieces[index].text.replace("-", "_").replace("'", ""))
        index += 1
    return [noun for noun in nouns if noun not in _AUXILIARIES], index


def skip(pieces: Sequence[Piece], index: int, words: frozenset[str]) -> int:
    """The index behind some words."""
    while index < len(pieces) and pieces[index].kind == "word" and pieces[index].text in words:
        index += 1
    return index


def count_at(pieces: Sequence[Piece], index: int) -> Quantity | None:
    """A number that can be counted to."""
    quantity = pieces[index].quantity if index < len(pieces) else None
    if quantity is None or quantity.percent or quantity.money or quantity.upper is not None:
        return None
    return None if quantity.unit or quantity.times else quantity
