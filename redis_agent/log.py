"""Logs are events with fields: a constant name, then what belongs to it. They go to stderr."""

import logging
import sys
from typing import Any

import structlog


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


class Throttle:
    """Says whether a lasting condition should be logged again: at first, then at most every `seconds`."""

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def due(self, condition: str, now: float) -> bool:
        """True at most once in the interval for each condition (a small fixed set of names)."""
        last = self._last.get(condition)
        if last is not None and now - last < self._seconds:
            return False
        self._last[condition] = now
        return True

    def reset(self) -> None:
        """Forget: the condition has passed, its return is news."""
        self._last.clear()
