"""Streams of several partitions are merged and divided anew: ids mean what they meant, what is not known is said."""

import json
from collections.abc import AsyncIterator

import pytest

from redis_agent.dividing import prepare
from redis_agent.errors import PartitionsError
from redis_agent.store import division, keys
from redis_agent.store.address import Address
from redis_agent.store.flow import flow, outbox_flow
from redis_agent.store.inspection import Inspection
from redis_agent.store.partitions import Partitions

FIRST, SECOND = "exp-0", "exp-4"


@pytest.fixture
async def both(redis_url: str) -> AsyncIterator[tuple[Partitions, Partitions]]:
    """Two partitions that there are, and three that there will be."""
    before, after = (Partitions(Address(redis_url), count, name="test") for count in (2, 3))
    assert [before.of(one).number for one in (FIRST, SECOND)] == [0, 1]
    yield before, after
    await before.aclose()
    await after.aclose()


async def event(partitions: Partitions, experiment: str, entry_id: str, *, added: str = "sent") -> None:
    client = partitions.of(experiment).client
    data = json.dumps({"experiment_id": experiment, "event": added})
    await client.xadd(keys.STREAM, {"data": data, "at": entry_id.partition("-")[0]}, id=entry_id)
    await client.zadd(keys.EXPERIMENTS, {experiment: 1})


async def arrived(before: Partitions, after: Partitions) -> dict[str, division.Divided]:
    found = await prepare(before.all, after.all, max_event_bytes=1_000)
    for target in after.all:
        await division.complete(target)
        assert await division.arrive(target)
        assert not await division.arrive(target)
    return found


async def ids(partitions: Partitions, experiment: str, stream: str) -> list[str]:
    return [entry_id.decode() for entry_id, _ in await partitions.of(experiment).client.xrange(stream)]


async def test_id_that_two_partitions_have_is_given_once_and_what_is_known_of_an_entry_follows_it(
    redis_url: str,
) -> None:
    before, after = (Partitions(Address(redis_url), count, name="test") for count in (2, 1))
    for one in (FIRST, SECOND):
        client = before.of(one).client
        await event(before, one, "5-1")
        await client.sadd(keys.UNAPPLIED, "5-1")
        await client.xadd(keys.OUTBOX, {"data": json.dumps({"experiment_id": one, "type": "error"})}, id="7-0")
        await client.hset(keys.ANALYSES, "7-0", f"of {one}")
    await event(before, FIRST, "5-2")
    await before.of(SECOND).client.sadd(keys.UNDELIVERED, "7-0")

    found = await arrived(before, after)

    client = after.home.client
    assert [divided.renumbered for divided in found.values()] == [2, 0, 1]
    rows = await client.xrange(keys.STREAM)
    assert [(entry_id, json.loads(fields[b"data"])["experiment_id"]) for entry_id, fields in rows] == [
        (b"5-1", FIRST),
        (b"5-2", SECOND),
        (b"5-3", FIRST),
    ]
    assert await client.smembers(keys.UNAPPLIED) == {b"5-1", b"5-2"}
    alerts = [alert async for alert in Inspection(client).alerts(await Inspection(client).given_up())]
    assert sorted((json.loads(a.data)["experiment_id"], a.delivered, a.analysis) for a in alerts) == [
        (FIRST, True, f"of {FIRST}"),
        (SECOND, False, f"of {SECOND}"),
    ]
    await before.aclose()
    await after.aclose()


async def test_streams_go_on_above_every_id_that_was_given_and_nothing_is_unread(
    both: tuple[Partitions, Partitions],
) -> None:
    before, after = both
    await event(before, FIRST, "5-1")
    await event(before, SECOND, "9-1")
    await before.of(FIRST).client.hset(keys.ACCOUNT, mapping={"last_id": "9999999999999-3", "lost": 2, "owed": 0})
    await before.of(SECOND).client.xgroup_create(keys.STREAM, "others", id="$")

    await arrived(before, after)

    for partition in after.all:
        for group in (keys.GROUP, "others"):
            found = await flow(partition.client, group=group)
            assert (found.exists, found.lag, found.pending, found.last_delivered) == (True, 0, 0, "9999999999999-3")
        assert (await outbox_flow(partition.client)).exists is False
        added = await partition.client.xadd(keys.STREAM, {"data": "{}"})
        assert added == b"9999999999999-4"
        assert (await flow(partition.client)).lag == 1
        assert await partition.client.get(keys.FLOOR) == b"9999999999999-3"
    assert [await p.client.hget(keys.ACCOUNT, "lost") for p in after.all] == [b"2", b"0", b"0"]


