"""A bridge's share in one partition: it takes part in who writes what is published for it, and writes while it leads.

`bridge.py` listens, once for all partitions; what it hears goes to the share that it is for.
"""

import asyncio
import math

import structlog
from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.bridge_terms import Terms
from redis_agent.lockstep import Lockstep
from redis_agent.store.lease import Leadership
from redis_agent.store.recovery import Recovery
from redis_agent.telemetry import Liveness, Telemetry

# How long a bridge that stops waits for what it has written to be durable.
CONFIRM_SECONDS = 5.0
# What could not be confirmed is tried again after this.
CONFIRM_AGAIN_SECONDS = 0.1
# With nothing to write, the writer looks around this often.
IDLE_SECONDS = 0.5


class Share:
    """What a bridge holds and does of one partition.

    Args:
        control: the channel on which the bridges speak to each other of this partition.
        lockstep: what this bridge holds.
        leadership: of the bridge's lease.
        terms: what it does with what it holds.
        number: of the partition; None where there is but one.
    """

    def __init__(
        self,
        *,
        control: str,
        lockstep: Lockstep,
        leadership: Leadership,
        terms: Terms,
        telemetry: Telemetry,
        liveness: Liveness,
        number: int | None = None,
    ) -> None:
        self.control = control
        self.terms = terms
        self._lockstep = lockstep
        self._leadership = leadership
        self._telemetry = telemetry
        self._liveness = liveness
        self._number = number
        self._log = log.get("bridge")
        self._subscribed = asyncio.Event()
        self._confirm_until = math.inf

    async def run(self, listened: asyncio.Event) -> None:
        """Take part until nothing more comes and all that was received is written; then hand the lease over."""
        if self._number is not None:
            structlog.contextvars.bind_contextvars(partition=self._number)
        released = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_part(released))
            writer = tasks.create_task(self._write(listened))
            confirmer = tasks.create_task(self._confirm())
            await listened.wait()
            self._confirm_until = asyncio.get_running_loop().time() + CONFIRM_SECONDS
            self.terms.arrived.set()
            await writer
            confirmer.cancel()
            released.set()
            self._subscribed.set()

    async def _take_part(self, released: asyncio.Event) -> None:
        """Ask for the lease from the first subscription on: a leader that hears nothing would begin with a gap."""
        await self._subscribed.wait()
        await self._leadership.run(released)

    def subscribed(self, node: str) -> None:
        """A subscription stands, on this node."""
        self._lockstep.subscribed(node)
        self._subscribed.set()
        self.terms.arrived.set()

    def receive(self, now_ms: int, message: bytes) -> int:
        """Hold what was published; how many of the oldest had to go for it."""
        return self._lockstep.receive(now_ms, message)

    async def _write(self, listened: asyncio.Event) -> None:
        """Do the leader's work, round by round, until all is written and nothing more comes."""
        # Waits are not cut short by a stop: what was received is still to be written, and trying must not spin.
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=asyncio.Event())
        while True:
            self._liveness.beat("bridge.write")
            self._telemetry.bridge_buffer_bytes.set(self._lockstep.size_bytes)
            lease = self._leadership.value
            if lease is None:
                self.terms.follow()
                if listened.is_set():
                    if len(self._lockstep) and not self._leadership.held_by_other:
                        self._log.error("bridge_stopped_with_unwritten_events", events=len(self._lockstep))
                    return
                await self._leadership.held(timeout=0.2)
                continue
            try:
                done = await self.terms.round(lease)
                recovery.succeeded()
            except (RedisError, OSError) as error:
                await recovery.after(error, "write")
                continue
            if done and listened.is_set() and self._all_confirmed():
                return
            if done:
                self.terms.arrived.clear()
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        await self.terms.arrived.wait()
                except TimeoutError:
                    pass

    def _all_confirmed(self) -> bool:
        """Whether a bridge that has written everything need not wait any longer before it stops."""
        unconfirmed = self.terms.unconfirmed
        if unconfirmed and asyncio.get_running_loop().time() < self._confirm_until:
            return False
        if unconfirmed:
            self._log.error("bridge_stopped_with_unconfirmed_events", events=unconfirmed)
        return True

    async def _confirm(self) -> None:
        """Let go of what is written, all at once, when it is durable. Has nothing to do unless that is waited for."""
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=asyncio.Event())
        while True:
            await self.terms.wrote.wait()
            self.terms.wrote.clear()
            try:
                if not await self.terms.confirm():
                    self.terms.wrote.set()
                    await asyncio.sleep(CONFIRM_AGAIN_SECONDS)
                recovery.succeeded()
            except (RedisError, OSError) as error:
                self.terms.wrote.set()
                await recovery.after(error, "confirm")
