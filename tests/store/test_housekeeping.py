"""Trimming and the removal of consumers never cost an entry that somebody still needs."""

import asyncio
import random

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from redis_agent.store import keys, scripts
from redis_agent.store.flow import flow
from redis_agent.store.housekeeping import Dropped, Housekeeping, trim, trim_hard
from redis_agent.store.pending import PendingEntries
from redis_agent.store.stream import EventStream


def event_stream(client: Redis, consumer: str = "c1", **limits: int) -> EventStream:
    given = {"max_fields": 1000, "max_raw": 100, "max_dead": 100} | limits
    return EventStream(reader=client, client=client, consumer=consumer, **given)


async def read_events(client: Redis, stream: EventStream, *events: bytes) -> list[str]:
    await stream.ensure_group()
    for event in events:
        await client.xadd(keys.STREAM, {"data": event, "at": 1})
    return [entry.id for entry in await stream.read_new(count=1000, block_ms=1)]


async def test_what_an_operator_buries_is_taken_once_for_the_counter(raw: Redis) -> None:
    house = Housekeeping(raw, stream_max=1, stream_hard=10, consumer_expiry_seconds=60)
    ids = await read_events(raw, event_stream(raw), b"{}", b"{}", b"{}")
    pending = PendingEntries(raw)
    for entry in (await pending.named(ids[:2])).values():
        assert await pending.bury(entry, "operator", readable=True, max_dead=9)
        assert not await pending.bury(entry, "operator", readable=True, max_dead=9)
    taken = await asyncio.gather(*[house.take_buried() for _ in range(3)])
    assert sorted(taken) == [0, 0, 2]
    await raw.delete(keys.SCHEDULER)
    await raw.set(keys.SCHEDULER, "in the way")
    (entry,) = (await pending.named(ids[2:])).values()
    assert await pending.bury(entry, "operator", readable=True, max_dead=9)


@pytest.mark.parametrize("seed", range(6))
async def test_trim_never_removes_what_some_group_has_not_read_and_acked(raw: Redis, seed: int) -> None:
    rng = random.Random(seed)
    groups = [keys.GROUP, "g2", "g3"][: rng.randint(1, 3)]
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
        trimmed, over = await trim(raw, limit)
        left = [entry_id for entry_id, _ in await raw.xrange(keys.STREAM)]
        needed = {i for group in groups for i in unread[group] + pending[group]}
        assert needed <= set(left)
        assert (trimmed, over) == (before - len(left), max(0, len(left) - limit))
        assert len(left) >= min(limit, before), "no more than asked for"
        if over and needed:
            assert left[0] in needed, "it trimmed all that nobody needs"


async def test_trim_of_a_stream_that_is_not_there_is_no_error(raw: Redis) -> None:
    assert await trim(raw, 10) == (0, 0)


async def test_trim_takes_at_most_a_thousand_entries_a_call(raw: Redis) -> None:
    await fill(raw, 3_500)
    await all_read(raw)
    steps = [await trim(raw, 1_000) for _ in range(3)]
    assert steps == [(1_000, 1_500), (1_000, 500), (500, 0)]


async def lag_of(client: Redis) -> int | None:
    (group,) = await client.xinfo_groups(keys.STREAM)
    return group["lag"]


async def miscount(client: Redis, position: str, read: int) -> None:
    """As Redis 7.0 does by a restart: it knows how far the group came, and how much it had read some time before."""
    await client.execute_command("XGROUP", "SETID", keys.STREAM, keys.GROUP, position, "ENTRIESREAD", read)


async def test_lag_where_nothing_is_unread_is_put_right_and_the_group_goes_on_where_it_was(raw: Redis) -> None:
    house = Housekeeping(raw, stream_max=1, stream_hard=10, consumer_expiry_seconds=60)
    stream = event_stream(raw)
    assert await house.correct_lags() == {}, "no stream yet"
    ids = await read_events(raw, stream, b"{}", b"{}", b"{}")
    await miscount(raw, ids[-1], read=1)
    assert await lag_of(raw) == 2

    assert await house.correct_lags() == {keys.STREAM: 2}
    assert await lag_of(raw) == 0
    assert await house.correct_lags() == {}
    new = (await raw.xadd(keys.STREAM, {"data": b"{}"})).decode()
    assert await lag_of(raw) == 1
    assert [entry.id for entry in await stream.read_new(count=9, block_ms=1)] == [new]
    assert (await flow(raw)).pending == 4


