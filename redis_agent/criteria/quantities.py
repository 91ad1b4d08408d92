"""The numbers of prose: ``a dozen``, ``$1.5M``, ``8 per cent``, ``30-day``, ``3x``, ``between 5 and 10``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from redis_agent.criteria.expression import UNITS
from redis_agent.criteria.lexicon import word_set
from redis_agent.criteria.pieces import Piece, Quantity

_BEFORE_TIMES: Final = frozenset({"after", "by", "during", "from", "in", "once", "within"})

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


def number_of(match: re.Match[str]) -> Piece:
    """A number with its suffix; ``3rd``, ``1.000`` and ``€1.500`` are odd."""
    digits, suffix = match["digits"], match["suffix"] or ""
    value = float(digits.replace(",", "").replace("_", ""))
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


def without_hyphens(pieces: list[Piece]) -> list[Piece]:
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


def with_numbers(pieces: list[Piece]) -> list[Piece]:
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


def with_singles(pieces: list[Piece]) -> list[Piece]:
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


def with_ranges(pieces: list[Piece]) -> list[Piece]:
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
