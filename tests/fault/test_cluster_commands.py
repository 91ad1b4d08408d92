"""Alerts and commands in a cluster: whoever listens on whichever node counts, and a shard that is gone costs itself."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from click.testing import CliRunner
from redis.exceptions import RedisError

from redis_agent.cli import main
from redis_agent.clock import Clock
from redis_agent.config import load_settings
from redis_agent.maturity import Maturity
from redis_agent.overview import KnownExperiments
from redis_agent.page.document import Document
from redis_agent.repartition import Report, repartition
from redis_agent.store import keys
from redis_agent.store.address import Address, host_ports
from redis_agent.store.audience import Audience
from redis_agent.store.lease import Lease
from redis_agent.store.outbox import Delivery, Outbox, Raise
from redis_agent.store.partitions import Partition, Partitions
from redis_agent.store.union import AllWindows
from tests.cluster import Cluster, Node, slot_of
from tests.waiting import eventually

CHANNEL = "fullsend:to_orchestrator"


@contextlib.asynccontextmanager
async def listening(node: Node, channel: str = CHANNEL) -> AsyncIterator[list[Any]]:
    """What a subscriber of this node has heard."""
    heard: list[Any] = []
    async with redis.asyncio.Redis.from_url(node.url, protocol=2) as client, client.pubsub() as listener:
        await listener.subscribe(channel)
        await listener.get_message(timeout=5)

        async def listen() -> None:
            while True:
                message = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
                if message is not None:
                    heard.append(json.loads(message["data"]))

        task = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Dispatching:
    """A dispatcher of a partition, step by step."""

    def __init__(self, partition: Partition, audience: Audience | None) -> None:
        client = partition.client
        self._client = client
        self.delivery = Delivery(reader=client, client=client, consumer="me", channel=CHANNEL, audience=audience)
        self._lease = Lease(client, name=keys.LEASE_DISPATCHER, owner="me", ttl_ms=60_000)
        self._value = ""

    async def begin(self) -> None:
        self._value = await self._lease.acquire() or ""
        await self.delivery.ensure_group()

    async def offer(self) -> list[int]:
        """Offer what is pending, oldest first, as far as somebody listens."""
        outcomes = []
        await self.delivery.read(count=100, block_ms=1)
        for entry in await self.delivery.take_over(100):
            outcomes.append(await self.delivery.deliver(self._value, entry, ttl_ms=3_600_000, replaceable=False))
            if outcomes[-1] == 0:
                break
        return outcomes

    async def raise_(self, first: int, count: int) -> None:
        for n in range(first, first + count):
            assert await Outbox(self._client).raise_([Raise("e", "error", str(n), 600, str(n), str(n), 0)]) == [0]


def replica_elsewhere(cluster: Cluster, partition: Partition) -> Node:
    """A replica of another shard than the partition's."""
    return cluster.replicas_of(cluster.other_primary(cluster.primary_of(slot_of(partition.namespace))))[0]


async def test_audience_is_counted_on_every_node_that_answers(cluster: Cluster, partitions: Partitions) -> None:
    audience = partitions.audience(CHANNEL)
    assert audience is not None

    async def sizes() -> set[int]:
        return {await audience.size(partition.client) for partition in partitions.all}

    assert await sizes() == {0}
    async with contextlib.AsyncExitStack() as stack:
        for node in cluster.nodes:
            await stack.enter_async_context(listening(node))
        assert await sizes() == {6}
        gone = cluster.replicas_of(cluster.primaries[0])[0]
        gone.stop()
        assert await audience.size(partitions.home.client) == 5
        gone.cont()

        async def all_again() -> bool:
            return await sizes() == {6}

        await eventually(all_again, 10, what="the node is linked with all others again")

    async def nobody() -> bool:
        return await sizes() == {0}

    await eventually(nobody, 5)


