"""Where and how the bridges subscribe.

On one server there is no question where. In a cluster what is published on any node reaches every subscriber of every
node, but each node has an order of its own, and the bridges count in one: so they agree on a node. It need not be the
primary of anything: a replica outlives the death of every primary, and its own promotion. With sharded pub/sub it is
the same within the shard of a partition: its primary and replicas all hear what is published in its slots.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError, NoPermissionError, RedisError  # noqa: A004 - what redis-py raises here

from redis_agent import log
from redis_agent.errors import PubsubError
from redis_agent.store import keys, scripts
from redis_agent.store.client import subscription
from redis_agent.store.stream import text
from redis_agent.store.topology import NODE_TIMEOUT_SECONDS, Node, Topology
from redis_agent.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Pubsub:
    """What the commands and pushes of a kind of pub/sub are called."""

    subscribe: str
    unsubscribe: str
    subscribed: bytes
    unsubscribed: bytes
    message: bytes


PLAIN = Pubsub("SUBSCRIBE", "UNSUBSCRIBE", b"subscribe", b"unsubscribe", b"message")
SHARDED = Pubsub("SSUBSCRIBE", "SUNSUBSCRIBE", b"ssubscribe", b"sunsubscribe", b"smessage")


async def recorded_pubsub(home: Redis) -> str | None:
    """By which kind of pub/sub the bridges of a cluster hear, "plain" or "sharded".

    None before one has started, and for a user who may not know.
    """
    with contextlib.suppress(NoPermissionError):
        found: Any = await home.get(keys.BRIDGE_PUBSUB)
        return text(found) if found else None
    return None


async def check_pubsub(home: Redis, wanted: str) -> None:
    """Record by which kind of pub/sub the bridges of a cluster hear, where that is not recorded yet.

    Raises:
        PubsubError: another kind is recorded, or the server does not know this one.
        RedisError, OSError: as the server or the connection reports it.
    """
    if wanted == "sharded" and not await _knows(home, SHARDED.subscribe):
        raise PubsubError("the server has no sharded pub/sub (Redis 7.0 or later has): set REDIS_AGENT_PUBSUB to plain")
    await home.set(keys.BRIDGE_PUBSUB, wanted, nx=True)
    compare_pubsub(await recorded_pubsub(home), wanted)


def compare_pubsub(recorded: str | None, wanted: str) -> None:
    """For who only publishes.

    Raises:
        PubsubError: another kind than the wanted one is recorded.
    """
    if recorded not in (None, wanted):
        raise PubsubError(
            f"the bridges hear by {recorded} pub/sub, as Redis has it, and REDIS_AGENT_PUBSUB is {wanted}: set it to "
            f"{recorded}, or see docs/cluster.md for how it is changed"
        )


async def _knows(client: Redis, command: str) -> bool:
    """Whether the server has a command; True where this user may not ask."""
    try:
        found: list[Any] = await client.execute_command("COMMAND INFO", command)
    except NoPermissionError:
        return True
    return bool(found and found[0])


class Source(Protocol):
    """Where a bridge subscribes."""

    def connection(self) -> AbstractAsyncContextManager[tuple[Connection, str]]:
        """A connection to subscribe on, and the node it leads to; "" is the one server there is.

        Raises:
            RedisError, OSError: there is none at the moment.
        """

    async def elsewhere(self) -> bool:
        """Whether the bridges are to subscribe to another node by now."""


class OneServer:
    """The server that everything is on."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[Connection, str]]:
        """See `Source`."""
        connection = subscription(self._client)
        try:
            await connection.connect()
            yield connection, ""
        finally:
            await connection.disconnect(nowait=True)

    async def elsewhere(self) -> bool:
        """Never: the scripts say whether they see the subscription."""
        return False


async def agree_on_node(home: Redis, *, before: str, wanted: str) -> str:
    """The node that all bridges are to subscribe to: this one, unless another was agreed on since that one before."""
    return text(await scripts.run(home, "bridge_node", [keys.BRIDGE_NODE], [before, wanted]))


