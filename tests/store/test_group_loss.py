"""A stream that was deleted goes on where it was: no id twice, none below the floor, and the lost are counted once."""

import random
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.clock import stream_id
from redis_agent.lockstep import Batch as Mirrored
from redis_agent.store import keys
from redis_agent.store.dead_letters import DeadLetters
from redis_agent.store.group import Created
from redis_agent.store.lease import Lease
from redis_agent.store.outbox import Delivery, Outbox, Raise
from redis_agent.store.stream import Applied, Batch, DeadLetter, ErrorAlert, EventStream, Stale
from tests.mirrors import mirror_of

# An id that the server's clock reaches only in the year 2255: as if the clock had been set back since.
AHEAD = "9000000000000-5"


class Bridge:
    """Writes events as a bridge that leads does."""

    def __init__(self, client: Redis) -> None:
        self._mirror = mirror_of(client, owner="me", ttl_ms=60_000)
        self._position = 1

    async def write(self, count: int) -> None:
        claim = await self._mirror.claim(epoch="", new_epoch="e")
        assert claim is not None
        batch = Mirrored(self._position, self._position, [(1, b"{}")] * count)
        self._position += count
        written = await self._mirror.write(claim.value, epoch="e", batch=batch)
        assert written.outcome == "written"


def event_stream(client: Redis, consumer: str = "c1") -> EventStream:
    return EventStream(reader=client, client=client, consumer=consumer, max_fields=99, max_raw=9, max_dead=99)


async def read(stream: EventStream, count: int) -> list[str]:
    return [entry.id for entry in await stream.read_new(count=count, block_ms=1)]


async def apply(stream: EventStream, ids: list[str], **parts: Any) -> Any:
    return await stream.apply(Batch(ids, contiguous=True, **parts))


async def account(raw: Redis, key: str = keys.ACCOUNT) -> dict[str, int]:
    """What is owed, lost, and lost without having been said."""
    values = await raw.hmget(key, ["owed", "lost", "unsaid"])
    return {name: int(value or 0) for name, value in zip(("owed", "lost", "unsaid"), values, strict=True)}


async def set_clock_back(raw: Redis, stream: str = keys.STREAM, key: str = keys.ACCOUNT) -> None:
    """Let the newest entry's id lie in the future."""
    entry = await raw.xadd(stream, {"data": "{}"}, id=AHEAD)
    await raw.hset(key, "last_id", entry)
    await raw.hincrby(key, "owed", 1)


@pytest.mark.parametrize("who", ["bridge", "worker", "operator"])
async def test_deleted_stream_goes_on_after_its_last_id_whoever_comes_first(raw: Redis, who: str) -> None:
    stream, bridge = event_stream(raw), Bridge(raw)
    await stream.ensure_group()
    await bridge.write(3)
    await set_clock_back(raw)
    assert isinstance(await apply(stream, await read(stream, 10)), Applied)
    assert await raw.get(keys.FLOOR) == AHEAD.encode()
    await raw.delete(keys.STREAM)

    letters = DeadLetters(raw)
    if who == "worker":
        assert await stream.ensure_group() == Created(AHEAD)
    if who == "operator":
        letter = await raw.xadd(keys.DEAD_LETTERS, {"data": "{}"})
        assert await letters.replay(letter.decode(), now_ms=1)
    await bridge.write(2)
    await stream.ensure_group()

    new = await read(stream, 10)
    assert len(new) == 3 if who == "operator" else 2
    assert all(stream_id(AHEAD) < stream_id(i) for i in new)
    assert isinstance(await apply(stream, new), Applied)
    assert await raw.get(keys.FLOOR) == new[-1].encode()
    assert await account(raw) == {"owed": 0, "lost": 0, "unsaid": 0}


async def test_what_was_remembered_above_the_floor_of_a_deleted_stream_says_nothing_about_a_new_one(raw: Redis) -> None:
    slow, quick, bridge = event_stream(raw, "slow"), event_stream(raw, "quick"), Bridge(raw)
    await slow.ensure_group()
    await bridge.write(2)
    held = await read(slow, 2)
    await set_clock_back(raw)
    above = await read(quick, 1)
    await apply(quick, above)
    assert await raw.hlen(keys.ABOVE) == 1

    await raw.delete(keys.STREAM)
    created = await quick.ensure_group()
    assert created == Created(AHEAD, lost=2)
    assert not await raw.exists(keys.ABOVE)
    await bridge.write(4)

    new = await read(quick, 10)
    assert len(new) == 4
    assert not {*held, *above} & {*new}
    assert await apply(slow, held) == Stale(frozenset()), "what was in hand is let go"
    assert isinstance(await apply(quick, new), Applied)


