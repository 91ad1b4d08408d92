"""Prepares what each partition has of its own for another number of partitions: streams, indexes, counts.

Nothing of what is there is changed. What will be stands beside it under names of its own (`keys.arriving`), in the slot
where it will be needed, and is put into its place in one step (`arrive`).

Streams are merged in the order of their ids and divided anew, so of one experiment the order stays. An id that two
partitions have had is given once; the other entry gets the next. Every stream goes on above all ids that were given in
any of them: what remembers an id of the old stream (which entry set a gauge) is never later than what is to come.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.clock import stream_id
from redis_agent.errors import PartitionsError
from redis_agent.store import keys, scripts
from redis_agent.store.flow import is_missing
from redis_agent.store.partitions import Partition
from redis_agent.store.stream import received_ms, text, whole
from redis_agent.store.union import merged

_PAGE = 500
# Entries may be megabytes long: few are held at once.
_READ = 100

Id = tuple[int, int]
Fields = Mapping[bytes, bytes]

# What has a member or a field for each experiment.
_INDEXES = (keys.EXPERIMENTS, keys.TOUCHED, keys.FINALS, keys.COMPLETIONS)
# What is put into its place; what of it is not prepared goes, and begins anew.
OWN = (
    keys.STREAM,
    keys.DEAD_LETTERS,
    keys.OUTBOX,
    *_INDEXES,
    keys.FLOOR,
    keys.ABOVE,
    keys.UNAPPLIED,
    keys.ACCOUNT,
    keys.OUTBOX_FLOOR,
    keys.OUTBOX_ABOVE,
    keys.OUTBOX_ACCOUNT,
    keys.UNDELIVERED,
    keys.ANALYSES,
    keys.NEWEST_SUMMARY,
    keys.BRIDGE,
    keys.BRIDGE_READY,
    keys.SCHEDULER,
    keys.RECLAIM,
)


@dataclass(frozen=True, slots=True)
class Division:
    """How a stream is divided.

    Attributes:
        stream: its key.
        route: from the fields of an entry to the partition that it belongs to.
        groups: that are there whatever was.
        account: what is known of it beside the stream; "" for nothing.
        members: sets of ids of it.
        notes: hashes whose fields are ids of it.
    """

    stream: str
    route: Callable[[Fields], int]
    groups: frozenset[str] = frozenset()
    account: str = ""
    members: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as it was found.

    Attributes:
        length, added: entries that are there, and that ever were.
        last: the highest id that is known to have been given.
        first_ms: when the oldest entry came, by whichever of its times is later; None where there is none.
        groups: that read it.
    """

    length: int = 0
    added: int = 0
    last: Id = (0, 0)
    first_ms: int | None = None
    groups: frozenset[str] = frozenset()


@dataclass(slots=True)
class Divided:
    """What became of a stream.

    Attributes:
        lengths: entries of each new stream.
        last: the id that all new streams go on above.
        whole: whether every entry that there ever was is in them.
        dropped: entries older than some partition can tell of, left out.
        renumbered: entries that got another id.
    """

    lengths: list[int]
    last: Id = (0, 0)
    whole: bool = True
    dropped: int = 0
    renumbered: int = 0


@dataclass(slots=True)
class _Entry:
    """An entry with what is known of it besides: in which sets its id is, and what hashes say of it."""

    id: str
    fields: Fields
    members: Sequence[bool] = field(default_factory=list)
    notes: Sequence[bytes | None] = field(default_factory=list)


async def state_of(client: Redis, stream: str, account: str = "") -> StreamState:
    """How a stream is.

    Raises:
        RedisError, OSError: as the server or the connection reports it.
    """
    given = text(await client.hget(account, "last_id") or b"") if account else ""
    known = stream_id(given) if given else (0, 0)
    try:
        info: dict[str, Any] = await client.xinfo_stream(stream)
    except ResponseError as error:
        if is_missing(error):
            return StreamState(last=known)
        raise
    groups = await client.xinfo_groups(stream)
    oldest: Any = await client.xrange(stream, count=1)
    first_ms = None
    if oldest:
        entry_id = text(oldest[0][0])
        first_ms = max(stream_id(entry_id)[0], received_ms(oldest[0][1].get(b"at"), entry_id))
    return StreamState(
        length=int(info["length"]),
        added=int(info.get("entries-added", info["length"])),
        last=max(known, stream_id(text(info["last-generated-id"]))),
        first_ms=first_ms,
        groups=frozenset(text(group["name"]) for group in groups),
    )


