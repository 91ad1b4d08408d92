"""What one batch costs: `python -m bench.gate`. Reads, folds and applies one batch after the other, nothing else.

CPU time of the server's main thread and of this process per event, for batches of several sizes and events of several
numbers of experiments; and for how long one batch keeps the server. Beside it the bare loop: read and ack. On a machine
that others keep busy CPU times grow by a half: compare what ran in one go. What it shows: docs/speed.md.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from statistics import median

import redis
from redis.asyncio import Redis

from bench.loops import CONSUMER
from bench.machine import describe
from bench.stopwatch import server_seconds
from bench.workload import Workload, applied, fill, rewind
from redis_agent import app
from redis_agent.clock import Clock
from redis_agent.config import Settings
from redis_agent.embedded import EmbeddedServer
from redis_agent.folding import Folding
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.stream import Applied, EventStream
from redis_agent.windows import Retention

BARE = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Attributes: microseconds of CPU per event on both sides, and ms that the server spent in a batch's script."""

    server_us: float
    client_us: float
    script_ms: float


def _parts(client: Redis) -> tuple[EventStream, Folding]:
    settings = Settings()
    stream = EventStream(
        reader=client,
        client=client,
        consumer=CONSUMER,
        max_fields=settings.max_fields,
        max_raw=settings.metrics_list_length,
        max_dead=settings.dead_letters_max_length,
    )
    folding = Folding(
        clock=Clock(),
        max_event_bytes=settings.max_event_bytes,
        cooldown_seconds=settings.alert_cooldown_seconds,
        max_error_alerts=settings.max_error_alerts,
        retention=Retention(settings.window_minutes_ttl_seconds, settings.window_hours_ttl_seconds),
    )
    return stream, folding


async def work_off(url: str, events: int, batch: int, *, bare: bool, asked: bool) -> Cost:
    """Work a filled stream off in batches of one size."""
    client = connect(Address(url), name="bench", reply_timeout=60.0)
    stream, folding = _parts(client)
    await client.config_resetstat()
    server, cpu, done = server_seconds(await client.info("cpu")), time.process_time(), 0
    while entries := await stream.read_new(count=batch, block_ms=1):
        if bare:
            await client.execute_command("XACK", keys.STREAM, keys.GROUP, *[entry.id for entry in entries])
        else:
            folded = folding.fold(entries, {})
            folded.batch.contiguous = True
            for update in folded.batch.updates:
                update.asked = asked
            if not isinstance(outcome := await stream.apply(folded.batch), Applied):
                raise RuntimeError(f"a batch was not applied: {outcome}")
        done += len(entries)
    cpu, server = time.process_time() - cpu, server_seconds(await client.info("cpu")) - server
    stats = (await client.info("commandstats")).get("cmdstat_evalsha", {"usec_per_call": 0.0})
    await client.aclose()
    if done != events:
        raise RuntimeError(f"{done} of {events} events were worked off")
    return Cost(server / events * 1e6, cpu / events * 1e6, stats["usec_per_call"] / 1000)


def main() -> int:
    """Measure and print, a line for each number of experiments and size of batch."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=__doc__)
    parser.add_argument("--events", type=int, default=40_000, help="in the stream (40,000)")
    parser.add_argument("--experiments", default="1,20,500", help="over how many experiments they are spread")
    parser.add_argument("--batches", default="500,2000,4000", help="events of a batch")
    parser.add_argument("--rounds", type=int, default=3, help="medians over so many (3)")
    parser.add_argument("--asked", action="store_true", help="have the gate return every aggregate")
    options = parser.parse_args()
    app._tune_collector()
    batches = [BARE, *map(int, options.batches.split(","))]
    with EmbeddedServer() as server, redis.Redis.from_url(server.url, protocol=2) as client:
        print(", ".join(f"{name} {value}" for name, value in describe(server.binary).items()))
        print(f"{options.events:,} events; microseconds of CPU an event, medians of {options.rounds} rounds")
        print(f"{'experiments':>12} {'batch':>10} {'server':>8} {'/ bare':>7} {'client':>8} {'script ms':>10}")
        for experiments in map(int, options.experiments.split(",")):
            fill(client, Workload("gate", options.events, experiments))
            costs: dict[int, list[Cost]] = {batch: [] for batch in batches}
            for n in range(options.rounds):
                for batch in batches if n % 2 == 0 else batches[::-1]:
                    rewind(client)
                    bare = batch == BARE
                    run = work_off(server.url, options.events, batch or 500, bare=bare, asked=options.asked)
                    costs[batch].append(asyncio.run(run))
                    if not bare and applied(client) != options.events:
                        raise RuntimeError(f"{applied(client)} of {options.events} events are in the aggregates")
            floor = median(cost.server_us for cost in costs[BARE])
            for batch, found in costs.items():
                server_us = median(cost.server_us for cost in found)
                print(
                    f"{experiments:12,} {'bare, 500' if batch == BARE else f'{batch:,}':>10} {server_us:8.2f}"
                    f" {server_us / floor:7.2f} {median(cost.client_us for cost in found):8.2f}"
                    f" {median(cost.script_ms for cost in found):10.1f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
