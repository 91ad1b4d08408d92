"""The bridge: what is published on the channel becomes durable.

Every replica subscribes. One holds the lease and writes; its batches carry the position of their first event, so
that a batch sent again after a lost reply is not written twice, and the lease's fencing token, so that a leader that
was stopped and comes back is refused. A replica that does not lead lets go of what it receives.

The way of one event, and what its loss costs at each step if the process dies there:

1. published, on its way in the subscription   missed until another bridge leads: a gap, counted when one takes over
2. in the buffer                                the same
3. written, reply not seen                      nothing: it is in the stream once
4. confirmed                                    nothing
"""

import asyncio
import math
import sys
from collections import deque
from typing import Any

from redis.asyncio import Connection, Redis
from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.clock import Clock
from redis_agent.log import Throttle
from redis_agent.store.client import subscription
from redis_agent.store.lease import Leadership, fencing_token
from redis_agent.store.mirror import Mirror
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.telemetry import Liveness, Telemetry

# A subscription is asked for a sign of life this often, and given up after so many seconds of silence.
PING_SECONDS = 1.0
SILENCE_SECONDS = 5.0
# A leader that has nothing to write says at least this often that it is there.
ALIVE_SECONDS = 0.5
# One batch holds the server up for about this many bytes at most.
BATCH_BYTES = 1_048_576


# What Python needs for an event beside its bytes.
_OVERHEAD_BYTES = 130
# An event and when it was received, ms.
Received = tuple[int, bytes]


