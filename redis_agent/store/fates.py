"""What has become of an entry of the stream of events: who waits for an answer after touching one asks here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from redis_agent.clock import stream_id
from redis_agent.store import keys
from redis_agent.store.dead_letters import DeadLetters
from redis_agent.store.flow import flow
from redis_agent.store.stream import text


@dataclass(frozen=True, slots=True)
class Fate:
    """What has become of an entry.

    Attributes:
        outcome: "waiting" (not given to a worker), "held" (by a worker), "applied", "dead_letter", or "gone" (it is
            not in the stream any more: trimmed after it was applied, or deleted before; that is not known).
        consumer: who holds it.
        reason: why it is a dead letter.
        dead_letter_id: which one it is.
    """

    outcome: str
    consumer: str | None = None
    reason: str | None = None
    dead_letter_id: str | None = None


class Fates:
    """Follows what becomes of entries of the stream of events.

    Make one with `watch` before the entries are touched: what was a dead letter by then is not looked at.
    """

    def __init__(self, client: Redis, seen: str) -> None:
        self._client: Any = client
        self._letters = DeadLetters(client)
        self._seen = seen
        self._buried: dict[str, tuple[str, str]] = {}

    @classmethod
    async def watch(cls, client: Redis) -> "Fates":
        """Begin now."""
        return cls(client, await DeadLetters(client).newest_id())

    async def of(self, ids: Sequence[str]) -> dict[str, Fate]:
        """What has become of each by now."""
        group = await flow(self._client)
        holders, there = await self._holders(ids, group.exists)
        # After the look at who holds what: an entry is buried and acked in the same step.
        async for letter in self._letters.all(after=self._seen):
            self._seen = letter.id
            self._buried[letter.source_id] = letter.id, letter.reason
        return {
            entry_id: self._fate(entry_id, holders, group.last_delivered if group.exists else "")
            if entry_id in there or entry_id in self._buried
            else Fate("gone")
            for entry_id in ids
        }

    def _fate(self, entry_id: str, holders: dict[str, str], delivered: str) -> Fate:
        if entry_id in self._buried:
            letter_id, reason = self._buried[entry_id]
            return Fate("dead_letter", reason=reason, dead_letter_id=letter_id)
        holder = holders.get(entry_id)
        if holder is not None:
            return Fate("waiting") if holder == keys.PARKED else Fate("held", consumer=holder)
        if not delivered or stream_id(entry_id) > stream_id(delivered):
            return Fate("waiting")
        return Fate("applied")

    async def _holders(self, ids: Sequence[str], exists: bool) -> tuple[dict[str, str], set[str]]:
        """Who holds which of them, and which are in the stream."""
        async with self._client.pipeline(transaction=False) as pipe:
            for entry_id in ids:
                pipe.xrange(keys.STREAM, entry_id, entry_id)
            for entry_id in ids if exists else ():
                pipe.xpending_range(keys.STREAM, keys.GROUP, min=entry_id, max=entry_id, count=1)
            replies = await pipe.execute()
        there = {entry_id for entry_id, found in zip(ids, replies, strict=False) if found}
        holders = {text(row["message_id"]): text(row["consumer"]) for rows in replies[len(ids) :] for row in rows}
        return holders, there
