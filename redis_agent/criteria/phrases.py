"""The words of prose: numbers with what belongs to them, and phrases that mean one thing.

One pass of one regular expression cuts a text into pieces; one pass over the pieces joins ``no more
than`` into ``<=``, ``a dozen`` into 12, ``5-10`` into one quantity. What is no part of a sentence
about numbers becomes an ``odd`` piece, which no pattern reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from redis_agent.criteria.expression import UNITS, ComparisonOperator, CriterionError, print_number
from redis_agent.criteria.lexicon import word_set

MAX_PIECES: Final = 60
"""Pieces in a criterion of prose; a longer one is an essay."""

PieceKind: TypeAlias = Literal[
    "word", "number", "operator", "suffix", "negation", "zero", "and", "or", "comma", "break", "quote", "odd"
]


class NotUnderstoodError(CriterionError):
    """Prose that says nothing that can be judged; the text is the reason, and the nearest that could."""

    def __init__(self, reason: str, nearest: str = "") -> None:
        """Builds one line without a place: prose is wrong as a whole."""
        super().__init__(reason, 0, f"nearest: {nearest}" if nearest else "")
        self.args = (f"{reason}; {self.hint}" if self.hint else reason,)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what belongs to it.

    Attributes:
        value: The number, multiplied out; of a range, the first one.
        percent: ``%`` or the word stood behind it.
        upper: The second number of a range.
        between: The range was written with ``between``.
        plus: ``8+``.
        unit: A unit of time, of ``72h``.
        money: The currency that stood before or behind it, as in ``CURRENCIES``.
        times: ``3x``, a multiple of something.
    """

    value: float
    percent: bool = False
    upper: float | None = None
    between: bool = False
    plus: bool = False
    unit: str = ""
    money: str = ""
    times: bool = False

    @property
    def text(self) -> str:
        """As the grammar writes it."""
        return print_number(self.value) + ("%" if self.percent else "")


@dataclass(frozen=True, slots=True)
class Piece:
    """A word, number or phrase.

    Attributes:
        kind: What it is.
        text: In lower case.
        quantity: Of a number.
        operator: Of ``operator`` (``at least`` before a number) and ``suffix`` (``or more`` behind).
        joined: It is one that stood in the text without space before it.
    """

    kind: PieceKind
    text: str
    quantity: Quantity | None = None
    operator: ComparisonOperator | None = None
    joined: bool = False


_PIECE: Final = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<quote>"[^"]*"|(?<!\w)'[^']*'(?!\w))
    | (?:(?P<currency>[$€£¥])\s?)?
      (?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)
      (?P<suffix>[^\W\d_]+)?(?P<tail>\+?(?:\s?%)?\+?)
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
_WEAK_NEGATIONS: Final = "do not|don't|does not|doesn't|did not|didn't|will not|won't|never|not"
_DENIALS: Final = "is not|isn't|are not|aren't|was not|wasn't|were not"
_ZEROS: Final = "not a single|not even one|not one|zero|no"

_BEFORE_TIMES: Final = frozenset({"after", "by", "during", "from", "in", "once", "within"})

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

_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL: Final = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_NUMBER_WORDS: Final[dict[str, int]] = {
    **{word: number for number, word in enumerate(_SMALL, start=1)},
    **{word: 10 * number for number, word in enumerate(_TENS, start=2)},
    **{
        f"{ten}-{one}": 10 * tens + ones
        for tens, ten in enumerate(_TENS, start=2)
        for ones, one in enumerate(_SMALL[:9], start=1)
    },
}
_MULTIPLIERS: Final = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "k": 1_000,
    "million": 1_000_000,
    "mn": 1_000_000,
    "billion": 1_000_000_000,
    "bn": 1_000_000_000,
    "b": 1_000_000_000,
}
_CODES: Final = word_set("usd eur gbp")
CURRENCIES: Final = {
    **dict.fromkeys(("$", "usd", "dollar", "dollars"), "usd"),
    **dict.fromkeys(("€", "eur", "euro", "euros"), "eur"),
    **dict.fromkeys(("£", "gbp", "pounds"), "gbp"),
    "¥": "jpy",
}
"""Signs, codes and words of currencies, with the code."""
_PERCENT_WORDS: Final = frozenset({"percent", "pct", "per-cent"})


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
    return _with_ranges(_with_singles(_with_phrases(_with_numbers(_without_hyphens(raw)))))


def _piece(match: re.Match[str], *, joined: bool, following: str) -> Piece:
    text = match[0].lower()
    if match["digits"] is not None:
        return _number(match)
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


def _number(match: re.Match[str]) -> Piece:
    """A number with its suffix; ``3rd``, ``1.000`` and ``€1.500`` are odd."""
    digits, suffix = match["digits"], match["suffix"] or ""
    value = float(digits.replace(",", ""))
    tail, unit = match["tail"], ""
    money = CURRENCIES.get(match["currency"] or "", "")
    if suffix.lower() == "m":
        factor = 1_000_000 if money != "" or suffix == "M" else 0
    elif suffix.lower() in ("k", "b", "mn", "bn"):
        factor = _MULTIPLIERS[suffix.lower()]
    else:
        unit = UNITS.get(suffix.lower(), "")
        factor = 0 if suffix and not unit and suffix.lower() != "x" else 1
    thousands = digits.endswith(".000") or (money != "" and re.search(r"\.\d{3}$", digits) is not None)
    if factor == 0 or thousands or value > 1e15:
        return Piece("odd", match[0])
    times = suffix.lower() == "x"
    quantity = Quantity(value * factor, "%" in tail, plus="+" in tail, unit=unit, money=money, times=times)
    return Piece("number", match[0], quantity)


