"""Holding: what a worker has read and not finished. Bounded in bytes, and kept its own for as long as it takes.

Entries that a consumer does not finish within the reclaim idle time are taken over by others. That is right for the
dead, and wrong for a worker that waits for a server out of memory: so what is in hand is renewed a few times within
that time. A worker that cannot do that (it is stopped, or cut off) loses its entries, and finds at the gate that they
are not its own any more.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.log import Throttle
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.store.stream import EventStream, StreamEntry
from redis_agent.telemetry import Telemetry

# What is in hand is looked at this often within the idle time, and renewed when it was not for as long: so an entry is
# never idle for more than two of these.
_PARTS = 5
# Entries asked for when nothing is known about their size, and at least, where their size allows it. Who finds so many
# does not keep up with them one by one.
_FIRST_COUNT = 16
# A batch larger than the second number is asked for only while applying it takes the server less than the first, in
# seconds of its CPU time: it does nothing else meanwhile.
_APPLY_SECONDS = 0.02
_ALWAYS_COUNT = 500
# What the newest batch counts for in the mean time an entry takes.
_NEWEST_SHARE = 0.2


@dataclass(slots=True, eq=False)
class Chunk:
    """Entries that were read together and are folded together.

    Attributes:
        entries: in the order of the stream.
        size: bytes of their data.
        fresh_at: when they were read or renewed, on the event loop's clock.
        new: whether they are every entry of the stream from the first to the last, handed out for the first time.
    """

    entries: list[StreamEntry]
    size: int
    fresh_at: float
    new: bool


class Holding:
    """The chunks in hand, from being read until the last of their entries is applied or let go.

    Args:
        batch_size: entries read at once, at most.
        batch_bytes: of one chunk, but that a larger entry is one alone.
        reclaim_idle_seconds: entries idle for longer are taken over by others.
    """

    def __init__(
        self,
        *,
        stream: EventStream,
        telemetry: Telemetry,
        batch_size: int,
        batch_bytes: int,
        reclaim_idle_seconds: float,
    ) -> None:
        self._stream = stream
        self._telemetry = telemetry
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._renew_seconds = reclaim_idle_seconds / _PARTS
        self._log = log.get("worker")
        self._throttle = Throttle()
        self._chunks: dict[Chunk, None] = {}  # in the order they were read
        self._size = 0
        self._mean_size = 0.0
        self._mean_seconds = 0.0
        self._last_read = 0
        self._asked = 0
        self._behind = False
        self._finished = asyncio.Event()

    def count(self) -> int:
        """How many entries to ask for next.

        XREADGROUP knows no bound in bytes. So the first read is small, each asks for at most twice what the last
        one found, and for no more than fit a batch if they are as large as those read lately, nor than are applied
        soon if they take as long as those applied lately.
        """
        count = max(_FIRST_COUNT, 2 * self._last_read)
        if self._mean_size:
            count = min(count, int(self._batch_bytes / self._mean_size))
        if self._mean_seconds:
            count = min(count, max(_ALWAYS_COUNT, int(_APPLY_SECONDS / self._mean_seconds)))
        self._asked = max(1, min(count, self._batch_size))
        return self._asked

    def take(self, entries: Sequence[StreamEntry], *, new: bool = False) -> list[Chunk]:
        """What was just read is in hand: as chunks within the bound of bytes."""
        self._last_read = len(entries)
        self._behind = len(entries) >= min(self._asked, _FIRST_COUNT)
        if not entries:
            return []
        now = asyncio.get_running_loop().time()
        sizes = [len(entry.data or b"") for entry in entries]
        size = sum(sizes)
        # Larger ones are believed at once, smaller ones only after a while.
        self._mean_size = max(size / len(entries), 0.8 * self._mean_size)
        chunks = (
            [Chunk(list(entries), size, now, new)]
            if size <= self._batch_bytes
            else self._split(entries, sizes, now, new)
        )
        for chunk in chunks:
            self._chunks[chunk] = None
            self._size += chunk.size
        self._telemetry.in_hand.set(self._size)
        return chunks

    def _split(self, entries: Sequence[StreamEntry], sizes: Sequence[int], now: float, new: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        for entry, size in zip(entries, sizes, strict=True):
            if not chunks or chunks[-1].size + size > self._batch_bytes:
                chunks.append(Chunk([], 0, now, new))
            chunks[-1].entries.append(entry)
            chunks[-1].size += size
        return chunks

    def finish(self, chunk: Chunk) -> None:
        """Every entry of it is applied, or let go."""
        if chunk in self._chunks:
            del self._chunks[chunk]
            self._size -= chunk.size
            self._telemetry.in_hand.set(self._size)
        self._finished.set()

    def applied(self, count: int, seconds: float) -> None:
        """So many entries were applied at once, in so many seconds of the server; a few say nothing about many."""
        if count < _ALWAYS_COUNT:
            return
        each = seconds / count
        self._mean_seconds += (each - self._mean_seconds) * (_NEWEST_SHARE if self._mean_seconds else 1.0)

    async def room(self, stop: asyncio.Event) -> None:
        """Wait until there is room for another read, or until told to stop."""
        while self._size > 2 * self._batch_bytes and not stop.is_set():
            self._finished.clear()
            await first_of(self._finished, stop)

    async def rest(self, stop: asyncio.Event, seconds: float) -> None:
        """Wait so long, but no longer than this worker is behind, nor once told to stop.

        It is behind while reads find more than a few entries, or all that they ask for, and these are in hand.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._chunks and self._behind and not stop.is_set():
                    self._finished.clear()
                    await first_of(self._finished, stop)

    async def run(self, finished: asyncio.Event) -> None:
        """Renew what is in hand for long, until the worker has finished."""
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=finished)
        while not await sleep_unless(finished, self._renew_seconds):
            try:
                await self.renew()
                recovery.succeeded()
            except (RedisError, OSError) as error:
                recovery.note(error, "renew")  # tried again in a moment: the time in which it helps is short

    async def renew(self) -> None:
        """Renew what was not for a while. Does nothing, and asks nothing, while all is fresh.

        Raises:
            RedisError, OSError: what was not renewed may be taken over.
        """
        loop = asyncio.get_running_loop()
        old = [chunk for chunk in self._chunks if loop.time() - chunk.fresh_at >= self._renew_seconds]
        for chunk in old:
            asked_at = loop.time()
            renewed = await self._stream.renew([entry.id for entry in chunk.entries])
            chunk.fresh_at = asked_at
            if renewed.deleted:
                self._telemetry.events.labels("deleted").inc(renewed.deleted)
            if self._throttle.due("held", asked_at):
                self._log.info("held", entries=renewed.held, gone=renewed.deleted, why="not applied for a while")


async def first_of(first: asyncio.Event, second: asyncio.Event) -> None:
    """Wait until one of two events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
