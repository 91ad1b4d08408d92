"""The metrics that words can mean: declared ones, operands of their formulas, and names of events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from redis_agent.criteria.expression import SECONDS_PER_UNIT, UNITS, Arithmetic, Name, Number, Term
from redis_agent.criteria.lexicon import (
    ARTICLES,
    GENERIC,
    IN_SUBJECTS,
    LINKS,
    MONEY,
    UNCOUNTED,
    word_set,
)
from redis_agent.criteria.matching import FILLERS, PARTICIPLES, matching, participle, stem, words_in
from redis_agent.criteria.metrics import MetricSpec
from redis_agent.criteria.pieces import NotUnderstoodError, Quantity, WrongScaleError
from redis_agent.criteria.quantities import CURRENCIES

_SINGULAR: Final = ("ss", "us", "sis", "xis")
_IRREGULAR_PLURALS: Final = frozenset({"people", "men", "women", "children", "media", "criteria"})
_WITH_DIGITS: Final = re.compile(r"^[^\W\d]\w*\d")
_COLLECTIVES: Final = frozenset({"sales", "news", "ops", "saas", "sms"})
_JOINTS: Final = frozenset({"to", "of", "per", "from", "th", "rat", "overal"})
_CHANNELS: Final = word_set("email mail messag dm sm call ad pag landing linkedin")
_MEASURES: Final = word_set(
    "conversion cost costs count cycle duration growth index length margin number percentage price quality ratio rate "
    "revenue retention score share size spend time value"
)
"""Behind another name they make a new one: ``signup conversion``."""

_MAX_WHOLE: Final = 4
"""Words in what something is a share of."""

_LIGHT: Final = word_set("convert conversion turn becom up into in result")
"""Stems of what happens to a part of something, beside what it is."""
_TIMELY: Final = frozenset({"hourly", "daily", "weekly", "monthly", "quarterly", "yearly", "reply", "early"})
_MULTIPLES: Final = frozenset({"x", "ratio", "times", "multiple", "multiplier", "roas", "roi", "factor", "coefficient"})


@dataclass(frozen=True, slots=True)
class Subject:
    """What a criterion is about: a metric's name, and its declaration where it has one."""

    name: str
    declared: bool
    spec: MetricSpec | None = None

    @property
    def is_count(self) -> bool:
        """Whether it is declared as a counter, or sounds like one."""
        return _is_plural(self.name.rpartition("_")[2]) if self.spec is None else self.spec.type == "counter"


