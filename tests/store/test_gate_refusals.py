"""What the gate refuses it refuses before its first write: nothing is ever half applied."""

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.failures import Remedy, classify
from redis_agent.store.group import Created
from redis_agent.store.stream import (
    Applied,
    Batch,
    Blocked,
    Conflict,
    DeadLetter,
    ErrorAlert,
    EventStream,
    ExperimentUpdate,
    Renewed,
    Stale,
    WindowUpdate,
)
from redis_agent.windows import Window

NOW = "2026-01-01T00:00:00.000Z"


def event_stream(client: Redis, consumer: str = "c1", *, max_fields: int = 1000) -> EventStream:
    return EventStream(reader=client, client=client, consumer=consumer, max_fields=max_fields, max_raw=10, max_dead=100)


def update(experiment: str, *, counters: int = 1, gauges: int = 0, id_: str = "1-1") -> ExperimentUpdate:
    plan: dict[str, Any] = {"id": experiment, "events": "1", "first": NOW, "last": NOW, "last_ms": 1}
    plan["counters"] = [part for n in range(counters) for part in (f"c{n}_count", "1")]
    plan["gauges"] = [[f"g{n}", "0.5", id_, "0.5", "1", "0.5", "0.5"] for n in range(gauges)]
    windows = [WindowUpdate(Window("minute", 60), 100, None), WindowUpdate(Window("hour", 0), 200, None)]
    return ExperimentUpdate(experiment, plan, [b"{}"], windows)


async def pending_batch(client: Redis, stream: EventStream) -> Batch:
    """A batch of two entries with everything in it: sums, a dead letter that a replay could read, an alert."""
    await stream.ensure_group()
    for _ in range(2):
        await client.xadd(keys.STREAM, {"data": "{}"})
    ids = [entry.id for entry in await stream.read_new(count=2, block_ms=1)]
    return Batch(
        ids,
        updates=[update("a"), update("b", gauges=1)],
        dead=[DeadLetter(1, "wrong_type: x", b"raw", 1, readable=True)],
        alerts=[ErrorAlert(keys.cooldown("a", "error", "f"), 100, "id", "data", 1)],
    )


@pytest.mark.parametrize("key", [keys.EXPERIMENTS, keys.ABOVE])
async def test_shared_key_of_the_wrong_type_stops_the_batch_before_its_first_write(raw: Redis, key: str) -> None:
    stream = event_stream(raw)
    batch = await pending_batch(raw, stream)
    await raw.set(key, "something else")

    for _ in range(2):
        with pytest.raises(ResponseError) as caught:
            await stream.apply(batch)
        failure = classify(caught.value)
        assert (failure.remedy, failure.kind) == (Remedy.FATAL, "wrongtype"), caught.value
        assert key in str(caught.value)

    assert not await raw.exists(keys.aggregate("a"), keys.aggregate("b"), keys.raw_events("a"))
    assert (await raw.xpending(keys.STREAM, keys.GROUP))["pending"] == 2
    await raw.delete(key)
    assert isinstance(await stream.apply(batch), Applied)
    assert await raw.hget(keys.aggregate("a"), "c0_count") == b"1"
    assert await raw.xlen(keys.DEAD_LETTERS) == await raw.xlen(keys.OUTBOX) == 1


async def test_window_that_somebody_else_wrote_to_costs_nothing_but_itself(raw: Redis) -> None:
    stream = event_stream(raw)
    batch = await pending_batch(raw, stream)
    other_type, no_number = keys.window("a", "minute", 60), keys.window("a", "hour", 0)
    no_gauge = keys.window("b", "minute", 60)
    await raw.set(other_type, "something else")
    await raw.hset(no_number, "c0_count", "many")
    await raw.hset(no_gauge, mapping={"events": 3, "g0_sum": "much"})

    outcome = await stream.apply(batch)
    assert isinstance(outcome, Applied)
    assert [key for key, _ in outcome.unwritten] == [other_type, no_number, no_gauge]
    assert await raw.get(other_type) == b"something else"
    assert await raw.hgetall(no_number) == {b"c0_count": b"many", b"events": b"1"}
    assert (await raw.hmget(no_gauge, "events", "g0_sum", "c0_count")) == [b"4", b"much", b"1"]
    assert await raw.hget(keys.window("b", "hour", 0), "g0_sum") == b"0.5"
    for experiment in "ab":
        assert await raw.hget(keys.aggregate(experiment), "c0_count") == b"1"
    assert (await raw.xpending(keys.STREAM, keys.GROUP))["pending"] == 0


