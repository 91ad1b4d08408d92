"""What an event costs as something grows: experiments, criteria, the backlog, the event itself."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import redis

from bench import rates
from bench.rates import Loop, Rate
from bench.workload import Workload, append

EXPERIMENTS = (1, 10, 100, 1_000, 10_000, 100_000)
DEFINED = (20, 100, 1_000, 10_000, 100_000)
CRITERIA = (1, 2, 5, 10, 20, 50)
BACKLOG = (10_000, 100_000, 1_000_000)
LONG_BACKLOG = (*BACKLOG, 10_000_000)
SIZES = (100, 300, 1_000, 4_000, 16_000, 64_000)
KINDS = ("experiments", "defined", "criteria", "backlog", "bytes")

# Of one stream, as far as it is worked off.
_EVENTS = 40_000
_BACKLOG_EVENTS = 100_000
_PAYLOAD_BYTES = 128_000_000


@dataclass(frozen=True, slots=True)
class Point:
    """The bare loop and the worker side by side where something is so large.

    Attributes:
        kind: what grows, one of `KINDS`.
        size: how large it is.
    """

    kind: str
    size: int
    bare: Rate
    worker: Rate

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Growth:
    """Measures point by point.

    Args:
        backlog: how many entries the stream has when the worker begins.
        rounds: of each point.
    """

    def __init__(self, client: redis.Redis, url: str, *, backlog: Sequence[int], rounds: int) -> None:
        self._client = client
        self._url = url
        self._backlog = backlog
        self._rounds = rounds

    def points(self) -> Iterator[Point]:
        """All of them."""
        for size in EXPERIMENTS:
            yield self._point("experiments", size, Workload("spread", _EVENTS, size))
        for size in DEFINED:
            yield self._point("defined", size, Workload("active", _EVENTS, DEFINED[0], defined=size))
        for size in CRITERIA:
            yield self._point("criteria", size, Workload("criteria", _EVENTS, 20, criteria=size))
        for size in SIZES:
            events = min(_EVENTS, _PAYLOAD_BYTES // size)
            yield self._point("bytes", size, Workload("payload", events, 20, size=size))
        there = 0
        self._client.flushall()
        for size in self._backlog:
            append(self._client, Workload("backlog", size - there, 20))
            there = size
            yield self._point("backlog", size, Workload("backlog", size, 20), filled=True)
        self._client.flushall()

    def _point(self, kind: str, size: int, workload: Workload, *, filled: bool = False) -> Point:
        loops = [Loop("api", _BACKLOG_EVENTS), Loop("worker", _BACKLOG_EVENTS)]
        bare, worker = rates.measure(self._client, self._url, workload, loops, self._rounds, filled=filled)
        return Point(kind, size, bare, worker)
