"""A cluster under load: primaries killed, slots moved, agents killed. Lost 0, twice 0, and a gap is counted."""

import asyncio
import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from redis_agent.store import keys
from redis_agent.store.address import Address, host_ports
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.inspection import Inspection
from redis_agent.store.partitions import Partition, Partitions
from tests.cluster import Cluster, Node, slot_of
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

PARTITIONS = 8
EXPERIMENTS = [f"exp-{n}" for n in range(24)]
CHANNEL, ORCHESTRATOR = "fullsend:metrics", "fullsend:to_orchestrator"


class Publisher:
    """Publishes on nodes that live; each send has a name of its own: what is there twice was not sent twice."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.said: Counter[str] = Counter()
        self.sends: list[str] = []
        self.unsure: Counter[str] = Counter()
        self._clients: dict[int, Redis] = {}

    async def publish(self, over: asyncio.Event, *, on: Callable[[], list[Node]], pause: float = 0.002) -> None:
        """Publish until it is over, on one node after the other of these."""
        number = 0
        while not over.is_set():
            nodes = on()
            node = nodes[number % len(nodes)]
            if node.port not in self._clients:
                # Sent once: redis-py's default of trying again would publish twice what lost only its reply.
                self._clients[node.port] = Redis(
                    port=node.port, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=30
                )
            client = self._clients[node.port]
            one = EXPERIMENTS[number % len(EXPERIMENTS)]
            number += 1
            send = f"{one}/{number} on {node.port}"
            try:
                await client.publish(CHANNEL, json.dumps({"experiment_id": one, "event": "sent", "run_id": send}))
                self.said[one] += 1
                self.sends.append(send)
            except (RedisError, OSError) as error:
                self.unsure[f"{send}: {error!r}"] += 1
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()


@pytest.fixture
async def partitions(cluster: Cluster) -> AsyncIterator[Partitions]:
    found = Partitions(Address("redis://ignored", cluster=host_ports(cluster.seeds)), PARTITIONS, name="test")
    yield found
    await found.aclose()


@pytest.fixture
async def publisher(cluster: Cluster) -> AsyncIterator[Publisher]:
    found = Publisher(cluster)
    yield found
    await found.aclose()


def start(agents: Agents, cluster: Cluster, name: str, *roles: str, **env: object) -> AgentProcess:
    settings = {
        "REDIS_AGENT_CLUSTER_NODES": cluster.seeds,
        "REDIS_AGENT_PARTITIONS": PARTITIONS,
        "REDIS_AGENT_CONSUMER": name,
        "REDIS_AGENT_DURABILITY": "replica",
        "REDIS_AGENT_LEASE_SECONDS": 2,
    }
    return agents.start(*roles, **settings | env)


async def persistently(ask: Callable[[], Awaitable[object]]) -> object:
    """An answer, however long the cluster takes."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(RedisError, OSError):
                return await ask()
            await asyncio.sleep(0.05)


async def all_lead(partitions: Partitions) -> None:
    async def leads(partition: Partition) -> object:
        return await persistently(lambda: Inspection(partition.client).leader(keys.LEASE_BRIDGE))

    async def lead() -> bool:
        return all(await asyncio.gather(*map(leads, partitions.all)))

    await eventually(lead, 30, what="every partition has a bridge that leads")


async def counts(partitions: Partitions) -> Counter[str]:
    found: Counter[str] = Counter()
    for partition in partitions.all:
        aggregates = await Aggregates(partition.client).read(EXPERIMENTS)
        found.update({one: int(fields["sent_count"]) for one, fields in aggregates.items()})
    return found


async def written(partitions: Partitions) -> dict[str, list[str]]:
    """Where in the streams each send is."""
    found: dict[str, list[str]] = {}
    for partition in partitions.all:
        async for page in Inspection(partition.client).entries():
            for entry in page:
                send = json.loads(entry.data or b"{}").get("run_id", "")
                found.setdefault(send, []).append(f"{entry.id} in {partition.number}, received {entry.at_ms}")
    return found


async def each_written_once(partitions: Partitions, sends: list[str]) -> None:
    """Sums alone would not show a send that was lost beside one that is twice."""
    found = await written(partitions)
    missing = [send for send in sends if send not in found]
    twice = {send: places for send, places in found.items() if len(places) > 1}
    unknown = found.keys() - set(sends)
    assert (missing, twice, unknown) == ([], {}, set()), "lost, twice, and not sent"


async def gaps(partitions: Partitions) -> int:
    return sum([(await Inspection(partition.client).bridge()).gaps for partition in partitions.all])


