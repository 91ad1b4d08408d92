"""When what the server has executed may be relied on: at once, when it is on disk, or when replicas have it.

`WAIT` and `WAITAOF` wait for the last write of their own connection. So what is waited for here is a small write after
all that came before, and one call stands for any number of batches (a group commit).

Not every server's WAITAOF can be believed. With `appendfsync everysec`, Redis 7.4 (until the fix of redis/redis#13793)
and Valkey 9 answer before the fsync. Redis 7.0 has no WAITAOF, but `appendfsync always` gives the same promise: there
every reply comes after the fsync. So what the server can promise is tried out at the start, and looked at again now and
then; where it cannot, that is said, and nothing is called durable.
"""

import asyncio
from time import monotonic
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from redis_agent import log
from redis_agent.errors import DurabilityError
from redis_agent.log import Throttle
from redis_agent.store import keys
from redis_agent.store.stream import text
from redis_agent.telemetry import Telemetry

Level = Literal["memory", "disk", "replica"]

# How long one call waits, in ms: well below the client's timeout for a reply.
_WAIT_MS = 1_000
# Seconds: how often it is looked at whether the server still promises what it did at the start.
_LOOK_SECONDS = 30.0
# Two writes within the second that `everysec` leaves between two fsyncs: a server that says the second is on disk
# sooner than this, in seconds, has not looked.
_TOO_SOON_SECONDS = 0.3
_TRIALS = 2
# The small write that is waited for.
BARRIER: tuple[str, ...] = ("SET", keys.BARRIER, "1")


class Durability:
    """Waits for what the server promises.

    Args:
        client: for short commands; only one call waits at a time, on a connection of the pool.
        level: what is asked for.
        replicas: with `replica`, how many must have it.
        barrier: the small write, where it must be to another key.
    """

    def __init__(
        self,
        client: Redis,
        *,
        level: Level,
        replicas: int,
        telemetry: Telemetry,
        barrier: tuple[str, ...] = BARRIER,
    ) -> None:
        self._client = client
        self._barrier = barrier
        self._level = level
        self._telemetry = telemetry
        self._wait: tuple[str | int, ...] = ("WAIT", replicas, _WAIT_MS)
        if level == "disk":
            self._wait = ("WAITAOF", 1, 0, _WAIT_MS)
        self._wanted = 1 if level == "disk" else replicas
        self._replies_wait = False
        self._look_due = 0.0
        self._log = log.get("durability")
        self._throttle = Throttle()

    @property
    def waits(self) -> bool:
        """Whether there is anything to wait for: not with `memory`."""
        return self._level != "memory"

    async def reached(self, *ask: tuple[str, ...]) -> list[Any] | None:
        """Wait, about a second at most, until all that the server has executed so far is as durable as asked for.

        A server that took over meanwhile never had what its predecessor executed, and this call succeeds all the same.
        So ask the server in the same call for what shows that it has it.

        Args:
            ask: commands that only read, executed before what is waited for.

        Returns:
            their answers; None when it was not reached in time, or the server cannot promise it: ask again.

        Raises:
            RedisError, OSError: as the server or the connection reports it.
        """
        began = monotonic()
        if self._level == "disk" and began >= self._look_due:
            fault = await self._fault_of_disk()
            if fault:
                self._unreached(fault)
                await asyncio.sleep(_WAIT_MS / 1000)
                return None
            self._look_due = began + _LOOK_SECONDS
        async with self._client.pipeline(transaction=False) as pipe:
            for command in ask:
                pipe.execute_command(*command)
            if self.waits:
                pipe.execute_command(*self._barrier)
                if not self._replies_wait:
                    pipe.execute_command(*self._wait)
            answers: list[Any] = await pipe.execute()
        if not self.waits or self._replies_wait:
            return answers[: len(ask)]
        reached = answers[-1][0] if self._level == "disk" else answers[-1]
        if reached < self._wanted:
            self._unreached(f"{reached} of {self._wanted} replicas" if self._level == "replica" else "no fsync")
            return None
        self._telemetry.durable_seconds.observe(monotonic() - began)
        return answers[: len(ask)]

    def _unreached(self, why: str) -> None:
        self._telemetry.durability_unreached.inc()
        if self._throttle.due("unreached", monotonic()):
            self._log.warning("durability_not_reached", wanted=self._level, why=why)

    async def check(self) -> None:
        """Find out whether the server can promise what is asked for.

        Raises:
            DurabilityError: it cannot, in words.
            RedisError, OSError: as the server or the connection reports it.
        """
        if self._level == "disk":
            fault = await self._fault_of_disk(trial=True)
            if fault:
                raise DurabilityError(f"REDIS_AGENT_DURABILITY=disk cannot be promised: {fault}")

    async def _fault_of_disk(self, *, trial: bool = False) -> str:
        """Why this server cannot say what is on disk, or "". Settles how it is asked."""
        fsync = await self._setting("appendfsync")
        if await self._setting("appendonly") == "no":
            return "the server has no append-only file (appendonly no)"
        self._replies_wait = False
        try:
            await self._client.execute_command("WAITAOF", 0, 0, 1)
        except NoPermissionError:
            return "this user may not run WAITAOF"
        except ResponseError:
            if fsync == "always":
                self._replies_wait = True
                return ""
            return "the server has no WAITAOF (Redis 7.2 has) and not appendfsync always"
        if fsync == "always":
            return ""
        if fsync == "no":
            return "the server leaves fsync to the operating system (appendfsync no)"
        if fsync == "" and not trial:
            return ""
        if trial and not await self._believable():
            hint = "CONFIG GET appendfsync is not permitted" if fsync == "" else "see docs/reliability.md"
            return f"the server's WAITAOF answers before the fsync ({hint}); appendfsync always makes it true"
        return ""

    async def _setting(self, name: str) -> str:
        """A directive of the server; "" where the user may not see it."""
        try:
            reply = await self._client.execute_command("CONFIG", "GET", name)
        except ResponseError:
            return ""
        values = list(reply.values()) if isinstance(reply, dict) else reply[1::2]
        return text(values[0]) if values else ""

    async def _believable(self) -> bool:
        """Whether WAITAOF waits: of two writes in a row, the second must wait for the next fsync."""
        for _ in range(_TRIALS):
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.execute_command(*self._barrier)
                pipe.execute_command("WAITAOF", 1, 0, 3 * _WAIT_MS)
                await pipe.execute()
                began = monotonic()
                pipe.execute_command(*self._barrier)
                pipe.execute_command("WAITAOF", 1, 0, 3 * _WAIT_MS)
                await pipe.execute()
            if monotonic() - began < _TOO_SOON_SECONDS:
                return False
        return True
