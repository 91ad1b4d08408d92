"""Intake: where a worker's entries come from, in this order: its own pending ones, those of the dead, new ones."""

import asyncio
import random
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.folding import Folded
from redis_agent.store.recovery import Recovery
from redis_agent.store.stream import EventStream, StreamEntry
from redis_agent.telemetry import Liveness, Telemetry

# A blocked read ends after so many ms, so that stopping needs no cancellation: a cancelled XREADGROUP leaves
# entries pending that nobody has seen.
BLOCK_MS = 500


@dataclass(slots=True)
class Queues:
    """What lies between the worker's tasks: each holds one batch, so each task is one ahead of the next.

    Attributes:
        read: entries read but not folded; None when there will be no more.
        folded: batches folded but not applied; None when there will be no more.
    """

    read: asyncio.Queue[list[StreamEntry] | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    folded: asyncio.Queue[Folded | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))


class Intake:
    """Reads the stream as one consumer of the group.

    Args:
        batch_size: entries read at once, at most.
        reclaim_idle_seconds: entries held for longer by another consumer are taken over.
    """

    def __init__(
        self,
        *,
        stream: EventStream,
        telemetry: Telemetry,
        liveness: Liveness,
        batch_size: int,
        reclaim_idle_seconds: float,
    ) -> None:
        self._stream = stream
        self._telemetry = telemetry
        self._liveness = liveness
        self._batch_size = batch_size
        self._reclaim_idle_seconds = reclaim_idle_seconds
        self._log = log.get("worker")
        self._reclaim_cursor = "0-0"

    async def run(self, queues: Queues, stop: asyncio.Event) -> None:
        """Read until told to stop, each batch into `queues.read`; None ends it."""
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        own_first = True
        reclaim_at = 0.0
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            self._liveness.beat("worker.read")
            try:
                if own_first:
                    await self._read_own(queues, stop)
                    own_first = False
                if loop.time() >= reclaim_at:
                    more = await self._reclaim(queues)
                    # Spread, so that many workers do not scan together.
                    wait = self._reclaim_idle_seconds / 2 * random.uniform(0.75, 1.25)  # noqa: S311
                    reclaim_at = loop.time() + (0 if more else wait)
                entries = await self._stream.read_new(count=self._batch_size, block_ms=BLOCK_MS)
                recovery.succeeded()
            except (RedisError, OSError) as error:
                # The reply may have been lost after the entries became ours: look at our own first.
                own_first = True
                await recovery.after(error, "read")
                continue
            if entries:
                await queues.read.put(entries)
        await queues.read.put(None)

    async def _read_own(self, queues: Queues, stop: asyncio.Event) -> None:
        """Read again what this consumer was given and has not acked."""
        created_at = await self._stream.ensure_group()
        if created_at is not None:
            self._log.warning("group_created", at=created_at)
        # What is being folded and applied is pending too, and needs no second look.
        await queues.read.join()
        await queues.folded.join()
        after = "0-0"
        while not stop.is_set():
            entries = await self._stream.read_own(after=after, count=self._batch_size)
            if not entries:
                return
            after = entries[-1].id
            self._log.info("own_pending_read", entries=len(entries))
            await queues.read.put(entries)

    async def _reclaim(self, queues: Queues) -> bool:
        """One step of the scan for entries that others hold for too long; whether to go on at once."""
        self._reclaim_cursor, entries = await self._stream.reclaim(
            cursor=self._reclaim_cursor,
            idle_ms=int(self._reclaim_idle_seconds * 1000),
            count=self._batch_size,
        )
        if entries:
            self._telemetry.reclaimed.inc(len(entries))
            self._log.info("reclaimed", entries=len(entries))
            await queues.read.put(entries)
        return self._reclaim_cursor != "0-0"
