"""What each peer does for an event or for a batch of them, and how it is timed.

Event by event, the fold is one script: one round trip, and right for tasks that run side by side. The fields are those
that the worker keeps, but for its windows and its state.
"""

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from bench.stopwatch import Stopwatch, wait_for_go
from bench.workload import Workload, events, gauge_of
from redis_agent.clock import iso_from_ms
from redis_agent.store import keys

MAX_RAW = 10_000
# Of those that fold a whole batch: as many as the worker reads at most with a backlog.
BATCH = 2_000
# A peer that has not done everything after so long has lost some, or is stuck.
LIMIT_SECONDS = 60.0

FOLD_ONE = """
local aggregate, raw = KEYS[1], KEYS[2]
local data, at, max_raw, kind, name, value = unpack(ARGV)
redis.call('RPUSH', raw, data)
redis.call('LTRIM', raw, -max_raw, -1)
if kind == 'counter' then
  redis.call('HINCRBY', aggregate, name .. '_count', value)
else
  redis.call('HSET', aggregate, name .. '_latest', value)
  redis.call('HINCRBYFLOAT', aggregate, name .. '_sum', value)
  redis.call('HINCRBY', aggregate, name .. '_samples', 1)
  local bounds = redis.call('HMGET', aggregate, name .. '_min', name .. '_max')
  if not bounds[1] or tonumber(value) < tonumber(bounds[1]) then
    redis.call('HSET', aggregate, name .. '_min', value)
  end
  if not bounds[2] or tonumber(value) > tonumber(bounds[2]) then
    redis.call('HSET', aggregate, name .. '_max', value)
  end
end
redis.call('HINCRBY', aggregate, 'events_total', 1)
redis.call('HSETNX', aggregate, 'first_event_at', at)
redis.call('HSET', aggregate, 'last_updated', at)
"""


def fold_one(data: str | bytes, event: dict[str, Any]) -> tuple[list[str], list[Any]]:
    """Keys and arguments of `FOLD_ONE`."""
    experiment = event["experiment_id"]
    what = ["counter", event["event"], event["count"]] if "event" in event else ["gauge", *gauge_of(event)]
    return [keys.aggregate(experiment), keys.raw_events(experiment)], [data, _now(), MAX_RAW, *what]


@dataclass(slots=True)
class _Gauge:
    latest: float = 0.0
    sum: float = 0.0
    samples: int = 0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, value: float) -> None:
        self.latest = value
        self.sum += value
        self.samples += 1
        self.low, self.high = min(self.low, value), max(self.high, value)


@dataclass(slots=True)
class _Sums:
    raw: list[str | bytes] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    gauges: dict[str, _Gauge] = field(default_factory=lambda: defaultdict(_Gauge))


async def fold_many(client: Redis, batch: Iterable[tuple[str | bytes, dict[str, Any]]]) -> None:
    """The best that a batch allows by hand: summed in Python, two pipelines whatever the size of the batch."""
    experiments: dict[str, _Sums] = defaultdict(_Sums)
    for data, event in batch:
        sums = experiments[event["experiment_id"]]
        sums.raw.append(data)
        if "event" in event:
            sums.counters[event["event"]] += event["count"]
        else:
            name, value = gauge_of(event)
            sums.gauges[name].add(value)
    async with client.pipeline(transaction=False) as pipe:
        for experiment, sums in experiments.items():
            for name in sums.gauges:
                pipe.hmget(keys.aggregate(experiment), f"{name}_min", f"{name}_max")
        bounds = iter(await pipe.execute())
    at = _now()
    async with client.pipeline(transaction=True) as pipe:
        for experiment, sums in experiments.items():
            aggregate, raw = keys.aggregate(experiment), keys.raw_events(experiment)
            pipe.rpush(raw, *sums.raw)
            pipe.ltrim(raw, -MAX_RAW, -1)
            pipe.hincrby(aggregate, "events_total", len(sums.raw))
            for name, count in sums.counters.items():
                pipe.hincrby(aggregate, f"{name}_count", count)
            latest: dict[str, Any] = {"last_updated": at}
            for name, gauge in sums.gauges.items():
                pipe.hincrbyfloat(aggregate, f"{name}_sum", gauge.sum)
                pipe.hincrby(aggregate, f"{name}_samples", gauge.samples)
                low, high = next(bounds)
                latest[f"{name}_latest"] = gauge.latest
                latest[f"{name}_min"] = gauge.low if low is None else min(gauge.low, float(low))
                latest[f"{name}_max"] = gauge.high if high is None else max(gauge.high, float(high))
            pipe.hsetnx(aggregate, "first_event_at", at)
            pipe.hset(aggregate, mapping=latest)
        await pipe.execute()


def _now() -> str:
    return iso_from_ms(int(time.time() * 1000))


def texts(count: int) -> list[str]:
    """The events that everybody is given, of 20 experiments."""
    return [event.decode() for event in events(Workload("peers", count, 20))]


class Work:
    """Counts what is done, and says when it is all.

    Args:
        count: how many events there are.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._all = asyncio.Event()

    def done(self, count: int = 1) -> None:
        self._left -= count
        if self._left <= 0:
            self._all.set()

    async def timed(self, url: str, run: Callable[[], Awaitable[Any]]) -> str:
        """Wait for the word, run a consumer until all is done or the time is over, and stop it; its figures as JSON."""
        async with Redis.from_url(url, protocol=2) as client:
            await client.ping()
            wait_for_go()
            async with Stopwatch(client) as watch:
                running = asyncio.ensure_future(run())
                waiting = asyncio.create_task(self._all.wait())
                await asyncio.wait({running, waiting}, timeout=LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not self._all.is_set() and running.done():
                    running.result()
                    await asyncio.wait({waiting}, timeout=LIMIT_SECONDS)
                watch.stop()
                waiting.cancel()
            await asyncio.sleep(0.2)  # the last acks
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            return json.dumps(watch.figures)