class Buffer:
    """Events received but not yet written, oldest first, bounded in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._events: deque[Received] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def size_bytes(self) -> int:
        """Size of what is held."""
        return self._bytes

    def add(self, at_ms: int, event: bytes) -> int:
        """Keep an event; how many of the oldest had to be dropped for it."""
        self._events.append((at_ms, event))
        self._bytes += len(event) + _OVERHEAD_BYTES
        dropped = 0
        while self._bytes > self._max_bytes and len(self._events) > 1:
            self._bytes -= len(self._events.popleft()[1]) + _OVERHEAD_BYTES
            dropped += 1
        return dropped

    def take(self, count: int, max_bytes: int) -> list[Received]:
        """Remove and return the oldest events, at least one if there are any."""
        batch: list[Received] = []
        size = 0
        while self._events and len(batch) < count:
            size += len(self._events[0][1])
            if batch and size > max_bytes:
                break
            batch.append(self._events.popleft())
        self._bytes -= sum(len(event) + _OVERHEAD_BYTES for _, event in batch)
        return batch

    def clear(self) -> None:
        """Let go of everything."""
        self._events.clear()
        self._bytes = 0


class Bridge:
    """Mirrors the channel into the stream.

    Args:
        client: for everything but the subscription.
        channel: where services publish.
        leadership: of the bridge's lease.
        batch_size: events written at once, at most.
        buffer_bytes: how much is held while the stream cannot be written.
    """

    def __init__(
        self,
        *,
        client: Redis,
        channel: str,
        leadership: Leadership,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        batch_size: int,
        buffer_bytes: int,
    ) -> None:
        self._client = client
        self._channel = channel
        self._leadership = leadership
        self._mirror = Mirror(client)
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._batch_size = batch_size
        self._log = log.get("bridge")
        self._buffer = Buffer(buffer_bytes)
        self._in_flight: list[Received] = []
        self._first_position = 0
        self._leading_as: str | None = None
        self._before_lease = 0
        self._overflowing = False
        self._throttle = Throttle()
        self._arrived = asyncio.Event()
        self._heard = 0.0
        self._heard_ms = 0
        self._subscribed = False

    @property
    def ready(self) -> bool:
        """Whether what is published now is received, and written by this process or another."""
        return self._subscribed and (self._leading_as is not None or self._leadership.held_by_other)

    async def run(self, stop: asyncio.Event) -> None:
        """Mirror until told to stop; then write what was received and hand the lease over."""
        listened, released = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leadership.run(released))
            writer = tasks.create_task(self._write(listened))
            await self._listen(stop)
            listened.set()
            self._arrived.set()
            await writer
            released.set()

    # Listening ---------------------------------------------------------------------------------------------

    async def _listen(self, stop: asyncio.Event) -> None:
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        broken_since_ms: int | None = None
        while not stop.is_set():
            connection = subscription(self._client)
            try:
                await self._subscribe(connection)
                recovery.succeeded()
                if broken_since_ms is not None:
                    await self._resubscribed(broken_since_ms)
                    broken_since_ms = None
                await self._receive(connection, stop)
            except (RedisError, OSError, asyncio.IncompleteReadError) as error:
                # What was published after the last sign of life may have passed unseen.
                broken_since_ms = broken_since_ms or self._heard_ms or None
                self._subscribed = False
                await recovery.after(error, "subscription")
            finally:
                self._subscribed = False
                await connection.disconnect(nowait=True)

    async def _subscribe(self, connection: Connection) -> None:
        await connection.connect()
        await connection.send_command("SUBSCRIBE", self._channel)
        reply = await connection.read_response()
        if reply[0] != b"subscribe":
            raise ConnectionError(f"unexpected answer to SUBSCRIBE: {reply[0]!r}")
        self._subscribed = True
        self._hear()
        self._log.info("subscribed", channel=self._channel)

    async def _receive(self, connection: Connection, stop: asyncio.Event) -> None:
        """Read messages until the subscription breaks or has been ended in good order."""
        keeper = asyncio.create_task(self._keep_alive(connection, stop))
        try:
            while True:
                reply: list[Any] = await connection.read_response(timeout=math.inf)
                kind = reply[0]
                if kind == b"message":
                    self._received(reply[2])
                elif kind == b"unsubscribe":
                    return
                self._hear()
        finally:
            keeper.cancel()

    def _received(self, event: bytes) -> None:
        self._telemetry.bridge_received.inc()
        leads = self._leading_as is not None or self._leadership.value is not None
        if not leads:
            if self._leadership.held_by_other:
                return
            self._before_lease += 1  # nobody is known to lead: kept until that is known
        dropped = self._buffer.add(self._clock.now_ms(), event)
        if dropped:
            self._dropped(dropped)
        if not self._arrived.is_set():
            self._arrived.set()

    def _dropped(self, events: int) -> None:
        """The buffer is full: the oldest events had to go. A gap, counted once while it lasts."""
        self._telemetry.bridge_dropped.inc(events)
        if not self._overflowing:
            self._overflowing = True
            self._telemetry.bridge_gaps.inc()
        if self._throttle.due("dropped", asyncio.get_running_loop().time()):
            self._log.error(
                "bridge_buffer_full",
                dropped=events,
                holds_bytes=self._buffer.size_bytes,
                meaning="the stream could not be written for too long; the oldest events are lost",
            )

    def _hear(self) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._heard_ms = self._clock.now_ms()

    async def _keep_alive(self, connection: Connection, stop: asyncio.Event) -> None:
        """Ask for signs of life, cut a connection that gives none, end the subscription on stop."""
        while not await sleep_unless(stop, PING_SECONDS):
            self._liveness.beat("bridge.listen")
            if asyncio.get_running_loop().time() - self._heard > SILENCE_SECONDS:
                self._log.warning("subscription_silent", seconds=SILENCE_SECONDS)
                await connection.disconnect(nowait=True)
                return
            try:
                await connection.send_command("PING", check_health=False)
            except (RedisError, OSError):
                return  # the reader sees the same break
        try:
            # Its confirmation comes after every message that was published before it.
            await connection.send_command("UNSUBSCRIBE", check_health=False)
            await asyncio.sleep(SILENCE_SECONDS)
        except (RedisError, OSError):
            return
        await connection.disconnect(nowait=True)

    async def _resubscribed(self, since_ms: int) -> None:
        if self._leading_as is not None:
            await self._count_gap(self._clock.now_ms() - since_ms, "subscription_broken")

    async def _count_gap(self, length_ms: int, why: str) -> None:
        self._telemetry.bridge_gaps.inc()
        self._log.error(
            "bridge_gap",
            why=why,
            seconds=round(length_ms / 1000, 3),
            meaning="events published in this time may have been missed",
        )
        await self._mirror.count_gap(length_ms)

    # Writing -----------------------------------------------------------------------------------------------

    async def _write(self, listened: asyncio.Event) -> None:
        # Waits are not cut short by a stop: what was received is still to be written, and trying must not spin.
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=asyncio.Event())
        while True:
            self._liveness.beat("bridge.write")
            try:
                lease = self._leadership.value
                if lease is None:
                    if self._leadership.held_by_other:
                        self._let_go()
                    if listened.is_set():
                        unwritten = len(self._buffer) + len(self._in_flight)
                        if unwritten:
                            self._log.error("bridge_stopped_with_unwritten_events", events=unwritten)
                        return
                    await self._leadership.held(timeout=0.2)
                    continue
                if lease != self._leading_as:
                    await self._begin(lease)
                wrote = await self._write_next(lease)
                recovery.succeeded()
                if not wrote and listened.is_set():
                    return
            except (RedisError, OSError) as error:
                await recovery.after(error, "write")

    async def _begin(self, lease: str) -> None:
        """A term begins: continue at the position that the stream has reached.

        Raises:
            RedisError, OSError: the term has not begun; the next round tries again.
        """
        before, token = self._leading_as, fencing_token(lease)
        again = before is not None and token in (1, fencing_token(before) + 1)
        if before is not None and not again:
            # Another led in between and wrote what we hold, or some of it.
            self._forget()
            self._leading_as = None
        elif before is None and token != 1:
            # What came before the lease was another leader's to write.
            self._buffer.take(self._before_lease, sys.maxsize)
        self._before_lease = 0
        written, alive_ms = await self._mirror.position()
        # From here on nothing is awaited until the term has begun, or a failure would leave it half begun.
        self._leading_as = lease
        if again:
            # Nobody led in between (or the server forgot all): what is held is still ours to write.
            self._log.info("bridge_leads_again", position=written, held=len(self._buffer))
            return
        self._first_position = written + 1
        self._log.info("bridge_leads", position=written)
        if alive_ms:
            await self._count_gap(max(0, self._clock.now_ms() - alive_ms), "no_bridge_was_leading")

    def _let_go(self) -> None:
        """Another leads: what is held and not written is lost with the lease."""
        unwritten = len(self._buffer) + len(self._in_flight)
        self._forget()
        if self._leading_as is not None:
            self._leading_as = None
            self._log.warning("bridge_follows", unwritten=unwritten)

    def _forget(self) -> None:
        self._buffer.clear()
        self._in_flight = []
        self._before_lease = 0
        self._telemetry.bridge_buffer_bytes.set(0)

    async def _write_next(self, lease: str) -> bool:
        """Write one batch, or a sign of life when there was nothing for a while; whether a batch."""
        if not self._in_flight:
            if not len(self._buffer):
                self._arrived.clear()
                try:
                    async with asyncio.timeout(ALIVE_SECONDS):
                        await self._arrived.wait()
                except TimeoutError:
                    pass
            self._in_flight = self._buffer.take(self._batch_size, BATCH_BYTES)
        result = await self._mirror.write(
            lease,
            first_position=self._first_position,
            now_ms=self._clock.now_ms(),
            events=self._in_flight,
        )
        if result.outcome == "fenced":
            self._leadership.lose("fenced")
        elif result.outcome == "hole":
            expected = self._first_position - 1
            self._log.error("stream_state_lost", expected=expected, found=result.position)
            self._first_position = result.position + 1
        else:
            wrote = len(self._in_flight)
            self._telemetry.bridge_written.inc(wrote)
            self._overflowing = False
            self._in_flight = []
            self._first_position = result.position + 1
            self._telemetry.bridge_buffer_bytes.set(self._buffer.size_bytes)
            return wrote > 0
        return True