class Vocabulary:
    """The names that an experiment knows. Built once for all its criteria."""

    __slots__ = ("_names", "_specs", "_spellings")

    def __init__(self, specs: Iterable[MetricSpec] = ()) -> None:
        """Takes the declared metrics; the operands of their formulas come behind them."""
        self._specs = {spec.name: spec for spec in specs}
        operands = [name for spec in self._specs.values() if spec.formula is not None for name in spec.formula.names]
        self._names = tuple(dict.fromkeys((*self._specs, *operands)))
        self._spellings = [(_spelling(name), name) for name in self._names if _WITH_DIGITS.search(name)]

    def spelled(self, text: str) -> str:
        """The text with ``day-7 retention`` as the name ``day7_retention``, whose number is none to compare with."""
        for spelling, name in self._spellings:
            text = spelling.sub(name, text)
        return text

    def declared(self, words: Sequence[str], *, rate: bool = False, money: bool = False) -> Subject | None:
        """The only declared name that some words mean, or None.

        Raises:
            NotUnderstoodError: They could mean several.
        """
        shares = [name for name, spec in self._specs.items() if spec.is_share] if rate else []
        found = matching(words, shares, rate=True) or matching(words, self._names, rate=rate)
        found = found or self._restated(words, rate=rate)
        if money and words and not found:  # $25k in pipeline
            found = matching([*words, "value"], self._names)
        if len(found) > 1:
            raise NotUnderstoodError(f"'{' '.join(words)}' could be {' or '.join(found[:5])}", found[0])
        return Subject(found[0], declared=True, spec=self._specs.get(found[0])) if found else None

    def share(self, words: Sequence[str]) -> Subject | None:
        """The share that ``messages get a reply`` is one of: its formula divides the replies by the messages."""
        found = [
            name
            for name, spec in self._specs.items()
            if spec.is_share and spec.formula is not None and self._divides(spec.formula.term, words)
        ]
        return Subject(found[0], declared=True, spec=self._specs[found[0]]) if len(found) == 1 else None

    def _divides(self, term: Term, words: Sequence[str]) -> bool:
        """Whether a formula is what the last words say, divided by what the first ones are."""
        while isinstance(term, Arithmetic) and term.operator == "*" and isinstance(term.right, Number):
            term = term.left
        if not isinstance(term, Arithmetic) or term.operator != "/":
            return False
        if not isinstance(term.left, Name) or not isinstance(term.right, Name):
            return False
        part, whole = (frozenset(map(stem, words_in(side.name))) for side in (term.left, term.right))
        for cut in range(1, min(len(words), _MAX_WHOLE + 1)):
            rest = [word for word in words[cut:] if word not in GENERIC | LINKS | ARTICLES]
            said = frozenset(map(stem, rest)) - _LIGHT
            same = stem("".join(rest)) == stem("".join(words_in(term.left.name)))  # sign up
            named = bool(said) and said <= part and part - said <= whole | FILLERS | _LIGHT
            if (same or named) and matching(words[:cut], self._names) == [term.right.name]:
                return True
        return False

    def _begins_declared(self, words: Sequence[str]) -> bool:
        """Whether a declared metric comes first and then no name goes on: ``installs plateau``, ``CAC balloons``."""
        if words[-1] in _MEASURES:
            return False
        return any(matching(words[:end], self._names) for end in range(1, len(words)))

    def _restated(self, words: Sequence[str], *, rate: bool) -> list[str]:
        """Shares whose name stands among the words, beside what their formula has anyway.

        ``Connection acceptance rate`` is the ``acceptance_rate`` of ``accepted / connections_sent``, and ``email
        open rate`` the only ``open_rate``. ``Positive reply rate`` is no ``reply_rate``.
        """
        said = {stem(word) for part in words for word in words_in(part)}
        named = {
            name: core
            for name, spec in self._specs.items()
            if spec.is_share and (core := {stem(word) for word in words_in(name)} - ({"rat"} if rate else set()))
        }
        alike = [name for name, core in named.items() if core <= said]
        found = []
        for name in alike:
            formula = self._specs[name].formula
            operands = {stem(word) for operand in (formula.names if formula else ()) for word in words_in(operand)}
            only = sum(named[name] <= other for other in named.values()) == 1
            joints = _JOINTS | {"averag"} if formula else _JOINTS
            if said - named[name] <= operands | joints | (_CHANNELS if only else set()):
                found.append(name)
        return found

    def mentioned(self, text: str) -> str:
        """The longest declared name whose words all stand in a text, or ""."""
        stems = {stem(word) for word in words_in(text)}
        found = [name for name in self._names if name and {stem(word) for word in words_in(name)} <= stems]
        return max(found, key=len, default="")

    def counted(self, words: Sequence[str], *, verb: str = "", one: bool = False) -> Subject:
        """An event that nobody declared: ``refund requests``, ``partners signed``.

        Args:
            words: The noun with its adjectives and a participle.
            verb: What is done with it: ``sign`` of ``sign 20 partners``.
            one: There is one of it, so that it stands in the singular.

        Raises:
            NotUnderstoodError: It is not what events are called: a plural, or a quality.
        """
        parts = [part for word in words for part in words_in(word)]
        plural = [_is_plural(word) for word in parts]
        head = len(parts) - 1 - (len(parts) > 1 and _is_participle(parts[-1]))
        ends_well = bool(parts) and plural[head]
        sentence = any(is_plural and parts[at] not in _COLLECTIVES for at, is_plural in enumerate(plural) if at != head)
        if not 0 < len(parts) <= 4 or sentence or not (ends_well or one) or not UNCOUNTED.isdisjoint(words):
            raise NotUnderstoodError(f"nothing is known that counts '{' '.join((*([verb] if verb else []), *words))}'")
        if verb and not _is_name(verb):
            raise NotUnderstoodError(f"'{verb}' is nothing that is counted")
        return Subject("_".join([*parts, *([participle(verb)] if verb else [])]), declared=False)

    def measured(self, words: Sequence[str], *, strict: bool = False) -> Subject:
        """A value that nobody declared: ``cost per lead``.

        Raises:
            NotUnderstoodError: It is no name but a sentence.
        """
        parts = [part for word in words for part in words_in(word)]
        strange = UNCOUNTED if strict else UNCOUNTED - IN_SUBJECTS
        short = 0 < len(parts) <= 5 and parts[-1] not in ("to", "of", "per")
        adverb = any(word.endswith("ly") and word not in _TIMELY for word in parts)
        if not short or adverb or not strange.isdisjoint(words) or self._begins_declared(words):
            raise NotUnderstoodError(f"nothing is known that measures '{' '.join(words)[:80]}'")
        return Subject("_".join(parts), declared=False)