async def divide_stream(
    sources: Sequence[Partition],
    targets: Sequence[Partition],
    division: Division,
    *,
    from_ms: int = 0,
) -> Divided:
    """Prepare a stream of each target.

    Args:
        sources: as many as there are.
        targets: as many as there will be.
        division: how.
        from_ms: what is older is left out, and nobody may take what is left for whole.
    """
    states = [await state_of(source.client, division.stream, division.account) for source in sources]
    divided = Divided([0] * len(targets), max(state.last for state in states), whole=from_ms == 0)
    outgoing = [_Outgoing(target, division) for target in targets]
    async for _, entry in merged(sources, lambda source: _entries(source.client, division), newest_first=False):
        if stream_id(entry.id)[0] < from_ms:
            divided.dropped += 1
        else:
            divided.renumbered += await outgoing[division.route(entry.fields)].add(entry)
    divided.last = max(divided.last, *(one.last for one in outgoing))
    divided.lengths = [one.length for one in outgoing]
    groups = division.groups.union(*(state.groups for state in states))
    if divided.last == (0, 0):
        return divided  # there never was an entry
    for one in outgoing:
        await one.end(divided, groups)
    return divided


async def _entries(client: Redis, division: Division) -> AsyncIterator[_Entry]:
    first = "-"
    while True:
        rows: Any = await client.xrange(division.stream, min=first, count=_READ)
        if not rows:
            return
        ids = [text(row[0]) for row in rows]
        async with client.pipeline(transaction=False) as pipe:
            for key in division.members:
                pipe.smismember(key, ids)
            for key in division.notes:
                pipe.hmget(key, ids)
            replies = await pipe.execute()
        sets, hashes = replies[: len(division.members)], replies[len(division.members) :]
        for n, (entry_id, (_, fields)) in enumerate(zip(ids, rows, strict=True)):
            yield _Entry(entry_id, fields, [bool(flags[n]) for flags in sets], [values[n] for values in hashes])
        first = "(" + ids[-1]


class _Outgoing:
    """The new stream of a partition, while it is written."""

    def __init__(self, target: Partition, division: Division) -> None:
        self._client = target.client
        self._division = division
        self._commands: list[tuple[Any, ...]] = []
        self.last: Id = (0, 0)
        self.length = 0

    async def add(self, entry: _Entry) -> bool:
        """Append an entry; whether it got another id, because the stream has this one."""
        given = stream_id(entry.id)
        renumbered = given <= self.last
        self.last = (self.last[0], self.last[1] + 1) if renumbered else given
        new_id = _written(self.last)
        stream = keys.arriving(self._division.stream)
        self._commands.append(("XADD", stream, new_id, *(part for pair in entry.fields.items() for part in pair)))
        for key, is_member in zip(self._division.members, entry.members, strict=True):
            if is_member:
                self._commands.append(("SADD", keys.arriving(key), new_id))
        for key, note in zip(self._division.notes, entry.notes, strict=True):
            if note is not None:
                self._commands.append(("HSET", keys.arriving(key), new_id, note))
        self.length += 1
        if len(self._commands) >= _PAGE:
            await self._send()
        return renumbered

    async def end(self, divided: Divided, groups: frozenset[str]) -> None:
        """Go on above every id that was given; every group has read all of it."""
        stream, last = keys.arriving(self._division.stream), _written(divided.last)
        # A stream that is not whole says so by having had more entries than it has.
        added = self.length + (0 if divided.whole else 1)
        for group in sorted(groups):
            self._commands.append(("XGROUP CREATE", stream, group, last, "MKSTREAM"))
        if groups:
            self._commands.append(("XSETID", stream, last, "ENTRIESADDED", added, "MAXDELETEDID", "0-0"))
        for group in sorted(groups):
            self._commands.append(("XGROUP SETID", stream, group, last, "ENTRIESREAD", added))
        await self._send()

    async def _send(self) -> None:
        commands, self._commands = self._commands, []
        await _run(self._client, commands)