async def test_stream_that_others_began_anew_below_the_floor_is_read_from_its_beginning(raw: Redis) -> None:
    stream, bridge = event_stream(raw), Bridge(raw)
    await stream.ensure_group()
    await bridge.write(2)
    await set_clock_back(raw)
    await apply(stream, await read(stream, 3))
    await bridge.write(5)
    await read(stream, 2)
    await raw.delete(keys.STREAM)
    others = [(await raw.xadd(keys.STREAM, {"data": "{}"})).decode() for _ in range(2)]

    assert await stream.ensure_group() == Created("0-0", lost=3), "five less the two that others wrote"
    assert await read(stream, 10) == others
    assert isinstance(await apply(stream, others), Applied)
    assert await raw.get(keys.FLOOR) == others[-1].encode()
    assert (await account(raw))["owed"] == 0


async def test_lost_entries_are_counted_and_said_once_also_when_the_bridge_was_first(raw: Redis) -> None:
    stream, bridge = event_stream(raw), Bridge(raw)
    await stream.ensure_group()
    await bridge.write(10)
    ids = await read(stream, 6)
    await apply(stream, ids[:4])
    assert await account(raw) == {"owed": 6, "lost": 0, "unsaid": 0}
    await raw.delete(keys.STREAM)

    await bridge.write(3)
    assert await account(raw) == {"owed": 3, "lost": 0, "unsaid": 6}
    created = await stream.ensure_group()
    assert created is not None
    assert created.lost == 6
    assert await account(raw) == {"owed": 3, "lost": 6, "unsaid": 0}
    assert await stream.ensure_group() is None
    assert len(await read(stream, 10)) == 3

    await raw.delete(keys.STREAM)
    again = await stream.ensure_group()
    assert again is not None
    assert again.lost == 3
    await raw.delete(keys.STREAM)
    assert (await stream.ensure_group() or Created("", 9)).lost == 0


async def test_destroyed_group_has_lost_nothing(raw: Redis) -> None:
    slow, quick, bridge = event_stream(raw, "slow"), event_stream(raw, "quick"), Bridge(raw)
    await slow.ensure_group()
    await bridge.write(900)
    await read(slow, 5)
    await apply(quick, await read(quick, 300))

    for _ in range(3):
        await raw.xgroup_destroy(keys.STREAM, keys.GROUP)
        assert (await quick.ensure_group() or Created("", 9)).lost == 0
    assert await account(raw) == {"owed": 600, "lost": 0, "unsaid": 0}


@pytest.mark.parametrize("seed", range(6))
async def test_count_of_what_was_lost_is_exact_in_any_history_of_ours(raw: Redis, seed: int) -> None:
    rng, bridge = random.Random(seed), Bridge(raw)
    consumers = [event_stream(raw, name) for name in ("ann", "bob")]
    unacked: set[str] = set()
    pending: dict[int, list[str]] = {0: [], 1: []}
    await consumers[0].ensure_group()
    lost = told = 0
    for _ in range(150):
        who = rng.randrange(2)
        match rng.choice(["write", "write", "read", "read", "apply", "apply", "destroy", "delete"]):
            case "write":
                before = {i for i, _ in await raw.xrange(keys.STREAM)}
                await bridge.write(rng.randint(1, 9))
                new = {i.decode() for i, _ in await raw.xrange(keys.STREAM) if i not in before}
                assert not new & unacked
                unacked |= new
            case "read":
                pending[who] += await read(consumers[who], rng.randint(1, 9))
            case "apply" if pending[who]:
                batch = sorted(pending[who], key=stream_id)[: rng.randint(1, 9)]
                outcome = await consumers[who].apply(Batch(batch))
                pending[who] = [i for i in pending[who] if i not in batch]
                if isinstance(outcome, Applied):
                    unacked -= set(batch)
            case "destroy" | "delete" as how if rng.random() < 0.3:
                if how == "destroy":
                    await raw.xgroup_destroy(keys.STREAM, keys.GROUP)
                else:
                    await raw.delete(keys.STREAM)
                    lost += len(unacked)
                    unacked.clear()
                    if rng.random() < 0.5:
                        await bridge.write(2)
                        unacked |= {i.decode() for i, _ in await raw.xrange(keys.STREAM)}
                created = await consumers[who].ensure_group()
                assert created is not None
                told += created.lost
                pending = {0: [], 1: []}
                assert told == lost
        assert await account(raw) == {"owed": len(unacked), "lost": lost, "unsaid": 0}


