"""Copies of what a partition has of its experiments, under the names that the Orchestrator and people read.

In a partition `metrics_aggregated:{id}` and `metrics:{id}` stand in the partition's namespace, so that the gate can
write them with everything else in one step. The gate notes which experiments it has touched; what is copied from there
is whole, and a copy that is late changes nothing, so whoever dies in between leaves only work to be done again.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from redis_agent.store import keys, scripts
from redis_agent.store.stream import text, text_map

# Copies under way at once.
_AT_ONCE = 16
# Experiments whose version is remembered; of others the list is copied whole.
_MEMORY = 10_000


@dataclass(frozen=True, slots=True)
class Touched:
    """An experiment as it was read to be copied.

    Attributes:
        experiment_id: which.
        count: how often it was touched, as text.
        aggregate: its aggregate; empty where there is none to be read.
        events: its newest raw events.
        before: the version that `events` follow on; "" where they are all there are.
    """

    experiment_id: str
    count: str
    aggregate: Mapping[str, str]
    events: Sequence[bytes]
    before: str


class Projections:
    """Copies what was touched in one partition.

    Args:
        client: of the partition.
        wide: of what has no namespace.
        max_raw: length of the lists of raw events; 0: none are kept.
    """

    def __init__(self, client: Redis, wide: Redis, *, max_raw: int) -> None:
        self._client = client
        self._wide = wide
        self._max_raw = max_raw
        # Experiment -> events_total of its copy, as far as this process knows.
        self._copied: dict[str, str] = {}

    async def touched(self, count: int) -> AsyncIterator[list[str]]:
        """The experiments that are to be copied, in pages of about as many."""
        cursor, begun = 0, False
        while cursor or not begun:
            begun = True
            cursor, found = await self._client.hscan(keys.TOUCHED, cursor, count=count)
            if found:
                yield [text(one) for one in found]

    async def project(self, experiment_ids: Sequence[str]) -> set[str]:
        """Copy these; those that are up to date then. One that cannot be copied costs only itself.

        Raises:
            RedisError, OSError: not all were copied; those are still noted as touched.
        """
        turns = asyncio.Semaphore(_AT_ONCE)

        async def copied(one: Touched) -> bool:
            async with turns:
                return await self._copy(one)

        found = await self._read(experiment_ids)
        outcomes = await asyncio.gather(*map(copied, found), return_exceptions=True)
        done = [one for one, outcome in zip(found, outcomes, strict=True) if outcome is True]
        if done:
            args = [part for one in done for part in (one.experiment_id, one.count)]
            await scripts.run(self._client, "projection_done", [keys.TOUCHED], args)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return {one.experiment_id for one in done}

    async def _read(self, experiment_ids: Sequence[str]) -> list[Touched]:
        names, args = [keys.TOUCHED], [str(self._max_raw)]
        for one in experiment_ids:
            names += [keys.aggregate(one), keys.raw_events(one)]
            args += [one, self._copied.get(one, "")]
        rows = await scripts.run(self._client, "projection_read", names, args)
        found = []
        for one, (count, flat, events) in zip(experiment_ids, rows, strict=True):
            before, aggregate = self._copied.get(one, ""), text_map(flat)
            total = aggregate.get("events_total", "")
            follows = before and total.isdigit() and int(total) - int(before) == len(events)
            found.append(Touched(one, str(int(count)), aggregate, events, before if follows else ""))
        return found

    async def _copy(self, one: Touched) -> bool:
        """Whether its copy is up to date now."""
        aggregate, total = one.aggregate, one.aggregate.get("events_total", "")
        if not total.isdigit():
            return True  # somebody has deleted it, or put something else there: there is nothing to copy
        args = [total, aggregate.get("first_event_at", ""), *(part for pair in aggregate.items() for part in pair)]
        outcome = await scripts.run(self._wide, "project_aggregate", [keys.aggregate(one.experiment_id)], args)
        if not outcome:
            self._copied.pop(one.experiment_id, None)
            return True
        if self._max_raw and (one.events or not one.before) and not await self._copy_list(one, total, outcome == 2):
            self._copied.pop(one.experiment_id, None)
            return False
        if len(self._copied) >= _MEMORY:
            del self._copied[next(iter(self._copied))]
        if keys.copied(one.experiment_id) is not None:
            self._copied[one.experiment_id] = total
        return True

    async def _copy_list(self, one: Touched, total: str, anew: bool) -> bool:
        version = keys.copied(one.experiment_id)
        names = [keys.raw_events(one.experiment_id), *([] if version is None else [version])]
        args = [one.before, total, self._max_raw, int(anew), *one.events]
        return bool(await scripts.run(self._wide, "project_list", names, args))