async def divide_indexes(
    sources: Sequence[Partition], targets: Sequence[Partition], place: Callable[[bytes], int], *, copies: bool
) -> None:
    """Prepare what is kept by experiment.

    Args:
        sources: as many as there are.
        targets: as many as there will be.
        place: from an experiment's id to the partition that it belongs to.
        copies: whether the targets' experiments are copied for others.
    """
    for key in _INDEXES:
        if key == keys.TOUCHED and not copies:
            continue
        for source in sources:
            async for page in _members(source.client, key):
                shares: dict[int, list[Any]] = {}
                for member, value in page:
                    shares.setdefault(place(member), []).extend(
                        (value, member) if key == keys.EXPERIMENTS else (member, value)
                    )
                command = "ZADD" if key == keys.EXPERIMENTS else "HSET"
                for number, flat in shares.items():
                    await _run(targets[number].client, [(command, keys.arriving(key), *flat)])


async def _members(client: Redis, key: str) -> AsyncIterator[list[tuple[bytes, Any]]]:
    """A sorted set's members with their scores, or a hash's fields with their values, some at a time."""
    cursor, begun = 0, False
    found: Any
    while cursor or not begun:
        begun = True
        if key == keys.EXPERIMENTS:
            cursor, found = await client.zscan(key, cursor, count=_PAGE)
        else:
            cursor, found = await client.hscan(key, cursor, count=_PAGE)
        if found:
            yield list(found.items()) if isinstance(found, dict) else found


async def hashes(partitions: Sequence[Partition], key: str) -> list[dict[str, bytes]]:
    """A hash of each partition, empty where there is none."""
    found: list[Any] = [await partition.client.hgetall(key) for partition in partitions]
    return [{text(name): value for name, value in one.items()} for one in found]


def summed(found: Sequence[Mapping[str, bytes]], name: str) -> int:
    """A count of all partitions together."""
    return sum(whole(one.get(name)) for one in found)


async def prepare(target: Partition, values: Mapping[str, str | Mapping[str, str | bytes | int]]) -> None:
    """Prepare texts and hashes of a partition."""
    commands: list[tuple[Any, ...]] = []
    for key, value in values.items():
        if isinstance(value, str):
            commands.append(("SET", keys.arriving(key), value))
        elif value:
            commands.append(("HSET", keys.arriving(key), *(part for pair in value.items() for part in pair)))
    await _run(target.client, commands)


async def complete(target: Partition) -> None:
    """Note that all that a partition will have of its own is prepared."""
    await target.client.set(keys.ARRIVED, "1")


async def give_up(target: Partition) -> None:
    """Delete what was prepared for a partition."""
    await target.client.unlink(keys.ARRIVED, *map(keys.arriving, OWN))


async def arrive(target: Partition) -> bool:
    """Put what was prepared into its place (see `lua/arrive.lua`); False where that was done before.

    Raises:
        PartitionsError: the mark that all of it is there is gone.
    """
    names = [keys.ARRIVED]
    for key in OWN:
        names += [keys.arriving(key), key]
    outcome = int(await scripts.run(target.client, "arrive", names, []))
    if outcome < 0:
        raise PartitionsError(
            f"the key {target.namespace}{keys.ARRIVED} is gone, and with it whether all of "
            f"{target.namespace}{keys.ARRIVING_PREFIX}* is there: if so, set it to 1 and run this again"
        )
    return outcome == 1


def _written(entry_id: Id) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"


async def _run(client: Redis, commands: Sequence[tuple[Any, ...]]) -> None:
    if commands:
        async with client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            await pipe.execute()
