"""Windows: what an experiment's events add up to within a minute, and within an hour.

A window is a hash in Redis with a TTL (docs/redis.md). An event counts in the windows of its own time when it has one
within reason, else in those of its arrival.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

WindowKind: TypeAlias = Literal["minute", "hour"]

SECONDS: Final[dict[WindowKind, int]] = {"minute": 60, "hour": 3_600}
MINUTE_MS: Final = 60_000
_MINUTES_AN_HOUR: Final = 60
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
        kept = max(self.minutes_seconds, self.hours_seconds)
        return own_ms if own_ms > arrived_ms - 1000 * kept else arrived_ms


NO_WINDOWS: Final = Retention(0, 0)
