"""Which partition an experiment belongs to, and that everybody agrees on how many there are."""

import pytest
from redis.asyncio import Redis

from redis_agent.errors import PartitionsError
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.partitions import Partitions, partition_of


@pytest.mark.parametrize(
    ("experiment_id", "partition"), [("exp_test", 1), ("exp_1", 2), ("é", 6), ("a{b}c", 2), ("\ud800", 0)]
)
def test_partition_of_an_experiment_never_changes(experiment_id: str, partition: int) -> None:
    assert partition_of(experiment_id, 8) == partition
    assert partition_of(experiment_id, 1) == 0


def test_experiments_are_spread_evenly() -> None:
    counts = [0] * 8
    for n in range(8_000):
        counts[partition_of(f"experiment-{n}", 8)] += 1
    assert 900 < min(counts) <= max(counts) < 1_100


async def test_one_partition_on_one_server_has_no_namespace_and_records_nothing(redis_url: str, client: Redis) -> None:
    partitions = Partitions(Address(redis_url), 1, name="test")
    await partitions.check()
    assert partitions.wide is partitions.home.client
    assert partitions.home.namespace == ""
    assert await client.keys() == []
    await partitions.aclose()


async def test_keys_of_a_partition_are_its_own_and_what_others_write_has_no_namespace(
    redis_url: str, client: Redis
) -> None:
    partitions = Partitions(Address(redis_url), 8, name="test")
    await partitions.of("exp_test").client.hset(keys.aggregate("exp_test"), "sent_count", "1")
    await partitions.wide.set(keys.experiment("exp_test"), "{}")
    assert sorted(await client.keys()) == ["experiments:exp_test", "{redis_agent-1}:metrics_aggregated:exp_test"]
    found = [await Aggregates(partition.client).read(["exp_test"]) for partition in partitions.all]
    assert [n for n, aggregates in enumerate(found) if aggregates] == [1]
    await partitions.aclose()


async def test_another_number_of_partitions_than_is_recorded_is_refused(redis_url: str, client: Redis) -> None:
    for count in (8, 8):
        partitions = Partitions(Address(redis_url), count, name="test")
        await partitions.check()
        await partitions.aclose()
    assert await client.get(keys.PARTITIONS) == "8"
    for count in (1, 4):
        partitions = Partitions(Address(redis_url), count, name="test")
        with pytest.raises(PartitionsError, match=r"is of 8 partitions.*set it to 8"):
            await partitions.check()
        await partitions.aclose()


async def test_state_of_one_partition_is_not_overlooked(redis_url: str, client: Redis) -> None:
    await client.xadd(keys.STREAM, {"data": "{}"})
    partitions = Partitions(Address(redis_url), 2, name="test")
    with pytest.raises(PartitionsError, match="is of 1 partition, "):
        await partitions.check()
    assert await client.get(keys.PARTITIONS) is None
    await partitions.aclose()
