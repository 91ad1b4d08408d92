"""A pool of connections to whatever Sentinel says is the master.

Every new connection asks. One that a failover has left behind is noticed: its server ends it when it is demoted, or
answers READONLY, which redis-py takes as a reason to ask again. A master that was only cut off or stopped for a while
goes on as one until the Sentinels reach it, which takes them ten seconds; who still publishes there speaks to nobody
who matters. So the pool also looks now and then who the master is, and leaves any other server at once.
"""

import asyncio
import contextlib
import weakref
from typing import Any

from redis.asyncio import Connection, Sentinel, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, NoPermissionError, RedisError  # noqa: A004 - what redis-py raises here

from redis_agent.store.address import Sentinels
from redis_agent.store.recovery import sleep_unless
from redis_agent.store.tuned import TunedPool

# Seconds between two looks at who the master is.
WATCH_SECONDS = 1.0
# A Sentinel that does not answer sooner is passed over for the next.
SENTINEL_TIMEOUT_SECONDS = 1.0


class _ToMaster(SentinelManagedConnection):
    """Says no to a server that is no master (yet, or any more): it would take no writes, or lose them."""

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Greet the server, and ask what it is.

        Raises:
            ConnectionError: it is a replica.
        """
        await super().on_connect_check_health(check_health)
        await self.send_command("ROLE")
        try:
            role = (await self.read_response())[0].decode()
        except NoPermissionError:
            return  # then the first write says it
        if role != "master":
            raise ConnectionError(f"the server at {self.host}:{self.port} is a {role}, not the master")

    def abandon(self) -> None:
        """End it at once, whoever waits for an answer: the server is not to be heard any more."""
        if self._writer is not None:
            self._writer.transport.abort()


class _ToMasterOverTLS(_ToMaster, SentinelManagedSSLConnection):
    """The same over TLS."""


class MasterPool(TunedPool, SentinelConnectionPool):
    """Connections to the master; closing it closes those to the Sentinels, too.

    Args:
        sentinels: whom to ask.
        tuned: a class that the connections inherit from besides.
        kind: Connection or SSLConnection; the Sentinels are asked over TLS, too, with the same certificates.
        options: of the connections.
    """

    def __init__(
        self,
        sentinels: Sentinels,
        tuned: type[Any],
        kind: type[Connection],
        options: dict[str, Any],
    ) -> None:
        over_tls = issubclass(kind, SSLConnection)
        certificates = {name: value for name, value in options.items() if name.startswith("ssl_")}
        self._made: weakref.WeakSet[_ToMaster] = weakref.WeakSet()
        self._sentinel = Sentinel(
            list(sentinels.addresses),
            sentinel_kwargs={
                "username": sentinels.username or None,
                "password": sentinels.password or None,
                "socket_timeout": SENTINEL_TIMEOUT_SECONDS,
                "socket_connect_timeout": SENTINEL_TIMEOUT_SECONDS,
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
                **({"ssl": True, **certificates} if over_tls else {}),
            },
        )
        super().__init__(  # type: ignore[no-untyped-call]
            sentinels.master,
            self._sentinel,
            connection_class=type("TunedConnection", (tuned, _ToMasterOverTLS if over_tls else _ToMaster), {}),
            **{name: value for name, value in options.items() if name not in ("host", "port")},
        )

    def make_connection(self) -> _ToMaster:
        """A connection; it is watched, also outside the pool."""
        connection: _ToMaster = super().make_connection()  # type: ignore[no-untyped-call]
        self._made.add(connection)
        return connection

    async def watch(self, stop: asyncio.Event) -> None:
        """Leave every server that is not the master (any more), until told to stop."""
        while not await sleep_unless(stop, WATCH_SECONDS):
            with contextlib.suppress(RedisError, OSError):  # no Sentinel answers, or none knows a master: stay
                master = await self._sentinel.discover_master(self.service_name)
                for connection in list(self._made):
                    if connection.is_connected and (connection.host, connection.port) != master:
                        connection.abandon()

    async def aclose(self) -> None:
        """Close every connection."""
        await super().aclose()
        await self._sentinel.aclose()
