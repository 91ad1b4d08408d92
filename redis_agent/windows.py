"""Windows: what an experiment's events add up to within a minute, and within an hour.

A window is a hash in Redis with a TTL (docs/redis.md). An event counts in the windows of its own time when it has one
within reason, else in those of its arrival.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, isfinite, nan
from typing import Final, Literal, TypeAlias

WindowKind: TypeAlias = Literal["minute", "hour"]

SECONDS: Final[dict[WindowKind, int]] = {"minute": 60, "hour": 3_600}
MINUTE_MS: Final = 60_000
_MINUTES_AN_HOUR: Final = 60
# What is older than this is looked up in hours.
HOURS_FROM_SECONDS: Final = 10_800
# A longer number is none that the agent wrote.
_DIGITS: Final = 25
# Clocks of publishers run ahead by less; what says that it happens later than this is believed to happen now.
_AHEAD_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Window:
    """One window.

    Attributes:
        kind: "minute" or "hour".
        start_s: its beginning, in seconds since the epoch; a multiple of its length.
    """

    kind: WindowKind
    start_s: int

    @classmethod
    def of_minute(cls, number: int) -> "Window":
        """The minute of this number since the epoch."""
        return cls("minute", number * 60)

    @classmethod
    def hour_around(cls, minute: int) -> "Window":
        """The hour in which this minute lies."""
        return cls("hour", minute // _MINUTES_AN_HOUR * 3_600)

    @property
    def seconds(self) -> int:
        """Its length."""
        return SECONDS[self.kind]


def younger_than(seconds: int, now_s: int) -> list[Window]:
    """The windows in which something may be younger than that; the first may hold older events, too.

    Minutes, and hours from `HOURS_FROM_SECONDS` on: minutes are not kept for long, and would be many.
    """
    kind: WindowKind = "hour" if seconds >= HOURS_FROM_SECONDS else "minute"
    length = SECONDS[kind]
    first = (now_s - seconds) // length * length
    return [Window(kind, start) for start in range(first, now_s + _AHEAD_MS // 1000 + 1, length)]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long windows are kept; 0 keeps none of a kind.

    Attributes:
        minutes_seconds: a window of a minute, from its first event on.
        hours_seconds: a window of an hour.
    """

    minutes_seconds: int
    hours_seconds: int

    def seconds(self, kind: WindowKind) -> int:
        """For windows of this kind."""
        return self.minutes_seconds if kind == "minute" else self.hours_seconds

    def keeps(self, window: Window, now_ms: int) -> bool:
        """Whether what happened in this window is still worth keeping now."""
        kept = self.seconds(window.kind)
        return kept > 0 and (window.start_s + window.seconds + kept) * 1000 > now_ms

    def moment_ms(self, own_ms: int | None, arrived_ms: int) -> int:
        """Which time of an event says in what windows it counts.

        Its own, when that is no further back than any window is kept and not ahead of its arrival by more than a
        minute; else its arrival.
        """
        if own_ms is None or own_ms > arrived_ms + _AHEAD_MS:
            return arrived_ms
        minutes, hours = self.minutes_seconds, self.hours_seconds
        kept = minutes if minutes > hours else hours
        return own_ms if own_ms > arrived_ms - 1000 * kept else arrived_ms


NO_WINDOWS: Final = Retention(0, 0)


@dataclass(slots=True)
class GaugeSums:
    """A gauge within some windows.

    Attributes:
        total: sum of its values.
        samples: how many.
        low: the smallest.
        high: the largest.
    """

    total: float = 0.0
    samples: int = 0
    low: float = inf
    high: float = -inf

    @property
    def mean(self) -> float:
        """Of its values; there must be one."""
        return self.total / self.samples


@dataclass(slots=True)
class WindowSums:
    """What some windows of one experiment add up to.

    Attributes:
        events: how many events.
        counts: event name -> how many times.
        gauges: gauge name -> its sums; only such as have a value.
    """

    events: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, GaugeSums] = field(default_factory=dict)

    def add(self, fields: Mapping[bytes, bytes]) -> None:
        """Add a window as it stands in Redis; what is no number in it is left out."""
        for name_in_hash, number in fields.items():
            part, name = _part(name_in_hash)
            if part == "count":
                self.counts[name] = self.counts.get(name, 0) + _whole(number)
            elif part == "samples":
                self._add_gauge(name, _whole(number), fields)
            elif part == "events":
                self.events += _whole(number)

    def _add_gauge(self, name: str, samples: int, fields: Mapping[bytes, bytes]) -> None:
        encoded = name.encode("utf-8", "replace")
        total, low, high = (_number(fields.get(encoded + suffix)) for suffix in (b"_sum", b"_min", b"_max"))
        if not samples or not isfinite(total + low + high):
            return
        known = self.gauges.setdefault(name, GaugeSums())
        known.total += total
        known.samples += samples
        known.low, known.high = min(known.low, low), max(known.high, high)


@lru_cache(maxsize=10_000)
def _part(field: bytes) -> tuple[str, str]:
    """What a field of a window says, and of which name."""
    text = field.decode("utf-8", "replace")
    name, _, part = text.rpartition("_")
    return (part, name) if name and part in ("count", "samples") else (text, "")


def _whole(number: bytes) -> int:
    return int(number) if number.isdigit() and len(number) < _DIGITS else 0


def _number(number: bytes | None) -> float:
    try:
        return nan if number is None else float(number)
    except ValueError:
        return nan