async def test_what_others_write_leaves_the_count_sane(raw: Redis) -> None:
    stream, bridge = event_stream(raw), Bridge(raw)
    await stream.ensure_group()
    await bridge.write(5)
    for _ in range(20):
        await raw.xadd(keys.STREAM, {"data": "{}"})
    await apply(stream, await read(stream, 20))
    assert (await account(raw))["owed"] == 0, "never negative"
    await apply(stream, await read(stream, 20))
    await bridge.write(7)
    assert (await account(raw))["owed"] == 7, "counted anew once all was acked"
    await raw.xdel(keys.STREAM, *await read(stream, 3))
    await apply(stream, await read(stream, 10))
    await raw.delete(keys.STREAM)
    assert (await stream.ensure_group() or Created("", 9)).lost == 3, "those that were deleted one by one"


@pytest.mark.parametrize("by", ["judge", "worker"])
async def test_deleted_outbox_goes_on_after_its_last_id_and_its_alerts_are_counted(raw: Redis, by: str) -> None:
    stream = event_stream(raw)
    outbox, delivery = Outbox(raw), Delivery(reader=raw, client=raw, consumer="d", channel="out")
    lease = await Lease(raw, name=keys.LEASE_DISPATCHER, owner="d", ttl_ms=60_000).acquire() or ""
    await delivery.ensure_group()
    await set_clock_back(raw, keys.OUTBOX, keys.OUTBOX_ACCOUNT)

    async def raise_(number: int) -> None:
        if by == "judge":
            alert = Raise("e", "error", f"f{number}", 100, f"id{number}", f"data {number}", 5)
            assert await outbox.raise_([alert]) == [0]
            return
        await stream.ensure_group()
        await raw.xadd(keys.STREAM, {"data": "x"})
        ids = await read(stream, 1)
        letter = DeadLetter(0, "not_json", b"x", 1)
        alerts = [ErrorAlert(f"redis_agent:cooldown:e:error:{number}", 100, f"id{number}", f"data {number}", 5)]
        applied = await apply(stream, ids, dead=[letter], alerts=alerts)
        assert isinstance(applied, Applied)
        assert applied.raised == [True]

    async with raw.pubsub() as listener:
        await listener.subscribe("out")
        await listener.get_message(timeout=5)

        async def deliver() -> list[str]:
            delivered = []
            await delivery.read(count=10, block_ms=1)
            for entry in await delivery.take_over(10):
                assert await delivery.deliver(lease, entry, ttl_ms=60_000, replaceable=False) == 1
                delivered.append(entry.data)
            return delivered

        assert await deliver() == ["{}"]
        assert await raw.get(keys.OUTBOX_FLOOR) == AHEAD.encode()
        await raise_(1)
        await raise_(2)
        await raw.delete(keys.OUTBOX)
        await raise_(3)
        created = await delivery.ensure_group()
        assert created == Created(AHEAD, lost=2)
        assert await deliver() == ["data 3"]
        assert await account(raw, keys.OUTBOX_ACCOUNT) == {"owed": 0, "lost": 2, "unsaid": 0}


@pytest.mark.parametrize("key", [keys.ACCOUNT, keys.OUTBOX_ACCOUNT])
async def test_account_of_the_wrong_type_costs_nothing_but_the_count(raw: Redis, key: str) -> None:
    await raw.set(key, "something else")
    stream, bridge = event_stream(raw), Bridge(raw)
    await stream.ensure_group()
    await bridge.write(2)
    alerts = [ErrorAlert("redis_agent:cooldown:e:error:1", 100, "id", "data", 5)]
    assert isinstance(await apply(stream, await read(stream, 1), alerts=alerts), Applied)
    await raw.delete(keys.STREAM, keys.OUTBOX)
    await bridge.write(2)
    assert (await stream.ensure_group() or Created("", 9)).lost == (0 if key == keys.ACCOUNT else 1)
    assert isinstance(await apply(stream, await read(stream, 9)), Applied)
    assert await Outbox(raw).raise_([Raise("e", "error", "f", 100, "i", "d", 5)]) == [0]
