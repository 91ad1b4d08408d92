"""The words of prose: numbers with what belongs to them, and phrases that mean one thing.

One pass of one regular expression cuts a text into pieces; one pass over the pieces joins ``no more
than`` into ``<=``, ``a dozen`` into 12, ``5-10`` into one quantity. What is no part of a sentence
about numbers becomes an ``odd`` piece, which no pattern reads.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, TypeAlias

from redis_agent.criteria.expression import ComparisonOperator
from redis_agent.criteria.pieces import NotUnderstoodError, Piece
from redis_agent.criteria.quantities import number_of, with_numbers, with_ranges, with_singles, without_hyphens

MAX_PIECES: Final = 60
"""Pieces in a criterion of prose; a longer one is an essay."""

_PIECE: Final = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<quote>"[^"]*"|(?<!\w)'[^']*'(?!\w))
    | (?:(?P<currency>[$€£¥])\s?)?
      (?P<digits>(?:[0-9]{1,3}(?:[,_][0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)
      (?P<suffix>[^\W\d]+)?(?P<tail>\+?(?:\s?%)?\+?)
    | (?P<word>[^\W\d]\w*(?:[-'][^\W_]+)*)
    | (?P<operator><=|>=|=>|=<|==|!=|<>|[<>=≥≤≠])
    | (?P<dash>-+)
    | (?P<mark>[,;:.!])
    | (?P<odd>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_OPERATORS: Final[dict[str, ComparisonOperator]] = {
    "<": "<",
    "<=": "<=",
    "=<": "<=",
    "≤": "<=",
    ">": ">",
    ">=": ">=",
    "=>": ">=",
    "≥": ">=",
    "=": "==",
    "==": "==",
    "!=": "!=",
    "<>": "!=",
    "≠": "!=",
}

_PREFIXES: Final[tuple[tuple[str, ComparisonOperator], ...]] = (
    ("greater than or equal to|more than or equal to|equal to or greater than|equal to or more than", ">="),
    ("less than or equal to|fewer than or equal to|equal to or less than|equal to or fewer than", "<="),
    ("at least|at minimum|a minimum of|minimum of|minimum|min|no fewer than|no less than|no lower than", ">="),
    ("at or above|at or over|equal or above|equal to or above", ">="),
    ("meet or exceed|meets or exceeds|meeting or exceeding|reach or exceed|reaches or exceeds", ">="),
    ("at or below|at or under|equal or below|equal to or below", "<="),
    ("not less than|not fewer than|not below|not lower than|not under", ">="),
    ("at most|at maximum|a maximum of|maximum of|maximum|max|no more than|no greater than|no higher than", "<="),
    ("not more than|not greater than|not above|not over|not higher than|up to", "<="),
    ("capped at|limited to", "<="),
    ("more than|greater than|higher than|larger than|bigger than|longer than|in excess of|over|above", ">"),
    ("fewer than|less than|lower than|smaller than|shorter than|quicker than|under|below|beneath", "<"),
    ("exactly|precisely|equal to|equals", "=="),
)

_SUFFIXES: Final[tuple[tuple[str, ComparisonOperator], ...]] = (
    ("or more|or higher|or greater|or better|or above|or over|or up|and above|and up|and over|and more", ">="),
    ("or fewer|or less|or lower|or below|or under|and below|and under", "<="),
)

_CAN_NOT: Final = "can't|cannot|can not|cant|couldn't|could not"

_FAILS_TO: Final = (
    "unable to|not able to|inability to|failure to|failing to|fails to|failed to|fail to|not reaching|not achieving"
    "|not hitting|not getting|not receiving|miss|misses|missed|missing|fall short of|falls short of|falling short of"
)

_WEAK_NEGATIONS: Final = (
    "avoid|avoiding|do not let|don't let|never let|do not|don't|does not|doesn't|did not|didn't|will not|won't"
    "|has not|hasn't|have not|haven't|never|not"
)

_DENIALS: Final = "is not|isn't|are not|aren't|was not|wasn't|were not"

_ZEROS: Final = "not a single|not even one|not one|zero|no"

_Phrase: TypeAlias = tuple[tuple[str, ...], Piece]


def _phrases() -> dict[str, list[_Phrase]]:
    """Every phrase by its first word, the longest first."""
    found: list[_Phrase] = []

    def add(texts: str, piece: Piece) -> None:
        found.extend((tuple(text.split()), replace(piece, text=piece.text or text)) for text in texts.split("|"))

    for texts, operator in _PREFIXES:
        add(texts, Piece("operator", "", operator=operator))
    for texts, operator in _SUFFIXES:
        add(texts, Piece("suffix", "", operator=operator))
    add(_CAN_NOT, Piece("negation", "can not"))
    add(_FAILS_TO, Piece("negation", "fails to"))
    add(_WEAK_NEGATIONS, Piece("negation", "not"))
    add(_DENIALS, Piece("negation", "is not"))
    add(_ZEROS, Piece("zero", ""))
    add("and", Piece("and", ""))
    add("or", Piece("or", ""))
    found.sort(key=lambda phrase: -len(phrase[0]))
    by_first: dict[str, list[_Phrase]] = {}
    for phrase in found:
        by_first.setdefault(phrase[0][0], []).append(phrase)
    return by_first


_PHRASES: Final = _phrases()


def pieces_of(text: str) -> list[Piece]:
    """Cuts a sentence into pieces.

    Raises:
        NotUnderstoodError: It has more than ``MAX_PIECES``.
    """
    raw: list[Piece] = []
    position, spaced = 0, True
    while position < len(text):
        match = _PIECE.match(text, position)
        if match is None:  # the last alternative takes any character
            break
        position = match.end()
        if match["space"] is None:
            raw.append(_piece(match, joined=not spaced, following=text[position : position + 1]))
            if len(raw) > MAX_PIECES:
                raise NotUnderstoodError(
                    f"this is longer than {MAX_PIECES} words: say what is compared in one sentence"
                )
        spaced = match["space"] is not None
    return with_ranges(with_singles(_with_phrases(with_numbers(without_hyphens(raw)))))


def _piece(match: re.Match[str], *, joined: bool, following: str) -> Piece:
    text = match[0].lower()
    if match["digits"] is not None:
        return number_of(match)
    if match["word"] is not None:
        return Piece("word", text, joined=joined)
    if match["operator"] is not None:
        return Piece("operator", text, operator=_OPERATORS[text], joined=joined)
    if match["quote"] is not None:
        return Piece("quote", text)
    if match["dash"] is not None:
        apart = following.isspace() and not joined
        return Piece("break" if apart else "odd", "-", joined=joined)
    if match["mark"] is not None and not following.isalnum():  # 0,5 and 1.2.3 are no numbers
        return Piece("comma" if text == "," else "break", text, joined=joined)
    return Piece("and" if text == "&" else "odd", text, joined=joined)


def _with_phrases(pieces: list[Piece]) -> list[Piece]:
    done: list[Piece] = []
    index = 0
    while index < len(pieces):
        if pieces[index].kind == "word":
            for words, piece in _PHRASES.get(pieces[index].text, ()):
                following = pieces[index + len(words)].text if index + len(words) < len(pieces) else ""
                ends_well = piece.kind != "suffix" or following != "than"  # 2% or fewer than 5
                if ends_well and tuple(other.text for other in pieces[index : index + len(words)]) == words:
                    done.append(piece)
                    index += len(words)
                    break
            else:
                done.append(pieces[index])
                index += 1
        else:
            done.append(pieces[index])
            index += 1
    return done
