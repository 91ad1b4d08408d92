"""Clients of a Redis Cluster: a pool of connections to the primary of one slot, and a client of all slots.

All keys of a partition are in one slot, so to everybody else the pool is that of a plain server that moves at times:
a command that meets the wrong node has not run, and is sent again by who sends again whatever a broken connection has
cost. While a slot is on its way from one node to another, or has no primary, nothing is sent elsewhere: that waits.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from redis.asyncio import Connection, ConnectionPool, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterPipeline
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - what redis-py raises here
    MovedError,
    ReadOnlyError,
    RedisClusterException,
)

from redis_agent.store.address import HostPort
from redis_agent.store.recovery import sleep_unless
from redis_agent.store.topology import SlotMovedError, SlotMovingError, Topology

# Seconds between two looks at where the slot's primary is.
WATCH_SECONDS = 1.0


class _ToSlot(Connection):
    """Goes to the primary of the pool's slot, and knows when that is another one."""

    def __init__(self, *, slot_pool: "SlotPool", **options: Any) -> None:
        self._slot_pool = slot_pool
        super().__init__(**options)

    async def connect(self) -> None:
        """Connect to whichever node is the primary now."""
        if not self.is_connected:
            self.host, self.port = await self._slot_pool.primary()
            try:
                await super().connect()  # type: ignore[no-untyped-call]
            except (OSError, ConnectionError):
                await self._slot_pool.look_again()
                raise

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply.

        Raises:
            SlotMovedError, SlotMovingError: the node says that the slot is elsewhere.
        """
        try:
            return await super().read_response(*args, **options)
        except (MovedError, ReadOnlyError) as error:
            await self.disconnect(nowait=True)
            await self._slot_pool.look_again()
            raise SlotMovedError(f"the slot is not served by {self.host}:{self.port} ({error})") from error
        except AskError as error:
            await self.disconnect(nowait=True)  # of a pipeline, there is more to come that nobody will read
            raise SlotMovingError(f"the slot is being moved to another node ({error})") from error
        except ClusterDownError:
            # Said by a node that was cut off from the others, too, who have another primary by now.
            await self.disconnect(nowait=True)
            await self._slot_pool.look_again()
            raise

    def abandon(self) -> None:
        """End it at once, whoever waits for an answer: the node is not to be heard any more."""
        if self._writer is not None:
            self._writer.transport.abort()


class _ToSlotOverTLS(_ToSlot, SSLConnection):
    """The same over TLS."""


class WideClient(RedisCluster):
    """A client of all slots, for keys without a namespace.

    It tries again by itself, and when it gives up it says so as a broken connection does.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command on the node of its key."""
        with _as_broken():
            return await super().execute_command(*args, **options)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        """A pipeline of commands, each on the node of its key."""
        pipe = super().pipeline(transaction, shard_hint)
        pipe.__class__ = _WidePipeline  # type: ignore[type-abstract] # as redis-py makes it; it leaves one annotation
        return pipe


class _WidePipeline(ClusterPipeline):
    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        with _as_broken():
            replies: list[Any] = await super().execute(raise_on_error, allow_redirections)
        return replies


@contextlib.contextmanager
def _as_broken() -> Iterator[None]:
    try:
        yield
    except RedisClusterException as error:  # which is no RedisError
        raise ConnectionError(str(error)) from error


class SlotPool(ConnectionPool):
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
            slot_pool=self,
            **{name: value for name, value in options.items() if name not in ("host", "port")},
        )

    def make_connection(self) -> Any:
        """A connection; it is watched, also outside the pool."""
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call]
        self._made.add(connection)
        return connection

    async def primary(self) -> HostPort:
        """Where the slot's primary is.

        Raises:
            ConnectionError: no node says.
        """
        return await self._topology.primary(self._slot)

    async def look_again(self) -> None:
        """What is known has led to the wrong node."""
        await self._topology.refresh()

    async def watch(self, stop: asyncio.Event) -> None:
        """Leave every node that is not the primary of the slot (any more), until told to stop."""
        while not await sleep_unless(stop, WATCH_SECONDS):
            await self._topology.refresh()
            primary = self._topology.known_primary(self._slot)
            for connection in list(self._made):
                if primary is not None and connection.is_connected and (connection.host, connection.port) != primary:
                    connection.abandon()
