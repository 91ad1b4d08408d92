"""`python -m bench.windows`: what a day's windows of one experiment take in Redis, as the gate writes them."""

import asyncio

from redis.asyncio import Redis

from redis_agent.aggregate import fold
from redis_agent.embedded import EmbeddedServer
from redis_agent.events import MetricEvent, read
from redis_agent.folding import experiment_update
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.stream import Batch, EventStream
from redis_agent.windows import Retention

_MINUTES = 1_440
_WINDOWS = _MINUTES + 24
_RETENTION = Retention(172_800, 7_776_000)


def main() -> None:
    """Measure some numbers of names, each with an event in every minute of a day."""
    print(f"{'names':>6} {'of them gauges':>15} {'bytes a day':>12} {'a window':>9}")
    with EmbeddedServer() as server:
        for counters, gauges in ((1, 0), (5, 0), (20, 0), (15, 5), (0, 5)):
            day = asyncio.run(_measured(server.url, counters, gauges))
            print(f"{counters + gauges:6} {gauges:15} {day:12,} {day / _WINDOWS:9.0f}")


async def _measured(url: str, counters: int, gauges: int) -> int:
    """What the server uses more after a day than after its first minute."""
    client = connect(Address(url), name="bench")
    try:
        await client.flushall()
        stream = EventStream(reader=client, client=client, consumer="c", max_fields=999, max_raw=0, max_dead=9)
        await stream.ensure_group()
        await _apply(stream, client, 0, counters, gauges)
        before = await _used(client)
        for minute in range(1, _MINUTES + 1):
            await _apply(stream, client, minute, counters, gauges)
        return await _used(client) - before
    finally:
        await client.aclose()


async def _apply(stream: EventStream, client: Redis, minute: int, counters: int, gauges: int) -> None:
    at_ms = minute * 60_000
    for n in range(counters):
        data = f'{{"experiment_id":"exp_example","event":"some_event_{n}","count":{n * minute % 50 + 1}}}'
        await client.xadd(keys.STREAM, {"data": data, "at": at_ms})
    for n in range(gauges):
        data = f'{{"experiment_id":"exp_example","some_gauge_{n}":{0.0123 * (n + minute):.4f}}}'
        await client.xadd(keys.STREAM, {"data": data, "at": at_ms})
    entries = await stream.read_new(count=counters + gauges, block_ms=1)
    good = [(e.id, e.at_ms, read(e.data, max_bytes=1_000)) for e in entries]
    events = [(i, at, event) for i, at, event in good if isinstance(event, MetricEvent)]
    updates = [experiment_update(change, _RETENTION) for change in fold(events, _RETENTION).values()]
    await stream.apply(Batch([e.id for e in entries], updates))
    await client.xtrim(keys.STREAM, maxlen=0)


async def _used(client: Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


if __name__ == "__main__":
    main()
