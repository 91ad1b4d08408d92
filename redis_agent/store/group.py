"""The consumer groups: created where they are missing, and what was lost with a stream that somebody deleted."""

from dataclasses import dataclass

from redis.asyncio import Redis

from redis_agent.store import keys, scripts


@dataclass(frozen=True, slots=True)
class Created:
    """A group was missing, and is there now.

    Attributes:
        at: the id from which on it reads.
        lost: entries that were deleted with the stream before they were acked, and that nobody was told of so far.
    """

    at: str
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """A group by its name, and the keys that say what it has done: as `lua/group_ensure.lua` takes them."""

    name: str
    keys: tuple[str, str, str, str]


EVENTS = Group(keys.GROUP, (keys.STREAM, keys.FLOOR, keys.ABOVE, keys.ACCOUNT))
ALERTS = Group(keys.DISPATCHER_GROUP, (keys.OUTBOX, keys.OUTBOX_FLOOR, keys.OUTBOX_ABOVE, keys.OUTBOX_ACCOUNT))


async def ensure(client: Redis, group: Group) -> Created | None:
    """Create a stream and its group where missing; None when they are there."""
    at, lost = await scripts.run(client, "group_ensure", list(group.keys), [group.name, keys.PARKED])
    return Created(at.decode(), int(lost)) if at else None
