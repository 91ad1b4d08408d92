"""Clients of a cluster: wherever a slot is, or is going, a command is executed once or not at all."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from redis.exceptions import RedisError

from redis_agent.errors import PartitionsError
from redis_agent.store import keys
from redis_agent.store.address import Address, host_ports
from redis_agent.store.definitions import Definitions
from redis_agent.store.failures import Remedy, classify
from redis_agent.store.partitions import Partition, Partitions
from tests.cluster import Cluster, Node, slot_of
from tests.waiting import eventually


async def counted(partition: Partition, until: asyncio.Event) -> int:
    """Count in a hash one by one, each only once the one before is there; what was refused on the way."""
    refused, n = 0, 0
    while not until.is_set():
        try:
            # Whether one whose answer was lost was executed, the next look says.
            n = int(await partition.client.hget(keys.ACCOUNT, "n") or 0)
            n = await partition.client.hincrby(keys.ACCOUNT, "n", 1)
            await partition.client.sadd(keys.UNAPPLIED, n)
        except (RedisError, OSError) as error:
            refused += 1
            if classify(error).remedy not in (Remedy.RETRY, Remedy.RECONNECT, Remedy.PAUSE):
                raise
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)
    return refused


async def while_counting(partition: Partition, do: Callable[[], Awaitable[object]]) -> int:
    """What was refused meanwhile; in the end it goes on."""
    over = asyncio.Event()
    counting = asyncio.create_task(counted(partition, over))
    await asyncio.sleep(0.2)
    await do()
    reached = await count_of(partition)

    async def further() -> bool:
        return await count_of(partition) > reached

    await eventually(further, 10)
    over.set()
    return await counting


async def count_of(partition: Partition) -> int:
    """How far was counted, as soon as somebody says."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(RedisError, OSError):
                return int(await partition.client.hget(keys.ACCOUNT, "n") or 0)
            await asyncio.sleep(0.01)


async def test_each_partition_is_reached_on_the_primary_of_its_slot(cluster: Cluster, partitions: Partitions) -> None:
    await asyncio.gather(*(partition.client.set(keys.FLOOR, "1-0") for partition in partitions.all))
    for partition in partitions.all:
        primary = cluster.primary_of(slot_of(partition.namespace))
        assert primary.send("GET", partition.namespace + keys.FLOOR) == "1-0"
    assert len({cluster.primary_of(slot_of(partition.namespace)) for partition in partitions.all}) == 3


async def test_a_primary_dies_and_its_successor_is_found(cluster: Cluster, partitions: Partitions) -> None:
    partition = partitions.all[0]
    refused = await while_counting(partition, lambda: cluster.kill(cluster.primary_of(slot_of(partition.namespace))))
    assert refused > 0


async def test_a_stopped_primary_is_left_although_nobody_closes_its_connections(
    cluster: Cluster, partitions: Partitions
) -> None:
    partition = partitions.all[0]
    slot = slot_of(partition.namespace)
    primary = cluster.primary_of(slot)

    async def stopped() -> None:
        primary.stop()
        await cluster.taken_over(slot, primary)

    await while_counting(partition, stopped)
    reached = await count_of(partition)
    primary.cont()
    assert await count_of(partition) == reached


async def test_a_slot_on_its_way_is_waited_for(cluster: Cluster, partitions: Partitions) -> None:
    partition = partitions.all[1]
    slot = slot_of(partition.namespace)
    to = cluster.other_primary(cluster.primary_of(slot))
    await partition.client.set(keys.FLOOR, "1-0")

    async def while_it_is_on_its_way() -> None:
        await asyncio.sleep(0.1)

    refused = await while_counting(
        partition, lambda: cluster.migrate(slot, to, keys_at_once=1, between=while_it_is_on_its_way)
    )
    assert refused > 0
    assert await partition.client.get(keys.FLOOR) == b"1-0"
    assert cluster.primary_of(slot) is to


async def test_a_slot_that_moves_as_a_whole_is_followed(cluster: Cluster, partitions: Partitions) -> None:
    if not cluster.migrates_atomically:
        pytest.skip("the server has no CLUSTER MIGRATESLOTS")
    partition = partitions.all[2]
    slot = slot_of(partition.namespace)
    to: Node = cluster.other_primary(cluster.primary_of(slot))
    await while_counting(partition, lambda: cluster.migrate_atomically(slot, to))
    assert cluster.primary_of(slot) is to


async def test_definitions_are_read_wherever_they_are_also_after_a_failover(
    cluster: Cluster, partitions: Partitions
) -> None:
    ids = [f"e{n}" for n in range(30)]
    for one in ids:
        await partitions.wide.set(keys.experiment(one), f'{{"hypothesis": "{one}"}}')
    definitions = Definitions(partitions.wide)
    assert {i: found.document for i, found in (await definitions.read(ids)).items()} == {
        i: f'{{"hypothesis": "{i}"}}' for i in ids
    }
    for node in cluster.primaries:
        await asyncio.to_thread(node.send, "WAIT", 1, 1000)
    await cluster.kill(cluster.primary_of(keys.experiment("e0")))
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(RedisError, OSError):
                found = await definitions.read(ids)
                break
            await asyncio.sleep(0.05)
    assert all(found[i].document for i in ids)


async def test_number_of_partitions_is_recorded_for_the_whole_cluster(cluster: Cluster, partitions: Partitions) -> None:
    await partitions.check()
    other = Partitions(Address("redis://ignored", cluster=host_ports(cluster.seeds)), 1, name="test")
    assert other.home.namespace
    with pytest.raises(PartitionsError):
        await other.check()
    await other.aclose()


async def test_a_link_of_the_bus_that_was_made_anew_is_seen(cluster: Cluster, partitions: Partitions) -> None:
    topology = partitions.topology
    assert topology is not None
    (listened, *others) = cluster.nodes
    before = await topology.links_to(("127.0.0.1", listened.port))
    assert before.keys() == {node.id for node in others}
    restarted = next(node for node in others if node not in cluster.primaries)
    restarted.kill()
    restarted.restart()

    async def anew() -> bool:
        links = await topology.links_to(("127.0.0.1", listened.port))
        return {one for one, since in links.items() if since != before[one]} == {restarted.id}

    await eventually(anew, 10)