async def test_lag_is_left_alone_while_something_is_unread_and_where_it_is_unknown(raw: Redis) -> None:
    house = Housekeeping(raw, stream_max=1, stream_hard=10, consumer_expiry_seconds=60)
    ids = await read_events(raw, event_stream(raw), b"{}", b"{}", b"{}")
    await miscount(raw, ids[-1], read=1)
    unread = await raw.xadd(keys.STREAM, {"data": b"{}"})
    assert await house.correct_lags() == {}
    assert await lag_of(raw) == 3
    await raw.xdel(keys.STREAM, unread)
    assert await lag_of(raw) is None
    assert await house.correct_lags() == {}


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


async def all_read(client: Redis) -> None:
    """The workers' group is not there, and had read everything."""
    await client.set(keys.FLOOR, "99999999999999-0")


@pytest.mark.parametrize("floor", [None, 3])
async def test_what_a_lost_group_has_not_read_stays_and_past_the_hard_limit_is_counted(
    raw: Redis, floor: int | None
) -> None:
    await fill(raw, 30)
    ids = [entry_id for entry_id, _ in await raw.xrange(keys.STREAM)]
    if floor is not None:
        await raw.set(keys.FLOOR, ids[floor])
    read = 0 if floor is None else floor + 1
    await raw.xgroup_create(keys.STREAM, "another", id="$")

    assert (await trim(raw, 0))[0] == read
    assert await trim_hard(raw, 10) == (20 - read, 20 - read)
    assert (await raw.xrange(keys.STREAM))[0][0] == ids[20]


async def fill(client: Redis, count: int, *, first_ms: int = 0, data: bytes = b"x") -> None:
    async with client.pipeline() as pipe:
        for n in range(count):
            pipe.xadd(keys.STREAM, {"data": data}, id=f"{first_ms + n}-1" if first_ms else "*")
        await pipe.execute()


async def test_hard_limit_removes_what_a_forgotten_group_has_not_read_and_counts_that(raw: Redis) -> None:
    await raw.xgroup_create(keys.STREAM, "forgotten", id="0", mkstream=True)
    await fill(raw, 2000)
    house = Housekeeping(raw, stream_max=100, stream_hard=1000, consumer_expiry_seconds=0)

    assert await house.trim(keep_going=lambda: True) == 0, "unread entries stay as long as there is room"
    assert await house.trim_hard(keep_going=lambda: True) == Dropped(removed=1000, unread=1000)
    assert await raw.xlen(keys.STREAM) == 1000
    assert await house.trim_hard(keep_going=lambda: True) == Dropped()
    assert await raw.hget(keys.SCHEDULER, "stream_dropped_unread") == b"1000", "kept for whoever asks later"


@pytest.mark.parametrize("seed", range(4))
async def test_what_the_hard_limit_drops_unread_or_unacked_is_counted_exactly(raw: Redis, seed: int) -> None:
    rng = random.Random(seed)
    groups = [keys.GROUP, "g2"][: rng.randint(1, 2)]
    for group in groups:
        await raw.xgroup_create(keys.STREAM, group, id="0", mkstream=True)
    await fill(raw, 300)
    ids = [entry_id for entry_id, _ in await raw.xrange(keys.STREAM)]
    needed: set[bytes] = set()
    for group in groups:
        read = rng.randint(0, 300)
        if read:
            await raw.xreadgroup(group, "c", {keys.STREAM: ">"}, count=read)
        acked = [entry_id for entry_id in ids[:read] if rng.random() < 0.5]
        if acked:
            await raw.xack(keys.STREAM, group, *acked)
        needed |= set(ids) - set(acked)
    hard = rng.randint(1, 299)
    house = Housekeeping(raw, stream_max=1000, stream_hard=hard, consumer_expiry_seconds=0)

    dropped = await house.trim_hard(keep_going=lambda: True)

    gone = ids[: 300 - hard]
    assert dropped == Dropped(removed=len(gone), unread=len(needed & set(gone)))
    assert [entry_id for entry_id, _ in await raw.xrange(keys.STREAM)] == ids[300 - hard :]