async def test_window_that_has_sums_already_and_takes_more_is_not_said_to_be_unwritten(raw: Redis) -> None:
    stream = event_stream(raw)
    for times in (b"1", b"2"):
        outcome = await stream.apply(replace(await pending_batch(raw, stream), dead=[], alerts=[]))
        assert isinstance(outcome, Applied)
        assert outcome.unwritten == []
        assert await raw.hmget(keys.window("a", "minute", 60), "events", "c0_count") == [times, times]


@pytest.mark.parametrize("key", [keys.DEAD_LETTERS, keys.UNAPPLIED, keys.OUTBOX])
async def test_dead_letters_or_outbox_of_the_wrong_type_stop_only_what_must_be_written_there(
    raw: Redis, key: str
) -> None:
    stream = event_stream(raw)
    batch = await pending_batch(raw, stream)
    await raw.set(key, "something else")

    outcome = await stream.apply(batch)
    assert isinstance(outcome, Blocked)
    assert outcome.key == key
    assert not await raw.exists(keys.aggregate("a"), keys.aggregate("b"), keys.raw_events("a"))
    assert (await raw.xpending(keys.STREAM, keys.GROUP))["pending"] == 2

    assert isinstance(await stream.apply(Batch(batch.ids[:1], [update("a")])), Applied)
    await raw.delete(key)
    assert isinstance(await stream.apply(Batch(batch.ids[1:], dead=[replace(batch.dead[0], position=0)])), Applied)
    assert await raw.xlen(keys.DEAD_LETTERS) == 1


RIGHTS = ["xack", "rpush", "ltrim", "zadd", "hset", "xadd", "sadd", "set", "hgetall", "hmget", "expire"]


@pytest.mark.parametrize("right", RIGHTS)
async def test_right_taken_away_between_two_batches_leaves_nothing_half_applied(
    raw: Redis, redis_url: str, right: str
) -> None:
    parts = urlsplit(redis_url)
    await raw.execute_command("ACL", "SETUSER", "fickle", "on", ">secret", "~*", "&*", "+@all")
    fickle = connect(Address(parts._replace(netloc=f"fickle:secret@{parts.netloc}").geturl()), name="test-fickle")
    try:
        stream = event_stream(fickle)
        batch = await pending_batch(raw, stream)
        await raw.execute_command("ACL", "SETUSER", "fickle", f"-{right}")

        for _ in range(2):
            with pytest.raises(ResponseError) as caught:
                await stream.apply(batch)
            assert classify(caught.value).kind == "noperm", caught.value
        assert not await raw.exists(keys.aggregate("a"), keys.raw_events("a"), keys.DEAD_LETTERS, keys.OUTBOX)

        await raw.execute_command("ACL", "SETUSER", "fickle", f"+{right}")
        assert isinstance(await stream.apply(batch), Applied)
        assert await raw.hget(keys.aggregate("a"), "c0_count") == b"1"
    finally:
        await fickle.aclose()
        await raw.execute_command("ACL", "DELUSER", "fickle")


