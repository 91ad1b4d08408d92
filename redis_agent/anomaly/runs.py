"""How improbable it is that a series says the same value so many times in a row."""

from __future__ import annotations

import math
from typing import Final

from redis_agent.anomaly.novelty import MEMORY, WARM_UP

LEAST_RUN: Final = 24
"""Equal values in a row below which nothing is said: saturation and rounding bring short runs."""


class Runs:
    """The run of equal values that goes on, how often values repeat, and the longest run so far.

    Were repeats independent, a run of k repeats had the probability `r ** k` for the share r of values
    that equal the one before. They are not, so a run must also be twice as long as any before it.
    """

    __slots__ = ("_count", "_last", "_longest", "_repeats", "length", "moves")

    def __init__(self) -> None:
        self.length = 0
        """Repeats in the run that goes on: 0 after a change."""
        self.moves = 0
        """Changes of value so far."""
        self._last: float | None = None
        self._count = 0
        self._repeats = 0
        self._longest = 0

    @property
    def longest(self) -> int:
        """Repeats in the longest run that has ended, less once it is long past."""
        return self._longest

    @property
    def share(self) -> float:
        """Estimated share of repeats before the run that goes on (Laplace's rule of succession)."""
        return (self._repeats - self.length + 1) / (self._count - self.length + 2)

    def learn(self, value: float) -> None:
        """Take the next value in."""
        self._count += 1
        if value == self._last:
            self.length += 1
            self._repeats += 1
        else:
            self.moves += 1
            self._longest = max(self._longest, self.length)
            self.length = 0
            if self._count >= 2 * MEMORY:
                self._count //= 2
                self._repeats //= 2
                self._longest //= 2
        self._last = value

    def tail_probability(self) -> float:
        """Return the probability of a run at least as long as the one that goes on; 1 where that is no news."""
        if self._count <= WARM_UP or self.length < max(LEAST_RUN, 2 * self._longest):
            return 1.0
        return math.pow(self.share, self.length)

    def state(self) -> list[float | None]:
        """Return all that is remembered."""
        return [self.length, self.moves, self._last, self._count, self._repeats, self._longest]

    @classmethod
    def restore(cls, state: list[float | None]) -> Runs:
        """Return what `state` described."""
        runs = cls()
        length, moves, last, count, repeats, longest = state
        runs.length, runs.moves = int(length or 0), int(moves or 0)
        runs._last = last
        runs._count, runs._repeats, runs._longest = int(count or 0), int(repeats or 0), int(longest or 0)
        return runs
