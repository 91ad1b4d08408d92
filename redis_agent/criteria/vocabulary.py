"""The metrics that words can mean: declared ones, operands of their formulas, and names of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from redis_agent.criteria.expression import SECONDS_PER_UNIT, Number
from redis_agent.criteria.lexicon import (
    IN_SUBJECTS,
    UNCOUNTED,
)
from redis_agent.criteria.matching import PARTICIPLES, matching, participle, stem, words_in
from redis_agent.criteria.metrics import MetricSpec
from redis_agent.criteria.phrases import UNITS, NotUnderstoodError, Quantity

_SINGULAR: Final = ("ss", "us", "sis", "xis")
_IRREGULAR_PLURALS: Final = frozenset({"people", "men", "women", "children", "media", "criteria"})
_COLLECTIVES: Final = frozenset({"sales", "news", "ops", "saas", "sms"})
_RATE_ENDS: Final = frozenset({"rate", "ratio", "percentage", "percent", "share", "conversion", "pct"})


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

    __slots__ = ("_names", "_specs")

    def __init__(self, specs: Iterable[MetricSpec] = ()) -> None:
        """Takes the declared metrics; the operands of their formulas come behind them."""
        self._specs = {spec.name: spec for spec in specs}
        operands = [name for spec in self._specs.values() if spec.formula is not None for name in spec.formula.names]
        self._names = tuple(dict.fromkeys((*self._specs, *operands)))

    def declared(self, words: Sequence[str], *, rate: bool = False) -> Subject | None:
        """The only declared name that some words mean, or None.

        Raises:
            NotUnderstoodError: They could mean several.
        """
        found = matching(words, self._names, rate=rate)
        if len(found) > 1:
            raise NotUnderstoodError(f"'{' '.join(words)}' could be {' or '.join(found[:5])}", found[0])
        return Subject(found[0], declared=True, spec=self._specs.get(found[0])) if found else None

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
        if not 0 < len(parts) <= 5 or not strange.isdisjoint(words) or parts[-1] in ("to", "of", "per"):
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
    rate = spec is not None and (spec.type == "percentage" or spec.name.rpartition("_")[2] in _RATE_ENDS)
    if quantity.money and spec is not None and spec.type in ("counter", "percentage", "duration"):
        raise NotUnderstoodError(f"{name} is no amount of money")
    if quantity.percent:
        if spec is not None and spec.type == "counter":
            raise NotUnderstoodError(f"{name} is a count, not a share")
        if spec is None and subject.is_count:
            raise NotUnderstoodError(f"{name} sounds like a count, and a share of what is not said")
        return Number(value, percent=True)
    if spec is None or not rate:
        return Number(value)
    if spec.scale == 1.0 and value > 1:
        raise NotUnderstoodError(f"{name} goes from 0 to 1, so that {value:g} is beyond it", f"{name} >= {value:g}%")
    if spec.scale == 100.0 and 0 < value < 1:
        raise NotUnderstoodError(
            f"{name} goes from 0 to 100: is {value:g} a share of 1?", f"{name} >= {value * 100:g}%"
        )
    return Number(value)


def _in_unit_of(subject: Subject, value: float, unit: str) -> float:
    """A time in the unit that the metric has."""
    own = subject.spec.unit.lower() if subject.spec is not None else ""
    own_unit = UNITS.get(own) or UNITS.get(subject.name.rpartition("_")[2])
    if own_unit is None:
        raise NotUnderstoodError(f"nobody says in which unit {subject.name} is: declare its unit")
    return value * SECONDS_PER_UNIT[unit] / SECONDS_PER_UNIT[own_unit]


def _is_plural(word: str) -> bool:
    return word in _IRREGULAR_PLURALS or (len(word) > 2 and word.endswith("s") and not word.endswith(_SINGULAR))


def _is_participle(word: str) -> bool:
    return word in PARTICIPLES.values() or (len(word) > 4 and word.endswith("ed"))


def _is_name(word: str) -> bool:
    return word.isalpha() and word not in UNCOUNTED and not word.endswith("ly") and not _is_plural(word)
