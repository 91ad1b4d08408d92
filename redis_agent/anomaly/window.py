"""A closed window of time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Window:
    """A closed window."""

    start_ms: int
    end_ms: int
    seconds: float
    gap_seconds: float
    """Not watched before it."""

    @property
    def middle_ms(self) -> int:
        """Where its hour is looked up."""
        return (self.start_ms + self.end_ms) // 2
