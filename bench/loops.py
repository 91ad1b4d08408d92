"""The process that is measured: one loop over a filled stream, run alone so that its CPU time is its own.

Started by `bench.rates`. It connects, says "ready", waits for a line on stdin, runs, and prints its figures as JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from bench.machine import busy_seconds
from redis_agent import app, log
from redis_agent.clock import iso_from_ms
from redis_agent.config import Settings
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect

CONSUMER = "bench"
BATCH = 500
_WATCH_SECONDS = 0.005
# The worker counts as stuck when it has not applied everything after so long.
_LIMIT_SECONDS = 60.0


async def server_cpu_seconds(client: Redis) -> float:
    """CPU time of the server: of its main thread where it says so, without what fsyncs in the background."""
    info = await client.info("cpu")
    if "used_cpu_user_main_thread" in info:
        return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


class Stopwatch:
    """Wall time and CPU time of both sides, and what others of this machine used meanwhile."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.figures: dict[str, float] = {}

    async def __aenter__(self) -> "Stopwatch":
        self._server = await server_cpu_seconds(self._client)
        self._busy = busy_seconds()
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        return self

    def stop(self) -> None:
        """The last event is applied: what follows is tidying up."""
        if not self.figures:
            self.figures["seconds"] = time.perf_counter() - self._wall
            self.figures["client_cpu"] = time.process_time() - self._cpu
            self._busy_after = busy_seconds()

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        self.figures["server_cpu"] = await server_cpu_seconds(self._client) - self._server
        if self._busy is not None and self._busy_after is not None:
            ours = self.figures["client_cpu"] + self.figures["server_cpu"]
            others = (self._busy_after - self._busy - ours) / self.figures["seconds"]
            self.figures["others"] = max(0.0, others)


async def bare(url: str, events: int) -> dict[str, float]:
    """The floor: read and ack, and nothing else; with the agent's own client and its raw replies."""
    client = connect(Address(url), name="bench")
    await client.ping()
    _wait_for_go()
    done = 0
    async with Stopwatch(client) as watch:
        while done < events:
            reply = await client.execute_command(
                "XREADGROUP", "GROUP", keys.GROUP, CONSUMER, "COUNT", BATCH, "STREAMS", keys.STREAM, ">"
            )
            ids = [row[0] for row in reply[0][1]]
            done += await client.execute_command("XACK", keys.STREAM, keys.GROUP, *ids)
    await client.aclose()
    return watch.figures


async def api(url: str, events: int) -> dict[str, float]:
    """The same as one writes it with redis-py's own methods: its replies are shaped by redis-py."""
    client: Redis = Redis.from_url(url, protocol=2)
    await client.ping()
    _wait_for_go()
    done = 0
    async with Stopwatch(client) as watch:
        while done < events:
            reply = await client.xreadgroup(keys.GROUP, CONSUMER, {keys.STREAM: ">"}, count=BATCH)
            done += await client.xack(keys.STREAM, keys.GROUP, *[entry_id for entry_id, _ in reply[0][1]])
    await client.aclose()
    return watch.figures


async def worker(url: str, events: int, **set_to: int) -> dict[str, float]:
    """One worker, composed by the program's own composition root."""
    log.configure(level="error", form="json")
    app._tune_collector()
    settings = Settings(redis_url=url, http_port=0, consumer=CONSUMER, **set_to)
    async with AsyncExitStack() as stack:
        parts = await app._parts(settings, stack)
        role = app._worker(parts)
        await parts.client.ping()
        counted = parts.telemetry.events.labels("applied")._value
        stop = asyncio.Event()
        _wait_for_go()
        async with Stopwatch(parts.client) as watch, _until(role.run, stop) as running:
            deadline = time.perf_counter() + _LIMIT_SECONDS
            # A counter tells nobody when it moves.
            while counted.get() < events and not running.done() and time.perf_counter() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(_WATCH_SECONDS)
            watch.stop()
        if counted.get() != events:
            raise RuntimeError(f"the worker applied {counted.get():.0f} of {events} events")
    return watch.figures


@asynccontextmanager
async def _until(run: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> AsyncIterator[asyncio.Future]:
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
    _wait_for_go()
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
        name, value = _gauge(event)
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


def _gauge(event: dict[str, object]) -> tuple[str, float]:
    if "metric" in event:
        return str(event["metric"]), float(str(event["value"]))
    return next((k, float(v)) for k, v in event.items() if isinstance(v, float) and k != "timestamp")


def _wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def main() -> None:
    kind, url, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
    loops: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
        "bare": lambda: bare(url, events),
        "api": lambda: api(url, events),
        "worker": lambda: worker(url, events),
        "no_windows": lambda: worker(url, events, window_minutes_ttl_seconds=0, window_hours_ttl_seconds=0),
        "naive": lambda: naive(url, events, same_fields=False),
        "naive_full": lambda: naive(url, events, same_fields=True),
    }
    print(json.dumps(asyncio.run(loops[kind]())), flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
