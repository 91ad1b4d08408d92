"""The scan for entries that are held too long: one for all workers, which takes only what nobody renews."""

from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.store import keys
from redis_agent.store.stream import EventStream, Reclaimed, Renewed
from tests.waiting import eventually

NEVER = 3_600_000


def event_stream(client: Redis, consumer: str) -> EventStream:
    return EventStream(reader=client, client=client, consumer=consumer, max_fields=100, max_raw=10, max_dead=100)


async def held(client: Redis, count: int, *, by: str = "dead") -> list[str]:
    """Entries that a consumer was given."""
    stream = event_stream(client, by)
    await stream.ensure_group()
    for n in range(count):
        await client.xadd(keys.STREAM, {"data": b"{}", "at": n})
    return [entry.id for entry in await stream.read_new(count=count, block_ms=1)]


async def pending(client: Redis) -> dict[str, dict[str, Any]]:
    rows = await client.xpending_range(keys.STREAM, keys.GROUP, "-", "+", 1000)
    return {row["message_id"].decode(): row for row in rows}


def ids(step: Reclaimed) -> list[str]:
    return [entry.id for entry in step.entries]


async def test_scan_is_continued_by_whoever_comes_next(raw: Redis) -> None:
    given = await held(raw, 60)
    ann, bob = event_stream(raw, "ann"), event_stream(raw, "bob")
    await ann.reclaim(idle_ms=0, every_ms=1, count=1)  # nobody came by before: it only says that it is here

    first = await ann.reclaim(idle_ms=0, every_ms=0, count=25)
    second = await bob.reclaim(idle_ms=0, every_ms=0, count=25)
    third = await event_stream(raw, "bob started anew").reclaim(idle_ms=0, every_ms=0, count=25)

    assert (ids(first), ids(second), ids(third)) == (given[:25], given[25:50], given[50:])
    assert (first.more, second.more, third.more) == (True, True, False)
    assert {entry.deliveries for entry in first.entries} == {2}


async def test_complete_scan_is_not_begun_again_by_another_before_its_time(raw: Redis) -> None:
    await held(raw, 5)
    ann, bob = event_stream(raw, "ann"), event_stream(raw, "bob")
    await ann.reclaim(idle_ms=0, every_ms=0, count=10)

    assert await bob.reclaim(idle_ms=0, every_ms=NEVER, count=10) == Reclaimed(False, [], []), "rests"
    assert await bob.reclaim(idle_ms=0, every_ms=NEVER, count=10) == Reclaimed(False, [], []), "not due"
    assert len(ids(await bob.reclaim(idle_ms=0, every_ms=0, count=10))) == 5


async def test_after_a_time_without_any_worker_the_first_step_takes_nothing(raw: Redis) -> None:
    given = await held(raw, 3)
    stream = event_stream(raw, "ann")
    assert ids(await stream.reclaim(idle_ms=0, every_ms=1, count=10)) == [], "its holder may only now be able to renew"
    assert ids(await stream.reclaim(idle_ms=0, every_ms=1, count=10)) == given
    await raw.hset(keys.RECLAIM, "seen_ms", "1")  # an outage
    await eventually(lambda: pending(raw))
    assert ids(await stream.reclaim(idle_ms=1, every_ms=1, count=10)) == []


async def test_lone_worker_that_comes_by_seldom_reclaims_all_the_same(raw: Redis) -> None:
    given = await held(raw, 4)
    stream = event_stream(raw, "ann")
    found: list[str] = []
    for _ in range(8):
        await raw.hset(keys.RECLAIM, mapping={"seen_ms": "1", "done_ms": "1"})
        found += ids(await stream.reclaim(idle_ms=0, every_ms=1, count=1))
    assert found[:4] == given


async def test_entries_gone_from_the_stream_are_pending_no_more_reported_once_and_counted(raw: Redis) -> None:
    given = await held(raw, 6)
    await raw.xdel(keys.STREAM, *given[1:3])
    stream = event_stream(raw, "ann")

    step = await stream.reclaim(idle_ms=0, every_ms=0, count=10)

    assert step.deleted == given[1:3]
    assert ids(step) == [given[0], *given[3:]]
    assert list(await pending(raw)) == ids(step)
    assert (await stream.reclaim(idle_ms=0, every_ms=0, count=10)).deleted == []
    assert await raw.hget(keys.RECLAIM, "deleted") == b"2"


async def test_renewal_keeps_entries_without_counting_as_a_delivery(raw: Redis) -> None:
    given = await held(raw, 3, by="slow")
    await raw.xclaim(keys.STREAM, keys.GROUP, "slow", 0, given, idle=60_000, justid=True)
    slow, quick = event_stream(raw, "slow"), event_stream(raw, "quick")

    assert await slow.renew(given[:2]) == Renewed(held=2, deleted=0)
    step = await quick.reclaim(idle_ms=30_000, every_ms=0, count=10)

    assert ids(step) == given[2:]
    found = await pending(raw)
    assert [found[i]["times_delivered"] for i in given] == [1, 1, 2]
    assert [found[i]["consumer"] for i in given] == [b"slow", b"slow", b"quick"]


