"""The outbox: one entry a cooldown, delivery in order, only the newest summary, and a length that holds."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from redis_agent.alerts import Told, told
from redis_agent.store import keys
from redis_agent.store.lease import Lease
from redis_agent.store.outbox import SILENCED, SUPERSEDED, Delivery, Outbox, OutboxEntry, Raise
from redis_agent.store.silences import Silences
from tests.waiting import eventually

CHANNEL = "test:orchestrator"
LONG_MS = 3_600_000
# Experiment and type of alerts, in their order.
MUTED = (("e", "error"), ("e", "anomaly"), ("a", "error"), ("a:error", "anomaly"))


def error(number: int) -> Raise:
    data = json.dumps({"type": "error", "severity": "high", "alert_id": f"e{number}"})
    return Raise("e", "error", f"f{number}", 100, f"e{number}", data, 5)


def summary(number: int) -> Raise:
    data = json.dumps({"type": "periodic_summary", "severity": "info", "alert_id": f"s{number}"})
    return Raise("all", "periodic_summary", f"{number}", 100, f"s{number}", data, 0, replaces=True)


class Leader:
    """A dispatcher that holds the lease, step by step."""

    def __init__(self, raw: Redis, value: str) -> None:
        self.value = value
        self.delivery = Delivery(reader=raw, client=raw, consumer="me", channel=CHANNEL)

    async def deliver(self, entry: OutboxEntry, ttl_ms: int = LONG_MS) -> int:
        about = told(entry.data)
        return await self.delivery.deliver(
            self.value,
            entry,
            ttl_ms=ttl_ms,
            replaceable=about.type == "periodic_summary",
            experiment_id=about.experiment_id,
            alert_type=about.type,
        )

    async def deliver_all(self) -> list[int]:
        """As the dispatcher does it: what is read is pending, what is pending is delivered in order."""
        outcomes = []
        await self.delivery.read(count=1000, block_ms=1)
        while waiting := await self.delivery.take_over(10):
            outcomes += [await self.deliver(entry) for entry in waiting]
        return outcomes


@pytest.fixture
async def leader(raw: Redis) -> Leader:
    value = await Lease(raw, name=keys.LEASE_DISPATCHER, owner="me", ttl_ms=50_000).acquire()
    found = Leader(raw, value or "")
    await found.delivery.ensure_group()
    return found


@contextlib.asynccontextmanager
async def listening(raw: Redis) -> AsyncIterator[list[str]]:
    """The ids of alerts that a subscriber has received when the block ends."""
    heard: list[str] = []
    async with raw.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(CHANNEL)
        await listener.get_message(timeout=1)
        yield heard
        while message := await listener.get_message(timeout=0.1):
            heard.append(json.loads(message["data"])["alert_id"])


async def test_same_alert_raised_by_many_at_once_is_one_entry(raw: Redis) -> None:
    raised = await asyncio.gather(*[Outbox(raw).raise_([error(1), error(2)]) for _ in range(40)])
    assert [sum(outcomes[n] == 0 for outcomes in raised) for n in (0, 1)] == [1, 1]
    assert await raw.xlen(keys.OUTBOX) == 2


async def test_only_the_newest_summary_is_delivered_and_all_else_in_its_order(raw: Redis, leader: Leader) -> None:
    await Outbox(raw).raise_([summary(1), error(1), summary(2), error(2), summary(3), error(3)])
    async with listening(raw) as heard:
        outcomes = await leader.deliver_all()
    assert outcomes == [SUPERSEDED, 1, SUPERSEDED, 1, 1, 1]
    assert heard == ["e1", "e2", "s3", "e3"]
    ids = [entry_id for entry_id, _ in await raw.xrange(keys.OUTBOX)]
    assert len(ids) == 6, "the history keeps all"
    assert await raw.smembers(keys.UNDELIVERED) == {ids[0], ids[2]}
    assert await raw.get(keys.OUTBOX_FLOOR) == ids[-1]


@pytest.mark.parametrize("in_the_way", ["gone", "garbage", "wrong type", "missing"])
async def test_summary_is_delivered_when_there_is_no_newer_one_to_read(
    raw: Redis, leader: Leader, in_the_way: str
) -> None:
    await Outbox(raw).raise_([summary(1), summary(2)])
    newest = [entry_id for entry_id, _ in await raw.xrange(keys.OUTBOX)][-1]
    if in_the_way == "gone":
        await raw.xdel(keys.OUTBOX, newest)
    else:
        await raw.delete(keys.NEWEST_SUMMARY)
    if in_the_way == "garbage":
        await raw.set(keys.NEWEST_SUMMARY, "x y")
    if in_the_way == "wrong type":
        await raw.rpush(keys.NEWEST_SUMMARY, newest)
    async with listening(raw) as heard:
        await leader.deliver_all()
    assert heard == (["s1"] if in_the_way == "gone" else ["s1", "s2"])


async def test_muted_alert_is_not_delivered_and_holds_nothing_up(raw: Redis, leader: Leader) -> None:
    silences = Silences(raw)
    await silences.add("a:error", None, seconds=100, since="now")  # not the errors of "a"
    await silences.add("e", "error", seconds=100, since="now")
    data = [json.dumps({"type": kind, "experiment_id": e, "alert_id": e + kind}) for e, kind in MUTED]
    await Outbox(raw).raise_([Raise("x", "x", str(n), 100, str(n), text, 0) for n, text in enumerate(data)])
    async with listening(raw) as heard:
        assert await leader.deliver_all() == [SILENCED, 1, 1, SILENCED]
    assert heard == ["eanomaly", "aerror"]
    assert await raw.scard(keys.UNDELIVERED) == 2
    assert (await raw.xpending(keys.OUTBOX, keys.DISPATCHER_GROUP))["pending"] == 0


async def test_summary_that_was_given_up_counts_as_delivered_nowhere(raw: Redis, leader: Leader) -> None:
    await raw.rpush(keys.UNDELIVERED, "of the wrong type")
    await Outbox(raw).raise_([error(1)])
    (entry,) = await leader.delivery.read(count=1, block_ms=1)
    assert await leader.deliver(entry, ttl_ms=-1) == -3, "one bad key must not hold up the alerts behind"
    assert (await raw.xpending(keys.OUTBOX, keys.DISPATCHER_GROUP))["pending"] == 0


async def test_late_read_of_a_former_leader_does_not_disturb_the_order(raw: Redis, leader: Leader) -> None:
    await Outbox(raw).raise_([error(n) for n in range(6)])
    late = Delivery(reader=raw, client=raw, consumer="late", channel=CHANNEL)
    await late.read(count=2, block_ms=1)
    await leader.delivery.read(count=2, block_ms=1)
    await late.read(count=1, block_ms=1)
    async with listening(raw) as heard:
        await leader.deliver_all()
    assert heard == [f"e{n}" for n in range(6)]


async def test_what_is_read_and_taken_over_in_one_step_is_all_that_is_pending_in_order(
    raw: Redis, leader: Leader
) -> None:
    assert await leader.delivery.read(count=10, block_ms=1) == []
    await Outbox(raw).raise_([error(n) for n in range(4)])
    late = Delivery(reader=raw, client=raw, consumer="late", channel=CHANNEL)
    await late.read(count=2, block_ms=1)
    waiting = await leader.delivery.read(count=10, block_ms=1)
    assert [told(entry.data).alert_id for entry in waiting] == [f"e{n}" for n in range(4)]

    async with raw.pipeline() as pipe:
        for _ in range(1_000):
            pipe.xadd(keys.OUTBOX, {"data": "x"})
        await pipe.execute()
    await raw.xreadgroup(keys.DISPATCHER_GROUP, "late", {keys.OUTBOX: ">"})
    await Outbox(raw).raise_([error(9)])
    await raw.xtrim(keys.OUTBOX, maxlen=1, approximate=False)
    (entry,) = await leader.delivery.read(count=10, block_ms=1)
    assert told(entry.data).alert_id == "e9", "behind more entries that are gone than a page has"


async def test_pending_alerts_behind_many_that_are_gone_are_found(raw: Redis, leader: Leader) -> None:
    async with raw.pipeline() as pipe:
        for _ in range(3_000):
            pipe.xadd(keys.OUTBOX, {"data": "x"})
        await pipe.execute()
    await Outbox(raw).raise_([error(1)])
    await leader.delivery.read(count=4_000, block_ms=1)
    await raw.xtrim(keys.OUTBOX, maxlen=1, approximate=False)
    assert [told(entry.data).alert_id for entry in await leader.delivery.take_over(10)] == ["e1"]


async def test_floor_does_not_pass_an_alert_that_is_still_pending(raw: Redis, leader: Leader) -> None:
    await Outbox(raw).raise_([error(1), error(2)])
    first, second = await leader.delivery.read(count=2, block_ms=1)
    async with listening(raw) as heard:
        assert await leader.deliver(second) == 1
        await raw.xgroup_destroy(keys.OUTBOX, keys.DISPATCHER_GROUP)
        await leader.delivery.ensure_group()
        await leader.deliver_all()
    assert heard == ["e2", "e1", "e2"], "rather twice than lost"
    assert first.id < second.id


async def test_outbox_that_was_deleted_begins_anew(raw: Redis, leader: Leader) -> None:
    async with listening(raw) as heard:
        await Outbox(raw).raise_([error(1)])
        await leader.deliver_all()
        await raw.delete(keys.OUTBOX)
        # Ids are times: those of the new outbox are above the floor once the clock has moved on by a millisecond.
        floor = await raw.get(keys.OUTBOX_FLOOR)
        await eventually(lambda: _passed(raw, int(floor.partition(b"-")[0])))
        await Outbox(raw).raise_([error(2), summary(1)])
        await leader.delivery.ensure_group()
        await leader.deliver_all()
    assert heard == ["e1", "e2", "s1"]


async def _passed(raw: Redis, ms: int) -> bool:
    seconds, micros = await raw.time()
    return seconds * 1000 + micros // 1000 > ms


async def test_length_holds_although_nobody_listens_and_what_goes_is_handed_back(raw: Redis, leader: Leader) -> None:
    outbox = Outbox(raw)
    await outbox.raise_([error(n) for n in range(20)])
    async with listening(raw):
        await leader.deliver_all()
    await outbox.raise_([error(n) for n in range(20, 300)])
    waiting = await leader.delivery.read(count=30, block_ms=1)
    await leader.deliver(waiting[0], ttl_ms=-1)

    dropped: list[str] = []
    over = 1
    steps = 0
    while over:
        gone, over = await outbox.trim(100)
        dropped += gone
        steps += 1

    assert steps == 2, "a hundred entries a step"
    assert await raw.xlen(keys.OUTBOX) == 100
    # Twenty were delivered, one was given up and counted then.
    assert [told(data).alert_id for data in dropped] == [f"e{n}" for n in range(21, 200)]
    assert await raw.scard(keys.UNDELIVERED) == 0
    async with listening(raw) as heard:
        await leader.deliver_all()
    assert heard == [f"e{n}" for n in range(200, 300)]
    assert await outbox.trim(100) == ([], 0)


async def test_length_holds_without_any_dispatcher(raw: Redis) -> None:
    await Outbox(raw).raise_([error(n) for n in range(150)])
    dropped, over = await Outbox(raw).trim(100)
    assert (len(dropped), over, await raw.xlen(keys.OUTBOX)) == (50, 0, 100)


@pytest.mark.parametrize("data", ["", "no json", "[1]", "[" * 100_000, '{"type":5,"severity":[],"x":NaN}', "null"])
def test_what_is_no_alert_is_told_as_other(data: Any) -> None:
    assert told(data) in (Told("other", "other", "?"),)


async def test_alerts_leave_and_the_outbox_is_trimmed_also_while_the_server_is_out_of_memory(
    raw: Redis, leader: Leader
) -> None:
    await Outbox(raw).raise_([error(n) for n in range(5)])
    usual = (await raw.config_get("maxmemory"))["maxmemory"]
    async with listening(raw) as heard:
        try:
            await raw.config_set("maxmemory", 1)
            with pytest.raises(OutOfMemoryError):
                await Outbox(raw).raise_([error(9)])
            await leader.deliver_all()
            assert await Outbox(raw).trim(2) == ([], 0)
        finally:
            await raw.config_set("maxmemory", usual)
    assert heard == [f"e{n}" for n in range(5)]
    assert await raw.xlen(keys.OUTBOX) == 2
