"""Copies keys from partition to partition, compares the copies, and deletes what is left where it belongs no more.

Copies are made with DUMP and RESTORE, as they are at one moment, with what is left of their time to live. Whoever stops
half-way begins anew: what is copied twice is the same, and what is deleted twice is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from redis_agent.errors import PartitionsError
from redis_agent.store.partitions import Partition
from redis_agent.store.stream import text

# Keys looked at in one step of a scan, and keys held at once: a list of raw events may be megabytes long.
_SCANNED = 1_000
_HELD = 200

# From the name of a key within its partition to the numbers of the partitions that it belongs to; empty: it stays.
Places = Callable[[bytes], frozenset[int]]

_READ: dict[str, tuple[str | int, ...]] = {
    "string": ("GET",),
    "hash": ("HGETALL",),
    "list": ("LRANGE", 0, -1),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
}


class Relocation:
    """From some partitions to others on the same server or cluster; two of the same namespace are the same.

    Args:
        sources: as many as there are.
        targets: as many as there will be.
        places: where keys belong among the targets.
    """

    def __init__(self, sources: Sequence[Partition], targets: Sequence[Partition], places: Places) -> None:
        self._sources = sources
        self._targets = targets
        self._places = places

    async def count(self) -> int:
        """How many keys belong elsewhere."""
        return sum([len(moves) async for _, moves in self._leaving()])

    async def copy(self) -> int:
        """Copy every key that belongs elsewhere there; how many there were.

        Raises:
            RedisError, OSError: as the server or the connection reports it; not all are copied.
        """
        copied = 0
        async for source, moves in self._leaving():
            async with source.client.pipeline(transaction=False) as pipe:
                for key, _ in moves:
                    pipe.execute_command("PTTL", key)
                    pipe.execute_command("DUMP", key)
                replies = await pipe.execute()
            restores: dict[Partition, list[tuple[Any, ...]]] = {}
            for (key, goes_to), ttl_ms, dump in zip(moves, replies[::2], replies[1::2], strict=True):
                if dump is None or ttl_ms == _GONE:
                    continue  # past its time meanwhile
                # A time of 0 would stand for ever.
                lasts_ms = 0 if ttl_ms == _FOR_EVER else max(1, ttl_ms)
                for target in goes_to:
                    restores.setdefault(target, []).append(("RESTORE", key, lasts_ms, dump, "REPLACE"))
            await asyncio.gather(*(_run(target.client, commands) for target, commands in restores.items()))
            copied += len(moves)
        return copied

    async def verify(self) -> None:
        """Compare every copy with what it was made of.

        Raises:
            PartitionsError: one is not the same.
            RedisError, OSError: as the server or the connection reports it.
        """
        async for source, moves in self._leaving():
            names = [key for key, _ in moves]
            there: dict[Partition, list[bytes]] = {}
            for key, goes_to in moves:
                for target in goes_to:
                    there.setdefault(target, []).append(key)
            before = dict(zip(names, await _dumps(source.client, names), strict=True))
            after = await asyncio.gather(*(_dumps(target.client, some) for target, some in there.items()))
            for (target, some), dumps in zip(there.items(), after, strict=True):
                for key, dump in zip(some, dumps, strict=True):
                    if dump != before[key] and not await _same(source.client, target.client, key):
                        raise PartitionsError(f"{text(key)} of partition {source.number} changed while it was copied")

    async def _leaving(self) -> AsyncIterator[tuple[Partition, list[tuple[bytes, list[Partition]]]]]:
        """The keys of each source that belong elsewhere, and where, some at a time; a scan may find one twice."""
        for source in self._sources:
            moves: list[tuple[bytes, list[Partition]]] = []
            async for key in _scan(source.client):
                where = [self._targets[number] for number in sorted(self._places(key))]
                elsewhere = [target for target in where if target.namespace != source.namespace]
                if elsewhere:
                    moves.append((key, elsewhere))
                if len(moves) == _HELD:
                    yield source, moves
                    moves = []
            if moves:
                yield source, moves


async def clear(partition: Partition, stays: Callable[[bytes], bool]) -> int:
    """Delete what does not stay in a partition; how many keys that were."""
    doomed: list[bytes] = []
    cleared = 0
    async for key in _scan(partition.client):
        if not stays(key):
            doomed.append(key)
        if len(doomed) == _SCANNED:
            cleared += await _unlink(partition.client, doomed)
            doomed = []
    return cleared + await _unlink(partition.client, doomed)


async def _unlink(client: Redis, names: Sequence[bytes]) -> int:
    return int(await client.unlink(*names)) if names else 0


# What PTTL says of a key that is not there, and of one without a time to live.
_GONE, _FOR_EVER = -2, -1


def _scan(client: Redis) -> AsyncIterator[bytes]:
    found: AsyncIterator[bytes] = client.scan_iter(count=_SCANNED)
    return found


async def _dumps(client: Redis, names: Sequence[bytes]) -> list[Any]:
    return await _run(client, [("DUMP", key) for key in names])


async def _run(client: Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return list(await pipe.execute())


async def _same(source: Redis, target: Redis, key: bytes) -> bool:
    """Whether a key holds the same in both: two servers may write one value in two orders."""
    kinds = [text(await client.type(key)) for client in (source, target)]
    if kinds[0] == "none":
        return True  # past its time meanwhile
    if kinds[0] != kinds[1] or kinds[0] not in _READ:
        return False
    name, *rest = _READ[kinds[0]]
    values = [await client.execute_command(str(name), key, *rest) for client in (source, target)]
    return bool(values[0] == values[1])