async def test_renewal_touches_nothing_that_another_holds_or_that_is_done(raw: Redis) -> None:
    given = await held(raw, 4, by="slow")
    slow = event_stream(raw, "slow")
    await raw.xclaim(keys.STREAM, keys.GROUP, "quick", 0, given[:1], idle=60_000, justid=True)
    await raw.xack(keys.STREAM, keys.GROUP, given[1])
    await raw.xdel(keys.STREAM, given[2])

    assert await slow.renew(given) == Renewed(held=1, deleted=1)
    found = await pending(raw)
    assert sorted(found) == [given[0], given[3]]
    assert found[given[0]]["consumer"] == b"quick"
    assert found[given[0]]["time_since_delivered"] >= 60_000


@pytest.mark.parametrize("kind", ["set", "hash"])
async def test_place_of_the_scan_that_cannot_be_kept_is_said_and_stops_nothing(raw: Redis, kind: str) -> None:
    given = await held(raw, 3)
    if kind == "set":
        await raw.sadd(keys.RECLAIM, "something else")
    else:
        await raw.hset(keys.RECLAIM, mapping={"cursor": "nonsense", "seen_ms": "x", "done_ms": "y", "rested": "1"})
    step = await event_stream(raw, "ann").reclaim(idle_ms=0, every_ms=1000, count=10)
    assert ids(step) == given
    assert bool(step.problem) == (kind == "set")


async def test_delivery_is_counted_when_it_is_together_with_others_and_later_only_when_it_begins(raw: Redis) -> None:
    (given,) = await held(raw, 1)
    ann, bob = event_stream(raw, "ann"), event_stream(raw, "bob")

    async def taken() -> tuple[int, int]:
        (entry,) = (await ann.reclaim(idle_ms=0, every_ms=0, count=10)).entries
        return entry.deliveries, (await pending(raw))[given]["times_delivered"]

    assert [await taken() for _ in range(3)] == [(2, 2), (3, 2), (3, 2)]
    (entry,) = (await ann.reclaim(idle_ms=0, every_ms=0, count=10)).entries
    assert entry.later
    assert entry.data is None
    assert await bob.take_alone(entry) is None, "it is not bob's"
    await bob.forgive(given)
    assert (await pending(raw))[given]["times_delivered"] == 2
    alone = await ann.take_alone(entry)
    assert alone is not None
    assert (alone.data, alone.deliveries) == (b"{}", 3)
    assert await taken() == (4, 3)
    await ann.forgive(given)
    assert await taken() == (2, 2)


async def test_entry_that_is_gone_is_not_taken_alone_and_not_forgiven(raw: Redis) -> None:
    (given,) = await held(raw, 1, by="ann")
    ann = event_stream(raw, "ann")
    (entry,) = (await ann.read_own(after="0-0", count=1)).entries
    await raw.xdel(keys.STREAM, given)
    assert await ann.take_alone(entry) is None
    await ann.forgive(given)
    assert await pending(raw) == {}


async def test_taking_renews_the_hold_also_on_what_is_tried_alone_later(raw: Redis) -> None:
    given = await held(raw, 2, by="ann")
    await raw.xclaim(keys.STREAM, keys.GROUP, "ann", 0, given[1:], retrycount=4)
    await raw.xclaim(keys.STREAM, keys.GROUP, "ann", 0, given, idle=60_000, justid=True)
    own = await event_stream(raw, "ann").read_own(after="0-0", count=9)
    assert [(entry.deliveries, entry.later) for entry in own.entries] == [(2, False), (5, True)]
    assert all(row["time_since_delivered"] < 60_000 for row in (await pending(raw)).values())


async def test_own_pending_entries_are_found_in_steps_also_where_all_of_one_are_gone(raw: Redis) -> None:
    given = await held(raw, 9, by="ann")
    await raw.xdel(keys.STREAM, *given[3:7])
    ann, found, gone, after = event_stream(raw, "ann"), [], [], "0-0"
    while (own := await ann.read_own(after=after, count=3)).looked_to:
        after = own.looked_to
        found += [(entry.id, entry.deliveries) for entry in own.entries]
        gone += own.deleted
    assert found == [(entry_id, 2) for entry_id in (*given[:3], *given[7:])]
    assert gone == given[3:7]
    assert list(await pending(raw)) == [*given[:3], *given[7:]]
    assert await raw.hget(keys.RECLAIM, "deleted") == b"4"