async def test_age_trims_what_is_older_but_never_what_a_group_has_not_read_and_acked(raw: Redis) -> None:
    now_ms = 1000 * int((await raw.time())[0])
    await fill(raw, 250, first_ms=now_ms - 3_600_000)
    await fill(raw, 50)
    old = [entry_id for entry_id, _ in await raw.xrange(keys.STREAM, count=250)]
    await raw.xgroup_create(keys.STREAM, "g", id="0")
    await raw.xreadgroup("g", "c", {keys.STREAM: ">"}, count=240)
    await raw.xack(keys.STREAM, "g", *old[:180], *old[181:240])

    await all_read(raw)

    def house(age_seconds: float) -> Housekeeping:
        return Housekeeping(
            raw, stream_max=1000, stream_hard=1000, consumer_expiry_seconds=0,
            stream_max_age_seconds=age_seconds,
        )  # fmt: skip

    assert await house(0).trim(keep_going=lambda: True) == 0, "off"
    assert await house(7200).trim(keep_going=lambda: True) == 0, "all are younger"
    assert await house(60).trim(keep_going=lambda: True) == 180, "up to the one that is pending"
    await raw.xack(keys.STREAM, "g", old[180])
    assert await house(60).trim(keep_going=lambda: True) == 60, "up to the first that is unread"
    await raw.xgroup_destroy(keys.STREAM, "g")
    assert await house(60).trim(keep_going=lambda: True) == 10
    assert await raw.xlen(keys.STREAM) == 50


async def test_stream_that_is_past_its_age_altogether_is_emptied_a_thousand_at_a_time(raw: Redis) -> None:
    await fill(raw, 2_500, first_ms=1)
    await all_read(raw)
    steps = [await trim(raw, 5_000, max_age_ms=1000) for _ in range(4)]
    assert [trimmed for trimmed, _ in steps] == [1_000, 1_000, 500, 0]
    assert [bool(over) for _, over in steps] == [True, True, False, False]


@pytest.mark.parametrize("hard", [False, True])
async def test_large_entries_are_trimmed_a_megabyte_at_a_time(raw: Redis, hard: bool) -> None:
    await fill(raw, 40, data=b"x" * 500_000)
    await all_read(raw)
    if hard:
        removed, _ = await trim_hard(raw, 1)
    else:
        removed, _ = await trim(raw, 1)
    assert 1 <= removed <= 20


async def test_consumer_that_reads_while_it_is_being_removed_loses_nothing(raw: Redis) -> None:
    await raw.xgroup_create(keys.STREAM, keys.GROUP, id="0", mkstream=True)
    await fill(raw, 600)
    read: list[bytes] = []
    removed = 0

    async def remove() -> None:
        nonlocal removed
        while len(read) < 600:
            removed += await scripts.run(raw, "remove_consumer", [keys.STREAM], [keys.GROUP, "c", 0])

    async def consume() -> None:
        while len(read) < 600:
            (given,) = await raw.execute_command(
                "XREADGROUP", "GROUP", keys.GROUP, "c", "COUNT", 1, "STREAMS", keys.STREAM, ">"
            )
            (entry_id, _) = given[1][0]
            read.append(entry_id)
            assert await raw.xack(keys.STREAM, keys.GROUP, entry_id) == 1, "still pending, whoever removed whom"

    await asyncio.gather(remove(), consume())
    assert removed, "the race was run"
    assert len(set(read)) == 600


async def test_trimming_frees_memory_also_where_the_server_is_out_of_it(raw: Redis) -> None:
    stream = event_stream(raw)
    await raw.xgroup_create(keys.STREAM, keys.GROUP, id="$", mkstream=True)
    async with raw.pipeline() as pipe:
        for _ in range(1000):
            pipe.xadd(keys.STREAM, {"n": 1})
        await pipe.execute()
    usual = (await raw.config_get("maxmemory"))["maxmemory"]
    house = Housekeeping(raw, stream_max=1000, stream_hard=500, consumer_expiry_seconds=0)
    try:
        await raw.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            await raw.xadd(keys.STREAM, {"n": 1})
        assert await stream.ensure_group() is None, "a group that is there can be found"
        await house.trim_hard(keep_going=lambda: True)
        assert await raw.xlen(keys.STREAM) < 700
        await raw.xgroup_setid(keys.STREAM, keys.GROUP, "$")
        assert (await trim(raw, 400))[0] > 0
    finally:
        await raw.config_set("maxmemory", usual)
