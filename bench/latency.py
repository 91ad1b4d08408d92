"""From PUBLISH of an event until it is applied, and until the alert about it arrives; beside it a bare PUBLISH."""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.client import PubSub

from bench import readers
from bench.processes import Agent, Child
from bench.publishing import EXPERIMENTS as BACKGROUND_EXPERIMENTS
from bench.workload import define, experiment_name
from redis_agent.config import Settings
from redis_agent.store import keys

WAYS = ("applied", "alert", "bare")
_BARE = "bench:bare"
_EXPERIMENT = "latency_"
_APPLIED = b"__keyspace@0__:" + keys.aggregate(_EXPERIMENT).encode()
_WARM_UP = 20
# What has not come after so long counts as lost.
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one way.

    Attributes:
        way: one of `WAYS`, or `alone`: a bare PUBLISH at a server without an agent.
        per_second: events that were published a second, those that were timed among them.
        samples: how many arrived.
        lost: how many did not.
        p50, p99, p999, longest: milliseconds.
    """

    way: str
    per_second: int
    samples: int
    lost: int
    p50: float
    p99: float
    p999: float
    longest: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class _Times:
    """When each sample was sent, and how long it took; None while it has not arrived."""

    total: int
    sent: list[float] = field(init=False)
    took: list[float | None] = field(init=False)

    def __post_init__(self) -> None:
        self.sent = [0.0] * self.total
        self.took = [None] * self.total

    def arrived(self, n: int, now: float) -> bool:
        """Whether this is the first that is heard of it."""
        first = self.took[n] is None
        if first:
            self.took[n] = now - self.sent[n]
        return first


def measure(
    client: redis.Redis, url: str, *, samples: int, timed: int, per_second: int | None = None, **variables: str
) -> dict[str, Latency]:
    """All ways in turns while `per_second` events are published, `timed` of them with a clock.

    All roles run in one other process. Every timed event is of an experiment of its own: no cooldown holds an alert
    back. The others are of 20 experiments, with four criteria each. An event is applied when the server's keyspace
    notification says that its aggregate was written. Half-way between two timed events a bare message is published to
    the same subscriber.
    """
    total = samples + _WARM_UP
    client.flushall()
    with client.pipeline(transaction=False) as pipe:
        for n in range(total):
            criteria = json.dumps(["demos_booked >= 1"])
            pipe.hset(keys.experiment(f"{_EXPERIMENT}{n}"), mapping={"success_criteria": criteria, "state": "running"})
        for n in range(BACKGROUND_EXPERIMENTS):
            define(pipe, experiment_name(n))
        pipe.execute()
    settings = Settings()
    client.config_set("notify-keyspace-events", "Kh")
    with Agent(url, "bridge,worker,dispatcher,scheduler", **variables) as agent:
        agent.wait_until(lambda: client.pubsub_numsub(settings.metrics_channel)[0][1], "no subscription")
        leases = (keys.LEASE_BRIDGE, keys.LEASE_DISPATCHER)
        agent.wait_until(lambda: client.exists(*leases) == len(leases), "no leader")
        agent.wait_until(lambda: client.exists(keys.OUTBOX, keys.STREAM) == 2, "no consumer groups")
        with _background(url, settings.metrics_channel, (per_second or timed) - timed):
            ways = asyncio.run(_sample(url, settings, total, 1 / timed))
    client.config_set("notify-keyspace-events", "")
    return {way: _summary(way, per_second or timed, times.took[_WARM_UP:]) for way, times in ways.items()}


def alone(client: redis.Redis, url: str, *, samples: int, timed: int, per_second: int) -> Latency:
    """A bare PUBLISH to a subscriber while another reader is sent the rest, and no agent runs."""
    client.flushall()
    with Child("bench.readers", "raw", url), _background(url, readers.CHANNEL, per_second - timed):
        times = asyncio.run(_sample_bare(url, samples + _WARM_UP, 1 / timed))
    return _summary("alone", per_second, times.took[_WARM_UP:])


@contextmanager
def _background(url: str, channel: str, per_second: int) -> Iterator[None]:
    with ExitStack() as stack:
        if per_second > 0:
            publisher = stack.enter_context(Child("bench.publishing", url, channel, str(per_second)))
            publisher.go()
        yield


class _Hearing:
    """Hears what arrives, until all has."""

    def __init__(self, left: int) -> None:
        self._left = left
        self.complete = asyncio.Event()

    async def listen(self, subscriber: PubSub, hear: Callable[[dict[str, Any], float], bool]) -> None:
        async for message in subscriber.listen():
            if message["type"] in ("message", "pmessage") and hear(message, time.perf_counter()):
                self._left -= 1
                if not self._left:
                    self.complete.set()


async def _sample(url: str, settings: Settings, total: int, interval: float) -> dict[str, _Times]:
    times = {way: _Times(total) for way in WAYS}

    def hear(message: dict[str, Any], now: float) -> bool:
        channel = message["channel"]
        if channel == _BARE.encode():
            return times["bare"].arrived(int(message["data"]), now)
        if channel.startswith(_APPLIED):
            return times["applied"].arrived(int(channel.removeprefix(_APPLIED)), now)
        alert = json.loads(message["data"])
        experiment = str(alert.get("experiment_id", ""))
        if alert["type"] != "success_threshold" or not experiment.startswith(_EXPERIMENT):
            return False  # a summary
        return times["alert"].arrived(int(experiment.removeprefix(_EXPERIMENT)), now)

    hearing = _Hearing(len(WAYS) * total)
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, protocol=2)
    async with client.pubsub() as subscriber:
        await subscriber.subscribe(settings.orchestrator_channel, _BARE)
        await subscriber.psubscribe(_APPLIED + b"*")
        listening = asyncio.create_task(hearing.listen(subscriber, hear))
        begin = time.perf_counter()
        for n in range(total):
            await _sleep_until(begin + n * interval)
            event = json.dumps({"experiment_id": f"{_EXPERIMENT}{n}", "event": "demo_booked", "count": 1})
            times["applied"].sent[n] = times["alert"].sent[n] = time.perf_counter()
            await client.publish(settings.metrics_channel, event)
            await _sleep_until(begin + (n + 0.5) * interval)
            times["bare"].sent[n] = time.perf_counter()
            await client.publish(_BARE, str(n))
        await _settle(hearing, listening)
    await client.aclose()
    return times


async def _sample_bare(url: str, total: int, interval: float) -> _Times:
    times = _Times(total)
    hearing = _Hearing(total)
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, protocol=2)
    async with client.pubsub() as subscriber:
        await subscriber.subscribe(_BARE)
        listening = asyncio.create_task(
            hearing.listen(subscriber, lambda message, now: times.arrived(int(message["data"]), now))
        )
        begin = time.perf_counter()
        for n in range(total):
            await _sleep_until(begin + n * interval)
            times.sent[n] = time.perf_counter()
            await client.publish(_BARE, str(n))
        await _settle(hearing, listening)
    await client.aclose()
    return times


async def _settle(hearing: _Hearing, listening: asyncio.Task[None]) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(hearing.complete.wait(), _PATIENCE_SECONDS)
    listening.cancel()
    await asyncio.wait({listening})


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.perf_counter()))


def _summary(way: str, per_second: int, times: Sequence[float | None]) -> Latency:
    arrived = sorted(1000 * t for t in times if t is not None)
    if not arrived:
        raise RuntimeError(f"{way}: nothing arrived")

    def quantile(share: float) -> float:
        return arrived[math.ceil(len(arrived) * share) - 1]

    return Latency(
        way=way,
        per_second=per_second,
        samples=len(arrived),
        lost=len(times) - len(arrived),
        p50=quantile(0.5),
        p99=quantile(0.99),
        p999=quantile(0.999),
        longest=arrived[-1],
    )
