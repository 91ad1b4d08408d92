"""The words of a criterion: one pass of one regular expression that cannot backtrack far."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from redis_agent.criteria.expression import NAME, CriterionError

MAX_TEXT: Final = 2_000
"""Characters in a criterion or a formula; longer ones are refused before they are looked at."""

TokenKind = Literal["number", "percent", "name", "quoted", "operator", "end"]

_SYNONYMS: Final = {
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "<>": "!=",
    "=": "==",
    "&&": "and",
    "||": "or",
    "!": "not",
    "\u00d7": "*",
    "\u00f7": "/",
    "\u2212": "-",
}

_WORDS: Final = frozenset({"and", "or", "not", "after", "within"})

_TOKEN: Final = re.compile(
    rf"""
      (?P<space>\s+)
    | (?P<number>
        (?: [0-9]{{1,3}} (?:,[0-9]{{3}})+ (?![0-9,_]) | [0-9]+ (?:_[0-9]+)* ) (?:\.[0-9]+)?
        (?:[eE][+-]?[0-9]+)?
      | \.[0-9]+ (?:[eE][+-]?[0-9]+)? )
      (?P<percent>\s*%)?
    | (?P<name>{NAME.pattern})
    | `(?P<quoted>[^`]+)`
    | (?P<operator><=|>=|==|!=|<>|&&|\|\||[<>=!≥≤≠+\-*/\u00d7\u00f7\u2212():])
    """,
    re.VERBOSE,
)

_HINTS: Final = {
    ",": "write 1,000 or 1000, and a point in decimals: 0.5",
    "`": "a name in backticks needs a closing one",
    "%": "a percentage is a number and %: 10%",
    "&": "write and",
    "|": "write or",
}


@dataclass(frozen=True, slots=True)
class Token:
    """A word with its place.

    Attributes:
        kind: What it is. Words such as ``and`` and ``after`` are operators.
        text: The operator in its one spelling, or the word as it was written.
        position: Index of its first character.
        value: The number, for ``number`` and ``percent``.
    """

    kind: TokenKind
    text: str
    position: int
    value: float = 0.0


def tokenize(text: str) -> list[Token]:
    """Splits a text into tokens, the last of which has the kind ``end``.

    Raises:
        CriterionError: The text is too long, empty, or has a character that means nothing.
    """
    if not isinstance(text, str):
        raise CriterionError("this is not text", 0, "a criterion is a sentence such as replies > 3")
    if len(text) > MAX_TEXT:
        raise CriterionError(f"this text has {len(text)} characters, more than {MAX_TEXT}", MAX_TEXT)
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            character = text[position]
            raise CriterionError(f"unexpected {character!r}", position, _HINTS.get(character, ""))
        if match["space"] is None:
            tokens.append(_token(match, position))
        position = match.end()
    if not tokens:
        raise CriterionError("there is nothing here", 0, "write, for example, replies > 3")
    tokens.append(Token("end", "the end", len(text)))
    return tokens


def _token(match: re.Match[str], position: int) -> Token:
    if (number := match["number"]) is not None:
        value = float(number.replace(",", "").replace("_", ""))
        if not math.isfinite(value):
            raise CriterionError(f"the number {number[:20]} is too large", position)
        if match["percent"]:
            return Token("percent", f"{number}%", position, value)
        return Token("number", number, position, value)
    if (name := match["name"]) is not None:
        lowered = name.lower()
        if lowered in _WORDS:
            return Token("operator", lowered, position)
        return Token("name", name, position)
    if (quoted := match["quoted"]) is not None:
        return Token("quoted", quoted, position)
    operator = match["operator"]
    return Token("operator", _SYNONYMS.get(operator, operator), position)
