"""The view of an experiment's aggregate that criteria read.

Built from the aggregate hash's own fields, lazily: a criterion costs the one or two fields that it
names, and names are matched by words only where no exact one exists.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from redis_agent.criteria.documents import parse_moment
from redis_agent.criteria.expression import Arithmetic, Formula, Negative, Number, Term, names_of
from redis_agent.criteria.matching import matching
from redis_agent.criteria.names import name_key, name_stems
from redis_agent.criteria.reading import Reading, ReadingKind, as_number, unknown, value_of

Direction: TypeAlias = Literal["", "lower", "higher"]

EVENTS_TOTAL: Final = "events_total"
RESERVED_FIELDS: Final = frozenset({EVENTS_TOTAL, "first_event_at", "last_updated"})
COUNT_SUFFIX: Final = "_count"
LATEST_SUFFIX: Final = "_latest"
STATISTIC_SUFFIXES: Final = ("_sum", "_samples", "_min", "_max")

_EXACT: Final[tuple[tuple[str, ReadingKind], ...]] = (
    (LATEST_SUFFIX, "gauge"),
    (COUNT_SUFFIX, "counter"),
    ("", "fact"),
)
_MAX_NAMED: Final = 5

_PERCENT_UNITS: Final = frozenset({"%", "percent", "percentage", "pct"})
_SHARE_ENDS: Final = frozenset({"rate", "share", "percentage", "percent", "pct", "conversion"})
_NO_SHARES: Final = frozenset({"per", "cost", "costs", "price", "value"})
"""In ``cost_per_conversion`` the conversion is no share."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """What an experiment declares about one metric.

    Attributes:
        name: The metric's name.
        type: ``counter``, ``percentage``, ``duration``, ``gauge``, or what else was written.
        formula: The parsed ``formula`` or ``calculation``.
        success_threshold: As written, on the metric's own scale, or a percentage.
        failure_threshold: Likewise.
        target: Likewise.
        unit: As written.
        description: As written.
        direction: ``lower`` or ``higher`` where the author says which is better, else "".
    """

    name: str
    type: str = ""
    formula: Formula | None = None
    success_threshold: Number | None = None
    failure_threshold: Number | None = None
    target: Number | None = None
    unit: str = ""
    description: str = ""
    direction: Direction = ""

    @property
    def scale(self) -> float:
        """What a ratio of 1 reads as: 100.0 where percentages are 0 to 100, else 1.0."""
        if self.formula is not None:
            return self.formula.scale
        if not self.is_share:
            return 1.0
        written = [number.value for number in self.numbers if not number.percent]
        in_percent = self.unit.lower() in _PERCENT_UNITS or self.name.rpartition("_")[2] in _PERCENT_UNITS
        return 100.0 if max(written, default=0.0) > 1 or (in_percent and not any(written)) else 1.0

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The thresholds and the target, as far as they are declared."""
        found = (self.success_threshold, self.failure_threshold, self.target)
        return tuple(number for number in found if number is not None)

    @property
    def is_share(self) -> bool:
        """Whether it is a share of something: by its type, its unit, or the last word of its name."""
        if self.type == "percentage" or self.unit.lower() in _PERCENT_UNITS:
            return True
        words = self.name.lower().split("_")
        named = words[-1] in _SHARE_ENDS and _NO_SHARES.isdisjoint(words)
        return named and not self.unit and self.type not in ("counter", "duration")


@lru_cache(maxsize=8_192)
def is_base_field(name: str) -> bool:
    """Whether a name is, or reads like, a field that events make, not a derived metric's."""
    suffixes = (COUNT_SUFFIX, LATEST_SUFFIX, *STATISTIC_SUFFIXES)
    return name in RESERVED_FIELDS or name.endswith(suffixes)


@dataclass(frozen=True, slots=True)
class _Bases:
    """The names that the fields are about: counters, and gauges and plain facts; and all by their keys."""

    counters: tuple[str, ...]
    others: tuple[str, ...]
    by_key: Mapping[str, list[str]]


