"""Clients: how this program talks to Redis.

redis-py 8 repeats a failed command up to ten times by default, also one that was executed and lost only its
reply. Every client here is made without retries; what is worth repeating is repeated by its caller, through
scripts that recognise the repetition.
"""

import socket
from typing import Any

import hiredis
from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

# Seconds without an answer after which a connection counts as dead. Long enough for a slow script, short
# enough that a half-open connection is noticed.
REPLY_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0


# A batch must leave in one go: what does not fit the socket's buffer waits for the event loop, which is busy folding
# the next batch meanwhile, and the server idles.
_SEND_BUFFER_BYTES = 2_097_152


class _Tuned:
    """What redis-py's asyncio connections lack: commands packed in C, and room for a whole batch."""

    _writer: Any

    def pack_command(self, *args: Any) -> list[bytes]:
        """Pack one command; redis-py does this in Python, at a quarter of a worker's time."""
        first = args[0]
        if isinstance(first, str) and " " in first:  # "XGROUP CREATE" is two words
            args = (*first.split(), *args[1:])
        return [hiredis.pack_command(args)]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Widen the socket's send buffer, then greet the server."""
        sock = self._writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        await super().on_connect_check_health(check_health)  # type: ignore[misc]


def connect(url: str, *, name: str, reply_timeout: float = REPLY_TIMEOUT_SECONDS) -> Redis:
    """A client with a pool of its own, no retries, RESP2 and raw bytes as replies.

    Args:
        url: as in REDIS_URL; may hold a password, so it must not be logged.
        name: shown by CLIENT LIST.
        reply_timeout: seconds to wait for a reply; blocking reads must end well before it.
    """
    client: Redis = Redis.from_url(
        url,
        protocol=2,  # hiredis reads pub/sub and streams faster in RESP2
        client_name=name,
        socket_timeout=reply_timeout,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    pool = client.connection_pool
    pool.connection_class = type("TunedConnection", (_Tuned, pool.connection_class), {})
    # Replies as they are: redis-py's own shaping of stream replies costs as much as reading them.
    for command in ("XREADGROUP", "XAUTOCLAIM"):
        client.response_callbacks.pop(command, None)
    return client


def subscription(client: Redis) -> Connection:
    """A connection outside the pool for a subscription; the caller connects and disconnects it.

    A PubSub object of redis-py reconnects silently, and what was published meanwhile is lost unnoticed.
    A bare connection breaks visibly.
    """
    connection: Connection = client.connection_pool.make_connection()
    return connection
