"""Projecting: what a worker has applied in a partition is copied to the names that the Orchestrator reads, at once.

It runs beside each worker of a partition, not with the scheduler's leader: it is the worker's result that it makes
visible, and when a process dies its share of the partitions, and with it this, goes over to others without a lease to
be waited for. Several at once do no harm, and no more than the work twice.
"""

import asyncio
from typing import Final

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.store.projections import Projections
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.telemetry import Level, Liveness, Telemetry
from redis_agent.worker import Worker

# Seconds between two looks at what was touched: what is touched in between is copied once.
_LOOK_SECONDS: Final = 0.2
# Experiments copied in one go.
_PAGE: Final = 100


class Projecting:
    """A worker of a partition, and beside it the copies of what it applies.

    Args:
        worker: of the partition.
        projections: of the partition.
        lag: how long the oldest that is not copied has been known to be touched, in seconds.
    """

    def __init__(
        self, worker: Worker, projections: Projections, *, lag: Level, telemetry: Telemetry, liveness: Liveness
    ) -> None:
        self._worker = worker
        self._projections = projections
        self._lag = lag
        self._telemetry = telemetry
        self._liveness = liveness
        self._log = log.get("worker")
        # Experiments that are to be copied, and since when that is known.
        self._waiting: dict[str, float] = {}

    def hindrances(self) -> list[str]:
        """What keeps the worker from its work, in words; nothing when all is well."""
        return self._worker.hindrances()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; then copy what is left."""
        worked = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._copy(worked))
            try:
                await self._worker.run(stop)
            finally:
                worked.set()

    async def _copy(self, worked: asyncio.Event) -> None:
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=worked)
        while True:
            last = worked.is_set()
            self._liveness.beat("worker.project")
            try:
                await self._copy_touched()
                recovery.succeeded()
            except (RedisError, OSError) as error:
                await recovery.after(error, "project")
            if last:
                self._liveness.rest("worker.project")
                self._lag.set(0.0)
                return
            await sleep_unless(worked, _LOOK_SECONDS)

    async def _copy_touched(self) -> None:
        """Copy what is touched now."""
        waiting: dict[str, float] = {}
        problem: Exception | None = None
        async for touched in self._projections.touched(_PAGE):
            self._liveness.beat("worker.project")
            now = asyncio.get_running_loop().time()
            since = {one: self._waiting.get(one, now) for one in touched}
            waiting |= since
            self._lag.set(now - min(since.values()))
            try:
                done = await self._projections.project(touched)
            except (RedisError, OSError) as error:
                problem = error
                continue
            self._telemetry.projected.inc(len(done))
            waiting = {one: at for one, at in waiting.items() if one not in done}
        self._waiting = waiting
        now = asyncio.get_running_loop().time()
        self._lag.set(now - min(waiting.values(), default=now))
        if problem is not None:
            raise problem