def _without_hyphens(pieces: list[Piece]) -> list[Piece]:
    """``30-day`` and ``two-week`` are a number and a unit."""
    done: list[Piece] = []
    for index, piece in enumerate(pieces):
        head, _, unit = piece.text.partition("-")
        if head in _NUMBER_WORDS and unit in UNITS:
            done += [Piece("word", head), Piece("word", unit)]
            continue
        following = pieces[index + 1] if index + 1 < len(pieces) else None
        hyphen = piece.text == "-" and piece.joined and bool(done) and done[-1].quantity is not None
        if not (hyphen and following is not None and following.joined and following.text in UNITS):
            done.append(piece)
    return done


def _with_numbers(pieces: list[Piece]) -> list[Piece]:
    """Number words, multipliers, and the words for percent, money and minutes behind a number."""
    done: list[Piece] = []
    index = 0
    while index < len(pieces):
        piece = pieces[index]
        text = piece.text if piece.kind == "word" else ""
        following = pieces[index + 1].text if index + 1 < len(pieces) else ""
        whole = text in ("a", "an", "half") and len(following) > 2 and following in _MULTIPLIERS
        if whole or (text, following) == ("half", "a"):
            amount = 0.5 if text == "half" else 1.0
            index += (text, following) == ("half", "a")
            done.append(Piece("number", text, Quantity(amount)))
        elif text in _NUMBER_WORDS:
            number = float(_NUMBER_WORDS[text])
            if done and done[-1].text in _TENS and number < 10:  # twenty five
                number += _NUMBER_WORDS[done.pop().text]
            done.append(Piece("number", text, Quantity(number)))
        elif text in _CODES and index + 1 < len(pieces) and (quantity := pieces[index + 1].quantity) is not None:
            done.append(replace(pieces[index + 1], quantity=replace(quantity, money=text)))
            index += 1
        elif text and done and (quantity := done[-1].quantity) is not None:
            whole = (text, following) == ("per", "cent")
            index += whole
            changed = _extended(quantity, "percent" if whole else text)
            if changed is None:
                done.append(piece)
            else:
                done[-1] = replace(done[-1], quantity=changed)
        else:
            done.append(piece)
        index += 1
    return done


def _extended(quantity: Quantity, word: str) -> Quantity | None:
    """The number with the word behind it, when that belongs to it."""
    if _MULTIPLIERS.get(word) and len(word) > 2 and not quantity.percent and not quantity.unit:
        return replace(quantity, value=quantity.value * _MULTIPLIERS[word])
    if word in _PERCENT_WORDS:
        return replace(quantity, percent=True)
    if word in CURRENCIES:
        return replace(quantity, money=CURRENCIES[word])
    if word == "min" and not quantity.unit and not quantity.percent:
        return replace(quantity, unit="minute")
    return replace(quantity, plus=True) if word == "plus" else None


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


def _with_singles(pieces: list[Piece]) -> list[Piece]:
    """``a single``, ``any`` at the beginning or behind a negation, and ``a`` there are 1; ``even`` adds nothing."""
    done: list[Piece] = []
    for index, piece in enumerate(pieces):
        following = pieces[index + 1] if index + 1 < len(pieces) else None
        if following is not None and (piece.text, following.text) == ("a", "single"):
            continue
        if piece.text == "even" and following is not None and (following.quantity or following.text == "a"):
            continue
        single = piece.text == "single" and index > 0 and pieces[index - 1].text == "a"
        some = piece.text == "any" and (not done or any(other.kind == "negation" for other in done))
        some = some or (piece.text in ("a", "an") and _is_denied(pieces, index))
        done.append(Piece("number", piece.text, Quantity(1.0)) if single or some else piece)
    return done


def _is_denied(pieces: Sequence[Piece], index: int) -> bool:
    """Whether an article is the number: ``can't close a deal in 60 days``, but not ``can't reach a rate of 5%``."""
    if not any(piece.kind == "negation" for piece in pieces[:index]):
        return False
    at = next((at for at, piece in enumerate(pieces) if piece.kind in ("number", "zero")), len(pieces))
    between = {piece.text for piece in pieces[index:at]}
    return at == len(pieces) or (index < at and not between.isdisjoint(_BEFORE_TIMES))


def _with_ranges(pieces: list[Piece]) -> list[Piece]:
    """``5-10``, ``5 to 10`` and ``between 5 and 10`` are one quantity each."""
    done: list[Piece] = []
    index = 0
    while index < len(pieces):
        low, word, high = (pieces[index + at] if index + at < len(pieces) else None for at in range(3))
        between = bool(done) and done[-1].text == "between"
        joint = word is not None and (word.text in ("-", "to") or (between and word.kind == "and"))
        both = low is not None and high is not None and joint
        if word is not None and word.kind == "break" and low is not None and high is not None:  # 8% - 16 replies
            both = (
                both
                and low.quantity is not None
                and high.quantity is not None
                and (low.quantity.percent == high.quantity.percent and not high.quantity.times)
            )
        quantity = _range(low.quantity, high.quantity, between=between) if both and low and high else None
        if low is not None and quantity is not None:
            if between:
                done.pop()
            done.append(replace(low, quantity=quantity))
            index += 3
        else:
            done.append(pieces[index])
            index += 1
    return done


def _range(low: Quantity | None, high: Quantity | None, *, between: bool) -> Quantity | None:
    """One quantity of two; what stands behind the second belongs to both. None for 5-10k: 5, or 5k?"""
    if low is None or high is None or low.upper is not None or high.value > 100 * low.value:
        return None
    return Quantity(
        low.value,
        low.percent or high.percent,
        high.value,
        between=between,
        plus=low.plus or high.plus,
        unit=low.unit or high.unit,
        money=low.money or high.money,
        times=low.times or high.times,
    )
