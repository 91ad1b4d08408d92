"""The bridge: what is published on the channel becomes durable.

Every replica subscribes. One holds the lease and writes; the others follow in lockstep (`lockstep.py`) and hold exactly
what is not known to be written, so that whoever takes over continues with the next event. Batches carry the position
of their first event, so that one sent again after a lost reply is not written twice, and the lease's fencing token, so
that a leader that was stopped and comes back is refused.

The way of one event, and what its loss costs at each step if the process dies there:

1. published, on its way in the subscription   nothing while another bridge is in step: it gets the same, and holds it
2. held, not written                            the same
3. written, reply not seen                      nothing: it is in the stream once, and the others were told in the
                                                same step
4. written, not durable yet                     nothing: where that is waited for (REDIS_AGENT_DURABILITY), the others
                                                hold it until they are told that it is
5. confirmed                                    nothing
Without another bridge in step, what is published until the next one leads is missed: a gap, counted.
"""

import asyncio
import math
from typing import Any

from redis.asyncio import Connection, Redis
from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.bridge_terms import Terms
from redis_agent.clock import Clock
from redis_agent.lockstep import Lockstep
from redis_agent.store.client import arrived, subscription
from redis_agent.store.lease import Leadership
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.telemetry import Liveness, Telemetry

# A subscription is asked for a sign of life this often, and given up after so many questions without any answer.
# Counted, not timed: a process that was stopped for a while has not asked, and its subscription may be whole.
PING_SECONDS = 1.0
UNANSWERED_PINGS = 5
# How long the end of a subscription is waited for.
UNSUBSCRIBE_SECONDS = 5.0
# How long a bridge that stops waits for what it has written to be durable.
CONFIRM_SECONDS = 5.0
# What could not be confirmed is tried again after this.
CONFIRM_AGAIN_SECONDS = 0.1
# With nothing to write, the writer looks around this often.
IDLE_SECONDS = 0.5