@lru_cache(maxsize=128)
def _bases_of(fields: tuple[str, ...]) -> _Bases:
    """The names that some fields are about; an aggregate has new ones seldom, and is read with each event."""
    counters: dict[str, None] = {}
    others: dict[str, None] = {}
    for field in fields:
        if field in RESERVED_FIELDS:
            continue
        if field.endswith(COUNT_SUFFIX):
            counters[field.removesuffix(COUNT_SUFFIX)] = None
        elif field.endswith(LATEST_SUFFIX):
            others[field.removesuffix(LATEST_SUFFIX)] = None
        elif not field.endswith(STATISTIC_SUFFIXES):
            others[field] = None
    return _Bases(tuple(counters), tuple(others), _by_key((*counters, *others)))


@lru_cache(maxsize=128)
def _keyed(names: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Declared names by their keys."""
    return _by_key(names)


class Metrics:
    """Reads metrics by the names that people use. One instance serves one moment.

    A name is looked for in this order: a formula whose operands are known; the gauge, the counter
    and the plain field of exactly that name; then the only one whose words are the same up to
    singular and plural. A formula gives way to an exact gauge when one of its operands was only
    assumed to be 0. A declared counter without an event of its own is 0 once the experiment has
    events. Whatever cannot be read has a reason; nothing is ever raised.
    """

    __slots__ = (
        "_bases",
        "_cache",
        "_computed",
        "_fields",
        "_specs",
        "_specs_by_key",
    )

    def __init__(self, fields: Mapping[str, str], specs: Mapping[str, MetricSpec]) -> None:
        """Takes the fields and the declared metrics by name; nothing is copied or parsed."""
        self._fields = fields
        self._specs = specs
        self._cache: dict[str, Reading] = {}
        self._computed: set[str] = set()
        self._bases: _Bases | None = None
        self._specs_by_key: Mapping[str, list[str]] | None = None

    @classmethod
    def from_hash(
        cls,
        fields: Mapping[str, str],
        specs: Mapping[str, MetricSpec] | Sequence[MetricSpec] = (),
    ) -> Metrics:
        """The view of an aggregate hash.

        Args:
            fields: ``<event>_count``, ``<gauge>_latest`` and so on; plain names are facts. Values
                that are no numbers make only their own metric unknown.
            specs: The experiment's metrics; a mapping by name saves building one.
        """
        if not isinstance(specs, Mapping):
            specs = {spec.name: spec for spec in specs}
        return cls(fields, specs)

    @property
    def has_events(self) -> bool:
        """Whether the experiment has had any event."""
        if EVENTS_TOTAL in self._fields:
            return (as_number(self._fields[EVENTS_TOTAL]) or 0) > 0
        return bool(self._fields)

    @property
    def last_event_at(self) -> datetime | None:
        """When the last event that these values contain was received; None when nobody says."""
        return parse_moment(self._fields.get("last_updated"))

    def read(self, name: str) -> Reading:
        """The value of a metric, or why it has none."""
        reading = self._cache.get(name)
        if reading is None:
            spec = self._specs.get(name)
            if spec is not None and spec.formula is not None:
                self._compute(name, spec.formula)
            else:
                self._cache[name] = self._plain(name, spec)
            reading = self._cache[name]
        return reading

    def read_spoken(self, name: str, spoken: Collection[str]) -> Reading:
        """The same for a name out of prose; where nothing has it, the only one of the same words.

        Args:
            name: A metric.
            spoken: The names that stand for words; any other is read as ``read`` does.
        """
        reading = self.read(name)
        if reading.value is not None or name not in spoken:
            return reading
        bases = self._known()
        alike = matching(name.split("_"), (*bases.counters, *bases.others, *self._specs))
        if len(alike) > 1:
            return unknown(name, f"{name} could be {_listed(alike)}")
        if not alike or alike[0] == name:
            return reading
        found = self.read(alike[0])
        return found.under(name, found.scale)

    def computed(self, name: str) -> Reading | None:
        """The reading of a metric when its value comes from its own formula, else None."""
        reading = self.read(name)
        return reading if name in self._computed else None

    def count_for(self, noun: str, prefer: Iterable[str] = ()) -> Reading:
        """The counter that ``after N <noun>`` counts.

        Counters whose words include the noun's (``sends``: ``emails_sent``) are looked for first
        among the denominators, then among the other operands of the formulas of the metrics in
        ``prefer``, then among all; where several are left, the only one that is about sending.
        ``samples`` are whatever is divided by.
        """
        if " " not in noun and (self._is_exact(noun) or noun in self._specs):
            return self.read(noun)
        stems = name_stems(noun)
        if stems == {"event"} and EVENTS_TOTAL in self._fields:
            return self.read(EVENTS_TOTAL)
        candidates: list[str] = []
        groups: Iterable[list[str]] = self._counter_groups(prefer)
        if stems == {"sampl"}:
            groups, stems = itertools.islice(groups, 1), frozenset()
        for group in groups:
            candidates = _distinct(name for name in group if stems <= name_stems(name))
            if len(candidates) > 1:
                sent = [name for name in candidates if "send" in name_stems(name)]
                candidates = sent if len(sent) == 1 else candidates
            if candidates:
                break
        if len(candidates) == 1:
            return self.read(candidates[0])
        if candidates:
            return unknown(noun, f"{noun} could be {_listed(candidates)}")
        return unknown(noun, f"no counter is known for {noun} yet")

    def _plain(self, name: str, spec: MetricSpec | None) -> Reading:
        """The value of a metric without a formula."""
        exact = self._exact(name, spec)
        if exact is not None:
            return exact
        by_words = self._by_words(name)
        if by_words is not None:
            return by_words
        if spec is not None and spec.type == "counter":
            if self.has_events:
                return Reading(name, 0.0, kind="counter", assumed=True)
            return unknown(name, f"{name} is unknown before the first event")
        reason = f"no data for {name} yet"
        if spec is None and self.has_events and self._is_operand(name):
            reason = f"{reason}; declared as a counter, it would be 0"
        return unknown(name, reason, 1.0 if spec is None else spec.scale)

    def _is_operand(self, name: str) -> bool:
        """Whether a formula reads it. Nobody says that events come by this very name, so that none are not 0."""
        return any(spec.formula is not None and name in spec.formula.names for spec in self._specs.values())

    def _compute(self, name: str, formula: Formula) -> None:
        """Puts a formula metric into the cache, the formulas inside its formula first.

        A loop with its own stack: formulas that refer to formulas, or in a circle, cost no
        recursion. In a circle, the metric that closes it is unknown unless it has a field.
        """
        path = [(name, formula, iter(formula.names))]
        on_path = {name}
        while path:
            current, inner_formula, operands = path[-1]
            for operand in operands:
                found = self._formula_behind(operand)
                if found is None or found[0] in self._cache:
                    continue
                if found[0] in on_path:
                    self._cache[found[0]] = self._without_formula(
                        found[0], f"the formula of {found[0]} refers to itself"
                    )
                    continue
                on_path.add(found[0])
                path.append((found[0], found[1], iter(found[1].names)))
                break
            else:
                path.pop()
                on_path.discard(current)
                if current not in self._cache:
                    self._cache[current] = self._from_formula(current, inner_formula)

    def _from_formula(self, name: str, formula: Formula) -> Reading:
        result = value_of(formula.term, self.read)
        if result.value is None:
            return self._without_formula(name, result.reason)
        if result.assumed and name + LATEST_SUFFIX in self._fields:
            gauge = self._exact(name, self._specs.get(name))
            if gauge is not None and gauge.value is not None:
                return gauge
        self._computed.add(name)
        scale = result.scale if result.kind in ("rate", "counter") else formula.scale
        return result.under(name, scale)

    def _without_formula(self, name: str, reason: str) -> Reading:
        spec = self._specs.get(name)
        exact = self._exact(name, spec)
        return exact or unknown(name, reason, 1.0 if spec is None else spec.scale)

    def _formula_behind(self, name: str) -> tuple[str, Formula] | None:
        """The formula metric that a name means, by its exact name or by its words."""
        spec = self._specs.get(name)
        if spec is None and not self._is_exact(name):
            alike = self._declared_alike(name)
            spec = self._specs[alike[0]] if len(alike) == 1 else None
        if spec is None or spec.formula is None:
            return None
        return spec.name, spec.formula

    def _is_exact(self, name: str) -> bool:
        fields = self._fields
        return name + LATEST_SUFFIX in fields or name + COUNT_SUFFIX in fields or name in fields

    def _exact(self, name: str, spec: MetricSpec | None) -> Reading | None:
        """The gauge, else the counter, else the plain field of this very name."""
        fields = self._fields
        for suffix, kind in _EXACT:
            field = fields.get(name + suffix)
            if field is None:
                continue
            value = as_number(field)
            scale = 1.0 if spec is None else spec.scale
            if value is None:
                return unknown(name, f"{name} is not a number", scale)
            if kind == "counter" or (spec is not None and spec.type == "counter"):
                return Reading(name, value, kind="counter")
            if kind == "fact" and (name == EVENTS_TOTAL or name.endswith(COUNT_SUFFIX)):
                return Reading(name, value, kind="counter")
            return Reading(name, value, kind=kind, scale=scale)
        return None

    def _by_words(self, name: str) -> Reading | None:
        """The only field, else the only declared metric, whose words are the same."""
        declared = [other for other in self._declared_alike(name) if other != name]
        formulas = [other for other in declared if self._specs[other].formula is not None]
        seen = self._known().by_key.get(name_key(name), [])
        for candidates in (list(dict.fromkeys((*seen, *formulas))), declared):
            if len(candidates) > 1:
                return unknown(name, f"{name} could be {_listed(candidates)}")
            if candidates and candidates[0] != name:
                found = self.read(candidates[0])
                return found.under(name, found.scale)
        return None

    def _declared_alike(self, name: str) -> list[str]:
        if self._specs_by_key is None:
            self._specs_by_key = _keyed(tuple(self._specs))
        return self._specs_by_key.get(name_key(name), [])

    def _known(self) -> _Bases:
        """Every name that the fields are about."""
        if self._bases is None:
            self._bases = _bases_of(tuple(self._fields))
        return self._bases

    def _counter_groups(self, prefer: Iterable[str]) -> Iterable[list[str]]:
        """Names that could be what an ``after N`` counts, the likeliest group first."""
        denominators: dict[str, None] = {}
        operands: dict[str, None] = {}
        waiting = list(prefer)
        entered = set(waiting)
        while waiting:
            name = waiting.pop(0)
            found = self._formula_behind(name)
            if found is None:
                operands[name] = None
                continue
            denominators.update(dict.fromkeys(_denominators(found[1].term)))
            inner = [operand for operand in found[1].names if operand not in entered]
            entered.update(inner)
            waiting.extend(inner)
        yield [name for name in denominators if self._formula_behind(name) is None]
        yield list(operands)
        bases = self._known()
        declared = [spec.name for spec in self._specs.values() if spec.type == "counter"]
        yield [*bases.counters, *declared]
        yield [name for name in bases.others if self._formula_behind(name) is None]


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    by_key: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_key.setdefault(name_key(name), []).append(name)
    return by_key


def _distinct(names: Iterable[str]) -> list[str]:
    """The names without those that differ only in singular and plural."""
    by_key: dict[str, str] = {}
    for name in names:
        by_key.setdefault(name_key(name), name)
    return list(by_key.values())


def _listed(names: Sequence[str]) -> str:
    shown = names if len(names) <= _MAX_NAMED else [*names[:_MAX_NAMED], "others"]
    return " or ".join(shown)


def _denominators(term: Term) -> tuple[str, ...]:
    """The metrics that something is divided by."""
    found: list[str] = []
    waiting: list[Term] = [term]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Negative):
            waiting.append(node.operand)
        elif isinstance(node, Arithmetic):
            waiting.append(node.left)
            if node.operator == "/":
                found.extend(names_of(node.right))
            else:
                waiting.append(node.right)
    return tuple(found)
