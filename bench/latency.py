"""From PUBLISH of an event to the alert about it, next to a bare PUBLISH to a subscriber of the same server."""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import redis
import redis.asyncio

from bench.processes import Agent
from redis_agent.config import Settings
from redis_agent.store import keys

_BARE = "bench:bare"
_WARM_UP = 20
# An alert that has not come after so long counts as lost.
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one way.

    Attributes:
        way: which.
        samples: how many arrived.
        lost: how many did not.
        p50, p99, longest: milliseconds.
    """

    way: str
    samples: int
    lost: int
    p50: float
    p99: float
    longest: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(client: redis.Redis, url: str, *, samples: int, per_second: float, **variables: str) -> list[Latency]:
    """Both ways in turns, at a modest rate; all roles run in one other process.

    Every event is of an experiment of its own, defined beforehand: no cooldown holds an alert back.
    """
    client.flushall()
    total = samples + _WARM_UP
    for n in range(total):
        criteria = json.dumps(["demos_booked >= 1"])
        client.hset(keys.experiment(f"latency_{n}"), mapping={"success_criteria": criteria, "state": "running"})
    settings = Settings()
    with Agent(url, "bridge,worker,dispatcher,scheduler", **variables) as agent:
        agent.wait_until(lambda: client.pubsub_numsub(settings.metrics_channel)[0][1], "no subscription")
        leases = (keys.LEASE_BRIDGE, keys.LEASE_DISPATCHER)
        agent.wait_until(lambda: client.exists(*leases) == len(leases), "no leader")
        agent.wait_until(lambda: client.exists(keys.OUTBOX, keys.STREAM) == 2, "no consumer groups")
        ways = asyncio.run(_sample(url, settings, total, 1 / per_second))
    return [_summary(way, times[_WARM_UP:]) for way, times in ways.items()]


async def _sample(url: str, settings: Settings, total: int, interval: float) -> dict[str, list[float | None]]:
    alerts: list[float | None] = [None] * total
    bare: list[float | None] = [None] * total
    sent_alerts, sent_bare = [0.0] * total, [0.0] * total
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, protocol=2)
    async with client.pubsub(ignore_subscribe_messages=True) as subscriber:
        await subscriber.subscribe(settings.orchestrator_channel, _BARE)
        await subscriber.get_message(timeout=1)

        left, complete = 2 * total, asyncio.Event()

        async def listen() -> None:
            nonlocal left
            async for message in subscriber.listen():
                now = time.perf_counter()
                if message["channel"] == _BARE.encode():
                    n = int(message["data"])
                    bare[n] = now - sent_bare[n]
                else:
                    alert = json.loads(message["data"])
                    if alert["type"] != "success_threshold":
                        continue  # a summary
                    n = int(alert["experiment_id"].removeprefix("latency_"))
                    alerts[n] = now - sent_alerts[n]
                left -= 1
                if not left:
                    complete.set()

        listening = asyncio.create_task(listen())
        begin = time.perf_counter()
        for n in range(total):
            await _sleep_until(begin + n * interval)
            event = json.dumps({"experiment_id": f"latency_{n}", "event": "demo_booked", "count": 1})
            sent_alerts[n] = time.perf_counter()
            await client.publish(settings.metrics_channel, event)
            await _sleep_until(begin + (n + 0.5) * interval)
            sent_bare[n] = time.perf_counter()
            await client.publish(_BARE, str(n))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(complete.wait(), _PATIENCE_SECONDS)
        listening.cancel()
        await asyncio.wait({listening})
    await client.aclose()
    return {"alert": alerts, "bare": bare}


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.perf_counter()))


def _summary(way: str, times: Sequence[float | None]) -> Latency:
    arrived = sorted(1000 * t for t in times if t is not None)
    if not arrived:
        raise RuntimeError(f"{way}: nothing arrived")
    return Latency(
        way=way,
        samples=len(arrived),
        lost=len(times) - len(arrived),
        p50=arrived[len(arrived) // 2],
        p99=arrived[math.ceil(len(arrived) * 0.99) - 1],
        longest=arrived[-1],
    )
