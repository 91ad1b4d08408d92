"""How much a worker asks for and holds: bounded in bytes, whatever the events' size."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from redis_agent.holding import Holding
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.stream import EventStream, StreamEntry
from redis_agent.telemetry import Telemetry
from tests.processes import unused_port

BATCH_SIZE, BATCH_BYTES = 500, 1_000_000


@pytest.fixture
async def holding() -> AsyncIterator[Holding]:
    """Over a stream that is never asked for anything."""
    client = connect(Address(f"redis://127.0.0.1:{unused_port()}"), name="nobody")
    stream = EventStream(reader=client, client=client, consumer="c", max_fields=1, max_raw=1, max_dead=1)
    yield Holding(
        stream=stream,
        telemetry=Telemetry(),
        batch_size=BATCH_SIZE,
        batch_bytes=BATCH_BYTES,
        reclaim_idle_seconds=3600,
    )
    await client.aclose()


def entries(*sizes: int) -> list[StreamEntry]:
    return [StreamEntry(f"{n}-1", b"x" * size, n) for n, size in enumerate(sizes, 1)]


async def test_count_grows_to_the_batch_size_while_small_events_fill_each_read(holding: Holding) -> None:
    counts = []
    for _ in range(8):
        counts.append(holding.count())
        for chunk in holding.take(entries(*[100] * counts[-1])):
            holding.finish(chunk)
    assert counts == [16, 32, 64, 128, 256, 500, 500, 500]


async def test_count_beyond_a_few_hundred_is_only_for_batches_that_are_applied_soon(holding: Holding) -> None:
    holding = Holding(
        stream=holding._stream,
        telemetry=Telemetry(),
        batch_size=4_000,
        batch_bytes=BATCH_BYTES,
        reclaim_idle_seconds=3600,
    )

    def settled(seconds_each: float) -> int:
        for _ in range(40):
            count = holding.count()
            for chunk in holding.take(entries(*[100] * count)):
                holding.finish(chunk)
            holding.applied(count, count * seconds_each)
        return holding.count()

    assert settled(0.000_002) == 4_000
    assert settled(0.000_010) == pytest.approx(2_000, rel=0.01)
    assert settled(0.000_100) == 500, "so many are asked for however long they take"
    assert settled(0.000_010) == pytest.approx(2_000, rel=0.01), "and more again when they take less"


async def test_count_is_small_again_after_a_quiet_time(holding: Holding) -> None:
    for _ in range(8):
        holding.take(entries(*[100] * holding.count()))
    assert holding.take([]) == []
    assert holding.count() == 16


async def test_large_events_are_asked_for_as_many_as_fit_a_batch_and_one_at_least(holding: Holding) -> None:
    holding.take(entries(*[100_000] * 16))
    assert holding.count() == 10
    holding.take(entries(5_000_000))
    assert holding.count() == 1
    for _ in range(60):
        holding.take(entries(*[100] * holding.count()))
    assert holding.count() == BATCH_SIZE, "small ones are believed in the end"


@pytest.mark.parametrize("seed", range(5))
async def test_chunks_hold_everything_in_order_within_the_bound_or_one_large_event_alone(
    holding: Holding, seed: int
) -> None:
    rng = random.Random(seed)
    given = entries(*[rng.choice([10, 1_000, 200_000, 999_999, 3_000_000]) for _ in range(60)])
    chunks = holding.take(given)
    assert [entry for chunk in chunks for entry in chunk.entries] == given
    assert all(chunk.size <= BATCH_BYTES or len(chunk.entries) == 1 for chunk in chunks)
    assert all(chunk.size == sum(len(entry.data or b"") for entry in chunk.entries) for chunk in chunks)


async def test_reading_waits_until_what_is_held_is_finished(holding: Holding) -> None:
    stop = asyncio.Event()
    chunks = holding.take(entries(*[900_000] * 3))
    waiting = asyncio.create_task(holding.room(stop))
    await asyncio.sleep(0)
    assert not waiting.done()
    holding.finish(chunks[0])
    await asyncio.wait_for(waiting, 5)

    holding.take(entries(900_000))
    waiting = asyncio.create_task(holding.room(stop))
    await asyncio.sleep(0)
    assert not waiting.done()
    stop.set()
    await asyncio.wait_for(waiting, 5)


async def test_rest_ends_with_what_is_in_hand_and_lasts_no_longer_than_asked_for(holding: Holding) -> None:
    stop = asyncio.Event()
    async with asyncio.timeout(5):
        await holding.rest(stop, 3600)  # nothing is in hand
        first, second = holding.take(entries(100)), holding.take(entries(100))
        await holding.rest(stop, 0.01)

        resting = asyncio.create_task(holding.rest(stop, 3600))
        holding.finish(first[0])
        await asyncio.sleep(0.01)
        assert not resting.done()
        holding.finish(second[0])
        await resting

        holding.take(entries(100))
        resting = asyncio.create_task(holding.rest(stop, 3600))
        await asyncio.sleep(0)
        stop.set()
        await resting


async def test_who_is_not_behind_does_not_rest(holding: Holding) -> None:
    stop = asyncio.Event()
    async with asyncio.timeout(5):
        full = holding.take(entries(*[100] * holding.count()))
        resting = asyncio.create_task(holding.rest(stop, 3600))
        await asyncio.sleep(0.01)
        assert not resting.done()

        holding.count()
        holding.take(entries(*[100] * 15))  # a few, fewer than were asked for
        await holding.rest(stop, 3600)
        holding.finish(full[0])
        await resting