class AgreedNode:
    """The node of a cluster that the bridges have agreed on, as a partition has it.

    Another one is agreed on when the cluster says that it has failed, or that it is not of the slot's shard any more,
    or when a bridge could not reach it for long.

    Args:
        client: of the partition that remembers it.
        topology: of the cluster.
        slot: whose shard it is a node of; None for any node.
        patience_seconds: how long a bridge tries to reach the node.
        telemetry: counts links to the node that were made anew.
    """

    def __init__(
        self,
        client: Redis,
        topology: Topology,
        *,
        slot: int | None = None,
        patience_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._client = client
        self._topology = topology
        self._slot = slot
        self._patience_seconds = patience_seconds
        self._telemetry = telemetry
        # By which node's link what is published there comes, and since when it stands.
        self._links: dict[str, int] = {}
        self._node = ""
        # Which node cannot be reached, and since when.
        self._unreached: tuple[str, float] = ("", 0.0)
        self._log = log.get("bridge")

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[Connection, str]]:
        """See `Source`."""
        node = await self._agree()
        connection = self._topology.connect(node.address)
        try:
            try:
                async with asyncio.timeout(NODE_TIMEOUT_SECONDS):
                    await connection.connect()
            except (RedisError, OSError):
                if self._unreached[0] != node.id:
                    self._unreached = node.id, self._now()
                raise
            self._node, self._unreached, self._links = node.id, ("", 0.0), {}
            yield connection, node.id
        finally:
            await connection.disconnect(nowait=True)

    async def elsewhere(self) -> bool:
        """See `Source`; False while nobody says."""
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(NODE_TIMEOUT_SECONDS):
                await self._topology.refresh()
                if self._lost(self._node):
                    return True
                agreed = await agree_on_node(self._client, before="", wanted=self._node)
                if agreed != self._node:
                    return True
                await self._look_at_links()
        return False

    async def _look_at_links(self) -> None:
        """Say when a link of the cluster's bus was made anew: what was on it may be lost, and no subscriber is told."""
        address = next(node.address for node in self._topology.nodes if node.id == self._node)
        eligible = {node.id for node in self._eligible}
        links = {node: since for node, since in (await self._topology.links_to(address)).items() if node in eligible}
        anew = [node for node, since in links.items() if self._links.get(node, since) != since]
        self._links |= links
        if anew:
            self._telemetry.bridge_links_renewed.inc(len(anew))
            self._log.warning(
                "bus_link_renewed",
                nodes=anew,
                meaning="what was published on these nodes a moment before may not have reached the bridges",
            )

    async def _agree(self) -> Node:
        await self._topology.refresh()
        found: Any = await self._client.get(keys.BRIDGE_NODE)
        agreed = text(found or b"")
        if self._lost(agreed) or self._given_up(agreed):
            wanted = self._choice(without=agreed)
            agreed = await agree_on_node(self._client, before=agreed, wanted=wanted.id)
            self._log.warning("subscription_node", node=agreed, before=text(found or b""))
        for node in self._topology.nodes:
            if node.id == agreed:
                return node
        raise ConnectionError(f"the node that bridges subscribe to, {agreed}, is not known yet")

    @property
    def _eligible(self) -> Sequence[Node]:
        """The nodes that hear what is published, as far as is known."""
        return self._topology.nodes if self._slot is None else self._topology.shard(self._slot)

    def _lost(self, node_id: str) -> bool:
        """Whether a node is none, has failed, or does not hear what is published, as the cluster has it."""
        nodes = self._eligible
        return bool(nodes) and not any(node.id == node_id and not node.failed for node in nodes)

    def _given_up(self, node_id: str) -> bool:
        unreached, since = self._unreached
        return unreached == node_id and self._now() - since > self._patience_seconds

    def _choice(self, *, without: str) -> Node:
        """A replica if there is one; all who see the same nodes choose the same."""
        nodes = [node for node in self._eligible if not node.failed and node.id != without]
        if not nodes:
            raise ConnectionError("no node of the cluster is there to subscribe to")
        return min(nodes, key=lambda node: (node.primary, node.id))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
