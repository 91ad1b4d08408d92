"""Sharded pub/sub in a cluster under load: lost 0 but in gaps that are counted, or on links of the bus; twice 0."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError

from redis_agent.store import keys
from redis_agent.store.dead_letters import DeadLetters
from redis_agent.store.inspection import Inspection
from redis_agent.store.partitions import Partition, Partitions
from redis_agent.store.topology import slot_of
from tests.cli.conftest import run_cli
from tests.cluster import Cluster, Node
from tests.fault.test_cluster import (
    ACTS,
    CHANNEL,
    EXPERIMENTS,
    ROUNDS,
    SEED,
    Havoc,
    all_applied,
    all_copied,
    all_lead,
    persistently,
    start,
    written,
)
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

# A gap ends when it is counted; after a change of the node the leader lets this pass, too (three marks, with a lease of
# 2 s).
SETTLING_SECONDS = 2.0
# A node that comes back is published on before it has its links, and before it knows what it has become: what it takes
# then is lost, and said when a bridge sees the new link, which it looks for once a second.
BUS_SECONDS = 4.0


class Publisher:
    """Publishes numbered events on a node of each one's shard, its primary if that is left alone."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._clients: dict[tuple[str, int], Redis] = {}
        # name of an event -> its partition and when it was published
        self.said: dict[str, tuple[int, float]] = {}
        self.unsure: dict[str, str] = {}

    async def publish(self, over: asyncio.Event, *, on: Callable[[], list[Node]], pause: float = 0.002) -> None:
        """Publish until it is over, on nodes that are among these."""
        number = 0
        while not over.is_set():
            one = EXPERIMENTS[number % len(EXPERIMENTS)]
            number += 1
            await self._say(one, f"{one}/{number}", {node.port for node in on()})
            await asyncio.sleep(pause)

    async def _say(self, one: str, name: str, ports: set[int]) -> None:
        partition, topology = self._partitions.of(one), self._partitions.topology
        assert topology is not None
        channel = keys.shard_channel(CHANNEL, partition.namespace)
        event = json.dumps({"experiment_id": one, "event": "sent", "run_id": name})
        while True:
            shard = [node for node in topology.shard(slot_of(channel)) if node.address[1] in ports]
            if not shard:
                await asyncio.sleep(0.02)
                await topology.refresh()
                continue
            address = max(shard, key=lambda node: node.primary).address
            if address not in self._clients:
                self._clients[address] = Redis(
                    host=address[0], port=address[1], protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=30
                )
            try:
                await self._clients[address].execute_command("SPUBLISH", channel, event)
                self.said[name] = partition.number, time.time()
            except MovedError:  # nobody was told
                await topology.refresh()
                await asyncio.sleep(0.02)
                continue
            except (RedisError, OSError) as error:
                self.unsure[name] = repr(error)
            return

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()


@pytest.fixture
async def publisher(partitions: Partitions) -> AsyncIterator[Publisher]:
    found = Publisher(partitions)
    yield found
    await found.aclose()


class ShardedHavoc(Havoc):
    """The same, but any primary may be the victim: each shard has a node that is listened to."""

    def __init__(
        self, cluster: Cluster, partitions: Partitions, agents: dict[str, AgentProcess], rng: random.Random
    ) -> None:
        super().__init__(cluster, partitions, agents, rng)
        self.when: list[tuple[str, float]] = []

    async def run(self, acts: list[str]) -> None:
        for act in acts:
            self.when.append((act, time.time()))
            await super().run([act])

    async def kill_an_agent(self) -> None:
        agent = self._agents[self._rng.choice(sorted(self._agents))]
        agent.kill()
        await asyncio.sleep(1)
        agent.start()
        await in_step(self._partitions, len(self._agents))

    async def _victim(self) -> Node:
        return self._rng.choice(self._cluster.primaries)


