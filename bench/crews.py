"""One, two, four processes on one stream: the worker, and beside it the bare loop.

Run as a module, it is one of the processes: `python -m bench.crews api|worker URL CONSUMER`. It says "ready", waits for
a line, works until it is sent another, and prints its figures.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import redis
from redis.asyncio import Redis

from bench.loops import BATCH, composed, until
from bench.machine import busy_seconds, resident_bytes
from bench.processes import Child
from bench.rates import Rate, rate_of
from bench.stopwatch import server_seconds, wait_for_go
from bench.workload import Workload, applied, fill, rewind
from redis_agent.store import keys

KINDS = ("api", "worker")
_POLL_SECONDS = 0.004
_LIMIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Crew:
    """Attributes: how many processes, and what they did together."""

    processes: int
    rate: Rate

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(client: redis.Redis, url: str, workload: Workload, sizes: Sequence[int], rounds: int) -> list[Crew]:
    """Every size of both kinds in every round, in alternating order."""
    fill(client, workload)
    cases = [(kind, size) for size in sizes for kind in KINDS]
    figures: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    for n in range(rounds):
        for kind, size in cases if n % 2 == 0 else reversed(cases):
            figures[kind, size].append(_once(client, url, kind, size, workload.events))
    return [Crew(size, rate_of(kind, figures[kind, size])) for kind, size in cases]


def _once(client: redis.Redis, url: str, kind: str, size: int, events: int) -> dict[str, float]:
    rewind(client)
    with ExitStack() as stack:
        crew = [stack.enter_context(Child("bench.crews", kind, url, f"bench-{n}")) for n in range(size)]
        server, busy, ours = server_seconds(client.info("cpu")), busy_seconds(), time.process_time()
        begin = time.perf_counter()
        for child in crew:
            child.go()
        while _left(client):
            if time.perf_counter() > begin + _LIMIT_SECONDS:
                raise RuntimeError(f"{kind} x {size}: {_left(client)} of {events} entries are left")
            time.sleep(_POLL_SECONDS)
        seconds, busy_after = time.perf_counter() - begin, busy_seconds()
        ours = time.process_time() - ours
        server = server_seconds(client.info("cpu")) - server
        for child in crew:
            child.say("stop")
        results = [child.result() for child in crew]
    if kind == "worker" and applied(client) != events:
        raise RuntimeError(f"{kind} x {size}: {applied(client)} of {events} events are in the aggregates")
    found = {
        "events": events,
        "seconds": seconds,
        "server_cpu": server,
        "client_cpu": sum(result["cpu"] for result in results),
        "server_memory": client.info("memory")["used_memory"],
        "rss": sum(result["rss"] for result in results),
    }
    if busy is not None and busy_after is not None:
        others = (busy_after - busy - ours - found["server_cpu"] - found["client_cpu"]) / seconds
        found["others"] = max(0.0, others)
    return found


def _left(client: redis.Redis) -> int:
    (group,) = client.xinfo_groups(keys.STREAM)
    return int(group["pending"]) + int(group["lag"])


async def _told() -> None:
    await asyncio.to_thread(sys.stdin.readline)


async def _api(url: str, consumer: str) -> float:
    client: Redis = Redis.from_url(url, protocol=2)
    await client.ping()
    wait_for_go()
    begin, told = time.process_time(), asyncio.create_task(_told())
    while not told.done():
        reply = await client.xreadgroup(keys.GROUP, consumer, {keys.STREAM: ">"}, count=BATCH, block=20)
        if reply:
            await client.xack(keys.STREAM, keys.GROUP, *[entry_id for entry_id, _ in reply[0][1]])
    await client.aclose()
    return time.process_time() - begin


async def _worker(url: str, consumer: str) -> float:
    async with composed(url, consumer) as one:
        stop = asyncio.Event()
        wait_for_go()
        begin = time.process_time()
        async with until(one.role.run, stop):
            await _told()
            return time.process_time() - begin


if __name__ == "__main__":
    cpu = asyncio.run({"api": _api, "worker": _worker}[sys.argv[1]](sys.argv[2], sys.argv[3]))
    print(json.dumps({"cpu": cpu, "rss": resident_bytes(os.getpid())}), flush=True)
