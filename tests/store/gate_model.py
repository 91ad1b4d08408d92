"""A model of the gate in plain Python: what Redis must hold after any history of reads and applies.

It shares no arithmetic with the product: sums are `Decimal`s, and refusals, cooldowns and the floor are worked out
from the history itself.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

# How long windows are kept, in seconds.
MINUTES_TTL, HOURS_TTL = 7_200, 86_400
PLACES = Decimal(1).scaleb(-12)


def id_key(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


def id_before(entry_id: str) -> str:
    ms, seq = id_key(entry_id)
    return f"{ms}-{seq - 1}" if seq else f"{ms - 1}-18446744073709551615"


def plain(number: Decimal) -> str:
    """A decimal as digits, without exponent, trailing zeros or minus zero."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def shortest(value: float) -> str:
    """The text of a single value."""
    return str(int(value)) if float(value).is_integer() else repr(value)


@dataclass(frozen=True)
class Event:
    """An event as a history names it.

    Attributes:
        experiment: its experiment; "" for bytes that are no event.
        body: its further fields.
        at_ms: when the bridge received it.
    """

    experiment: str
    body: dict[str, Any]
    at_ms: int

    @property
    def data(self) -> bytes:
        if not self.experiment:
            return b"\xff\x00 no event " + str(self.at_ms).encode()
        return json.dumps({"experiment_id": self.experiment, **self.body}).encode()

    @property
    def counter(self) -> tuple[str, int] | None:
        name = self.body.get("event")
        return (name, self.body.get("count", 1)) if name else None

    @property
    def gauges(self) -> list[tuple[str, float]]:
        if self.error_type is not None:
            return []
        return [
            (n, int(v) if v is True else v) for n, v in self.body.items() if n not in ("event", "count", "timestamp")
        ]

    @property
    def window_ms(self) -> int:
        """Its own time if that is within reason: at most a minute ahead, and not further back than windows are kept."""
        own_ms = int(self.body.get("timestamp", -1) * 1000)
        return own_ms if self.at_ms - 1000 * HOURS_TTL < own_ms <= self.at_ms + 60_000 else self.at_ms

    @property
    def error_type(self) -> str | None:
        return self.body.get("error_type") if self.body.get("event") == "error" else None


@dataclass
class GaugeModel:
    latest: float
    latest_id: str
    values: list[float] = field(default_factory=list)


@dataclass
class ExperimentModel:
    events: int = 0
    times: list[int] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, GaugeModel] = field(default_factory=dict)
    raw: list[bytes] = field(default_factory=list)
    applied: list[tuple[str, Event]] = field(default_factory=list)

    @property
    def fields(self) -> int:
        return len(self.counters) + 5 * len(self.gauges)

    def hash(self, iso: Any) -> dict[str, str]:
        fields = {
            "events_total": str(self.events),
            "first_event_at": iso(min(self.times)),
            "last_updated": iso(max(self.times)),
        }
        fields |= {f"{name}_count": str(total) for name, total in self.counters.items()}
        for name, gauge in self.gauges.items():
            fields |= {
                f"{name}_samples": str(len(gauge.values)),
                f"{name}_sum": plain(exact_sum(gauge.values)),
                f"{name}_min": shortest(min(gauge.values)),
                f"{name}_max": shortest(max(gauge.values)),
                f"{name}_latest": shortest(gauge.latest),
            }
        return fields


def exact_sum(values: Iterable[float]) -> Decimal:
    """The sum of values, each rounded to 12 decimals."""
    with localcontext() as context:
        context.prec = 60
        return sum((Decimal(repr(v)).quantize(PLACES, ROUND_HALF_EVEN) for v in values), Decimal(0))


@dataclass
class WindowModel:
    """One window: minutes or hours, and what happened in it."""

    events: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, list[float]] = field(default_factory=dict)

    def hash(self) -> dict[str, str]:
        fields = {"events": str(self.events)} | {f"{name}_count": str(total) for name, total in self.counters.items()}
        for name, values in self.gauges.items():
            fields |= {
                f"{name}_samples": str(len(values)),
                f"{name}_sum": plain(exact_sum(values)),
                f"{name}_min": shortest(min(values)),
                f"{name}_max": shortest(max(values)),
            }
        return fields


@dataclass
class Expected:
    """What an apply must answer."""

    outcome: str
    pending: frozenset[str] = frozenset()
    raised: list[bool] = field(default_factory=list)
    refused: set[tuple[str, str]] = field(default_factory=set)