async def test_alerts_wait_until_somebody_listens_anywhere_then_come_once_and_in_order(
    cluster: Cluster, partitions: Partitions
) -> None:
    partition = partitions.all[3]
    dispatching = Dispatching(partition, partitions.audience(CHANNEL))
    await dispatching.begin()
    await dispatching.raise_(0, 5)
    assert await dispatching.offer() == [0]
    assert await dispatching.offer() == [0]

    async with listening(replica_elsewhere(cluster, partition)) as heard:
        assert await dispatching.offer() == [1] * 5
        await eventually(lambda: len(heard) == 5)
        assert await dispatching.offer() == []
    assert heard == [0, 1, 2, 3, 4]

    await dispatching.raise_(5, 1)
    its_own, another = cluster.primary_of(slot_of(partition.namespace)), replica_elsewhere(cluster, partition)
    async with listening(its_own) as there, listening(another) as elsewhere:
        assert await dispatching.offer() == [2]
        await eventually(lambda: there == elsewhere == [5])


async def test_alerts_come_once_although_the_partition_loses_its_primary_between_them(
    cluster: Cluster, partitions: Partitions
) -> None:
    partition = partitions.all[0]
    dispatching = Dispatching(partition, partitions.audience(CHANNEL))
    await dispatching.begin()
    await dispatching.raise_(0, 3)
    async with listening(replica_elsewhere(cluster, partition)) as heard:
        assert await dispatching.offer() == [1] * 3
        await partition.client.execute_command("WAIT", 1, 5_000)
        await dispatching.raise_(3, 3)
        await partition.client.execute_command("WAIT", 1, 5_000)
        await cluster.kill(cluster.primary_of(slot_of(partition.namespace)))

        async def offered() -> list[int] | None:
            with contextlib.suppress(RedisError, OSError):
                return await dispatching.offer()
            return None

        assert await eventually(offered, 10) == [1] * 3
        await eventually(lambda: len(heard) == 6)
    assert heard == [0, 1, 2, 3, 4, 5]


# Commands ------------------------------------------------------------------------------------------------------


async def command(cluster: Cluster, *args: str) -> Any:
    """The JSON document of a command that sees eight partitions."""
    env = {"REDIS_AGENT_CLUSTER_NODES": cluster.seeds, "REDIS_AGENT_PARTITIONS": "8"}
    done = await asyncio.to_thread(CliRunner().invoke, main, [*args, "--json"], env=env)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


async def test_commands_read_all_partitions_of_a_cluster(cluster: Cluster, partitions: Partitions) -> None:
    await partitions.check()
    for partition in partitions.all:
        await partition.client.xadd(keys.STREAM, {"data": "{}"})
        await partition.client.xadd(keys.DEAD_LETTERS, {"data": "{}", "at": "1"}, id="1769940000000-0")
    found = await command(cluster, "status")
    assert found["redis"]["nodes"] == {"primaries": 3, "replicas": 3, "failed": 0}
    assert (found["stream"]["length"], found["stream"]["dead_letters"], len(found["partitions"])) == (8, 8, 8)
    assert found["problems"] == {}
    letters = (await command(cluster, "dead-letters", "list"))["entries"]
    assert sorted(letter["partition"] for letter in letters) == list(range(8))
    await command(cluster, "silence", "exp_test", "--for", "1h")
    assert await partitions.of("exp_test").client.exists(keys.silence("exp_test", None))
    assert [row["experiment_id"] for row in await command(cluster, "silence", "--list")] == ["exp_test"]


async def test_url_of_one_node_is_said_to_be_no_way_into_the_cluster(cluster: Cluster) -> None:
    partition = keys.namespace(0)
    url = cluster.other_primary(cluster.primary_of(slot_of(partition))).url
    env = {"REDIS_AGENT_CLUSTER_NODES": cluster.seeds, "REDIS_AGENT_PARTITIONS": "8"}
    done = await asyncio.to_thread(CliRunner().invoke, main, ["pending", "--redis-url", url], env=env)
    assert done.exit_code == 1
    assert "is a node of a cluster: REDIS_AGENT_CLUSTER_NODES" in done.stderr


async def test_publish_knows_who_listens_on_any_node(cluster: Cluster, partitions: Partitions) -> None:
    primary = cluster.primary_of(slot_of(partitions.home.namespace))
    async with listening(cluster.replicas_of(cluster.other_primary(primary))[0], "fullsend:metrics") as heard:
        said = await command(cluster, "publish", "--experiment", "e", "--event", "sent")
        assert said == {"published": 1, "receivers": 1, "unheard": 0}
        await eventually(lambda: len(heard) == 1)


