"""What was read from the stream of events and not acked: who holds it, and what an operator does about it.

Nothing here can make an entry count twice or not at all: whatever is done to an entry, the gate
(`lua/apply_batch.lua`) applies it once if it is still pending, and not otherwise.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.store import keys
from redis_agent.store.flow import is_missing
from redis_agent.store.stream import Applied, Batch, Blocked, DeadLetter, EventStream, received_ms, text

# Entries may be megabytes long: few are held at once.
_PAGE = 20
# Longer than the longest REDIS_AGENT_RECLAIM_IDLE_SECONDS: what is released so is reclaimed by whichever worker looks
# next, whatever its setting.
_RELEASED_IDLE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer of the group: its name, entries it holds, and ms since it was last seen."""

    name: str
    pending: int
    idle_ms: int


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """An entry that was read and not acked.

    Attributes:
        id: the stream entry.
        consumer: who holds it.
        idle_ms: since it was last delivered.
        deliveries: how often it was delivered.
        data: the event's bytes; None when it has none.
        at_ms: when the bridge received it.
        deleted: True when the entry is gone from the stream.
    """

    id: str
    consumer: str
    idle_ms: int
    deliveries: int
    data: bytes | None = None
    at_ms: int = 0
    deleted: bool = False


class PendingEntries:
    """The pending entries of the group of events."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client

    async def consumers(self) -> list[Consumer]:
        """The consumers of the group; none where there is no group."""
        try:
            found = await self._client.xinfo_consumers(keys.STREAM, keys.GROUP)
        except ResponseError as error:
            if is_missing(error):
                return []
            raise
        return [Consumer(text(c["name"]), int(c["pending"]), int(c["idle"])) for c in found]

    async def all(self, *, idle_ms: int = 0, consumer: str | None = None) -> AsyncIterator[PendingEntry]:
        """All that is pending, oldest first: of everybody or of one consumer, not touched for `idle_ms`."""
        first = "-"
        while rows := await self._range(first, "+", _PAGE, idle_ms, consumer):
            for entry in await self._with_data(rows):
                yield entry
            first = "(" + text(rows[-1]["message_id"])

    async def oldest(self, count: int) -> list[PendingEntry]:
        """The oldest that are pending, without their data: what it costs depends on the count alone."""
        return [_entry(row) for row in await self._range("-", "+", count)]

    async def named(self, ids: Sequence[str]) -> dict[str, PendingEntry]:
        """Those of these entries that are pending."""
        found = {}
        for entry_id in ids:
            for entry in await self._with_data(await self._range(entry_id, entry_id, 1)):
                found[entry.id] = entry
        return found

    async def _range(
        self, first: str, last: str, count: int, idle_ms: int = 0, consumer: str | None = None
    ) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = await self._client.xpending_range(
                keys.STREAM,
                keys.GROUP,
                min=first,
                max=last,
                count=count,
                consumername=consumer,
                idle=idle_ms or None,
            )
        except ResponseError as error:
            if is_missing(error):
                return []
            raise
        return rows

    async def _with_data(self, rows: list[dict[str, Any]]) -> list[PendingEntry]:
        ids = [text(row["message_id"]) for row in rows]
        async with self._client.pipeline(transaction=False) as pipe:
            for entry_id in ids:
                pipe.xrange(keys.STREAM, entry_id, entry_id)
            replies = await pipe.execute()
        entries = []
        for row, reply in zip(rows, replies, strict=True):
            fields = reply[0][1] if reply else {}
            entry = _entry(row)
            at_ms = received_ms(fields.get(b"at"), entry.id)
            entries.append(replace(entry, data=fields.get(b"data"), at_ms=at_ms, deleted=not reply))
        return entries

    async def release(self, ids: Sequence[str], *, idle_ms: int = 0) -> list[str]:
        """Take entries from their holders, so that the worker that looks next takes them; those that were released.

        Delivery counts stay as they are. A holder that is at work on one after all changes nothing by it: the gate
        applies only what its caller still holds.

        Args:
            ids: which; those that are no longer pending are left out.
            idle_ms: only such as were not touched for so long.
        """
        released = await self._claim(ids, idle_ms, _RELEASED_IDLE_MS)
        if released:
            # The scan that all workers share begins anew, at once. Should that fail, it does so in its own time.
            with contextlib.suppress(ResponseError):
                await self._client.hdel(keys.RECLAIM, "cursor", "done_ms")
        return released

    async def _claim(self, ids: Sequence[str], idle_ms: int, new_idle_ms: int) -> list[str]:
        claimed: list[str] = []
        for first in range(0, len(ids), _PAGE):
            reply = await self._client.xclaim(
                keys.STREAM,
                keys.GROUP,
                keys.PARKED,
                min_idle_time=idle_ms,
                message_ids=ids[first : first + _PAGE],
                idle=new_idle_ms,
                justid=True,
            )
            claimed += map(text, reply)
        return claimed

    async def bury(self, entry: PendingEntry, reason: str, *, readable: bool, max_dead: int) -> bool:
        """Make an entry a dead letter; False when it is no longer pending, or was taken up again this very moment.

        It goes through the gate like every dead letter of a worker: buried, acked and remembered above the floor in
        one step, so that a lost group does not bring it back, and a worker that has it in hand finds it gone.

        Args:
            entry: which.
            reason: kept with it.
            readable: whether a replay of the stream would read it as an event, and is to leave it out.
            max_dead: how many dead letters are kept.

        Raises:
            ResponseError: it cannot be written, and is still pending.
        """
        gate = EventStream(
            reader=self._client,
            client=self._client,
            consumer=keys.PARKED,
            max_fields=1,
            max_raw=0,
            max_dead=max_dead,
        )
        letter = DeadLetter(
            position=0,
            reason=reason,
            data=entry.data or b"",
            at_ms=entry.at_ms,
            readable=readable,
            deliveries=entry.deliveries,
        )
        # The gate wants it held by its caller; held anew, no worker takes it over before the gate has seen it.
        if not await self._claim([entry.id], 0, 0):
            return False
        outcome = await gate.apply(Batch([entry.id], dead=[letter]))
        if isinstance(outcome, Blocked):
            raise ResponseError(f"{outcome.problem} (key {outcome.key})")
        if not isinstance(outcome, Applied):
            return False
        # For the counter of whoever runs the schedule: this process has none that anybody reads.
        with contextlib.suppress(ResponseError):
            await self._client.hincrby(keys.SCHEDULER, "buried", 1)
        return True


def _entry(row: Any) -> PendingEntry:
    """A row of XPENDING; without what only the stream knows."""
    return PendingEntry(
        id=text(row["message_id"]),
        consumer=text(row["consumer"]),
        idle_ms=int(row["time_since_delivered"]),
        deliveries=int(row["times_delivered"]),
    )
