"""One sentence of prose without what is said beside it: reasons, labels and clauses.

Reasons explain and are left out: ``(bad list)``, ``- bad targeting``, ``, indicating a bad list``,
``to validate ICP``. What limits or changes a criterion is never left out: an aside that begins with
``excluding`` or ``per week`` makes the whole unsupported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from redis_agent.criteria import samples
from redis_agent.criteria.clauses import Clauses, is_clauses, take_clauses
from redis_agent.criteria.expression import UNITS
from redis_agent.criteria.lexicon import (
    LIMITS,
    QUALITIES,
    REASONS,
    VAGUE,
)
from redis_agent.criteria.phrases import pieces_of
from redis_agent.criteria.pieces import NotUnderstoodError, Piece

_ASIDE: Final = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]")
_MARKER: Final = re.compile(r"^(?:\[[ xX]?\]|[^\w\s$€£¥<>=≥≤.'\"(]+|[0-9]{1,2}[.)])\s+")
_WRAPPED: Final = re.compile(r"""^(["'*_]{1,3})([^"'*]+)\1$""")
_ABBREVIATED: Final = re.compile(r"\b(min|max|no)\.(?=\s)", re.IGNORECASE)
_SIGNS: Final = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2011": "-", "\u2212": "-"}
)
_MAX_LABEL: Final = 5


@dataclass(slots=True)
class Sentence:
    """What is left of a text.

    Attributes:
        pieces: Of the comparison itself.
        clauses: What was said about when.
        asides: What stood in parentheses and is left out, as far as it has numbers.
    """

    pieces: list[Piece]
    clauses: Clauses = field(default_factory=Clauses)
    asides: list[list[Piece]] = field(default_factory=list)


def sentence_of(text: str) -> Sentence:
    """Takes a text apart.

    Raises:
        NotUnderstoodError: It has more than one statement, or an aside that limits it.
    """
    plain = _MARKER.sub("", text.translate(_SIGNS).replace("\u2014", " - ").strip())
    plain = _WRAPPED.sub(r"\2", plain)
    plain = _ABBREVIATED.sub(r"\1", plain)
    clauses = Clauses()
    asides = [match[1] or match[2] or "" for match in _ASIDE.finditer(plain)]
    plain = _ASIDE.sub(" ", plain)
    segments = _segments(pieces_of(plain))
    while len(segments) > 1 and is_clauses(segments[0], clauses):
        segments.pop(0)
    at = next((n for n, segment in enumerate(segments) if _says_how_many(segment)), None)
    if at is None:  # ROAS above 3x
        at = next((n for n, segment in enumerate(segments) if _compares(segment[-2:])), None)
    if at is None and len(segments) == 1:  # low open rate (< 20%)
        beside = [aside for aside in asides if _compares(pieces_of(aside), alone=True)]
        if len(beside) == 1:
            asides.remove(beside[0])
            segments[0] += pieces_of(beside[0])
            at = 0
    if at is None:
        raise NotUnderstoodError(_why_no_number(segments))
    for label in segments[:at]:
        if len(label) > _MAX_LABEL or any(piece.kind != "word" for piece in label):
            raise NotUnderstoodError("what stands before the comparison may change it")
    bare = at == 1 and all(piece.kind != "word" for piece in segments[1])  # replies: 10+
    if bare or (at == 1 and segments[0][0].text in QUALITIES and _compares(segments[1])):  # poor reply rate: below 2%
        segments[1] = [*segments[0], *segments[1]]
    for segment in segments[at + 1 :]:
        if _aside(segment, clauses) and _says_how_many(segment):
            raise NotUnderstoodError("there is more than one statement: write a criterion for each")
    left_out = [aside for aside in map(pieces_of, asides) if _aside(aside, clauses)]
    pieces = take_clauses(_without_commas(segments[at], clauses), clauses)
    return Sentence(pieces, clauses, [aside for aside in left_out if _says_how_many(aside)])


def _why_no_number(segments: Sequence[Sequence[Piece]]) -> str:
    for piece in (piece for segment in segments for piece in segment):
        if piece.text in VAGUE:
            return f"'{piece.text}' is no number"
        if piece.kind == "odd" and piece.text[:1].isdigit():
            return f"'{piece.text}' is no number that is clear"
    return "this names no number to compare with, so nothing can decide it"


def _segments(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The parts between semicolons, colons, full stops and spaced dashes."""
    segments: list[list[Piece]] = [[]]
    for piece in pieces:
        if piece.kind == "break":
            segments.append([])
        else:
            segments[-1].append(piece)
    return [segment for segment in segments if segment]


def _says_how_many(pieces: Sequence[Piece]) -> bool:
    """Whether there is a number in it; ``2x the average`` has none of its own."""
    return any(piece.kind == "zero" or (piece.quantity is not None and not piece.quantity.times) for piece in pieces)


def _compares(pieces: Sequence[Piece], *, alone: bool = False) -> bool:
    """Whether it is a comparison whose subject stands elsewhere: ``< 20%``, ``10+``.

    When it is to stand ``alone``, only a clause is behind the number: ``< 2% after 100 sends``.
    """
    at = next((index for index, piece in enumerate(pieces) if piece.kind in ("number", "zero")), None)
    if at is None or not (pieces[0].operator is not None or at == 0):
        return False
    behind = pieces[at + 1].text if at + 1 < len(pieces) and pieces[at + 1].kind == "word" else ""
    return not alone or behind in ("", "after", "by", "in", "on", "once", "over", "within", *UNITS)


def _aside(pieces: Sequence[Piece], clauses: Clauses) -> bool:
    """Whether it is a reason and left out; a clause is kept, what limits is refused."""
    if not pieces or is_clauses(pieces, clauses):
        return False
    first = pieces[0]
    if (size := samples.aside(pieces)) is not None:
        clauses.clauses.append(size)
        return False
    if any(piece.operator == ">=" and "min" in piece.text for piece in pieces):
        raise NotUnderstoodError("it is not clear what there must be at least of")
    limit = next((piece.text for piece in pieces[:1] if piece.kind != "quote" and piece.text in LIMITS), "")
    if not limit:
        limit = next(
            (piece.text for piece in pieces if piece.text in ("excluding", "except", "unless", "per", "each", "every")),
            "",
        )
    if limit or first.kind in ("and", "or", "negation"):
        raise NotUnderstoodError(f"what is said beside it limits it: '{limit or first.text} ...'")
    return True


def _without_commas(pieces: list[Piece], clauses: Clauses) -> list[Piece]:
    """The comparison between commas; clauses around it are kept, reasons behind it left out."""
    parts: list[list[Piece]] = [[]]
    for index, piece in enumerate(pieces):
        following = pieces[index + 1].kind if index + 1 < len(pieces) else ""
        if piece.kind == "comma" and following not in ("and", "or"):
            parts.append([])
        elif piece.kind != "comma":
            parts[-1].append(piece)
    core: list[Piece] = []
    for part in parts:
        if is_clauses(part, clauses):
            continue
        reason = bool(core) and bool(part) and part[0].text in REASONS and not _says_how_many(part)
        if core and part and not reason:
            raise NotUnderstoodError("there is more than one statement between the commas: write a criterion for each")
        if not reason:
            core = part
    return _without_reason(core)


def _without_reason(pieces: list[Piece]) -> list[Piece]:
    """Without ``indicating a bad list`` behind the comparison."""
    for index, piece in enumerate(pieces):
        known = piece.kind == "word" and piece.text in REASONS - {"as", "so", "which", "since", "due"}
        if known and index > 1 and _says_how_many(pieces[:index]) and not _says_how_many(pieces[index:]):
            return pieces[:index]
    return pieces
