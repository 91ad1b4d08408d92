"""Dispatchers that are killed, stopped and started anew: every alert arrives, in order, and none twice."""

import asyncio
import json
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from redis_agent.store.outbox import Outbox, Raise
from tests.integration.flow import ORCHESTRATOR, OUTBOX
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

LEASE, GROUP = "redis_agent:lease:dispatcher", "dispatcher"


class Heard:
    """What a subscriber of the Orchestrator's channel has received."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, str]] = []

    def times(self) -> Counter[str]:
        return Counter(alert["alert_id"] for alert in self.alerts)

    def in_order(self) -> bool:
        """Whether the first arrivals of every experiment come in the order in which they were raised."""
        of: dict[str, dict[int, None]] = defaultdict(dict)
        for alert in self.alerts:
            of[alert["experiment_id"]].setdefault(int(alert["alert_id"]))
        return all(list(ids) == sorted(ids) for ids in of.values())


@asynccontextmanager
async def subscriber(client: Redis) -> AsyncIterator[Heard]:
    heard = Heard()
    async with client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(ORCHESTRATOR)

        async def listen() -> None:
            while True:
                message = await listener.get_message(timeout=1)
                if message is not None:
                    heard.alerts.append(json.loads(message["data"]))

        listening = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def raise_alerts(client: Redis, first: int, count: int) -> None:
    """Errors of five experiments, in one step each as a worker raises them."""
    for n in range(first, first + count):
        experiment = f"exp_{n % 5}"
        data = json.dumps({"type": "error", "severity": "high", "experiment_id": experiment, "alert_id": str(n)})
        assert await Outbox(client).raise_([Raise(experiment, "error", str(n), 600, str(n), data, 0)]) == [0]


async def acked(client: Redis, heard: Heard, count: int) -> bool:
    (group,) = await client.xinfo_groups(OUTBOX)
    return group["pending"] == 0 and group["lag"] == 0 and len(heard.times()) == count


async def leader_of(client: Redis, dispatchers: list[AgentProcess]) -> AgentProcess | None:
    holder = await client.get(LEASE) or ""
    return next((d for d in dispatchers if d.alive and f"-{d.pid}-" in holder), None)


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_alert_arrives_once_and_in_order_while_leaders_are_killed_and_stopped(
    agents: Agents, client: Redis, seed: int
) -> None:
    rng = random.Random(seed)
    dispatchers = [await agents.start("dispatcher").ready() for _ in range(3)]
    raised = 0
    done: Counter[str] = Counter()
    async with subscriber(client) as heard:
        for _ in range(8):
            leader = await eventually(lambda: leader_of(client, dispatchers), what="somebody leads")
            assert leader is not None
            raising = asyncio.create_task(raise_alerts(client, raised, 60))
            await eventually(lambda first=raised: len(heard.times()) > first, what="alerts arrive")
            how = rng.choice(["kill", "stop", "terminate"])
            done[how] += 1
            if how == "kill":
                leader.kill()
                leader.start()
            elif how == "terminate":
                assert await leader.terminate() == 0
                leader.start()
            else:
                leader.signal(signal.SIGSTOP)

                async def passed(stopped: AgentProcess = leader) -> bool:
                    return await leader_of(client, dispatchers) not in (None, stopped)

                await eventually(passed, 20, what="another leads")
                leader.signal(signal.SIGCONT)
            await raising
            raised += 60
        await eventually(lambda: acked(client, heard, raised), 30, what="all alerts arrive and are acked")
    # A reply may be lost with its process, and still nothing is published twice: publishing and acking are one script.
    twice = {alert_id: times for alert_id, times in heard.times().items() if times > 1}
    print(f"seed {seed}: {dict(done)}, {raised} alerts, {len(twice)} of them twice")
    assert twice == {}
    assert heard.in_order()
    assert await client.xlen(OUTBOX) == raised


async def test_lost_group_and_lost_outbox_cost_nothing_that_is_still_there(agents: Agents, client: Redis) -> None:
    for _ in range(2):
        await agents.start("dispatcher").ready()
    async with subscriber(client) as heard:
        await raise_alerts(client, 0, 20)
        await eventually(lambda: acked(client, heard, 20))
        for first in (20, 40, 60):
            raising = asyncio.create_task(raise_alerts(client, first, 20))
            await client.xgroup_destroy(OUTBOX, GROUP)
            await raising
            await eventually(lambda first=first: _heard_all(heard, first + 20), 20, what="all arrive")
        assert set(heard.times().values()) == {1}
        assert heard.in_order()

        await client.delete(OUTBOX)
        await raise_alerts(client, 80, 5)
        await eventually(lambda: _heard_all(heard, 85), 20, what="what came after the loss arrives")
    assert set(heard.times().values()) == {1}


def _heard_all(heard: Heard, count: int) -> bool:
    return len(heard.times()) == count


async def test_alerts_that_nobody_may_hear_are_bounded_by_the_setting_and_counted(
    agents: Agents, client: Redis
) -> None:
    from tests.integration.flow import http

    await raise_alerts(client, 0, 150)
    agent = await agents.start("dispatcher", "scheduler", http=True, REDIS_AGENT_ALERTS_MAX_LENGTH=100).ready()
    line = await agent.logged("alerts_over_limit")
    assert line["dropped"] == 50
    assert await client.xlen(OUTBOX) == 100
    _, text = await http(agent, "/metrics")
    assert 'redis_agent_alerts_total{outcome="undelivered",severity="high",type="error"} 50.0' in text
    async with subscriber(client) as heard:
        await eventually(lambda: acked(client, heard, 100), 20, what="the others arrive")
    assert [int(alert["alert_id"]) for alert in heard.alerts] == list(range(50, 150))