@pytest.mark.parametrize("key", [keys.FLOOR, keys.ABOVE])
async def test_group_is_not_created_anew_while_what_was_applied_cannot_be_read(raw: Redis, key: str) -> None:
    stream = event_stream(raw)
    await stream.apply(await pending_batch(raw, stream))
    await raw.xgroup_destroy(keys.STREAM, keys.GROUP)
    floor = await raw.get(keys.FLOOR)
    await raw.delete(key)
    await raw.rpush(key, "something else")

    with pytest.raises(ResponseError, match=key):
        await stream.ensure_group()
    assert await raw.xinfo_groups(keys.STREAM) == []

    await raw.delete(key)
    await raw.set(keys.FLOOR, floor)
    assert await stream.ensure_group() == Created(floor.decode())


async def test_worker_that_lost_its_entries_takes_nothing_back_from_who_has_them_now(raw: Redis) -> None:
    slow, quick = event_stream(raw, "slow"), event_stream(raw, "quick")
    batch = await pending_batch(raw, slow)
    taken = await quick.reclaim(idle_ms=0, every_ms=0, count=1)
    assert [entry.id for entry in taken.entries] == batch.ids[:1]

    assert await slow.renew(batch.ids) == Renewed(held=1, deleted=0)
    outcome = await slow.apply(batch)

    assert isinstance(outcome, Stale)
    assert outcome.pending == {batch.ids[1]}
    owners = {row["message_id"].decode(): row["consumer"] for row in await pending(raw)}
    assert owners == {batch.ids[0]: b"quick", batch.ids[1]: b"slow"}
    assert isinstance(await quick.apply(Batch(batch.ids[:1], [update("a")])), Applied)
    assert isinstance(await slow.apply(Batch(batch.ids[1:], [update("a")])), Applied)
    assert await raw.hget(keys.aggregate("a"), "events_total") == b"2"


async def pending(client: Redis) -> list[dict[str, Any]]:
    return list(await client.xpending_range(keys.STREAM, keys.GROUP, "-", "+", 1000))


@pytest.mark.parametrize("kind", ["aggregate", "raw_events", "fold_state"])
async def test_key_of_the_wrong_type_is_named_and_changes_nothing(raw: Redis, kind: str) -> None:
    stream = event_stream(raw)
    batch = await pending_batch(raw, stream)
    key = getattr(keys, kind)("b")
    await raw.set(key, "something else")

    outcome = await stream.apply(batch)

    assert isinstance(outcome, Conflict)
    assert (outcome.experiment_id, outcome.key) == ("b", key)
    assert "WRONGTYPE" in outcome.problem
    assert not await raw.exists(keys.aggregate("a"), keys.DEAD_LETTERS, keys.OUTBOX)
    assert (await raw.xpending(keys.STREAM, keys.GROUP))["pending"] == 2


@pytest.mark.parametrize("value", ["", "many", "1e3", "0x10", "nan", "--1", "1.2.3", " 1", "+1", "1,000"])
async def test_field_that_is_no_number_is_named_and_changes_nothing(raw: Redis, value: str) -> None:
    stream = event_stream(raw)
    batch = await pending_batch(raw, stream)
    await raw.hset(keys.aggregate("b"), "c0_count", value)

    outcome = await stream.apply(batch)

    assert isinstance(outcome, Conflict)
    assert "c0_count" in outcome.problem
    assert not await raw.exists(keys.aggregate("a"))


@pytest.mark.parametrize(("counters", "gauges"), [(0, 1_990), (5_000, 0), (0, 5_000), (9_000, 0)])
async def test_batch_of_thousands_of_names_is_applied_whole_or_not_at_all(
    raw: Redis, counters: int, gauges: int
) -> None:
    stream = event_stream(raw, max_fields=100_000)
    batch = await pending_batch(raw, stream)
    batch.updates = [update("a"), update("b", counters=counters, gauges=gauges), update("c")]

    for _ in range(2):
        try:
            await stream.apply(batch)
        except ResponseError:
            assert not await raw.exists(keys.aggregate("a"), keys.aggregate("b"), keys.aggregate("c"))
        else:
            totals = [await raw.hget(keys.aggregate(e), "events_total") for e in "abc"]
            assert totals == [b"1"] * 3
            assert await raw.hlen(keys.aggregate("b")) == 3 + counters + 5 * gauges