async def all_applied(partitions: Partitions, said: Counter[str]) -> None:
    async def applied() -> bool:
        found = await persistently(lambda: counts(partitions))
        differ = {one: (found[one], said[one]) for one in EXPERIMENTS if found[one] != said[one]}
        assert not differ, f"found and said differ: {differ}"
        return True

    await eventually(applied, 30, interval=0.2)


async def all_copied(partitions: Partitions) -> None:
    async def copied() -> bool:
        for one in EXPERIMENTS:
            there = await partitions.wide.hgetall(keys.aggregate(one))
            assert there == await partitions.of(one).client.hgetall(keys.aggregate(one))
            events = await partitions.wide.lrange(keys.raw_events(one), 0, -1)
            assert events == await partitions.of(one).client.lrange(keys.raw_events(one), 0, -1)
        return True

    await eventually(copied, 10, interval=0.1)


async def subscription_node(cluster: Cluster, partitions: Partitions) -> Node:
    """The node that the bridges listen to."""
    agreed = await persistently(lambda: partitions.home.client.get(keys.BRIDGE_NODE))
    assert isinstance(agreed, bytes)
    return next(node for node in cluster.nodes if node.id == agreed.decode())


class Havoc:
    """Breaks one thing after the other while events are published on nodes that it leaves alone."""

    def __init__(
        self, cluster: Cluster, partitions: Partitions, agents: dict[str, AgentProcess], rng: random.Random
    ) -> None:
        self._cluster = cluster
        self._partitions = partitions
        self._agents = agents
        self._rng = rng
        self._victims: set[Node] = set()
        self.done: Counter[str] = Counter()

    def speakers(self) -> list[Node]:
        """The nodes that are not killed or stopped now, nor next: what is said on one that dies may die with it."""
        return [node for node in self._cluster.living if node not in self._victims]

    async def _victim(self) -> Node:
        """A primary, but not the node that the bridges listen to: its end is a gap, which is another test."""
        heard = await subscription_node(self._cluster, self._partitions)
        return self._rng.choice([node for node in self._cluster.primaries if node is not heard])

    async def kill_a_primary(self) -> None:
        node = await self._victim()
        self._victims.add(node)
        await asyncio.sleep(0.3)  # what was said on it has reached the others
        await self._cluster.kill(node)
        await asyncio.sleep(0.5)
        node.restart()
        await self._cluster.whole()
        self._victims.discard(node)

    async def stop_a_primary(self) -> None:
        node = await self._victim()
        slot = next(s for s in range(0, 16384, 50) if self._cluster.primary_of(s) is node)
        self._victims.add(node)
        await asyncio.sleep(0.3)
        node.stop()
        await self._cluster.taken_over(slot, node)
        await asyncio.sleep(0.5)
        node.cont()
        await self._cluster.whole()
        self._victims.discard(node)

    async def move_a_slot(self) -> None:
        slot = slot_of(keys.namespace(self._rng.randrange(PARTITIONS)))
        to = self._cluster.other_primary(self._cluster.primary_of(slot))

        async def pause() -> None:
            await asyncio.sleep(0.02)

        if self._cluster.migrates_atomically and self._rng.random() < 0.5:
            await self._cluster.migrate_atomically(slot, to)
        else:
            await self._cluster.migrate(slot, to, keys_at_once=3, between=pause)

    async def fail_over(self) -> None:
        await self._cluster.fail_over(self._rng.choice(self._cluster.primaries))
        await self._cluster.whole()

    async def kill_an_agent(self) -> None:
        agent = self._agents[self._rng.choice(sorted(self._agents))]
        agent.kill()
        await asyncio.sleep(1)
        agent.start()
        await agent.logged("subscribed")
        await asyncio.sleep(4)  # the other is to be in step with it before the next is killed

    async def run(self, acts: list[str]) -> None:
        for act in acts:
            await getattr(self, act)()
            self.done[act] += 1
            await asyncio.sleep(self._rng.random())


ACTS = ["fail_over", "kill_a_primary", "kill_an_agent", "move_a_slot", "stop_a_primary"]


SEED = int(os.environ.get("SEED") or 1)
ROUNDS = int(os.environ.get("ROUNDS") or 10)


async def survive(
    cluster: Cluster, agents: Agents, partitions: Partitions, publisher: Publisher, *, seed: int, acts: list[str]
) -> None:
    """Two agents, load, and everything that can break without a gap: lost 0, twice 0, no gap."""
    two = {name: start(agents, cluster, name) for name in ("first", "second")}
    for agent in two.values():
        await agent.logged("started")
    await all_lead(partitions)
    await asyncio.sleep(3)  # both are in step
    before = await gaps(partitions)
    havoc = Havoc(cluster, partitions, two, random.Random(seed))
    over = asyncio.Event()
    loading = asyncio.create_task(publisher.publish(over, on=havoc.speakers))
    await havoc.run(acts)
    over.set()
    await loading
    assert not publisher.unsure
    try:
        await all_applied(partitions, publisher.said)
    finally:
        await each_written_once(partitions, publisher.sends)
    assert await gaps(partitions) == before
    await all_copied(partitions)
    for agent in two.values():
        assert await agent.terminate() == 0
    print(f"{publisher.said.total()} events, {dict(havoc.done)}")


