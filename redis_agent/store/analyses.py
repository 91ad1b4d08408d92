"""Keeps the analysis of an alert beside it, so that whoever delivers it says the same, and history shows it."""

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.clock import stream_id
from redis_agent.store import keys
from redis_agent.store.stream import text


class KeptAnalyses:
    """The analyses of the alerts in the outbox, by entry id. They go with their alerts (`lua/trim_alerts.lua`)."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def of(self, entry_ids: Sequence[str]) -> dict[str, str]:
        """What is kept for these alerts, as JSON; nothing where the server refuses to say."""
        if not entry_ids:
            return {}
        try:
            found = await self._client.hmget(keys.ANALYSES, list(entry_ids))
        except ResponseError:
            return {}
        return {i: text(kept) for i, kept in zip(entry_ids, found, strict=True) if kept is not None}

    async def keep(self, entry_id: str, analysis: str) -> str:
        """Keep an analysis, unless there is one; what is kept from now on.

        Where the server refuses, because it is out of memory or the key has another type, nothing is kept: an analysis
        is not worth an alert.
        """
        try:
            if await self._client.hsetnx(keys.ANALYSES, entry_id, analysis):
                return analysis
            kept = await self._client.hget(keys.ANALYSES, entry_id)
        except ResponseError:
            return analysis
        return analysis if kept is None else text(kept)

    async def sweep(self) -> None:
        """Forget what belongs to an outbox that somebody deleted, or to alerts that were trimmed meanwhile."""
        try:
            if await self._client.hlen(keys.ANALYSES) <= await self._client.xlen(keys.OUTBOX):
                return
            oldest = await self._client.xrange(keys.OUTBOX, count=1)
            first = stream_id(text(oldest[0][0])) if oldest else None
            ids = [text(field) for field in await self._client.hkeys(keys.ANALYSES)]
            gone = [i for i in ids if first is None or _id(i) < first]
            if gone:
                await self._client.hdel(keys.ANALYSES, *gone)
        except ResponseError:
            return


def _id(entry_id: str) -> tuple[int, int]:
    """An id as it compares; what somebody else put there counts as the oldest."""
    try:
        return stream_id(entry_id)
    except ValueError:
        return 0, 0
