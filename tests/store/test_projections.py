"""Copies of what a partition has: whole, never older than what stands there, and complete in the end."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.aggregates import Aggregates, DerivedUpdate
from redis_agent.store.partitions import Partitions
from redis_agent.store.projections import Projections
from redis_agent.store.stream import Applied, Batch, EventStream, ExperimentUpdate

MAX_RAW = 5


@dataclass
class Applier:
    """Applies events to experiments of one partition."""

    client: Redis
    stream: EventStream
    applied: int = 0

    async def apply(self, *experiments: str) -> list[bytes]:
        raw = []
        for one in experiments:
            self.applied += 1
            raw.append(b'{"n":%d}' % self.applied)
            await self.client.xadd(keys.STREAM, {"data": raw[-1]})
            (entry,) = await self.stream.read_new(count=1, block_ms=1)
            at = f"2026-01-01T00:00:00.{self.applied:03d}Z"
            plan = {"id": one, "events": "1", "first": at, "last": at, "last_ms": 1, "gauges": []}
            update = ExperimentUpdate(one, plan | {"counters": ["sent_count", "1"]}, [raw[-1]])
            assert isinstance(await self.stream.apply(Batch([entry.id], [update])), Applied)
        return raw


@pytest.fixture
async def partitions(redis_url: str) -> AsyncIterator[Partitions]:
    found = Partitions(Address(redis_url), 2, name="test")
    yield found
    await found.aclose()


@pytest.fixture
async def applier(partitions: Partitions) -> Applier:
    client = partitions.home.client
    stream = EventStream(reader=client, client=client, consumer="c", max_fields=100, max_raw=MAX_RAW, max_dead=10)
    await stream.ensure_group()
    return Applier(client, stream)


@pytest.fixture
def projections(partitions: Partitions) -> Projections:
    return Projections(partitions.home.client, partitions.wide, max_raw=MAX_RAW)


async def touched(projections: Projections) -> set[str]:
    return {one async for page in projections.touched(10) for one in page}


async def copy_of(client: Redis, one: str) -> tuple[dict[str, str], list[str]]:
    return await client.hgetall(keys.aggregate(one)), await client.lrange(keys.raw_events(one), 0, -1)


async def source_of(partitions: Partitions, one: str) -> tuple[dict[str, str], list[str]]:
    client = partitions.home.client
    fields = await client.hgetall(keys.aggregate(one))
    events = await client.lrange(keys.raw_events(one), 0, -1)
    return {name.decode(): value.decode() for name, value in fields.items()}, [event.decode() for event in events]


@pytest.mark.parametrize("one", ["e", "a{b}c", "}{"])
async def test_copy_is_what_the_partition_has(
    applier: Applier, projections: Projections, partitions: Partitions, client: Redis, one: str
) -> None:
    for count in (1, 2, MAX_RAW + 1, 1):
        await applier.apply(*[one] * count)
        assert await touched(projections) == {one}
        assert await projections.project([one]) == {one}
        assert await touched(projections) == set()
        assert await copy_of(client, one) == await source_of(partitions, one)


async def test_derived_metrics_are_copied_as_well(
    applier: Applier, projections: Projections, partitions: Partitions, client: Redis
) -> None:
    await applier.apply("e", "f")
    await projections.project(["e", "f"])
    updates = [DerivedUpdate("e", "1", {"rate": "0.5"}, []), DerivedUpdate("f", "0", {"rate": "0.5"}, [])]
    await Aggregates(partitions.home.client).write_derived(updates)
    assert await touched(projections) == {"e"}
    await projections.project(["e"])
    assert (await copy_of(client, "e"))[0]["rate"] == "0.5"
    assert await copy_of(client, "e") == await source_of(partitions, "e")


async def test_what_is_touched_while_it_is_copied_is_copied_again(
    applier: Applier, projections: Projections, partitions: Partitions, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await applier.apply("e")
    read = projections._read

    async def read_then_touched(experiment_ids: list[str]) -> object:
        found = await read(experiment_ids)
        await applier.apply("e")
        return found

    monkeypatch.setattr(projections, "_read", read_then_touched)
    await projections.project(["e"])
    monkeypatch.undo()
    assert (await copy_of(client, "e"))[0]["events_total"] == "1"
    assert await touched(projections) == {"e"}
    await projections.project(["e"])
    assert await copy_of(client, "e") == await source_of(partitions, "e")


async def test_late_writer_puts_nothing_older_over_what_is_newer(
    applier: Applier, projections: Projections, partitions: Partitions, client: Redis
) -> None:
    late = Projections(partitions.home.client, partitions.wide, max_raw=MAX_RAW)
    await applier.apply("e", "e")
    (old,) = await late._read(["e"])
    await applier.apply("e")
    await projections.project(["e"])
    assert await late._copy(old)
    assert await copy_of(client, "e") == await source_of(partitions, "e")


async def test_late_writer_adds_nothing_twice_to_a_list(
    applier: Applier, projections: Projections, partitions: Partitions, client: Redis
) -> None:
    late = Projections(partitions.home.client, partitions.wide, max_raw=MAX_RAW)
    await applier.apply("e")
    await late.project(["e"])
    await applier.apply("e")
    (old,) = await late._read(["e"])
    await projections.project(["e"])
    assert not await late._copy(old), "it is of another version than was thought"
    assert await copy_of(client, "e") == await source_of(partitions, "e")
    await applier.apply("e")
    await late.project(["e"])
    assert await copy_of(client, "e") == await source_of(partitions, "e")


async def test_experiment_that_begins_anew_replaces_what_it_was(
    applier: Applier, projections: Projections, partitions: Partitions, client: Redis
) -> None:
    await applier.apply("e", "e", "e")
    await projections.project(["e"])
    for name in (keys.aggregate("e"), keys.raw_events("e")):
        await partitions.home.client.delete(name)
    await applier.apply("e")
    await Projections(partitions.home.client, partitions.wide, max_raw=MAX_RAW).project(["e"])
    assert (await copy_of(client, "e"))[0]["events_total"] == "1"
    assert await copy_of(client, "e") == await source_of(partitions, "e")


async def test_experiment_that_cannot_be_copied_costs_only_itself(
    applier: Applier, projections: Projections, partitions: Partitions, client: Redis
) -> None:
    await applier.apply("bad", "good", "gone", "odd")
    await client.set(keys.aggregate("bad"), "somebody else's")
    await partitions.home.client.delete(keys.aggregate("gone"))
    await partitions.home.client.hset(keys.aggregate("odd"), "events_total", "many")
    assert await projections.project(["bad", "good", "gone", "odd"]) == {"bad", "good", "gone", "odd"}
    assert await copy_of(client, "bad") == await source_of(partitions, "bad"), "it is the agent's to write"
    assert await copy_of(client, "good") == await source_of(partitions, "good")
    assert await client.exists(keys.aggregate("gone"), keys.aggregate("odd")) == 0


async def test_what_the_server_refuses_is_still_to_be_copied(
    applier: Applier, projections: Projections, client: Redis
) -> None:
    await applier.apply("e")
    await client.config_set("maxmemory", "1")
    try:
        with pytest.raises(ResponseError, match=r"OOM|used memory"):
            await projections.project(["e"])
    finally:
        await client.config_set("maxmemory", "0")
    assert await touched(projections) == {"e"}
    await projections.project(["e"])
    assert await client.exists(keys.aggregate("e")) == 1


async def test_nothing_is_noted_where_there_is_no_partition(redis_url: str, client: Redis) -> None:
    partitions = Partitions(Address(redis_url), 1, name="test")
    whole = partitions.home.client
    stream = EventStream(reader=whole, client=whole, consumer="c", max_fields=100, max_raw=MAX_RAW, max_dead=10)
    await stream.ensure_group()
    await Applier(whole, stream).apply("e")
    await Aggregates(whole).write_derived([DerivedUpdate("e", "1", {"rate": "1"}, [])])
    assert await client.exists(keys.TOUCHED) == 0
    await partitions.aclose()
