"""Clients of a Redis Cluster: a pool of connections to the primary of one slot, and a client of all slots.

All keys of a partition are in one slot, so to everybody else the pool is that of a plain server that moves at times:
a command that meets the wrong node has not run, and is sent again by who sends again whatever a broken connection has
cost. While a slot is on its way from one node to another, or has no primary, nothing is sent elsewhere: that waits.
"""

import asyncio
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.client import Pipeline
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - what redis-py raises here
    MovedError,
    ReadOnlyError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from redis_agent.store.address import HostPort
from redis_agent.store.namespace import keys_of
from redis_agent.store.recovery import sleep_unless
from redis_agent.store.topology import SlotMovedError, SlotMovingError, Topology, slot_of
from redis_agent.store.tuned import TunedPool

# Seconds between two looks at where the slot's primary is.
WATCH_SECONDS = 1.0


class InCluster(Connection):
    """Says of a node that is not the primary of what it was asked for what callers know from broken connections.

    Args:
        topology: looked at again then.
    """

    def __init__(self, *, topology: Topology, **options: Any) -> None:
        self._topology = topology
        super().__init__(**options)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply.

        Raises:
            SlotMovedError, SlotMovingError: the node says that the slot is elsewhere.
        """
        try:
            return await super().read_response(*args, **options)
        except (MovedError, ReadOnlyError) as error:
            await self.disconnect(nowait=True)
            await self._topology.refresh()
            raise SlotMovedError(f"the slot is not served by {self.host}:{self.port} ({error})") from error
        except AskError as error:
            await self.disconnect(nowait=True)  # of a pipeline, there is more to come that nobody will read
            raise SlotMovingError(f"the slot is being moved to another node ({error})") from error
        except ClusterDownError:
            # Said by a node that was cut off from the others, too, who have another primary by now.
            await self.disconnect(nowait=True)
            await self._topology.refresh()
            raise


class _ToSlot(InCluster):
    """Goes to the primary of the pool's slot."""

    def __init__(self, *, slot: int, topology: Topology, **options: Any) -> None:
        self._slot = slot
        super().__init__(topology=topology, **options)

    async def connect(self) -> None:
        """Connect to whichever node is the primary now."""
        if not self.is_connected:
            self.host, self.port = await self._topology.primary(self._slot)
            try:
                await super().connect()  # type: ignore[no-untyped-call]
            except (OSError, ConnectionError):
                await self._topology.refresh()
                raise

    def abandon(self) -> None:
        """End it at once, whoever waits for an answer: the node is not to be heard any more."""
        if self._writer is not None:
            self._writer.transport.abort()


class _ToSlotOverTLS(_ToSlot, SSLConnection):
    """The same over TLS."""


class SlotPool(TunedPool):
    """Connections to the primary of a slot.

    Args:
        topology: knows where that is.
        slot: which.
        tuned: a class that the connections inherit from besides.
        kind: Connection or SSLConnection.
        options: of the connections.
    """

    def __init__(
        self, topology: Topology, slot: int, tuned: type[Any], kind: type[Connection], options: dict[str, Any]
    ) -> None:
        self._topology = topology
        self._slot = slot
        self._made: weakref.WeakSet[_ToSlot] = weakref.WeakSet()
        to_slot = _ToSlotOverTLS if issubclass(kind, SSLConnection) else _ToSlot
        super().__init__(
            connection_class=type("TunedConnection", (tuned, to_slot), {}),
            slot=slot,
            topology=topology,
            **{name: value for name, value in options.items() if name not in ("host", "port")},
        )

    def make_connection(self) -> Any:
        """A connection; it is watched, also outside the pool."""
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call]
        self._made.add(connection)
        return connection

    async def watch(self, stop: asyncio.Event) -> None:
        """Leave every node that is not the primary of the slot (any more), until told to stop."""
        while not await sleep_unless(stop, WATCH_SECONDS):
            await self._topology.refresh()
            primary = self._topology.known(self._slot)
            for connection in list(self._made):
                if primary is not None and connection.is_connected and (connection.host, connection.port) != primary:
                    connection.abandon()


class WideClient(Redis):
    """A client of keys in any slot: each command goes to the primary of its keys, and is sent once.

    redis-py has one that tries again by itself. While nodes die it raises errors that are none of Redis, and its
    pipelines send again what may have been executed.

    Args:
        topology: knows where slots are.
        to_node: makes a client of one node.
    """

    def __init__(self, topology: Topology, to_node: Callable[[HostPort], Redis]) -> None:
        super().__init__(connection_pool=ConnectionPool())
        self._topology = topology
        self._to_node = to_node
        self._nodes: dict[HostPort, Redis] = {}

    async def node_of(self, command: Sequence[Any]) -> Redis:
        """A client of the primary of a command's keys.

        Raises:
            ConnectionError: no node says where that is.
            ValueError: its keys are in several slots, or there are none.
        """
        (slot,) = {slot_of(key) for key in keys_of(command)}
        address = await self._topology.primary(slot)
        if address not in self._nodes:
            self._nodes[address] = self._to_node(address)
        return self._nodes[address]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command on the primary of its keys."""
        node = await self.node_of(args)
        try:
            return await node.execute_command(*args, **options)
        except (OSError, ConnectionError, RedisTimeoutError):
            await self._topology.refresh()
            raise

    def pipeline(self, transaction: bool = False, shard_hint: str | None = None) -> "_WidePipeline":
        """A pipeline of commands, each on the primary of its keys.

        Raises:
            ValueError: a transaction was asked for, which there is on one node only.
        """
        if transaction:
            raise ValueError("there is no transaction over several nodes")
        return _WidePipeline(self, shard_hint)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close every connection."""
        for node in self._nodes.values():
            await node.aclose(close_connection_pool)


class _WidePipeline(Pipeline):
    def __init__(self, client: WideClient, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction=False, shard_hint=shard_hint)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, self.command_stack = self.command_stack, []
        replies: list[Any] = [None] * len(commands)
        groups: dict[Redis, list[int]] = {}
        for n, (args, _) in enumerate(commands):
            groups.setdefault(await self._client.node_of(args), []).append(n)

        async def run(node: Redis, numbers: list[int]) -> None:
            async with node.pipeline(transaction=False) as pipe:
                for n in numbers:
                    args, options = commands[n]
                    pipe.execute_command(*args, **options)
                for n, reply in zip(numbers, await pipe.execute(raise_on_error), strict=True):
                    replies[n] = reply

        await asyncio.gather(*(run(node, numbers) for node, numbers in groups.items()))
        return replies
