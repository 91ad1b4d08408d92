"""Folds events into one change for each experiment, and changes into aggregates.

A change is what `apply_batch.lua` adds in one step. Folding is exact: counts are integers, and sums of gauges are
decimals with 12 places, so that the order in which workers apply their batches does not show in any digit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from redis_agent.clock import iso_from_ms
from redis_agent.events import MetricEvent
from redis_agent.windows import MINUTE_MS, NO_WINDOWS, Retention, Window

# Decimal places kept of a gauge in its sum.
SUM_PLACES = 12
_ONE: int = 10**SUM_PLACES


def sum_units(value: int | float) -> int:
    """A gauge's value in units of 1e-12, rounded half to even; exact for up to 12 decimals."""
    if type(value) is int:
        return int(value) * _ONE
    # A double this small, scaled, is off by less than a quarter of a unit: near a whole number that is the one.
    units = value * 1e12
    if -1e15 < units < 1e15 and abs(units - (nearest := round(units))) < 0.25:
        return nearest
    scaled = Decimal(repr(value)).scaleb(SUM_PLACES)
    return int(scaled.to_integral_value(ROUND_HALF_EVEN))


def units_text(units: int) -> str:
    """Units of 1e-12 as a decimal text without trailing zeros.

    >>> units_text(sum_units(0.1) + sum_units(0.2))
    '0.3'
    """
    whole, fraction = divmod(abs(units), _ONE)
    sign = "-" if units < 0 else ""
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:012d}".rstrip("0")


def number_text(value: int | float) -> str:
    """The one text of a number: the shortest that reads back as the same, integers without a point."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return repr(value)


def events_total(aggregate: Mapping[str, str]) -> int:
    """How many events an aggregate hash contains; 0 where somebody made no number of it."""
    total = aggregate.get("events_total", "")
    return int(total) if total.isdecimal() and len(total) < 20 else 0


def later_id(a: str, b: str) -> bool:
    """Whether stream id `a` is after `b`."""
    a_ms, _, a_seq = a.partition("-")
    b_ms, _, b_seq = b.partition("-")
    return int(a_seq or 0) > int(b_seq or 0) if a_ms == b_ms else int(a_ms) > int(b_ms)


@dataclass(slots=True)
class GaugeChange:
    """What a batch says of one gauge.

    Attributes:
        latest: the value that is latest in the stream.
        latest_id: the stream id that set it.
        units: sum of the values in units of 1e-12.
        samples: how many values.
        low: the smallest value.
        high: the largest value.
    """

    latest: int | float
    latest_id: str
    units: int
    samples: int
    low: int | float
    high: int | float


@dataclass(slots=True)
class Sums:
    """What some events of one experiment add up to.

    Attributes:
        events: how many events.
        counters: event name -> how many times.
        gauges: gauge name -> its change.
    """

    events: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, GaugeChange] = field(default_factory=dict)

    def count(self, event: MetricEvent, entry_id: str) -> None:
        """Add one event's numbers."""
        _, name, times, gauges, _, _ = event
        self.events += 1
        if name is not None:
            counters = self.counters
            counters[name] = counters.get(name, 0) + times
        for gauge, value in gauges:
            self._add_gauge(gauge, value, entry_id)

    def _add_gauge(self, name: str, value: int | float, entry_id: str) -> None:
        known = self.gauges.get(name)
        if known is None:
            self.gauges[name] = GaugeChange(value, entry_id, sum_units(value), 1, value, value)
            return
        # Reclaimed entries are older than new ones; within one batch ids may come in any order.
        if not later_id(known.latest_id, entry_id):
            known.latest, known.latest_id = value, entry_id
        known.units += sum_units(value)
        known.samples += 1
        if value < known.low:
            known.low = value
        elif value > known.high:
            known.high = value

    def copied(self) -> "Sums":
        """The same sums, to go on apart."""
        return Sums(self.events, dict(self.counters), {name: replace(g) for name, g in self.gauges.items()})

    def merged(self, other: "Sums") -> "Sums":
        """The sums of both."""
        both = self.copied()
        both.events += other.events
        for name, times in other.counters.items():
            both.counters[name] = both.counters.get(name, 0) + times
        for name, g in other.gauges.items():
            known = both.gauges.get(name)
            if known is None:
                both.gauges[name] = replace(g)
                continue
            if not later_id(known.latest_id, g.latest_id):
                known.latest, known.latest_id = g.latest, g.latest_id
            known.units += g.units
            known.samples += g.samples
            known.low, known.high = min(known.low, g.low), max(known.high, g.high)
        return both


