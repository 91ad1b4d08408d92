"""Reads aggregates and the index of experiments, and writes what is derived from sums."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.store import keys, scripts
from redis_agent.store.failures import is_wrong_type
from redis_agent.store.namespace import namespace_of
from redis_agent.store.stream import text, whole


@dataclass(frozen=True, slots=True)
class DerivedUpdate:
    """Derived metrics of one experiment.

    Attributes:
        experiment_id: whose.
        events_total: of the aggregate they were computed from; when it has moved on, nothing is written.
        set: name -> value.
        remove: names that are derived no longer.
    """

    experiment_id: str
    events_total: str
    set: dict[str, str]
    remove: Sequence[str]


class Aggregates:
    """The aggregates of all experiments."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def write_derived(self, updates: Sequence[DerivedUpdate]) -> None:
        """Write derived metrics beside the sums they belong to (see `lua/write_derived.lua`)."""
        args: list[str | int] = []
        for update in updates:
            args += [update.events_total, len(update.set)]
            args += [part for pair in update.set.items() for part in pair]
            args += [len(update.remove), *update.remove]
        names = [keys.aggregate(update.experiment_id) for update in updates]
        if namespace_of(self._client):
            names = [keys.TOUCHED, *names]
            args = [">", *(update.experiment_id for update in updates), *args]
        await scripts.run(self._client, "write_derived", names, args)

    async def read(self, experiment_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The aggregate hashes; one that is missing or has another type is left out."""
        if not experiment_ids:
            return {}
        async with self._client.pipeline(transaction=False) as pipe:
            for experiment_id in experiment_ids:
                pipe.hgetall(keys.aggregate(experiment_id))
            replies = await pipe.execute(raise_on_error=False)
        found = {}
        for experiment_id, reply in zip(experiment_ids, replies, strict=True):
            if is_wrong_type(reply):
                continue
            if isinstance(reply, Exception):
                raise reply
            if reply:
                found[experiment_id] = {text(f): text(v) for f, v in reply.items()}
        return found

    async def fields(self, experiment_ids: Sequence[str], names: Sequence[str]) -> dict[str, list[str | None]]:
        """These fields of the aggregate hashes; of one that has another type all are None."""
        async with self._client.pipeline(transaction=False) as pipe:
            for experiment_id in experiment_ids:
                pipe.hmget(keys.aggregate(experiment_id), list(names))
            replies = await pipe.execute(raise_on_error=False)
        found: dict[str, list[str | None]] = {}
        for experiment_id, reply in zip(experiment_ids, replies, strict=True):
            if isinstance(reply, Exception) and not is_wrong_type(reply):
                raise reply
            values = [None] * len(names) if isinstance(reply, Exception) else reply
            found[experiment_id] = [None if value is None else text(value) for value in values]
        return found

    async def newest_events(self, experiment_id: str, count: int) -> list[bytes]:
        """The newest raw events of an experiment, the very newest first; none where the list has another type."""
        try:
            found: list[Any] = await self._client.lrange(keys.raw_events(experiment_id), -count, -1)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            return []
        return found[::-1]

    async def refused_names(self, experiment_id: str) -> dict[str, int]:
        """Names that were refused because the experiment had its full number -> times (once a batch)."""
        state = await self._client.hgetall(keys.fold_state(experiment_id))
        refused = {}
        for field, count in state.items():
            kind, _, name = text(field).partition(":")
            if kind == "refused":
                refused[name] = whole(count)
        return refused

    async def active_since(self, since_ms: int) -> dict[str, int]:
        """Experiments with events at or after a moment -> ms of their last event."""
        rows: list[Any] = await self._client.zrangebyscore(keys.EXPERIMENTS, since_ms, "+inf", withscores=True)
        return {text(member): _ms(score) for member, score in rows}

    async def page(self, first: int, count: int) -> dict[str, int]:
        """Some experiments of all that ever had an event, the newest first -> ms of their last event."""
        rows: list[Any] = await self._client.zrevrange(keys.EXPERIMENTS, first, first + count - 1, withscores=True)
        return {text(member): _ms(score) for member, score in rows}

    async def all(self) -> dict[str, int]:
        """Every experiment that ever had an event -> ms of its last, newest first."""
        rows: list[Any] = await self._client.zrevrange(keys.EXPERIMENTS, 0, -1, withscores=True)
        return {text(member): _ms(score) for member, score in rows}


def _ms(score: float) -> int:
    return int(score) if isfinite(score) else 0