@pytest.mark.timeout(300)
async def test_primaries_die_slots_move_and_agents_die_under_load_and_nothing_is_lost_or_twice(
    cluster: Cluster, agents: Agents, partitions: Partitions, publisher: Publisher
) -> None:
    acts = ["kill_a_primary", "move_a_slot", "kill_an_agent"]
    await survive(cluster, agents, partitions, publisher, seed=SEED, acts=acts)


@pytest.mark.fault
@pytest.mark.timeout(3600)
async def test_the_same_for_long(
    cluster: Cluster, agents: Agents, partitions: Partitions, publisher: Publisher
) -> None:
    rng = random.Random(SEED)
    acts = [rng.choice(ACTS) for _ in range(6 * ROUNDS)]
    await survive(cluster, agents, partitions, publisher, seed=SEED, acts=acts)


@pytest.mark.fault
@pytest.mark.timeout(180)
async def test_the_node_that_bridges_listen_to_dies_and_the_gap_is_counted_and_nothing_is_twice(
    cluster: Cluster, agents: Agents, partitions: Partitions, publisher: Publisher
) -> None:
    agent = start(agents, cluster, "first")
    await agent.logged("started")
    await all_lead(partitions)
    await asyncio.sleep(1)
    heard = await subscription_node(cluster, partitions)
    before, over = await gaps(partitions), asyncio.Event()
    loading = asyncio.create_task(publisher.publish(over, on=lambda: [n for n in cluster.living if n is not heard]))
    await asyncio.sleep(1)
    heard.kill()
    await agent.logged("subscription_node", 30, before=heard.id)

    async def counted() -> bool:
        return await persistently(lambda: gaps(partitions)) == before + PARTITIONS

    await eventually(counted, 30, interval=0.1, what="a gap in each partition")
    await asyncio.sleep(3)  # the other node has settled
    over.set()
    await loading
    before_that, said = await still(partitions), Counter(publisher.said)
    assert not before_that - said, "nothing is twice"
    assert before_that.total() > 0.1 * said.total()
    over.clear()
    loading = asyncio.create_task(publisher.publish(over, on=lambda: [n for n in cluster.living if n is not heard]))
    await asyncio.sleep(1)
    over.set()
    await loading
    await all_applied(partitions, before_that + (publisher.said - said))
    assert await subscription_node(cluster, partitions) is not heard
    await cluster.mend()
    assert await agent.terminate() == 0


async def still(partitions: Partitions) -> Counter[str]:
    """What is applied, when for a second nothing more was."""
    before = await counts(partitions)
    while True:
        await asyncio.sleep(1)
        found = await counts(partitions)
        if found == before:
            return found
        before = found


@pytest.mark.timeout(90)
async def test_alerts_of_all_partitions_are_delivered_once_to_whoever_listens_on_any_node(
    cluster: Cluster, agents: Agents, partitions: Partitions
) -> None:
    agent = start(agents, cluster, "first")
    await agent.logged("started")
    await all_lead(partitions)
    speaker, ears = cluster.nodes[0], cluster.nodes[-1]
    errors = [{"experiment_id": one, "event": "error", "message": "broken"} for one in EXPERIMENTS[:12]]
    for error in errors:
        await asyncio.to_thread(speaker.send, "PUBLISH", CHANNEL, json.dumps(error))

    async def raised() -> bool:
        return sum([(await Inspection(one.client).alert_counts()).waiting for one in partitions.all]) == len(errors)

    await eventually(raised, 20, what="every alert waits for somebody who listens")
    async with Redis(port=ears.port, protocol=2) as client, client.pubsub() as listener:
        await listener.subscribe(ORCHESTRATOR)
        told: Counter[str] = Counter()

        async def all_told() -> bool:
            message = await listener.get_message(ignore_subscribe_messages=True, timeout=0.05)
            if message is not None:
                told[json.loads(message["data"])["experiment_id"]] += 1
            return len(told) == len(errors)

        await eventually(all_told, 20)
        await asyncio.sleep(1.5)  # whoever offered it again would do so by now
        await all_told()
        assert set(told.values()) == {1}
    assert {partitions.of(error["experiment_id"]).number for error in errors} == set(range(PARTITIONS))
    assert await agent.terminate() == 0
