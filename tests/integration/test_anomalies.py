"""Anomalies through the whole product: windows in Redis, schedulers that are killed, alerts that people read."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.store import keys
from tests.conftest import OwnServerFactory
from tests.faketime import FakeClock
from tests.integration.flow import GROUP, STREAM, alerts
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

HOUR = 3_600
# A Monday: nothing is told before days of work were seen, of silence not before two.
BEGIN = int(datetime(2026, 8, 31, tzinfo=UTC).timestamp())
# Hours after which the windows so far are examined; what began within the last one is news.
STEPS = (36, 60, 62, 63, 66, 68, 69, 71)
SETTINGS = {"ALERT_COOLDOWN_SECONDS": 60, "REDIS_AGENT_ALERT_BACKOFF": 1}
METRICS = [{"name": "bounce_rate", "type": "percentage", "formula": "bounces / emails_sent * 100"}]


def minute(rng: random.Random, at_s: int) -> Iterator[dict[str, Any]]:
    """What is published in one minute: emails and their bounces, a gauge; later a burst, and then silence."""
    hour = (at_s - BEGIN) / HOUR
    sent = sum(rng.random() < 0.5 for _ in range(12)) if hour < 68 else 0
    if sent:
        yield {"event": "email_sent", "count": sent}
    bouncing = 0.3 if 62.0 <= hour < 63.0 else 0.02
    bounced = sum(rng.random() < bouncing for _ in range(sent))
    if bounced:
        yield {"event": "bounce", "count": bounced}
    yield {"latency_seconds": round(rng.gauss(1.0, 0.1), 3)}


class Stage:
    """One run: a server, a worker, schedulers on a clock of the test's."""

    def __init__(self, url: str, directory: Path, name: str) -> None:
        self.client: Redis = Redis.from_url(url, decode_responses=True)
        self.agents = Agents(url, directory)
        self.clock = FakeClock(directory, name)
        self.rng = random.Random(20260902)
        self.schedulers: list[AgentProcess] = []

    def start_scheduler(self) -> None:
        self.schedulers.append(self.agents.start("scheduler", **SETTINGS, **self.clock.env))

    def set_clock(self, at_s: int) -> None:
        self.clock.set(at_s - int(time.time()))

    async def publish(self, first_s: int, last_s: int) -> None:
        """Events between two moments, as a bridge wrote them at their time."""
        async with self.client.pipeline() as pipe:
            for at_s in range(first_s, last_s, 60):
                for event in minute(self.rng, at_s):
                    data = json.dumps({"experiment_id": "exp", **event, "timestamp": at_s + 5})
                    pipe.xadd(STREAM, {"data": data, "at": 1000 * (at_s + 6)})
            await pipe.execute()

        async def applied() -> bool:
            (found,) = await self.client.xinfo_groups(STREAM)
            return found["name"] == GROUP and found["pending"] == 0 and found["lag"] == 0

        await eventually(applied, 30, what="all is applied")

    async def examined(self, until_s: int) -> None:
        async def done() -> bool:
            return await self.client.hget(keys.anomalies("exp"), "upto") == str(until_s)

        await eventually(done, 40, what="every window is examined")

    async def kill_leader(self) -> None:
        owner = (await self.client.get(keys.LEASE_SCHEDULER) or "").partition(":")[2]
        for scheduler in self.schedulers:
            if scheduler.alive and f"-{scheduler.pid}" in owner:
                scheduler.kill()
        self.schedulers = [scheduler for scheduler in self.schedulers if scheduler.alive]
        self.start_scheduler()

    async def play(self, *, kills: int) -> list[dict[str, Any]]:
        """Three days in a minute; the alerts about anomalies."""
        rng = random.Random(7)
        await self.agents.start("worker").ready()
        definition = {"metrics": json.dumps(METRICS), "state": "running"}
        await self.client.hset("experiments:exp", mapping=definition)
        self.set_clock(BEGIN)
        for _ in range(2 if kills else 1):
            self.start_scheduler()
        steps = [BEGIN + hour * HOUR for hour in STEPS]
        deadly = set(rng.sample(range(len(steps)), kills))
        before = BEGIN
        for n, until in enumerate(steps):
            await self.publish(before, until)
            self.set_clock(until + 45)
            if n in deadly:
                await asyncio.sleep(rng.uniform(0, 5.5))  # the examiner looks every five seconds
                await self.kill_leader()
            await self.examined(until)
            before = until
        return [alert for alert in await alerts(self.client) if alert["type"] == "anomaly"]

    async def end(self) -> None:
        self.agents.end()
        await self.client.aclose()


def told(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of an alert does not differ from run to run."""
    return [{name: value for name, value in a.items() if name not in ("alert_id", "timestamp")} for a in found]


@pytest.mark.timeout(300)
async def test_schedulers_killed_in_mid_series_tell_what_an_undisturbed_one_tells(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    calm, havoc = (Stage(own_server().url, tmp_path, name) for name in ("calm", "havoc"))
    try:
        undisturbed, disturbed = await asyncio.gather(calm.play(kills=0), havoc.play(kills=6))
        assert told(disturbed) == told(undisturbed)
        kept = [await s.client.hgetall(keys.anomalies("exp")) for s in (calm, havoc)]
        assert {n: v for n, v in kept[0].items() if n != "told"} == {n: v for n, v in kept[1].items() if n != "told"}

        for alert in undisturbed:
            print(alert["message"])
        bounces, silence = undisturbed
        assert (bounces["type"], bounces["severity"], bounces["metric"]) == ("anomaly", "medium", "bounce_rate")
        assert bounces["since"].startswith("2026-09-02T14:00")
        assert bounces["value"] > 20 > bounces["expected"][1]
        assert [one["metric"] for one in bounces["also"]] == ["bounce"]
        assert (silence["metric"], silence["anomaly"]) == ("email_sent", "silence")
        assert silence["since"].startswith("2026-09-02T20:00")
    finally:
        await calm.end()
        await havoc.end()
