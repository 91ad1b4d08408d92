"""Time as a collaborator: a clock that tests can replace, and the one text form of an instant."""

import time
from datetime import UTC, datetime
from functools import lru_cache


class Clock:
    """The machine's clocks. Tests pass a subclass of their own."""

    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def now_ms(self) -> int:
        """Wall-clock time in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000


def stream_id(text: str) -> tuple[int, int]:
    """The id of a stream entry, "ms-seq", in a form that compares as the server does.

    >>> stream_id("5-10") > stream_id("5-9")
    True

    Raises:
        ValueError: it is no such id.
    """
    ms, _, seq = text.partition("-")
    return int(ms), int(seq or 0)


def iso_from_ms(epoch_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds, of fixed width, so that text order is time order.

    >>> iso_from_ms(1705320123456)
    '2024-01-15T12:02:03.456Z'
    """
    seconds, ms = divmod(epoch_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=1_024)
def _second(epoch_seconds: int) -> str:
    """The text of one second: a batch asks for few, but for each experiment anew."""
    moment = time.gmtime(epoch_seconds)
    return (
        f"{moment.tm_year:04d}-{moment.tm_mon:02d}-{moment.tm_mday:02d}"
        f"T{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d}"
    )


def iso(moment: datetime) -> str:
    """The same form for an aware datetime."""
    return iso_from_ms(int(moment.timestamp() * 1000))