async def test_history_is_kept_as_far_as_every_partition_has_it(both: tuple[Partitions, Partitions]) -> None:
    before, after = both
    for entry_id in ("5-1", "20-1"):
        await event(before, FIRST, entry_id)
    for entry_id in ("3-1", "10-1", "30-1"):
        await event(before, SECOND, entry_id)
    assert (await prepare(before.all, after.all, max_event_bytes=1_000))[keys.STREAM].whole
    for target in after.all:
        await division.give_up(target)
    await before.of(SECOND).client.xtrim(keys.STREAM, minid="10-0", approximate=False)

    found = (await arrived(before, after))[keys.STREAM]

    assert (found.whole, found.dropped) == (False, 1)
    assert await ids(after, FIRST, keys.STREAM) == ["20-1"]
    assert await ids(after, SECOND, keys.STREAM) == ["10-1", "30-1"]
    for partition in after.all:
        inspection = Inspection(partition.client)
        assert (await inspection.group()).length < await inspection.entries_added()


async def test_partition_without_experiments_says_nothing_of_the_history(both: tuple[Partitions, Partitions]) -> None:
    before, after = both
    await event(before, FIRST, "5-1")
    other = before.of(SECOND).client
    await other.xadd(keys.STREAM, {"data": "{}"}, id="9-9")
    await other.xtrim(keys.STREAM, maxlen=0, approximate=False)
    found = (await arrived(before, after))[keys.STREAM]
    assert (found.whole, found.dropped, sum(found.lengths)) == (True, 0, 1)


async def test_counts_that_nobody_can_divide_are_the_home_partitions_and_gaps_are_in_each(
    both: tuple[Partitions, Partitions],
) -> None:
    before, after = both
    for n, partition in enumerate(before.all):
        bridge = {"written": 7, "epoch": f"e{n}", "leader": "me", "at": 100 + n, "gaps": 2, "gap_ms": 50 + n}
        await partition.client.hset(keys.BRIDGE, mapping=bridge | {"given_up": 3})
        mark = json.dumps([5, 1_000 + n, [[10, 20], [30 + n, 40 + n]]])
        values = {"buried": 1, "stream_dropped_unread": 4, "summary_slot": n, "anomalies": mark}
        await partition.client.hset(keys.SCHEDULER, mapping=values)

    await arrived(before, after)

    bridges = await division.hashes(after.all, keys.BRIDGE)
    assert [(one["at"], one["gaps"], one["gap_ms"], one["given_up"]) for one in bridges] == [
        (b"101", b"2", b"51", given_up) for given_up in (b"6", b"0", b"0")
    ]
    assert not {one["epoch"] for one in bridges} & {b"e0", b"e1"}
    schedulers = await division.hashes(after.all, keys.SCHEDULER)
    assert [one.get("summary_slot") for one in schedulers] == [b"0", None, None]
    assert (schedulers[0]["buried"], schedulers[0]["stream_dropped_unread"]) == (b"2", b"8")
    # Gaps, what was given up and what was dropped, as the examiner will count them.
    assert [json.loads(one["anomalies"]) for one in schedulers] == [
        [losses, 1_000, [[10, 20], [30, 40], [31, 41]]] for losses in (16, 2, 2)
    ]


async def test_partition_whose_mark_is_gone_is_not_taken_for_ended(both: tuple[Partitions, Partitions]) -> None:
    before, after = both
    await event(before, FIRST, "5-1")
    await prepare(before.all, after.all, max_event_bytes=1_000)
    with pytest.raises(PartitionsError, match="set it to 1 and run this again"):
        await division.arrive(after.home)