class Bridge:
    """Mirrors the channel into the stream.

    Args:
        client: knows how to connect.
        channel: where services publish.
        control: where the bridges speak to each other.
        alive: only listened to, so that the server knows whose subscription stands.
        lockstep: what this bridge holds.
        leadership: of the bridge's lease.
        terms: what it does with what it holds.
    """

    def __init__(
        self,
        *,
        client: Redis,
        channel: str,
        control: str,
        alive: str,
        lockstep: Lockstep,
        leadership: Leadership,
        terms: Terms,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
    ) -> None:
        self._client = client
        self._channel = channel
        self._control = control
        self._alive = alive
        self._lockstep = lockstep
        self._leadership = leadership
        self._terms = terms
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._log = log.get("bridge")
        self._heard = 0.0
        self._unanswered = 0
        self._subscribed = asyncio.Event()
        self._confirm_until = math.inf

    def hindrances(self) -> list[str]:
        """What keeps what is published now from being written, in words; nothing when all is well."""
        return self._terms.hindrances()

    async def run(self, stop: asyncio.Event) -> None:
        """Mirror until told to stop; then write what was received and hand the lease over."""
        listened, released = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_part(released))
            writer = tasks.create_task(self._write(listened))
            confirmer = tasks.create_task(self._confirm())
            await self._listen(stop)
            self._confirm_until = asyncio.get_running_loop().time() + CONFIRM_SECONDS
            listened.set()
            self._terms.arrived.set()
            await writer
            confirmer.cancel()
            released.set()
            self._subscribed.set()

    async def _take_part(self, released: asyncio.Event) -> None:
        """Ask for the lease from the first subscription on: a leader that hears nothing would begin with a gap."""
        await self._subscribed.wait()
        await self._leadership.run(released)

    # Listening ---------------------------------------------------------------------------------------------

    async def _listen(self, stop: asyncio.Event) -> None:
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        while not stop.is_set():
            connection = subscription(self._client)
            try:
                await self._subscribe(connection)
                await self._receive(connection, recovery, stop)
            except (RedisError, OSError, asyncio.IncompleteReadError) as error:
                self._terms.broke(self._heard)
                await recovery.after(error, "subscription")
            finally:
                await connection.disconnect(nowait=True)

    async def _subscribe(self, connection: Connection) -> None:
        await connection.connect()
        await connection.send_command("SUBSCRIBE", self._channel, self._control, self._alive)
        for _ in range(3):
            reply = await connection.read_response()
            if reply[0] != b"subscribe":
                raise ConnectionError(f"unexpected answer to SUBSCRIBE: {reply[0]!r}")
        self._lockstep.subscribed()
        self._subscribed.set()
        self._heard = asyncio.get_running_loop().time()
        self._unanswered = 0
        self._log.info("subscribed", channel=self._channel)
        self._terms.arrived.set()

    async def _receive(self, connection: Connection, recovery: Recovery, stop: asyncio.Event) -> None:
        """Read messages until the subscription breaks or has been ended in good order."""
        keeper = asyncio.create_task(self._keep_alive(connection, recovery, stop))
        try:
            while self._take(await arrived(connection)):
                pass
        finally:
            keeper.cancel()

    def _take(self, replies: list[Any]) -> bool:
        """Hold what was published and heed what was said, in the order of the server; False at the end."""
        received, dropped, ended = 0, 0, False
        problem: Exception | None = None
        now_ms, control = self._clock.now_ms(), self._control.encode()
        for reply in replies:
            if isinstance(reply, Exception):
                problem = reply
                break
            kind = reply[0]
            if kind == b"message":
                if reply[1] == control:
                    self._terms.heed(reply[2])
                else:
                    received += 1
                    dropped += self._lockstep.receive(now_ms, reply[2])
            elif kind == b"unsubscribe":
                ended = True
                break
        self._heard, self._unanswered = asyncio.get_running_loop().time(), 0
        if received:
            self._telemetry.bridge_received.inc(received)
            self._terms.arrived.set()
        if dropped:
            self._terms.say_dropped(dropped)
        if problem is not None:
            raise problem
        return not ended

    async def _keep_alive(self, connection: Connection, recovery: Recovery, stop: asyncio.Event) -> None:
        """Ask for signs of life, cut a connection that gives none, end the subscription on stop."""
        while not await sleep_unless(stop, PING_SECONDS):
            self._liveness.beat("bridge.listen")
            if self._unanswered >= UNANSWERED_PINGS:
                self._log.warning("subscription_silent", unanswered=self._unanswered)
                await connection.disconnect(nowait=True)
                return
            if self._terms.elsewhere:
                self._log.warning("subscription_elsewhere", meaning="it is not on the server that is written to")
                await connection.disconnect(nowait=True)
                return
            if not self._unanswered:
                recovery.succeeded()  # it stands: what is cut at once is made again only after a pause
            try:
                await connection.send_command("PING", check_health=False)
                self._unanswered += 1
            except (RedisError, OSError):
                return  # the reader sees the same break
        try:
            # Its confirmation comes after every message that was published before it.
            await connection.send_command("UNSUBSCRIBE", check_health=False)
            await asyncio.sleep(UNSUBSCRIBE_SECONDS)
        except (RedisError, OSError):
            return
        await connection.disconnect(nowait=True)

    # Writing -----------------------------------------------------------------------------------------------

    async def _write(self, listened: asyncio.Event) -> None:
        # Waits are not cut short by a stop: what was received is still to be written, and trying must not spin.
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=asyncio.Event())
        while True:
            self._liveness.beat("bridge.write")
            self._telemetry.bridge_buffer_bytes.set(self._lockstep.size_bytes)
            lease = self._leadership.value
            if lease is None:
                self._terms.follow()
                if listened.is_set():
                    if len(self._lockstep) and not self._leadership.held_by_other:
                        self._log.error("bridge_stopped_with_unwritten_events", events=len(self._lockstep))
                    return
                await self._leadership.held(timeout=0.2)
                continue
            try:
                done = await self._terms.round(lease)
                recovery.succeeded()
            except (RedisError, OSError) as error:
                await recovery.after(error, "write")
                continue
            if done and listened.is_set() and self._all_confirmed():
                return
            if done:
                self._terms.arrived.clear()
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        await self._terms.arrived.wait()
                except TimeoutError:
                    pass

    def _all_confirmed(self) -> bool:
        """Whether a bridge that has written everything need not wait any longer before it stops."""
        unconfirmed = self._terms.unconfirmed
        if unconfirmed and asyncio.get_running_loop().time() < self._confirm_until:
            return False
        if unconfirmed:
            self._log.error("bridge_stopped_with_unconfirmed_events", events=unconfirmed)
        return True

    async def _confirm(self) -> None:
        """Let go of what is written, all at once, when it is durable. Has nothing to do unless that is waited for."""
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=asyncio.Event())
        while True:
            await self._terms.wrote.wait()
            self._terms.wrote.clear()
            try:
                if not await self._terms.confirm():
                    self._terms.wrote.set()
                    await asyncio.sleep(CONFIRM_AGAIN_SECONDS)
                recovery.succeeded()
            except (RedisError, OSError) as error:
                self._terms.wrote.set()
                await recovery.after(error, "confirm")
