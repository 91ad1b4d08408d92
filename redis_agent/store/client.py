"""Clients: how this program talks to Redis.

redis-py 8 repeats a failed command up to ten times by default, also one that was executed and lost only its
reply. Every client here is made without retries; what is worth repeating is repeated by its caller, through
scripts that recognise the repetition.
"""

import asyncio
import builtins
import socket
from collections.abc import Iterable
from typing import Any

import hiredis
from redis.asyncio import Connection, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004 - what redis-py raises here

# Seconds without an answer after which a connection counts as dead. Long enough for a slow script, short
# enough that a half-open connection is noticed.
REPLY_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0


# A batch must leave in one go: what does not fit the socket's buffer waits for the event loop, which is busy folding
# the next batch meanwhile, and the server idles.
_SEND_BUFFER_BYTES = 2_097_152


class _Tuned(AbstractConnection):
    """What redis-py's asyncio connections lack: commands packed in C, and room for a whole batch."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """Pack one command; redis-py does this in Python, at a quarter of a worker's time."""
        first = args[0]
        if isinstance(first, str) and " " in first:  # "XGROUP CREATE" is two words
            args = (*first.split(), *args[1:])
        return [hiredis.pack_command(args)]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Send at once, in this step of the event loop.

        redis-py sends from a task of its own (asyncio.wait_for): the event loop may fold a whole batch before that
        runs, and on Python 3.11 wait_for can swallow a cancellation, so that a task would not end.
        """
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()  # type: ignore[no-untyped-call]
        if isinstance(command, str):
            command = command.encode()
        try:
            async with asyncio.timeout(self.socket_timeout):
                writer = self._writer
                if writer is None:
                    raise ConnectionError("the connection is closed")  # noqa: TRY301
                writer.writelines([command] if isinstance(command, bytes) else command)
                await writer.drain()
        except builtins.TimeoutError:
            await self.disconnect(nowait=True)
            raise TimeoutError("Timeout writing to socket") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            raise ConnectionError(f"Error while writing to socket: {error}") from error
        except BaseException:
            # Half a command may have been sent.
            await self.disconnect(nowait=True)
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Widen the socket's send buffer, then greet the server."""
        sock = self._writer.get_extra_info("socket") if self._writer is not None else None
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        await super().on_connect_check_health(check_health)


def connect(url: str, *, name: str, reply_timeout: float = REPLY_TIMEOUT_SECONDS) -> Redis:
    """A client with a pool of its own, no retries, RESP2 and raw bytes as replies.

    Args:
        url: as in REDIS_URL; may hold a password, so it must not be logged.
        name: shown by CLIENT LIST.
        reply_timeout: seconds to wait for a reply; blocking reads must end well before it.
    """
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    client: Redis = Redis.from_url(
        url,
        protocol=2,  # hiredis reads pub/sub and streams faster in RESP2
        client_name=name,
        socket_timeout=reply_timeout,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        **keepalive,
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
