"""Which completed experiments have had their last judgement, and how far the stream must be applied for one."""

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from redis_agent.clock import stream_id
from redis_agent.store import keys
from redis_agent.store.stream import text


class Finals:
    """The memory of all replicas: what was judged finally stays so after a restart."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def judged(self, experiment_ids: Sequence[str]) -> set[str]:
        """Those among these experiments that were judged finally."""
        if not experiment_ids:
            return set()
        marks = await self._client.hmget(keys.FINALS, list(experiment_ids))
        return {i for i, mark in zip(experiment_ids, marks, strict=True) if mark is not None}

    async def mark(self, at: Mapping[str, str]) -> None:
        """These experiments have been judged finally, each at a moment (ISO 8601)."""
        if at:
            await self._client.hset(keys.FINALS, items=[part for pair in at.items() for part in pair])

    async def forget(self, experiment_ids: Sequence[str]) -> None:
        """These experiments go on: they will be judged finally once more."""
        if experiment_ids:
            await self._client.hdel(keys.FINALS, *experiment_ids)

    async def told(self, experiment_ids: Sequence[str]) -> set[str]:
        """Those among these experiments whose completion was told."""
        if not experiment_ids:
            return set()
        alerts = await self._client.hmget(keys.COMPLETIONS, list(experiment_ids))
        return {i for i, alert in zip(experiment_ids, alerts, strict=True) if alert is not None}

    async def written(self) -> tuple[int, int]:
        """The id of the newest event in the stream."""
        newest = await self._client.xrevrange(keys.STREAM, count=1)
        return _id(newest[0][0] if newest else None)

    async def applied(self) -> tuple[int, int]:
        """The id up to which every event of the stream has been applied."""
        return _id(await self._client.get(keys.FLOOR))


def _id(raw: Any) -> tuple[int, int]:
    """An id as it compares; (0, 0) for none, and for what somebody else put there."""
    try:
        return stream_id(text(raw)) if raw else (0, 0)
    except ValueError:
        return 0, 0