async def in_step(partitions: Partitions, bridges: int) -> None:
    """Wait until so many bridges have said in each partition, from now on, that they are in step."""
    since = int(1000 * time.time())

    async def ready(partition: Partition) -> bool:
        found = await persistently(lambda: partition.client.zrangebyscore(keys.BRIDGE_READY, since, "+inf"))
        return isinstance(found, list) and len(found) >= bridges

    async def are() -> bool:
        return all([await ready(partition) for partition in partitions.all])

    await eventually(are, 30, interval=0.1, what=f"{bridges} bridges are in step in each partition")


class Gaps:
    """Looks at the gaps that the bridges have counted, over and over: when something may have been missed."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        # By partition, from when to when.
        self.found: dict[int, list[tuple[float, float]]] = defaultdict(list)

    async def watch(self) -> None:
        """Look until cancelled."""
        await asyncio.gather(*map(self._watch, self._partitions.all))

    async def _watch(self, partition: Partition) -> None:
        seen, looked = (0, 0), time.time()
        while True:
            with contextlib.suppress(RedisError, OSError):
                began = time.time()
                bridge = await Inspection(partition.client).bridge()
                if bridge.gaps > seen[0]:
                    missed = (bridge.gap_ms - seen[1]) / 1000
                    self.found[partition.number].append((looked - missed - 0.1, time.time() + SETTLING_SECONDS))
                seen, looked = (bridge.gaps, bridge.gap_ms), began
            await asyncio.sleep(0.1)

    def covers(self, number: int, at: float) -> bool:
        """Whether a gap in a partition was counted that can have been there then."""
        return any(begin <= at <= end for begin, end in self.found[number])


def renewals(agents: Iterable[AgentProcess]) -> list[float]:
    """When the bridges said that a link of the cluster's bus was made anew."""
    said = (line for agent in agents for line in agent.history() if line["event"] == "bus_link_renewed")
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in said]


async def survive(
    cluster: Cluster, agents: Agents, partitions: Partitions, publisher: Publisher, acts: list[str]
) -> None:
    """Two agents, load, and everything that can break: what is missing is missing in a gap that was counted."""
    two = {name: start(agents, cluster, name, REDIS_AGENT_PUBSUB="sharded") for name in ("first", "second")}
    for agent in two.values():
        await agent.logged("started")
    await in_step(partitions, len(two))
    gaps = Gaps(partitions)
    watching = asyncio.create_task(gaps.watch())
    havoc = ShardedHavoc(cluster, partitions, two, random.Random(SEED))
    over = asyncio.Event()
    loading = asyncio.create_task(publisher.publish(over, on=havoc.speakers))
    await havoc.run(acts)
    over.set()
    await loading
    await all_lead(partitions)
    found = await still(partitions)
    await asyncio.sleep(0.3)
    watching.cancel()
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
    missing = {name: said for name, said in publisher.said.items() if name not in found}
    uncounted: dict[int, list[float]] = defaultdict(list)
    renewed, on_the_bus = renewals(two.values()), 0
    for number, at in missing.values():
        if gaps.covers(number, at):
            continue
        if any(moment - BUS_SECONDS <= at <= moment for moment in renewed):
            on_the_bus += 1
        else:
            uncounted[number].append(at)
    print([(act, round(at, 3)) for act, at in havoc.when])
    for number, times in uncounted.items():
        print(f"partition {number}: {len(times)} lost, {min(times):.3f} to {max(times):.3f}; gaps {gaps.found[number]}")
    assert not uncounted, "lost outside of gaps, and not on a link of the bus"
    await all_applied(partitions, Counter(name.partition("/")[0] for name in found))
    await all_copied(partitions)
    assert [await DeadLetters(one.client).total() for one in partitions.all] == [0] * len(partitions.all)
    for agent in two.values():
        assert await agent.terminate() == 0
    print(
        f"{len(publisher.said)} events, {len(publisher.unsure)} unsure, {len(missing) - on_the_bus} lost in "
        f"{sum(map(len, gaps.found.values()))} gaps, {on_the_bus} on links of the bus, {dict(havoc.done)}"
    )


