"""Clients: how this program talks to Redis.

redis-py 8 repeats a failed command up to ten times by default, also one that was executed and lost only its
reply. Every client here is made without retries; what is worth repeating is repeated by its caller, through
scripts that recognise the repetition.
"""

from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

# Seconds without an answer after which a connection counts as dead. Long enough for a slow script, short
# enough that a half-open connection is noticed.
REPLY_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0


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
