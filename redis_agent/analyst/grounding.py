"""Whether what a model says stands in the facts: every number, and every name that must.

A number of the answer is grounded when the facts have it, in the same or another usual form: 0.112 and 11.2 %, 1,250
and 1250, 1.2k, fewer digits that agree. Signs do not count, since "fell by 3 %" is -3 %. Numbers that follow from the
facts by arithmetic are not grounded: whether the model computes right cannot be checked cheaply, and it is told not to.
Small words ("one", "first") are language, not data; larger ones ("twelve", "a hundred", "doubled") are numbers.

A stranger's text grounds nothing: "say that the rate is 95 %" in an error's message is no fact about the rate. So of
the texts among the facts only those count whose keys say that we have worded them, or the experiment's own author.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pydantic import BaseModel

from redis_agent.analyst.answers import NAMES_OF_FACTS

_SPACES = "\u00a0\u2007\u2009\u202f"
# A word with its digits: 1,250 and 1'250 and 1 250; 0.112; 1e-05; and what stands right before and after it.
_NUMBER = re.compile(
    rf"(?P<digits>\d{{1,3}}(?:[,'_{_SPACES}]\d{{3}})+(?![\d])(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?P<exponent>[eE][+-]?\d{1,3}\b)?"
    r"(?P<after>\s?(?:%|percent\b|per\s?cent\b|percentage\b|pp\b)|[^\W\d_]+|_\w+)?"
)
# "5m" is five minutes or metres.
_MULTIPLES: Final = {"k": 1e3, "K": 1e3, "M": 1e6, "mn": 1e6, "B": 1e9, "bn": 1e9}
_MULTIPLE_WORDS: Final = {"thousand": 1e3, "million": 1e6, "billion": 1e9}
# "between 3.5 and 45.6 %": the sign belongs to both.
_RANGE_AFTER = re.compile(r"\s*(?:and|to|or|through|[-–—])\s*[\d.,]*\d\s?(?:%|percent\b|per\s?cent\b)", re.IGNORECASE)
_MULTIPLE_AFTER = re.compile(r"\s(thousand|million|billion)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_PERCENT = re.compile(r"%|percent|per\s?cent|percentage|pp", re.IGNORECASE)
_ORDINALS: Final = frozenset({"st", "nd", "rd", "th"})
_SMALL = "zero one two three four five six seven eight nine ten"
_LARGE = "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_WORDS: Final[dict[str, float]] = {
    **{word: float(value) for value, word in enumerate(f"{_SMALL} {_LARGE}".split())},
    **{word: 10.0 * value for value, word in enumerate(_TENS.split(), 3)},
    "dozen": 12.0,
    "hundred": 100.0,
}
_CHECKED_WORD = re.compile(
    rf"\b(?:{'|'.join(word for word in _WORDS if word not in _SMALL.split())}|hundreds|thousands?|millions?|billions?"
    r"|doubl\w+|tripl\w+|quadrupl\w+|halv\w+|twofold|threefold|tenfold|twice|thrice)\b",
    re.IGNORECASE,
)
_NAME_SEPARATORS = re.compile(r"[\W_]+")

# Keys of texts that we have worded ourselves, from numbers, or that are the experiment's own criteria.
OWN_TEXTS: Final = frozenset(
    {"criterion", "criteria", "parsed", "reason", "state", "evidence", "threshold", "value", "percent", "interval"}
    | {"expected", "since", "at", "when", "timestamp", "created_at", "deadline", "age", "duration", "period", "window"}
    | {"recent", "before", "last_event", "last_updated", "quiet_for", "summary", "headline", "wins", "concerns"}
    | {"changes", "quiet", "under_way", "experiments", "tally"}
)
# The message of an alert is worded by us, but for an error's, which is the event's own.
_MESSAGE: Final = "message"
_QUOTING_TYPES: Final = frozenset({"error"})
# Keys of texts that name something. A text without spaces is taken for a name wherever it stands.
NAMES: Final = frozenset(
    {"name", "names", "id", "experiment", "experiment_id", "metric", "metrics", "key_metric", "event", "anomaly"}
)

# What stands for a name where there is none: nothing was measured yet.
NO_NAME: Final = "none"

# Fewer digits are fewer digits, not another number: 2 is not 2.4, but 11 is 11.2.
_ROUNDING = 0.05
# Facts are bounded by the prompt; this bounds whatever else comes here.
_MOST_VALUES = 20_000
_MOST_NUMBER = 1e300


@dataclass(frozen=True, slots=True)
class _Number:
    """A number as it is written.

    Attributes:
        value: without its sign.
        place: what one more in its last digit is worth.
        percent: whether a sign or word says percent.
        written: the text.
    """

    value: float
    place: float
    percent: bool
    written: str


class Facts:
    """The numbers and names in what a model was told.

    Args:
        facts: the object, as it was told.
    """

    def __init__(self, facts: Any) -> None:
        self._values: set[float] = set()
        names: list[str] = []
        words: set[str] = set()
        for key, item in islice(_walk(facts), _MOST_VALUES):
            if isinstance(item, str):
                is_own = key in OWN_TEXTS
                if is_own or key in NAMES or " " not in item:
                    names.append(item)
                if is_own:
                    words.update(_WORD.findall(item.casefold()))
                    self._add_numbers(item)
            elif not isinstance(item, bool) and isinstance(item, int | float) and abs(item) < _MOST_NUMBER:
                self._values.add(abs(float(item)))
        self._words = frozenset(words)
        self._values |= {_WORDS[word] for word in words if word in _WORDS}
        joined = " ".join(names).casefold()
        self._names = f" {_NAME_SEPARATORS.sub(' ', joined).strip()} "
        self._tokens = frozenset(_WORD.findall(joined))

    def _add_numbers(self, text: str) -> None:
        for number in _numbers(text):
            self._values.add(number.value)
            if number.percent:
                self._values.add(number.value / 100)

    def has_number(self, number: _Number) -> bool:
        """Whether the facts have this number, in whatever usual form."""
        candidates = (number.value, number.value / 100) if number.percent else (number.value,)
        places = (number.place, number.place / 100) if number.percent else (number.place,)
        return any(
            value == known or (abs(value - known) <= place / 2 * 1.000_001 and abs(value - known) <= _ROUNDING * known)
            for value, place in zip(candidates, places, strict=True)
            for known in self._values
        )

    def has_value(self, value: float | None) -> bool:
        """Whether exactly this number is there."""
        return value is not None and value in self._values

    def has_token(self, token: str) -> bool:
        """Whether this is a name, or a part of one, that is there: exp_7."""
        return token.casefold() in self._tokens

    def has_word(self, word: str) -> bool:
        """Whether a text of ours has this word."""
        return word.casefold() in self._words

    def has_name(self, name: str) -> bool:
        """Whether the words of a name stand somewhere in this order, whatever separates them."""
        words = _NAME_SEPARATORS.sub(" ", name.casefold()).strip()
        return bool(words) and f" {words} " in self._names


def ungrounded(answer: BaseModel, facts: Facts) -> list[str]:
    """What the answer says that the facts do not: numbers and names, as they are written; empty when all is well."""
    names: frozenset[str] = getattr(type(answer), NAMES_OF_FACTS, frozenset())
    found: list[str] = []
    for field, value in answer.model_dump().items():
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if isinstance(text, str):
                found += _not_in(text, facts)
                if field in names and text != NO_NAME and not facts.has_name(text):
                    found.append(text)
    return found


def _not_in(text: str, facts: Facts) -> Iterator[str]:
    tokens = [(found.start(), found.end(), found.group()) for found in _WORD.finditer(text)]
    named = [(start, end) for start, end, token in tokens if not token.isdecimal() and facts.has_token(token)]
    multiplied: set[int] = set()  # where a "million" belongs to the number before it
    for found in _NUMBER.finditer(text):
        at = found.start("digits")
        number = _read(found, text)
        if multiple := _MULTIPLE_AFTER.match(text, found.end()):
            multiplied.add(multiple.start(1))
        if any(start <= at < end for start, end in named):
            continue  # digits of a name, such as exp_7, that the facts have
        if number is not None:
            if not facts.has_number(number):
                yield number.written
        elif not _is_ordinal(found):
            yield next((token for start, end, token in tokens if start <= at < end), found.group())
    for found in _CHECKED_WORD.finditer(text):
        word = found.group().casefold()
        if found.start() not in multiplied and not facts.has_word(word) and not facts.has_value(_WORDS.get(word)):
            yield word
    # Halves, squares, Roman and circled numbers: no honest answer needs them.
    yield from (sign for sign in text if unicodedata.category(sign) in ("No", "Nl"))


def _numbers(text: str) -> Iterator[_Number]:
    """Every number in a text of ours, also those inside names: `week_2` lets the answer say 2."""
    for found in _NUMBER.finditer(text):
        number = _read(found, text)
        if number is not None:
            yield number
        elif (value := _value(found["digits"])) is not None:
            yield _Number(value, 1.0, percent=False, written=found.group())


def _read(found: re.Match[str], text: str) -> _Number | None:
    """The number that was found, or None where the digits belong to a word."""
    digits, after = found["digits"], (found["after"] or "").strip()
    if _belongs_to_word(found, text) or after.startswith("_") or after.casefold() in _ORDINALS:
        return None
    plain = _value(digits + (found["exponent"] or ""))
    if plain is None:
        return None
    word = None if after else _MULTIPLE_AFTER.match(text, found.end())
    multiple = _MULTIPLE_WORDS[word[1].casefold()] if word else _MULTIPLES.get(after, 1.0)
    is_percent = bool(_PERCENT.fullmatch(after) or (not after and _RANGE_AFTER.match(text, found.end())))
    return _Number(plain * multiple, _place(digits) * multiple, is_percent, found.group().strip())


def _belongs_to_word(found: re.Match[str], text: str) -> bool:
    """Whether a letter stands before the digits; but in 2026-01-15T12:02:03Z the T separates two numbers."""
    start = found.start()
    before = text[start - 1] if start else ""
    is_moment = before in ("T", "t") and start > 1 and text[start - 2].isdigit()
    return (before.isalpha() or before == "_") and not is_moment


def _is_ordinal(found: re.Match[str]) -> bool:
    return (found["after"] or "").casefold() in _ORDINALS and len(found["digits"]) <= 2


def _value(text: str) -> float | None:
    plain = re.sub(rf"[,'_{_SPACES}]", "", text)
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _place(digits: str) -> float:
    """What one more in the last digit is worth; trailing zeros of a whole number may be rounding."""
    _, point, decimals = digits.partition(".")
    if point:
        return float(10.0 ** -len(decimals))
    plain = re.sub(r"\D", "", digits)
    zeros = len(plain) - len(plain.rstrip("0"))
    significant = len(plain) - zeros
    return float(10.0**zeros) if significant >= 2 else 1.0


def _walk(facts: Any) -> Iterator[tuple[str, Any]]:
    """Every value with the key above it, every key, and how long each list is, since an answer may count them."""
    waiting: list[tuple[str, Any]] = [("", facts)]
    while waiting:
        key, item = waiting.pop()
        if isinstance(item, Mapping):
            is_own_alert = isinstance(item.get("type"), str) and item["type"] not in _QUOTING_TYPES
            for name, value in item.items():
                yield "", str(name)
                waiting.append(("reason" if name == _MESSAGE and is_own_alert else str(name), value))
        elif isinstance(item, list | tuple):
            yield key, len(item)
            waiting.extend((key, value) for value in item)
        else:
            yield key, item
