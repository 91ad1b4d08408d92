"""The process that is measured: one loop over a filled stream, run alone so that its CPU time is its own.

Started by `bench.rates`. It connects, says "ready", waits for a line on stdin, runs, and prints its figures as JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from bench.peers.work import BATCH as LARGE_BATCH
from bench.peers.work import fold_many
from bench.stopwatch import Stopwatch, wait_for_go
from bench.workload import gauge_of
from redis_agent import app, log
from redis_agent.clock import iso_from_ms
from redis_agent.config import Settings
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.worker import Worker

CONSUMER = "bench"
BATCH = 500
_WATCH_SECONDS = 0.005
# The worker counts as stuck when it has not applied everything after so long.
_LIMIT_SECONDS = 120.0


async def bare(url: str, events: int, batch: int) -> dict[str, float]:
    """The floor: read and ack, and nothing else; with the agent's own client and its raw replies."""
    client = connect(Address(url), name="bench")
    await client.ping()
    wait_for_go()
    done = 0
    async with Stopwatch(client) as watch:
        while done < events:
            reply = await client.execute_command(
                "XREADGROUP", "GROUP", keys.GROUP, CONSUMER, "COUNT", batch, "STREAMS", keys.STREAM, ">"
            )
            ids = [row[0] for row in reply[0][1]]
            done += await client.execute_command("XACK", keys.STREAM, keys.GROUP, *ids)
    await client.aclose()
    return watch.figures


async def api(url: str, events: int, batch: int) -> dict[str, float]:
    """The same as one writes it with redis-py's own methods: its replies are shaped by redis-py."""
    client: Redis = Redis.from_url(url, protocol=2)
    await client.ping()
    wait_for_go()
    done = 0
    async with Stopwatch(client) as watch:
        while done < events:
            reply = await client.xreadgroup(keys.GROUP, CONSUMER, {keys.STREAM: ">"}, count=batch)
            done += await client.xack(keys.STREAM, keys.GROUP, *[entry_id for entry_id, _ in reply[0][1]])
    await client.aclose()
    return watch.figures


async def by_hand(url: str, events: int) -> dict[str, float]:
    """The worker's sums as one writes them with redis-py: folded in Python, two pipelines a batch, then the ack."""
    client: Redis = Redis.from_url(url, protocol=2)
    await client.ping()
    wait_for_go()
    done = 0
    async with Stopwatch(client) as watch:
        while done < events:
            reply = await client.xreadgroup(keys.GROUP, CONSUMER, {keys.STREAM: ">"}, count=LARGE_BATCH)
            entries = reply[0][1]
            await fold_many(client, ((fields[b"data"], json.loads(fields[b"data"])) for _, fields in entries))
            done += await client.xack(keys.STREAM, keys.GROUP, *[entry_id for entry_id, _ in entries])
    await client.aclose()
    return watch.figures


@dataclass(frozen=True, slots=True)
class Composed:
    """A worker, and what to look at while it runs."""

    role: Worker
    client: Redis
    applied: Callable[[], float]


@asynccontextmanager
async def composed(url: str, consumer: str, **set_to: int) -> AsyncIterator[Composed]:
    """A worker built by the program's own composition root, connected."""
    log.configure(level="error", form="json")
    app._tune_collector()
    settings = Settings(redis_url=url, http_port=0, consumer=consumer, **set_to)
    async with AsyncExitStack() as stack:
        parts = await app._parts(settings, stack)
        role = app._worker(parts)
        await asyncio.gather(*(client.ping() for client in parts.partitions.clients))
        yield Composed(role, parts.client, parts.telemetry.events.labels("applied")._value.get)


async def worker(url: str, events: int, **set_to: int) -> dict[str, float]:
    """One worker, until it has applied so many; what it had read is finished after the clock has stopped."""
    async with composed(url, CONSUMER, **set_to) as one:
        stop = asyncio.Event()
        wait_for_go()
        async with Stopwatch(one.client) as watch, until(one.role.run, stop) as running:
            deadline = time.perf_counter() + _LIMIT_SECONDS
            # A counter tells nobody when it moves.
            while one.applied() < events and not running.done() and time.perf_counter() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(_WATCH_SECONDS)
            watch.stop()
            watch.figures["events"] = one.applied()
        if one.applied() < events:
            raise RuntimeError(f"the worker applied {one.applied():.0f} of {events} events")
        return watch.figures | {"applied": one.applied()}


@asynccontextmanager
async def until(run: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> AsyncIterator[asyncio.Future]:
    """Run a role while the body runs."""
    running = asyncio.ensure_future(run(stop))
    try:
        yield running
    finally:
        stop.set()
        await running


async def naive(url: str, events: int, *, same_fields: bool) -> dict[str, float]:
    """The PRD's loop: one event at a time, one awaited round trip for every write."""
    client = connect(Address(url), name="bench")
    await client.ping()
    wait_for_go()
    async with Stopwatch(client) as watch:
        for _ in range(events):
            reply = await client.execute_command(
                "XREADGROUP", "GROUP", keys.GROUP, CONSUMER, "COUNT", 1, "STREAMS", keys.STREAM, ">"
            )
            entry_id, fields = reply[0][1][0]
            await _write(client, fields[1], at_ms=int(fields[3]), same_fields=same_fields)
            await client.execute_command("XACK", keys.STREAM, keys.GROUP, entry_id)
    await client.aclose()
    return watch.figures


async def _write(client: Redis, data: bytes, *, at_ms: int, same_fields: bool) -> None:
    event = json.loads(data)
    aggregate = keys.aggregate(event["experiment_id"])
    await client.rpush(keys.raw_events(event["experiment_id"]), data)
    if "event" in event:
        await client.hincrby(aggregate, f"{event['event']}_count", event["count"])
    else:
        name, value = gauge_of(event)
        await client.hset(aggregate, f"{name}_latest", value)
        if same_fields:
            await client.hincrbyfloat(aggregate, f"{name}_sum", value)
            await client.hincrby(aggregate, f"{name}_samples", 1)
            low, high = await client.hmget(aggregate, f"{name}_min", f"{name}_max")
            if low is None or value < float(low):
                await client.hset(aggregate, f"{name}_min", value)
            if high is None or value > float(high):
                await client.hset(aggregate, f"{name}_max", value)
    if same_fields:
        at = iso_from_ms(at_ms)
        await client.hincrby(aggregate, "events_total", 1)
        await client.hsetnx(aggregate, "first_event_at", at)
        await client.hset(aggregate, "last_updated", at)


def main() -> None:
    kind, url, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
    loops: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
        "bare": lambda: bare(url, events, BATCH),
        "bare_large": lambda: bare(url, events, LARGE_BATCH),
        "api": lambda: api(url, events, BATCH),
        "api_large": lambda: api(url, events, LARGE_BATCH),
        "by_hand": lambda: by_hand(url, events),
        "worker": lambda: worker(url, events),
        "no_windows": lambda: worker(url, events, window_minutes_ttl_seconds=0, window_hours_ttl_seconds=0),
        "naive": lambda: naive(url, events, same_fields=False),
        "naive_full": lambda: naive(url, events, same_fields=True),
    }
    print(json.dumps(asyncio.run(loops[kind]())), flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
