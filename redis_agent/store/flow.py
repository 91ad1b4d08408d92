"""How the stream flows: what is unread, what is pending, and for how long."""

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.store import keys


@dataclass(frozen=True, slots=True)
class Flow:
    """The stream and its group at one moment.

    Attributes:
        group_exists: whether the consumer group is there.
        length: entries in the stream.
        lag: entries the group has not read; None when the server cannot tell.
        pending: entries read but not acked.
        oldest_pending_ms: age of the oldest pending entry; 0 when none is pending.
        oldest_unread_ms: age of the oldest unread entry; 0 when all are read.
    """

    group_exists: bool
    length: int
    lag: int | None
    pending: int
    oldest_pending_ms: int
    oldest_unread_ms: int


async def flow(client: Redis, now_ms: int) -> Flow:
    """Look at the stream, in two round trips.

    Raises:
        RedisError, OSError: Redis could not be asked.
    """
    async with client.pipeline(transaction=False) as pipe:
        pipe.xlen(keys.STREAM)
        pipe.xinfo_groups(keys.STREAM)
        pipe.xpending(keys.STREAM, keys.GROUP)
        length, groups, pending = await pipe.execute(raise_on_error=False)
    for reply in (length, groups, pending):
        if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            raise reply
    group = next((g for g in _rows(groups) if g["name"] == keys.GROUP.encode()), None)
    if group is None:
        return Flow(
            group_exists=False,
            length=length if isinstance(length, int) else 0,
            lag=None,
            pending=0,
            oldest_pending_ms=0,
            oldest_unread_ms=0,
        )
    delivered = group["last-delivered-id"].decode()
    unread = await client.execute_command("XRANGE", keys.STREAM, f"({delivered}", "+", "COUNT", 1)
    waiting = _first_id(unread)
    lag = group.get("lag")
    if lag is None and waiting is None:
        lag = 0  # whatever was deleted or reloaded, there is nothing after what was delivered
    oldest_pending = _first_pending(pending)
    return Flow(
        group_exists=True,
        length=length,
        lag=lag,
        pending=int(group["pending"]),
        oldest_pending_ms=_age(oldest_pending, now_ms),
        oldest_unread_ms=_age(waiting, now_ms),
    )


def _rows(reply: Any) -> list[dict[str, Any]]:
    return reply if isinstance(reply, list) else []


def _first_id(entries: Any) -> str | None:
    """The first id of an XRANGE reply, in redis-py's shape or as it came."""
    if not entries:
        return None
    first: bytes = entries[0][0]
    return first.decode()


def _first_pending(reply: Any) -> str | None:
    """The smallest id of an XPENDING summary."""
    smallest = reply.get("min") if isinstance(reply, dict) else None
    return smallest.decode() if smallest else None


def _age(entry_id: str | None, now_ms: int) -> int:
    return max(0, now_ms - int(entry_id.partition("-")[0])) if entry_id else 0