class StoppedError(Exception):
    """Ends a command in the middle."""


async def test_number_of_partitions_is_changed_through_interruptions_and_failovers(
    cluster: Cluster, partitions: Partitions
) -> None:
    """With the durability of replicas, what a failover forgets is nothing that the next step relied on."""
    await partitions.check()
    experiments = [f"exp-{n}" for n in range(24)]
    for n, one in enumerate(experiments):
        client = partitions.of(one).client
        data = json.dumps({"experiment_id": one, "event": "sent"})
        await client.xadd(keys.STREAM, {"data": data})
        await client.xadd(keys.DEAD_LETTERS, {"data": data, "reason": "test"})
        await client.hset(keys.aggregate(one), mapping={"sent_count": n, "events_total": n})
        await client.set(keys.cooldown(one, "error", "f"), one, ex=600)
        await client.zadd(keys.EXPERIMENTS, {one: n})
    for partition in partitions.all:
        await partition.client.xgroup_create(keys.STREAM, keys.GROUP, id="$", mkstream=True)
    nodes = {"REDIS_AGENT_CLUSTER_NODES": cluster.seeds, "REDIS_AGENT_DURABILITY": "replica"}
    settings = load_settings({"REDIS_URL": "redis://ignored", **nodes})

    async def changed(until: str) -> Report:
        def say(line: str) -> None:
            if line == until:
                raise StoppedError

        return await repartition(settings, 3, dry_run=False, say=say)

    for until in ("comparing", "deleting what is left"):
        with pytest.raises(StoppedError):
            await changed(until)
        await cluster.fail_over(cluster.primary_of(slot_of(keys.namespace(1))))
    report = await changed("")

    assert (report.outcome, report.experiments, report.events, report.dead_letters) == ("changed", 24, 24, 24)
    three = Partitions(Address("redis://ignored", cluster=host_ports(cluster.seeds)), 3, name="test")
    await three.check()
    for n, one in enumerate(experiments):
        client = three.of(one).client
        assert await client.hgetall(keys.aggregate(one)) == {b"sent_count": b"%d" % n, b"events_total": b"%d" % n}
        assert 0 < await client.pttl(keys.cooldown(one, "error", "f")) <= 600_000
        assert await client.zscore(keys.EXPERIMENTS, one) == n
    for partition in partitions.all[3:]:
        assert [key async for key in partition.client.scan_iter()] == []
    await three.aclose()


async def test_status_shows_the_rest_while_a_whole_shard_is_gone(cluster: Cluster, partitions: Partitions) -> None:
    for partition in partitions.all:
        await partition.client.xadd(keys.STREAM, {"data": "{}"})
    home = cluster.primary_of(slot_of(partitions.home.namespace))
    lost = cluster.other_primary(home)
    known = KnownExperiments(
        partitions, maturity=Maturity(AllWindows(partitions), Clock(), 0), alpha=0.05, min_samples=20, translate=False
    )
    gone = [p.number for p in partitions.all if cluster.primary_of(slot_of(p.namespace)) is lost]
    try:
        for node in cluster.nodes:
            node.send("CONFIG", "SET", "cluster-require-full-coverage", "no")
        for node in (*cluster.replicas_of(lost), lost):
            node.kill()
        found = await command(cluster, "status")
        page = await Document(partitions, address_shown="here", experiments=known).read()
    finally:
        await cluster.mend()
        for node in cluster.nodes:
            node.send("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    assert sorted(found["problems"]) == sorted(f"partition {number}" for number in gone)
    assert found["stream"]["length"] == 8 - len(gone) > 0
    assert [p["partition"] for p in found["partitions"]] == [n for n in range(8) if n not in gone]
    assert page["stream"]["length"] == found["stream"]["length"]
    assert page["experiments"] is page["alerts_shown"] is page["pending"] is None
    assert {"experiments", "alert list", "pending"} < page["problems"].keys()
