"""The bridge: what is published on the channel becomes durable.

Every replica subscribes, once. What it hears belongs to partitions, of which there is one on one server; of each, one
bridge holds the lease and writes (`bridge_share.py`). The others follow in lockstep (`lockstep.py`) and hold exactly
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

With sharded pub/sub there is a bridge in each partition, with a subscription of its own, and nothing is to be routed.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Connection
from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.bridge_share import Share
from redis_agent.clock import Clock
from redis_agent.log import Throttle
from redis_agent.store.client import arrived
from redis_agent.store.listening import PLAIN, Pubsub, Source
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.telemetry import Liveness, Telemetry

# A subscription is asked for a sign of life this often, and given up after so many questions without any answer.
# Counted, not timed: a process that was stopped for a while has not asked, and its subscription may be whole.
PING_SECONDS = 1.0
UNANSWERED_PINGS = 5
# When nothing comes for so long, although it is asked for, that was a silence. So long after one a subscription that is
# dropped counts as missing messages since it began: the node was stopped, and learns only now what became of its slots.
SILENCE_SECONDS, AFTER_SILENCE_SECONDS = PING_SECONDS + 0.3, 5.0
# How long the end of a subscription is waited for.
UNSUBSCRIBE_SECONDS = 5.0


class _DroppedError(ConnectionError):
    """The server has ended the subscriptions of all who listened there."""


class Bridge:
    """Mirrors the channel into the stream.

    Args:
        source: where it subscribes.
        channel: where services publish.
        alive: only listened to, so that the server knows whose subscription stands; None where it is not asked.
        shares: one for each partition.
        route: the number of the partition that a message is for; None where there is but one.
        pubsub: the kind of pub/sub.
        stray: with sharded pub/sub, a channel on which what is published plainly is heard, too, and that is said.
    """

    def __init__(
        self,
        *,
        source: Source,
        channel: str,
        alive: str | None,
        shares: Sequence[Share],
        route: Callable[[bytes], int] | None,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        pubsub: Pubsub = PLAIN,
        stray: str | None = None,
    ) -> None:
        self._source = source
        self._channels = [channel, *(share.control for share in shares), *([] if alive is None else [alive])]
        self._pubsub = pubsub
        self._stray = stray
        self._shares = shares
        self._controls = {share.control.encode(): share for share in shares}
        self._route = route
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._log = log.get("bridge")
        self._heard = 0.0
        self._unanswered = 0
        # From when to when the last silence lasted.
        self._silence = (0.0, float("-inf"))
        self._leaving = False
        self._throttle = Throttle()

    def hindrances(self) -> list[str]:
        """What keeps what is published now from being written, in words; nothing when all is well."""
        return list(dict.fromkeys(problem for share in self._shares for problem in share.terms.hindrances()))

    async def run(self, stop: asyncio.Event) -> None:
        """Mirror until told to stop; then write what was received and hand the leases over."""
        listened = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for share in self._shares:
                tasks.create_task(share.run(listened))
            await self._listen(stop)
            listened.set()

    # Listening ---------------------------------------------------------------------------------------------

    async def _listen(self, stop: asyncio.Event) -> None:
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        while not stop.is_set():
            try:
                async with self._source.connection() as (connection, node):
                    await self._subscribe(connection, node)
                    await self._receive(connection, node, recovery, stop)
            except (RedisError, OSError, asyncio.IncompleteReadError) as error:
                for share in self._shares:
                    share.terms.broke(self._heard)
                await recovery.after(error, "subscription")

    async def _subscribe(self, connection: Connection, node: str) -> None:
        if self._stray is not None:
            await connection.send_command(PLAIN.subscribe, self._stray)
        await connection.send_command(self._pubsub.subscribe, *self._channels)
        awaited = len(self._channels)
        while awaited:
            reply = await connection.read_response()
            if reply[0] == self._pubsub.subscribed:
                awaited -= 1
            elif self._pubsub is PLAIN:
                raise ConnectionError(f"unexpected answer to SUBSCRIBE: {reply[0]!r}")
            # Else of a subscription that was dropped, or plain, before this row of messages begins.
        for share in self._shares:
            share.subscribed(node)
        self._heard = asyncio.get_running_loop().time()
        self._unanswered = 0
        self._log.info("subscribed", channel=self._channels[0], **({"node": node} if node else {}))

    async def _receive(self, connection: Connection, node: str, recovery: Recovery, stop: asyncio.Event) -> None:
        """Read messages until the subscription breaks or has been ended in good order."""
        keepers = [
            asyncio.create_task(self._keep_alive(connection, recovery, stop)),
            asyncio.create_task(self._look_around(connection, stop)),
        ]
        try:
            while True:
                try:
                    if not self._take(await arrived(connection)):
                        return
                except _DroppedError:
                    # After a failover the node is still of the shard: asked at once, little passes unheard. If it is
                    # not, because the slot has moved, it says so.
                    began, ended = self._silence
                    heard = began if self._heard - ended < AFTER_SILENCE_SECONDS else self._heard
                    for share in self._shares:
                        share.terms.broke(heard, all_of_us=True)
                    self._log.warning("subscription_dropped", meaning="the slot's primary is another one")
                    await self._subscribe(connection, node)
        finally:
            for keeper in keepers:
                keeper.cancel()

    def _take(self, replies: list[Any]) -> bool:
        """Hold what was published and heed what was said, in the order of the server; False at the end."""
        received, strays, ended = 0, 0, False
        dropped = [0] * len(self._shares)
        problem: Exception | None = None
        now_ms, route, shares, own = self._clock.now_ms(), self._route, self._shares, self._pubsub.message
        touched: set[int] = set()
        for reply in replies:
            if isinstance(reply, Exception):
                problem = reply
                break
            kind = reply[0]
            if kind == own:
                share = self._controls.get(reply[1])
                if share is not None:
                    share.terms.heed(reply[2])
                    continue
            elif kind == PLAIN.message:
                strays += 1
            elif kind == self._pubsub.unsubscribed:
                ended = self._leaving
                problem = None if ended else _DroppedError("the server has ended the subscription")
                break
            else:
                continue
            received += 1
            number = 0 if route is None else route(reply[2])
            dropped[number] += shares[number].receive(now_ms, reply[2])
            touched.add(number)
        now = asyncio.get_running_loop().time()
        if now - self._heard > SILENCE_SECONDS:
            self._silence = self._heard, now
        self._heard, self._unanswered = now, 0
        if received:
            self._telemetry.bridge_received.inc(received)
        if strays:
            self._say_strays(strays)
        for number in touched:
            shares[number].terms.arrived.set()
            if dropped[number]:
                shares[number].terms.say_dropped(dropped[number])
        if problem is not None:
            raise problem
        return not ended

    def _say_strays(self, events: int) -> None:
        self._telemetry.bridge_strays.inc(events)
        if self._throttle.due("strays", self._heard):
            self._log.error(
                "published_plainly",
                channel=self._stray,
                events=events,
                meaning="the bridges hear by sharded pub/sub: what is not of the home partition becomes a dead letter",
                remedy="publish with SPUBLISH on the channel of the experiment's partition (docs/cluster.md)",
            )

    async def _keep_alive(self, connection: Connection, recovery: Recovery, stop: asyncio.Event) -> None:
        """Ask for signs of life, cut a connection that gives none, end the subscription on stop."""
        while not await sleep_unless(stop, PING_SECONDS):
            self._liveness.beat("bridge.listen")
            if self._unanswered >= UNANSWERED_PINGS:
                self._log.warning("subscription_silent", unanswered=self._unanswered)
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
            self._leaving = True
            await connection.send_command(self._pubsub.unsubscribe, check_health=False)
            await asyncio.sleep(UNSUBSCRIBE_SECONDS)
        except (RedisError, OSError):
            return
        await connection.disconnect(nowait=True)

    async def _look_around(self, connection: Connection, stop: asyncio.Event) -> None:
        """Cut a connection that is not where the bridges are to subscribe; a cluster may take a while to say."""
        while not await sleep_unless(stop, PING_SECONDS):
            elsewhere = any(share.terms.elsewhere for share in self._shares) or await self._source.elsewhere()
            if elsewhere and not stop.is_set():
                self._log.warning("subscription_elsewhere", meaning="it is not where the bridges are to subscribe")
                await connection.disconnect(nowait=True)
                return
