"""The roster: which processes run, as `redis-agent status` shows them, and whether two of them have one name.

Two live processes with one consumer's name count nothing twice: what one applied is pending no more when the other
comes. But each reads at its start what the other has in hand, and folds it in vain, and delivery counts grow. That is
worth saying, once: it is nearly always a mistake of deployment.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from redis_agent import log
from redis_agent.log import Throttle
from redis_agent.store import keys
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.store.stream import text
from redis_agent.telemetry import Telemetry

_BEAT_SECONDS = 1.0
# Replicas not heard of for so long leave the roster.
_EXPIRY_MS = 60_000
# A namesake that has not been heard of for so many beats of ours has ended.
_SILENT_BEATS = 5


class Roster:
    """This process among the others.

    Args:
        name: the process's name, and its consumer's.
        owner: unique for this start of the process.
    """

    def __init__(self, client: Redis, *, name: str, owner: str, roles: frozenset[str], telemetry: Telemetry) -> None:
        self._client = client
        self._name = name
        self._owner = f"{name}|{owner}"
        self._replica = f"{name}|{','.join(sorted(roles))}"
        self._reads = "worker" in roles
        self._telemetry = telemetry
        self._log = log.get("app")
        self._throttle = Throttle(300.0)
        self._namesakes: dict[str, tuple[float, int]] = {}

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """In the roster from now on; out of it again when what follows fails."""
        with contextlib.suppress(ResponseError):
            await self._beat()  # who may not be in it runs all the same
        try:
            yield
        except BaseException:
            await self._leave()
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Stay in the roster until told to stop, then leave it."""
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        while not stop.is_set():
            try:
                await self._beat()
                recovery.succeeded()
            except (RedisError, OSError) as error:
                await recovery.after(error, "roster")
            await sleep_unless(stop, _BEAT_SECONDS)
        await self._leave()

    async def _leave(self) -> None:
        try:
            await self._client.zrem(keys.REPLICAS, self._replica)
            await self._client.zrem(keys.OWNERS, self._owner)
        except (RedisError, OSError) as error:
            self._log.debug("roster_not_left", error=str(error)[:200])

    async def _beat(self) -> None:
        # The server's clock: of two machines whose clocks differ, neither may take the other for gone.
        seconds, micros = await self._client.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(keys.REPLICAS, {self._replica: now_ms})
            pipe.zremrangebyscore(keys.REPLICAS, "-inf", now_ms - _EXPIRY_MS)
            pipe.zremrangebyscore(keys.REPLICAS, now_ms + _EXPIRY_MS, "+inf")  # of a clock that was set back since
            if self._reads:
                pipe.zadd(keys.OWNERS, {self._owner: now_ms})
                pipe.zremrangebyscore(keys.OWNERS, "-inf", now_ms - _EXPIRY_MS)
                pipe.zremrangebyscore(keys.OWNERS, now_ms + _EXPIRY_MS, "+inf")
                pipe.zrange(keys.OWNERS, 0, -1, withscores=True)
            replies = await pipe.execute()
        if self._reads:
            self._look_for_namesakes({text(owner): float(beat) for owner, beat in replies[-1]})

    def _look_for_namesakes(self, beats: dict[str, float]) -> None:
        """Whoever has our name and gives signs of life while we do. One that died only leaves its last one."""
        alive = []
        others = {o: beat for o, beat in beats.items() if o != self._owner and o.startswith(self._name + "|")}
        for other, beat in others.items():
            last, silent = self._namesakes.get(other, (beat, _SILENT_BEATS))
            silent = silent + 1 if beat == last else 0
            self._namesakes[other] = (beat, silent)
            if silent < _SILENT_BEATS:
                alive.append(other)
        self._namesakes = {other: seen for other, seen in self._namesakes.items() if other in others}
        self._telemetry.name_shared.set(1 if alive else 0)
        if alive and self._throttle.due("shared", asyncio.get_running_loop().time()):
            self._log.warning(
                "consumer_name_shared",
                consumer=self._name,
                others=len(alive),
                why="another live process has this consumer's name; nothing counts twice, but both do the same work "
                "at times: give each its own REDIS_AGENT_CONSUMER",
            )
