"""Trimming and the removal of consumers never cost an entry that somebody still needs."""

import random

import pytest
from redis.asyncio import Redis

from redis_agent.store import keys, scripts
from redis_agent.store.housekeeping import Housekeeping
from redis_agent.store.stream import EventStream, trim


def event_stream(client: Redis, consumer: str = "c1", **limits: int) -> EventStream:
    given = {"max_fields": 1000, "max_raw": 100, "max_dead": 100} | limits
    return EventStream(reader=client, client=client, consumer=consumer, **given)


async def read_events(client: Redis, stream: EventStream, *events: bytes) -> list[str]:
    await stream.ensure_group()
    for event in events:
        await client.xadd(keys.STREAM, {"data": event, "at": 1})
    return [entry.id for entry in await stream.read_new(count=1000, block_ms=1)]


@pytest.mark.parametrize("seed", range(6))
async def test_trim_never_removes_what_some_group_has_not_read_and_acked(raw: Redis, seed: int) -> None:
    rng = random.Random(seed)
    groups = ["g1", "g2", "g3"][: rng.randint(0, 3)]
    unread: dict[str, list[bytes]] = {group: [] for group in groups}
    pending: dict[str, list[bytes]] = {group: [] for group in groups}
    for group in groups:
        await raw.xgroup_create(keys.STREAM, group, id="0", mkstream=True)
    for _ in range(60):
        for _ in range(rng.randint(0, 5)):
            entry_id = await raw.xadd(keys.STREAM, {"n": 1})
            for group in groups:
                unread[group].append(entry_id)
        for group in groups:
            count = rng.randint(0, 6)
            if count and unread[group]:
                await raw.xreadgroup(group, "c", {keys.STREAM: ">"}, count=count)
                pending[group] += unread[group][:count]
                unread[group] = unread[group][count:]
            acked = [i for i in pending[group] if rng.random() < 0.6]
            if acked:
                await raw.xack(keys.STREAM, group, *acked)
                pending[group] = [i for i in pending[group] if i not in acked]
        limit, before = rng.randint(0, 30), await raw.xlen(keys.STREAM)
        trimmed, over = await trim(raw, keys.STREAM, limit)
        left = [entry_id for entry_id, _ in await raw.xrange(keys.STREAM)]
        needed = {i for group in groups for i in unread[group] + pending[group]}
        assert needed <= set(left)
        assert (trimmed, over) == (before - len(left), max(0, len(left) - limit))
        assert len(left) >= min(limit, before), "no more than asked for"
        if over and needed:
            assert left[0] in needed, "it trimmed all that nobody needs"


async def test_trim_of_a_stream_that_is_not_there_is_no_error(raw: Redis) -> None:
    assert await trim(raw, keys.STREAM, 10) == (0, 0)


async def test_trim_takes_at_most_a_hundred_entries_a_call(raw: Redis) -> None:
    async with raw.pipeline() as pipe:
        for _ in range(350):
            pipe.xadd(keys.STREAM, {"n": 1})
        await pipe.execute()
    steps = [await trim(raw, keys.STREAM, 100) for _ in range(3)]
    assert steps == [(100, 150), (100, 50), (50, 0)]


async def test_consumer_that_holds_entries_is_never_removed(raw: Redis) -> None:
    house = Housekeeping(raw, stream_max=1, stream_hard=10, consumer_expiry_seconds=0)
    stream = event_stream(raw, "holder")
    (entry_id,) = await read_events(raw, stream, b"{}")
    await event_stream(raw, "idle").read_new(count=1, block_ms=1)
    await raw.execute_command("XGROUP", "CREATECONSUMER", keys.STREAM, keys.GROUP, "idle")

    assert await house.remove_consumers() == ["idle"]
    assert (await raw.xpending(keys.STREAM, keys.GROUP))["pending"] == 1
    assert not await scripts.run(raw, "remove_consumer", [keys.STREAM], [keys.GROUP, "holder", 0])
    assert not await scripts.run(raw, "remove_consumer", [keys.STREAM], [keys.GROUP, "nobody", 0])
    await raw.xack(keys.STREAM, keys.GROUP, entry_id)
    assert await house.remove_consumers() == ["holder"]


async def test_consumer_seen_lately_is_kept(raw: Redis) -> None:
    await read_events(raw, event_stream(raw))
    assert await Housekeeping(raw, stream_max=1, stream_hard=10, consumer_expiry_seconds=60).remove_consumers() == []


async def test_hard_limit_removes_what_a_forgotten_group_has_not_read(raw: Redis) -> None:
    await raw.xgroup_create(keys.STREAM, "forgotten", id="0", mkstream=True)
    async with raw.pipeline() as pipe:
        for _ in range(2000):
            pipe.xadd(keys.STREAM, {"n": 1})
        await pipe.execute()
    house = Housekeeping(raw, stream_max=100, stream_hard=1000, consumer_expiry_seconds=0)

    assert await house.trim(keep_going=lambda: True) == 0, "unread entries stay as long as there is room"
    removed = await house.trim_hard(keep_going=lambda: True)
    assert removed == 2000 - await raw.xlen(keys.STREAM)
    assert 1000 <= await raw.xlen(keys.STREAM) < 1200, "whole nodes of the stream go, not single entries"
