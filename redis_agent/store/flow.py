"""How a stream flows through its group: what is unread, what is pending, since when. Everybody reads it here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.clock import stream_id
from redis_agent.store import keys
from redis_agent.store.stream import text


@dataclass(frozen=True, slots=True)
class Flow:
    """A stream and its group at one moment.

    Attributes:
        exists: whether the group is there.
        length: entries in the stream.
        last_delivered: id of the last entry given to the group; where there is no group, where it would be created.
        lag: entries the group has not read; None when that cannot be told, which is not 0.
        pending: entries read but not acked.
        oldest_pending: id of the oldest of these, or None.
        oldest_unread: id of the oldest entry that the group has not read, or None.
    """

    exists: bool = False
    length: int = 0
    last_delivered: str = "0-0"
    lag: int | None = 0
    pending: int = 0
    oldest_pending: str | None = None
    oldest_unread: str | None = None

    def oldest_pending_ms(self, now_ms: int) -> int:
        """Age of the oldest pending entry; 0 when none is pending."""
        return _age(self.oldest_pending, now_ms)

    def oldest_unread_ms(self, now_ms: int) -> int:
        """Age of the oldest unread entry; 0 when all are read."""
        return _age(self.oldest_unread, now_ms)

    def oldest_ms(self, now_ms: int) -> int:
        """Age of the oldest entry that is not acked, read or not; 0 when all are."""
        return max(self.oldest_pending_ms(now_ms), self.oldest_unread_ms(now_ms))


async def flow(
    client: Redis, *, stream: str = keys.STREAM, group: str = keys.GROUP, floor_key: str = keys.FLOOR
) -> Flow:
    """Look at a stream and its group, in two round trips; a stream that is missing has no entries.

    Raises:
        ResponseError: the key of the stream has another type, or may not be read.
        RedisError, OSError: Redis could not be asked.
    """
    async with client.pipeline(transaction=False) as pipe:
        pipe.xlen(stream)
        pipe.xinfo_groups(stream)
        pipe.xpending(stream, group)
        pipe.get(floor_key)
        replies = await pipe.execute(raise_on_error=False)
    *facts, floor = replies
    length, groups, pending = (_known(reply) for reply in facts)
    found = next((g for g in groups or [] if text(g["name"]) == group), None)
    if found is not None:
        delivered = text(found["last-delivered-id"])
    else:
        delivered = text(floor) if isinstance(floor, bytes) else "0-0"
    unread = await client.execute_command("XRANGE", stream, f"({delivered}", "+", "COUNT", 1)
    waiting = _first_id(unread)
    return Flow(
        exists=found is not None,
        length=length or 0,
        last_delivered=delivered,
        lag=_lag(found, waiting, delivered, length or 0),
        pending=int(found["pending"]) if found is not None else 0,
        oldest_pending=_first_pending(pending) if found is not None else None,
        oldest_unread=waiting,
    )


def together(flows: Sequence[Flow]) -> Flow:
    """Several streams and their groups as if they were one; what is not known of one is not known of all."""
    if len(flows) == 1:
        return flows[0]
    lags = [one.lag for one in flows]
    return Flow(
        exists=all(one.exists for one in flows),
        length=sum(one.length for one in flows),
        last_delivered=max((one.last_delivered for one in flows), key=stream_id),
        lag=None if None in lags else sum(lag or 0 for lag in lags),
        pending=sum(one.pending for one in flows),
        oldest_pending=min(filter(None, (one.oldest_pending for one in flows)), key=stream_id, default=None),
        oldest_unread=min(filter(None, (one.oldest_unread for one in flows)), key=stream_id, default=None),
    )


async def outbox_flow(client: Redis) -> Flow:
    """The same of the alerts and their dispatcher: what is not acked, nobody has received.

    Raises:
        ResponseError, RedisError, OSError: as `flow`.
    """
    return await flow(client, stream=keys.OUTBOX, group=keys.DISPATCHER_GROUP, floor_key=keys.OUTBOX_FLOOR)


def _lag(group: dict[str, Any] | None, waiting: str | None, delivered: str, length: int) -> int | None:
    """Entries that are unread, as far as that is known."""
    if waiting is None:
        return 0  # whatever was deleted or reloaded, there is nothing after what was delivered
    if group is not None:
        lag = group.get("lag")
        return None if lag is None else int(lag)
    # A group yet to be created reads everything, or everything after its floor, which the server does not count.
    return length if delivered == "0-0" else None


def is_missing(error: Exception) -> bool:
    """Whether a command failed only because there is no such stream or group."""
    said = str(error)
    return isinstance(error, ResponseError) and (said.startswith("NOGROUP") or "no such key" in said.lower())


def _known(reply: Any) -> Any:
    """A reply; None where there is no such stream or group."""
    if not isinstance(reply, Exception):
        return reply
    if is_missing(reply):
        return None
    raise reply


def _first_id(entries: Any) -> str | None:
    """The first id of an XRANGE reply, in redis-py's shape or as it came."""
    return text(entries[0][0]) if entries else None


def _first_pending(reply: Any) -> str | None:
    """The smallest id of an XPENDING summary."""
    smallest = reply.get("min") if isinstance(reply, dict) else None
    return text(smallest) if smallest else None


def _age(entry_id: str | None, now_ms: int) -> int:
    return max(0, now_ms - int(entry_id.partition("-")[0])) if entry_id else 0