class GateModel:
    """The stream, its group and everything that applying writes."""

    def __init__(self, *, max_fields: int, max_raw: int) -> None:
        self.max_fields = max_fields
        self.max_raw = max_raw
        self.stream: list[tuple[str, Event]] = []
        self.read_to = 0
        self.pending: dict[str, str] = {}
        self.experiments: dict[str, ExperimentModel] = {}
        self.windows: dict[str, WindowModel] = {}
        self.dead: list[tuple[bytes, str, str]] = []
        self.unapplied: set[str] = set()
        self.outbox: list[str] = []
        self.cooldowns: dict[str, str] = {}
        self.floor: str | None = None

    def event(self, entry_id: str) -> Event:
        return next(event for known, event in self.stream if known == entry_id)

    def read(self, consumer: str, count: int) -> list[str]:
        ids = [entry_id for entry_id, _ in self.stream[self.read_to : self.read_to + count]]
        self.read_to += len(ids)
        self.pending |= dict.fromkeys(ids, consumer)
        return ids

    def own(self, consumer: str) -> list[str]:
        return sorted((i for i, owner in self.pending.items() if owner == consumer), key=id_key)

    def reclaim(self, consumer: str, count: int) -> list[str]:
        ids = sorted(self.pending, key=id_key)[:count]
        self.pending |= dict.fromkeys(ids, consumer)
        return ids

    def lose_group(self) -> None:
        """The group is gone and created anew at the floor; what was applied above it is not given out again."""
        floor = id_key(self.floor or "0-0")
        above = {i for i, _ in self.stream[: self.read_to] if id_key(i) > floor and i not in self.pending}
        self.pending.clear()
        self.read_to = begin = sum(id_key(i) <= floor for i, _ in self.stream)
        highest = max((id_key(i) for i in above), default=floor)
        # Given out in hundreds until past what is remembered; what was not applied of it waits to be reclaimed.
        while above and self.read_to < len(self.stream):
            self.read_to = min(len(self.stream), self.read_to + 200)
            if id_key(self.stream[self.read_to - 1][0]) > highest:
                break
        parked = [i for i, _ in self.stream[begin : self.read_to] if i not in above]
        self.pending |= dict.fromkeys(parked, "parked")

    def apply(
        self,
        consumer: str,
        ids: Sequence[str],
        *,
        refused: set[str],
        alerts: Sequence[tuple[str, str, str]],
        broken: set[str],
    ) -> Expected:
        """Apply a batch.

        Args:
            refused: experiments whose events go to the dead letters as readable ones.
            alerts: (cooldown key, alert id, data) of the batch's error alerts.
            broken: experiments whose aggregate cannot take sums.
        """
        still = frozenset(i for i in ids if self.pending.get(i) == consumer)
        if len(still) < len(ids):
            return Expected("stale", still)
        batch = [(i, self.event(i)) for i in ids]
        good = [(i, e) for i, e in batch if e.experiment and e.experiment not in refused]
        if any(e.experiment in broken for _, e in good):
            return Expected("conflict")
        expected = Expected("applied")
        for experiment in dict.fromkeys(e.experiment for _, e in good):
            entries = [(i, e) for i, e in good if e.experiment == experiment]
            self._add(experiment, entries, expected)
        for entry_id, event in batch:
            if not event.experiment or event.experiment in refused:
                self.dead.append((event.data, "wrong_type" if event.experiment else "not_json", entry_id))
            if event.experiment and event.experiment in refused:
                self.unapplied.add(entry_id)
        for key, alert_id, data in alerts:
            expected.raised.append(key not in self.cooldowns)
            if key not in self.cooldowns:
                self.cooldowns[key] = alert_id
                self.outbox.append(data)
        for entry_id in ids:
            del self.pending[entry_id]
        if self.pending:
            self.floor = id_before(min(self.pending, key=id_key))
        else:
            self.floor = self.stream[self.read_to - 1][0]
        return expected

    def _add(self, name: str, entries: list[tuple[str, Event]], expected: Expected) -> None:
        model = self.experiments.setdefault(name, ExperimentModel())
        model.applied += entries
        model.events += len(entries)
        model.times += [event.at_ms for _, event in entries]
        model.raw = (model.raw + [event.data for _, event in entries])[-self.max_raw :]
        counters = dict.fromkeys(e.counter[0] for _, e in entries if e.counter)
        gauges = dict.fromkeys(gauge for _, e in entries for gauge, _ in e.gauges)
        for counter in counters:
            if counter not in model.counters and 3 + model.fields + 1 > self.max_fields:
                expected.refused.add((name, counter))
                continue
            counts = [e.counter[1] for _, e in entries if e.counter and e.counter[0] == counter]
            model.counters[counter] = model.counters.get(counter, 0) + sum(counts)
        for gauge in gauges:
            if gauge not in model.gauges and 3 + model.fields + 5 > self.max_fields:
                expected.refused.add((name, gauge))
                continue
            for entry_id, event in entries:
                for named, value in event.gauges:
                    if named != gauge:
                        continue
                    known = model.gauges.setdefault(gauge, GaugeModel(value, entry_id))
                    known.values.append(value)
                    if id_key(entry_id) >= id_key(known.latest_id):
                        known.latest, known.latest_id = value, entry_id
        for _, event in entries:
            self._add_to_windows(name, event, newest_ms=max(event.at_ms for _, event in entries))

    def _add_to_windows(self, name: str, event: Event, *, newest_ms: int) -> None:
        """Each name that the aggregate has counts in the windows, too, while these are kept."""
        model = self.experiments[name]
        for kind, seconds, kept in (("minute", 60, MINUTES_TTL), ("hour", 3600, HOURS_TTL)):
            start = event.window_ms // 1000 // seconds * seconds
            if (start + seconds + kept) * 1000 <= newest_ms:
                continue
            window = self.windows.setdefault(f"metrics_windows:{name}:{kind}:{start}", WindowModel())
            window.events += 1
            if event.counter and event.counter[0] in model.counters:
                counter, times = event.counter
                window.counters[counter] = window.counters.get(counter, 0) + times
            for gauge, value in event.gauges:
                if gauge in model.gauges:
                    window.gauges.setdefault(gauge, []).append(value)
