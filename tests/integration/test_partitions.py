"""Partitions on one server: every event once, in the partition of its experiment, whoever comes and goes."""

import asyncio
import json
from collections import Counter

import pytest
from redis.asyncio import Redis

from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.dead_letters import DeadLetters
from redis_agent.store.inspection import Inspection
from redis_agent.store.partitions import Partitions
from tests.integration.flow import answered
from tests.processes import Agents
from tests.waiting import eventually

PARTITIONS = 4
EXPERIMENTS = [f"exp-{n}" for n in range(12)]


async def counts(partitions: Partitions) -> Counter[str]:
    """The events of each experiment, as the partition that it belongs to has them."""
    found: Counter[str] = Counter()
    for partition in partitions.all:
        for one, fields in (await Aggregates(partition.client).read(EXPERIMENTS)).items():
            assert partitions.of(one) is partition
            found[one] = int(fields["sent_count"])
    return found


async def publish(client: Redis, events: int, *, first: int = 0) -> Counter[str]:
    said: Counter[str] = Counter()
    for n in range(first, first + events):
        one = EXPERIMENTS[n % len(EXPERIMENTS)]
        await client.publish("fullsend:metrics", json.dumps({"experiment_id": one, "event": "sent"}))
        said[one] += 1
    return said


@pytest.fixture
async def partitions(redis_url: str):
    found = Partitions(Address(redis_url), PARTITIONS, name="test")
    yield found
    await found.aclose()


async def test_every_event_is_applied_once_in_the_partition_of_its_experiment(
    agents: Agents, client: Redis, partitions: Partitions
) -> None:
    heard = client.pubsub()
    await heard.subscribe("fullsend:to_orchestrator")
    agent = agents.start(REDIS_AGENT_PARTITIONS=PARTITIONS, http=True)
    await agent.ready()
    await agent.logged("partitions_taken", share=[0, 1, 2, 3])
    await all_lead(partitions)
    said = await publish(client, 240)
    for text in ("no json", '{"experiment_id": ""}', "also none"):
        await client.publish("fullsend:metrics", text)
    await client.publish("fullsend:metrics", '{"experiment_id":"exp-3","event":"error","message":"broken"}')

    async def applied() -> bool:
        assert await counts(partitions) == said
        return sum([await DeadLetters(partition.client).total() for partition in partitions.all]) == 3

    await eventually(applied, 20)
    # What the alert rules compare.
    shown = (await answered(agent, "/metrics", 200)).splitlines()
    for name in ("partitions", "bridge_leader", "bridge_in_step", "dispatcher_leader", "scheduler_leader"):
        assert f"redis_agent_{name} {PARTITIONS}.0" in shown
    assert not [key for key in await client.keys("*") if key.startswith(("fullsend", "redis_agent:lease"))]
    assert [json.loads((await message(heard))["data"])["type"]] == ["error"]
    assert await agent.terminate() == 0
    await heard.aclose()


async def all_lead(partitions: Partitions) -> None:
    async def lead() -> bool:
        return all([await Inspection(partition.client).leader(keys.LEASE_BRIDGE) for partition in partitions.all])

    await eventually(lead, 20)


async def message(pubsub) -> dict[str, str]:
    async def next_one():
        return await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1)

    return await eventually(next_one, 20)


async def test_partitions_are_divided_among_those_who_are_there_and_nothing_is_lost_or_twice(
    agents: Agents, client: Redis, partitions: Partitions
) -> None:
    first = agents.start(REDIS_AGENT_PARTITIONS=PARTITIONS, REDIS_AGENT_CONSUMER="first")
    second = agents.start(REDIS_AGENT_PARTITIONS=PARTITIONS, REDIS_AGENT_CONSUMER="second")
    await first.ready()
    await second.ready()
    await all_lead(partitions)
    await asyncio.sleep(2.5)  # both have seen each other
    said = await publish(client, 120)
    second.kill()
    said += await publish(client, 120, first=120)

    async def applied() -> bool:
        found = await counts(partitions)
        assert found == said
        return True

    await eventually(applied, 20)
    third = agents.start("worker", REDIS_AGENT_PARTITIONS=PARTITIONS, REDIS_AGENT_CONSUMER="third")
    await third.logged("partitions_taken")
    said += await publish(client, 120)
    assert await first.terminate() == 0
    await eventually(applied, 20)


async def test_agent_does_not_start_against_another_number_of_partitions(
    agents: Agents, partitions: Partitions
) -> None:
    await partitions.check()
    agent = agents.start("worker", REDIS_AGENT_PARTITIONS=3)
    await eventually(lambda: not agent.alive, 20)
    assert agent.exit_code == 1
    assert "is of 4 partitions" in agent.log_text()
