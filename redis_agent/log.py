"""Logs are events with fields: a constant name, then what belongs to it. They go to stderr."""

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

# Of one event about one subject: so many lines at once, and then one more every so many seconds.
_BURST = 4
_SECONDS_A_LINE = 30.0
# What a line can be about. Of the fields that a line has, these tell it from others of the same event.
_SUBJECTS = ("role", "event", "doing", "kind", "key", "lease", "job", "reason", "experiment_id", "partition")
# What a line can say how much of; of lines that do not get through it is added up.
_AMOUNTS = ("seconds", "lost", "dropped", "events")
# Subjects that are remembered at once.
_MEMORY = 10_000


def configure(*, level: str, form: str) -> None:
    """Set logging up for the process.

    Args:
        level: debug, info, warning or error.
        form: "text", "json", or "auto": text on a terminal, JSON elsewhere.
    """
    readable = form == "text" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if readable
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        Bound(),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not readable:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> Any:
    """A logger whose lines carry the role that wrote them."""
    return structlog.get_logger(role=name)


class Bound:
    """The last bound of what a process says, below what each role takes care of itself.

    A condition that comes and goes makes its lines again each time: a lease lost and acquired, a subscription made. Of
    each event about one subject only so many get through; the next that does says how many did not (`unsaid`), and how
    much they were about (`unsaid_seconds` and the like). Lines about an alert always get through: each is another one.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used: dict[tuple[Any, ...], tuple[float, int]] = {}
        self._unsaid: dict[tuple[Any, ...], dict[str, float]] = {}

    def __call__(self, _logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Let a line through.

        Raises:
            structlog.DropEvent: it is one too many.
        """
        if "alert" in line or "alert_id" in line:
            return line
        subject = tuple(str(line.get(name, "")) for name in _SUBJECTS)
        now = self._clock()
        # A leaky bucket, as the time at which it will be empty.
        empty_at, unsaid = self._used.get(subject, (now, 0))
        empty_at = max(now, empty_at)
        if empty_at - now > (_BURST - 1) * _SECONDS_A_LINE:
            self._used[subject] = empty_at, unsaid + 1
            self._add_up(subject, line)
            raise structlog.DropEvent
        if len(self._used) >= _MEMORY:
            self._used = {known: used for known, used in self._used.items() if used[0] > now}
            self._unsaid = {known: sums for known, sums in self._unsaid.items() if known in self._used}
        self._used[subject] = empty_at + _SECONDS_A_LINE, 0
        if unsaid:
            line["unsaid"] = unsaid
            line.update({f"unsaid_{name}": round(sum_, 3) for name, sum_ in self._unsaid.pop(subject, {}).items()})
        return line

    def _add_up(self, subject: tuple[Any, ...], line: MutableMapping[str, Any]) -> None:
        for name in _AMOUNTS:
            amount = line.get(name)
            if isinstance(amount, int | float):
                sums = self._unsaid.setdefault(subject, {})
                sums[name] = sums.get(name, 0) + amount


class Throttle:
    """Says whether a lasting condition should be logged again: at first, then at most every `seconds`."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def due(self, condition: str, now: float) -> bool:
        """True at most once in the interval for each condition (a small fixed set of names)."""
        last = self._last.get(condition)
        if last is not None and now - last < self._seconds:
            return False
        self._last[condition] = now
        return True