async def still(partitions: Partitions) -> dict[str, list[str]]:
    """What is in the streams, when for two seconds nothing more came."""
    before: dict[str, list[str]] = {}
    async with asyncio.timeout(60):
        while True:
            found = await persistently(lambda: written(partitions))
            assert isinstance(found, dict)
            if found and found == before:
                return found
            before = found
            await asyncio.sleep(2)


@pytest.mark.timeout(120)
async def test_what_is_missing_when_primaries_die_slots_move_and_agents_die_is_in_counted_gaps(
    cluster: Cluster, agents: Agents, partitions: Partitions, publisher: Publisher
) -> None:
    acts = ["kill_a_primary", "move_a_slot", "kill_an_agent"]
    await survive(cluster, agents, partitions, publisher, acts)


@pytest.mark.fault
@pytest.mark.timeout(3600)
async def test_the_same_for_long(
    cluster: Cluster, agents: Agents, partitions: Partitions, publisher: Publisher
) -> None:
    rng = random.Random(SEED)
    acts = [rng.choice(ACTS) for _ in range(6 * ROUNDS)]
    await survive(cluster, agents, partitions, publisher, acts)


@pytest.mark.timeout(90)
async def test_what_is_published_plainly_or_for_the_wrong_partition_is_told_and_can_be_replayed(
    cluster: Cluster, agents: Agents, partitions: Partitions
) -> None:
    agent = start(agents, cluster, "first", REDIS_AGENT_PUBSUB="sharded")
    await agent.logged("started")
    await all_lead(partitions)
    env = {
        "REDIS_AGENT_CLUSTER_NODES": cluster.seeds,
        "REDIS_AGENT_PARTITIONS": str(len(partitions.all)),
        "REDIS_AGENT_PUBSUB": "sharded",
    }
    events = [json.dumps({"experiment_id": one, "event": "sent", "run_id": one}) for one in EXPERIMENTS]
    said = await run_cli("publish", "-", stdin="\n".join(events).encode(), **env)
    assert (said.code, said.out) == (
        0,
        "24 events published on {redis_agent-N}:fullsend:metrics: received by 1 subscriber\n",
    )
    wrong = await run_cli("publish", events[0], **env | {"REDIS_AGENT_PUBSUB": "plain"})
    assert "the bridges hear by sharded pub/sub" in wrong.err
    await all_applied(partitions, Counter(EXPERIMENTS))

    home, other = (partitions.of(one) for one in EXPERIMENTS[:2])
    assert partitions.home is home
    assert home is not other
    await asyncio.to_thread(cluster.nodes[-1].send, "PUBLISH", CHANNEL, events[0])
    await asyncio.to_thread(cluster.nodes[-1].send, "PUBLISH", CHANNEL, events[1])
    await agent.logged("published_plainly")
    elsewhere = keys.shard_channel(CHANNEL, partitions.all[-1].namespace)
    await asyncio.to_thread(cluster.send, elsewhere, "SPUBLISH", elsewhere, events[2])

    async def buried() -> bool:
        letters = {one.number: await DeadLetters(one.client).total() for one in partitions.all}
        return letters[home.number] == letters[partitions.all[-1].number] == 1

    await eventually(buried, 20, what="each of the two that are in a wrong partition is a dead letter there")
    replayed = await run_cli("dead-letters", "replay", "--all", "--wait", "20", "--json", **env)
    assert {entry["outcome"] for entry in replayed.document["entries"]} == {"applied"}
    await all_applied(partitions, Counter(EXPERIMENTS) + Counter(EXPERIMENTS[:3]))
    assert await agent.terminate() == 0
    plain = start(agents, cluster, "second")
    await eventually(lambda: not plain.alive, 20, what="an agent that would hear plainly ends")
    assert plain.exit_code == 1
    assert "the bridges hear by sharded pub/sub" in plain.log_text()