def threshold(subject: Subject, value: float, quantity: Quantity) -> Number:
    """The number that a metric is compared with, on its own scale.

    Raises:
        NotUnderstoodError: A careful reader could not say which number is meant.
    """
    spec = subject.spec
    name = subject.name
    if quantity.unit:
        return Number(_in_unit_of(subject, value, quantity.unit))
    if quantity.money and spec is not None and spec.type in ("counter", "percentage", "duration"):
        raise NotUnderstoodError(f"{name} is no amount of money")
    if quantity.money and spec is None and subject.is_count and name.rpartition("_")[2] not in MONEY:
        raise NotUnderstoodError(f"{name} sounds like a count, not like an amount of money")
    own = CURRENCIES.get(name.rpartition("_")[2]) or CURRENCIES.get("" if spec is None else spec.unit.lower())
    if quantity.money and own and quantity.money != own:
        raise NotUnderstoodError(f"{name} is in {own.upper()}, not in {quantity.money.upper()}")
    if quantity.times and not _is_multiple(spec or MetricSpec(name)):
        raise NotUnderstoodError(f"it is not clear of what {name} is to be a multiple")
    if quantity.percent and (own or (spec is not None and spec.type == "duration")):
        raise NotUnderstoodError(f"{name} is no share")
    if quantity.percent:
        if spec is not None and spec.type == "counter":
            raise NotUnderstoodError(f"{name} is a count, not a share")
        if spec is None and subject.is_count:
            raise NotUnderstoodError(f"{name} sounds like a count, and a share of what is not said")
        return Number(value, percent=True)
    if spec is None or not spec.is_share or Number(value) in spec.numbers:
        return Number(value)
    if spec.scale == 1.0 and value > 1:
        raise WrongScaleError(f"{name} goes from 0 to 1, so that {value:g} is beyond it", f"{name} >= {value:g}%")
    if spec.scale == 100.0 and 0 < value < 1:
        raise WrongScaleError(f"{name} goes from 0 to 100: is {value:g} a share of 1?", f"{name} >= {value * 100:g}%")
    return Number(value)


def _in_unit_of(subject: Subject, value: float, unit: str) -> float:
    """A time in the unit that the metric has."""
    own = subject.spec.unit.lower() if subject.spec is not None else ""
    own_unit = UNITS.get(own) or UNITS.get(subject.name.rpartition("_")[2])
    if own_unit is None:
        raise NotUnderstoodError(f"nobody says in which unit {subject.name} is: declare its unit")
    if (unit, own_unit) == ("year", "month"):  # a year has 365 days, and a month 30
        return value * 12
    return value * SECONDS_PER_UNIT[unit] / SECONDS_PER_UNIT[own_unit]


def _spelling(name: str) -> re.Pattern[str]:
    """What matches a name with digits however its parts are joined."""
    parts = [re.escape(part) for part in re.findall(r"\d+|[^\W\d_]+", name)]
    return re.compile(r"(?<![\w.])" + r"[\s_-]?".join(parts) + r"(?![\w.])", re.IGNORECASE)


def _is_multiple(spec: MetricSpec) -> bool:
    """Whether ``3x`` says how large it is: a return on what was spent, a ratio of two things."""
    if spec.is_share or spec.type in ("counter", "duration"):
        return False
    divides = (
        spec.formula is not None and isinstance(spec.formula.term, Arithmetic) and spec.formula.term.operator == "/"
    )
    if not spec.unit and divides:
        return True
    return spec.unit.lower() in _MULTIPLES or not _MULTIPLES.isdisjoint(words_in(spec.name))


def _is_plural(word: str) -> bool:
    return word in _IRREGULAR_PLURALS or (len(word) > 2 and word.endswith("s") and not word.endswith(_SINGULAR))


def _is_participle(word: str) -> bool:
    return word in PARTICIPLES.values() or (len(word) > 4 and word.endswith("ed"))


def _is_name(word: str) -> bool:
    return word.isalpha() and word not in UNCOUNTED and not word.endswith("ly") and not _is_plural(word)