@dataclass(slots=True)
class ExperimentChange(Sums):
    """What a batch adds to one experiment, and to its windows.

    Attributes:
        experiment_id: whose.
        first_ms: receipt of the earliest.
        last_ms: receipt of the latest.
        raw: the events as JSON bytes, in order.
        minute: the one minute (its number since the epoch) in which all events so far happened.
        minutes: the sums of each minute once there is more than one; empty before.
    """

    experiment_id: str = ""
    first_ms: int = 0
    last_ms: int = 0
    raw: list[bytes] = field(default_factory=list)
    minute: int = 0
    minutes: dict[int, Sums] = field(default_factory=dict)

    def add(self, event: MetricEvent, entry_id: str, at_ms: int, window_ms: int) -> None:
        """Fold one event in.

        Args:
            event: the event.
            entry_id: of the stream entry that carries it.
            at_ms: when the bridge received it.
            window_ms: the time that says in which windows it counts.
        """
        minute = window_ms // MINUTE_MS
        if self.events == 0:
            self.first_ms = self.last_ms = at_ms
            self.minute = minute
        elif at_ms > self.last_ms:
            self.last_ms = at_ms
        elif at_ms < self.first_ms:
            self.first_ms = at_ms
        # Most batches lie within one minute, whose sums are those of the whole.
        if self.minutes or minute != self.minute:
            if not self.minutes:
                self.minutes[self.minute] = self.copied()
            self.minutes.setdefault(minute, Sums()).count(event, entry_id)
        self.raw.append(event.raw)
        self.count(event, entry_id)

    def windows(self, retention: Retention) -> "list[tuple[Window, Sums | None]]":
        """The windows that change and are kept, and what is added to each; None where that is the whole change."""
        found: list[tuple[Window, Sums | None]]
        if not self.minutes:
            found = [(Window.of_minute(self.minute), None), (Window.hour_around(self.minute), None)]
        else:
            hours: dict[Window, Sums] = {}
            for minute, sums in self.minutes.items():
                hour = Window.hour_around(minute)
                hours[hour] = hours[hour].merged(sums) if hour in hours else sums
            found = [(Window.of_minute(minute), sums) for minute, sums in self.minutes.items()]
            found += hours.items()
        return [(window, sums) for window, sums in found if retention.keeps(window, self.last_ms)]

    def plan(self) -> dict[str, Any]:
        """The change as `apply_batch.lua` reads it, without what says nothing; fractions as text."""
        plan: dict[str, Any] = {
            "id": self.experiment_id,
            "events": str(self.events),
            "first": iso_from_ms(self.first_ms),
            "last_ms": self.last_ms,
        }
        if self.last_ms != self.first_ms:
            plan["last"] = iso_from_ms(self.last_ms)
        if self.counters:
            plan["counters"] = [part for name, n in self.counters.items() for part in (f"{name}_count", str(n))]
        if self.gauges:
            plan["gauges"] = [
                [
                    name,
                    number_text(g.latest),
                    g.latest_id,
                    units_text(g.units),
                    str(g.samples),
                    number_text(g.low),
                    number_text(g.high),
                ]
                for name, g in self.gauges.items()
            ]
        return plan

    def window_plan(self, sums: Sums) -> list[Any]:
        """What a window gets that is not the whole change; names as their numbers in `plan`, from 1."""
        counters = {name: n for n, name in enumerate(self.counters, 1)}
        gauges = {name: n for n, name in enumerate(self.gauges, 1)}
        return [
            str(sums.events),
            [part for name, count in sums.counters.items() for part in (counters[name], str(count))],
            [
                [gauges[name], units_text(g.units), str(g.samples), number_text(g.low), number_text(g.high)]
                for name, g in sums.gauges.items()
            ],
        ]


def fold(
    events: Iterable[tuple[str, int, MetricEvent]], retention: Retention = NO_WINDOWS
) -> dict[str, ExperimentChange]:
    """Fold (entry id, receipt in ms, event) into one change for each experiment.

    Args:
        events: in the order of their entries.
        retention: of the windows; says which time of an event puts it into them.
    """
    changes: dict[str, ExperimentChange] = {}
    for entry_id, at_ms, event in events:
        change = changes.get(event.experiment_id)
        if change is None:
            change = changes[event.experiment_id] = ExperimentChange(experiment_id=event.experiment_id)
        own_ms = event.own_ms
        change.add(event, entry_id, at_ms, at_ms if own_ms is None else retention.moment_ms(own_ms, at_ms))
    return changes


def as_aggregate(change: ExperimentChange) -> dict[str, str]:
    """The aggregate hash that this change alone makes: what `replay` compares with.

    The twin of `apply_batch.lua`; a property test holds the two together.
    """
    aggregate = {
        "events_total": str(change.events),
        "first_event_at": iso_from_ms(change.first_ms),
        "last_updated": iso_from_ms(change.last_ms),
    }
    for name, count in change.counters.items():
        aggregate[f"{name}_count"] = str(count)
    for name, gauge in change.gauges.items():
        aggregate[f"{name}_samples"] = str(gauge.samples)
        aggregate[f"{name}_sum"] = units_text(gauge.units)
        aggregate[f"{name}_min"] = number_text(gauge.low)
        aggregate[f"{name}_max"] = number_text(gauge.high)
        aggregate[f"{name}_latest"] = number_text(gauge.latest)
    return aggregate