async def test_lost_group_is_recreated_at_the_floor_and_nothing_is_applied_twice(raw: Redis) -> None:
    stream = event_stream(raw)
    await stream.apply(await pending_batch(raw, stream))
    await raw.xgroup_destroy(keys.STREAM, keys.GROUP)
    late = await raw.xadd(keys.STREAM, {"data": "{}"})

    assert await stream.ensure_group() == Created((await raw.get(keys.FLOOR)).decode())
    assert await stream.ensure_group() is None
    assert [entry.id for entry in await stream.read_new(count=10, block_ms=1)] == [late.decode()]


@pytest.mark.parametrize("contiguous", [True, False])
async def test_group_lost_while_an_older_batch_was_pending_applies_nothing_twice(raw: Redis, contiguous: bool) -> None:
    slow, quick = event_stream(raw, "slow"), event_stream(raw, "quick")
    await slow.ensure_group()
    for _ in range(5):
        await raw.xadd(keys.STREAM, {"data": "{}"})
    await slow.read_new(count=2, block_ms=1)
    ids = [entry.id for entry in await quick.read_new(count=2, block_ms=1)]
    assert isinstance(await quick.apply(Batch(ids, [update("a")], contiguous=contiguous)), Applied)

    await raw.xgroup_destroy(keys.STREAM, keys.GROUP)
    assert await quick.ensure_group() is not None
    parked = (await quick.reclaim(idle_ms=0, every_ms=0, count=10)).entries
    again = [entry.id for entry in [*parked, *await quick.read_new(count=10, block_ms=1)]]
    assert len(again) == 3
    assert not set(again) & set(ids)
    for entry_id in again:
        assert isinstance(await quick.apply(Batch([entry_id], [update("a")])), Applied)

    assert await raw.hget(keys.aggregate("a"), "events_total") == b"4"
    assert not await raw.exists(keys.ABOVE), "nothing is remembered once the floor has passed it"


async def test_floor_stays_below_the_oldest_entry_that_is_still_pending(raw: Redis) -> None:
    stream, other = event_stream(raw, "one"), event_stream(raw, "two")
    await stream.ensure_group()
    for n in (1, 2, 3):
        await raw.xadd(keys.STREAM, {"data": "{}"}, id=f"{n}-0")
    (first,) = await stream.read_new(count=1, block_ms=1)
    (second,) = await other.read_new(count=1, block_ms=1)

    await other.apply(Batch([second.id]))
    assert await raw.get(keys.FLOOR) == b"0-18446744073709551615"
    await stream.apply(Batch([first.id]))
    assert await raw.get(keys.FLOOR) == b"2-0"


async def test_entry_deleted_from_the_stream_while_pending_does_not_hold_its_batch_up(raw: Redis) -> None:
    stream = event_stream(raw)
    batch = await pending_batch(raw, stream)
    await raw.xdel(keys.STREAM, batch.ids[0])

    outcome = await stream.apply(Batch(batch.ids, [update("a")]))
    if isinstance(outcome, Stale):
        assert outcome.pending == {batch.ids[1]}
        outcome = await stream.apply(Batch(batch.ids[1:], [update("a")]))

    assert isinstance(outcome, Applied)
    assert (await raw.xpending(keys.STREAM, keys.GROUP))["pending"] == 0


async def test_refused_names_are_counted_and_their_number_is_bounded(raw: Redis) -> None:
    stream = event_stream(raw, max_fields=10)
    for _ in range(2):
        batch = await pending_batch(raw, stream)
        batch.updates = [update("a", counters=500)]
        outcome = await stream.apply(batch)
        assert isinstance(outcome, Applied)
        assert len(outcome.refused) == 493
    assert await raw.hlen(keys.aggregate("a")) == 10
    assert await raw.hlen(keys.fold_state("a")) <= 110
    assert await raw.hget(keys.fold_state("a"), "refused:c10") == b"2"
