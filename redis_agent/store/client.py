"""Clients: how this program talks to Redis.

redis-py 8 repeats a failed command up to ten times by default, also one that was executed and lost only its
reply. Every client here is made without retries; what is worth repeating is repeated by its caller, through
scripts that recognise the repetition.
"""

import asyncio
import contextlib
import math
from functools import cache
from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import BusyLoadingError, ResponseError

from redis_agent.store import keys
from redis_agent.store.address import Address, HostPort
from redis_agent.store.cluster import InCluster, SlotPool, WideClient
from redis_agent.store.namespace import NamespacedClient
from redis_agent.store.sentinel import MasterPool
from redis_agent.store.stream import text
from redis_agent.store.topology import NODE_TIMEOUT_SECONDS, Topology, slot_of
from redis_agent.store.tuned import Tuned, TunedPool

# Seconds without an answer after which a connection counts as dead. Long enough for a slow script, short
# enough that a half-open connection is noticed.
REPLY_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0
# The same where no connection is left because its node is not the primary any more, and no script is slow.
NODE_REPLY_SECONDS = 3.0


class _Client(NamespacedClient):
    """What redis-py's client lacks: a server that finds a key of the wrong type does not say which one."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command; if one of the agent's keys has the wrong type, the error names it."""
        try:
            return await super().execute_command(*args, **options)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE") or "(key " in str(error):
                raise
            wrong = [await self._wrong(arg) for arg in args if isinstance(arg, str) and arg in keys.SHARED_TYPES]
            named = "; ".join(filter(None, wrong))
            raise (ResponseError(f"WRONGTYPE {named}") if named else error) from error

    async def _wrong(self, key: str) -> str:
        """What is wrong with a key of the agent's, in words, or ""."""
        found = text(await self.type(key))
        expected = keys.SHARED_TYPES[key]
        named = self.namespace + key
        return "" if found in ("none", expected) else f"the key {named} is a {found}, not a {expected}"


def connect(
    address: Address,
    *,
    name: str,
    reply_timeout: float = REPLY_TIMEOUT_SECONDS,
    namespace: str = "",
    topology: Topology | None = None,
) -> Redis:
    """A client with a pool of its own, no retries, RESP2 and raw bytes as replies.

    With Sentinels, each new connection goes to whatever they say is the master, and is refused while that is none; in a
    cluster to the primary of the namespace's slot.

    Args:
        address: where the server is.
        name: shown by CLIENT LIST.
        reply_timeout: seconds to wait for a reply; blocking reads must end well before it.
        namespace: stands in front of every key that the client names; in a cluster a hash tag.
        topology: of the cluster, shared by the clients of a process; None makes one.
    """
    options = _options(address, name, reply_timeout)
    kind = options.pop("connection_class", Connection)
    pool: ConnectionPool
    if address.cluster:
        known = topology or _topology(address, kind, options)
        pool = SlotPool(known, slot_of(namespace), Tuned, kind, options)
    elif address.sentinels is not None:
        pool = MasterPool(address.sentinels, Tuned, kind, options)
    else:
        pool = TunedPool(connection_class=type("TunedConnection", (Tuned, kind), {}), **options)
    client = _Client(connection_pool=pool)
    client.auto_close_connection_pool = True
    client.namespace = namespace
    # Replies as they are: redis-py's own shaping of stream replies costs as much as reading them.
    for command in ("XREADGROUP", "XAUTOCLAIM"):
        client.response_callbacks.pop(command, None)
    return client


def _options(address: Address, name: str, reply_timeout: float) -> dict[str, Any]:
    return {
        **parse_url(address.url),
        "protocol": 2,  # hiredis reads pub/sub and streams faster in RESP2
        "client_name": name,
        "driver_info": _driver(),
        "socket_timeout": reply_timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        **({} if address.url.startswith("unix:") else {"socket_keepalive": True}),
    }


@cache
def _driver() -> DriverInfo:
    """What a connection says of the library; redis-py looks it up on the disk for each, which holds up all others."""
    return DriverInfo()


def topology_of(address: Address, *, name: str) -> Topology | None:
    """What is known of the cluster at this address; None where there is none."""
    if not address.cluster:
        return None
    options = _options(address, name, NODE_TIMEOUT_SECONDS)
    return _topology(address, options.pop("connection_class", Connection), options)


def _topology(address: Address, kind: type[Connection], options: dict[str, Any]) -> Topology:
    tuned = type("TunedConnection", (Tuned, kind), {})

    def to_node(node: HostPort) -> Connection:
        connection: Connection = tuned(**{**options, "host": node[0], "port": node[1]})
        return connection

    return Topology(address.cluster, to_node, hostnames=issubclass(kind, SSLConnection))


def wide_client(address: Address, topology: Topology | None, *, name: str) -> Redis:
    """A client of keys without a namespace, wherever they are: of all slots of a cluster, or of a whole server."""
    if topology is None:
        return connect(address, name=name)
    options = _options(address, name, NODE_REPLY_SECONDS)
    kind = options.pop("connection_class", Connection)
    tuned = type("TunedConnection", (Tuned, InCluster, kind), {})

    def to_node(node: HostPort) -> Redis:
        pool = TunedPool(connection_class=tuned, topology=topology, **{**options, "host": node[0], "port": node[1]})
        client = _Client(connection_pool=pool)
        client.auto_close_connection_pool = True
        return client

    return WideClient(topology, to_node)


async def follow_master(client: Redis, stop: asyncio.Event) -> None:
    """Where Sentinels or a cluster lead: leave a server as soon as it is not the master any more.

    Returns when told to stop.
    """
    pool = client.connection_pool
    if isinstance(pool, MasterPool | SlotPool):
        await pool.watch(stop)


def subscription(client: Redis) -> Connection:
    """A connection outside the pool for a subscription; the caller connects and disconnects it.

    A PubSub object of redis-py reconnects silently, and what was published meanwhile is lost unnoticed.
    A bare connection breaks visibly.
    """
    connection: Connection = client.connection_pool.make_connection()
    return connection


async def arrived(connection: Connection) -> list[Any]:
    """Wait for a message of a subscription, and take with it all that have arrived, in their order.

    Asking redis-py for each costs more than all that a bridge does with one. While a server loads its data it passes on
    what is published and refuses a PING: that is a sign of life as well, and not among the replies.

    Returns:
        replies; one that is an error is an exception among them, but the first is raised.

    Raises:
        RedisError, OSError: the subscription has ended.
    """
    replies = []
    with contextlib.suppress(BusyLoadingError):
        # For redis-py it is a reason to disconnect. Whoever listens does so when the subscription has ended.
        replies.append(await connection.read_response(timeout=math.inf, disconnect_on_error=False))
    parser: Any = connection._parser  # noqa: SLF001 - redis-py has no other way to what it has read already
    while (reply := parser._reader.gets()) is not NOT_ENOUGH_DATA:  # noqa: SLF001
        if not isinstance(reply, BusyLoadingError):
            replies.append(reply)
    return replies
