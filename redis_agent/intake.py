"""Intake: where a worker's entries come from, in this order: its own pending ones, those of the dead, new ones."""

import asyncio
import random
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.folding import Folded
from redis_agent.holding import Chunk, Holding
from redis_agent.log import Throttle
from redis_agent.store import keys
from redis_agent.store.group import Created
from redis_agent.store.recovery import Recovery
from redis_agent.store.stream import EventStream, Reclaimed, StreamEntry
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

    read: asyncio.Queue[Chunk | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    folded: asyncio.Queue[Folded | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))


class Intake:
    """Reads the stream as one consumer of the group.

    Args:
        holding: what was read and is not finished; says how much to read.
        reclaim_idle_seconds: entries idle for longer are taken over from their consumers.
    """

    def __init__(
        self,
        *,
        stream: EventStream,
        holding: Holding,
        telemetry: Telemetry,
        liveness: Liveness,
        reclaim_idle_seconds: float,
    ) -> None:
        self._stream = stream
        self._holding = holding
        self._telemetry = telemetry
        self._liveness = liveness
        self._idle_ms = int(reclaim_idle_seconds * 1000)
        self._log = log.get("worker")
        self._throttle = Throttle()
        self._reclaim_due = 0.0
        self._reclaimed_unsaid = 0

    async def run(self, queues: Queues, stop: asyncio.Event) -> None:
        """Read until told to stop, each batch into `queues.read`; None ends it.

        While batches are not applied (the script is slow, the server is out of memory) nothing more is read: at most
        one batch is being applied and one folded, each with another waiting before it, and one waits here.
        """
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        own_first = True
        while not stop.is_set():
            self._liveness.beat("worker.read")
            try:
                if own_first:
                    await self._read_own(queues, stop)
                    own_first = False
                more = await self._reclaim_when_due(queues, stop)
                await self._holding.room(stop)
                entries = await self._stream.read_new(count=self._holding.count(), block_ms=1 if more else BLOCK_MS)
                recovery.succeeded()
            except (RedisError, OSError) as error:
                # The reply may have been lost after the entries became ours: look at our own first.
                own_first = True
                await recovery.after(error, f"read {keys.STREAM}")
                continue
            await self._hand_on(entries, queues, new=True)
        await queues.read.put(None)

    async def _hand_on(self, entries: list[StreamEntry], queues: Queues, *, new: bool = False) -> None:
        """What was just read is in hand from here on."""
        for chunk in self._holding.take(entries, new=new):
            await queues.read.put(chunk)

    async def _read_own(self, queues: Queues, stop: asyncio.Event) -> None:
        """Read again what this consumer was given and has not acked."""
        created = await self._stream.ensure_group()
        if created is not None:
            self._say_created(created)
        # What is being folded and applied is pending too, and needs no second look.
        await queues.read.join()
        await queues.folded.join()
        after = "0-0"
        while not stop.is_set():
            await self._holding.room(stop)
            own = await self._stream.read_own(after=after, count=self._holding.count())
            if not own.looked_to:
                return
            after = own.looked_to
            self._log.info("own_pending_read", entries=len(own.entries))
            self._say_deleted(own.deleted)
            await self._hand_on(own.entries, queues)

    async def _reclaim_when_due(self, queues: Queues, stop: asyncio.Event) -> bool:
        """One step of the scan for entries that others hold for too long; whether to go on at once."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._reclaim_due:
            return False
        await self._holding.room(stop)
        # After a pause of this process what it holds must be its own again before it looks for what is idle.
        await self._holding.renew()
        step = await self._stream.reclaim(
            idle_ms=self._idle_ms, every_ms=self._idle_ms // 2, count=self._holding.count()
        )
        # Spread, so that many workers do not come together.
        wait = self._idle_ms / 2000 * random.uniform(0.75, 1.25)  # noqa: S311
        self._reclaim_due = loop.time() + (0 if step.more else wait)
        self._say(step, loop.time())
        await self._hand_on(step.entries, queues)
        return step.more

    def _say_created(self, created: Created) -> None:
        self._log.warning("group_created", at=created.at)
        if created.lost:
            self._telemetry.stream_lost.inc(created.lost)
            self._log.error(
                "stream_deleted",
                lost=created.lost,
                meaning="somebody deleted the stream of events; so many of them were not applied yet",
            )

    def _say_deleted(self, ids: list[str]) -> None:
        """What was deleted from the stream before it was applied: each is found once, by one worker."""
        if ids:
            self._telemetry.events.labels("deleted").inc(len(ids))
            self._log.warning("entries_deleted_before_applied", entries=len(ids), first=ids[0])

    def _say(self, step: Reclaimed, now: float) -> None:
        self._telemetry.reclaimed.inc(len(step.entries))
        self._reclaimed_unsaid += len(step.entries)
        if self._reclaimed_unsaid and self._throttle.due("reclaimed", now):
            self._log.info("reclaimed", entries=self._reclaimed_unsaid)
            self._reclaimed_unsaid = 0
        self._say_deleted(step.deleted)
        if step.problem and self._throttle.due("reclaim_place", now):
            self._log.warning("reclaim_place_not_kept", key=keys.RECLAIM, problem=step.problem)
