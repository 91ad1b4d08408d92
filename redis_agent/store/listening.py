"""Where the bridges subscribe.

On one server there is no question. In a cluster what is published on any node reaches every subscriber of every node,
but each node has an order of its own, and the bridges count in one: so they agree on a node. It need not be the primary
of anything: a replica outlives the death of every primary, and its own promotion.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 - what redis-py raises here

from redis_agent import log
from redis_agent.store import keys, scripts
from redis_agent.store.client import subscription
from redis_agent.store.stream import text
from redis_agent.store.topology import NODE_TIMEOUT_SECONDS, Node, Topology


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
    """The node of a cluster that the bridges have agreed on, as the home partition has it.

    Another one is agreed on when the cluster says that it has failed, or when a bridge could not reach it for long.

    Args:
        home: client of the home partition.
        topology: of the cluster.
        patience_seconds: how long a bridge tries to reach the node.
    """

    def __init__(self, home: Redis, topology: Topology, *, patience_seconds: float) -> None:
        self._home = home
        self._topology = topology
        self._patience_seconds = patience_seconds
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
            self._node, self._unreached = node.id, ("", 0.0)
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
                agreed: Any = await self._home.get(keys.BRIDGE_NODE)
                return agreed is not None and text(agreed) != self._node
        return False

    async def _agree(self) -> Node:
        await self._topology.refresh()
        found: Any = await self._home.get(keys.BRIDGE_NODE)
        agreed = text(found or b"")
        if self._lost(agreed) or self._given_up(agreed):
            wanted = self._choice(without=agreed)
            agreed = await agree_on_node(self._home, before=agreed, wanted=wanted.id)
            self._log.warning("subscription_node", node=agreed, before=text(found or b""))
        for node in self._topology.nodes:
            if node.id == agreed:
                return node
        raise ConnectionError(f"the node that bridges subscribe to, {agreed}, is not known yet")

    def _lost(self, node_id: str) -> bool:
        """Whether a node is none, or has failed, as the cluster has it."""
        nodes: Sequence[Node] = self._topology.nodes
        return bool(nodes) and not any(node.id == node_id and not node.failed for node in nodes)

    def _given_up(self, node_id: str) -> bool:
        unreached, since = self._unreached
        return unreached == node_id and self._now() - since > self._patience_seconds

    def _choice(self, *, without: str) -> Node:
        """A replica if there is one; all who see the same nodes choose the same."""
        nodes = [node for node in self._topology.nodes if not node.failed and node.id != without]
        if not nodes:
            raise ConnectionError("no node of the cluster is there to subscribe to")
        return min(nodes, key=lambda node: (node.primary, node.id))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
