"""`python -m bench.examining [EXPERIMENTS]`: how long the scheduler's pass over closed windows takes.

Beside it, the bare reading of the same windows with the same client in the same minute: the floor.
"""

import asyncio
import random
import sys
import time
from statistics import median

from redis.asyncio import Redis

from redis_agent import log
from redis_agent.catalogue import Catalogue
from redis_agent.clock import Clock
from redis_agent.embedded import EmbeddedServer
from redis_agent.examiner import Examiner
from redis_agent.lifecycle import Policy
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.anomalies import Anomalies
from redis_agent.store.client import connect
from redis_agent.store.definitions import Definitions
from redis_agent.store.lease import Leadership, Lease
from redis_agent.store.outbox import Outbox
from redis_agent.store.windows import Windows
from redis_agent.telemetry import Liveness, Telemetry

_COUNTS, _GAUGES, _WINDOW, _ROUNDS, _HISTORY = 15, 5, 600, 5, 20
_BEGIN = 1_767_571_200  # Monday, 2026-01-05


class _SetClock(Clock):
    """A clock that the benchmark sets."""

    at_s = _BEGIN

    def now_ms(self) -> int:
        """As it was set."""
        return 1000 * self.at_s


class _Leading(Leadership):
    """The lease is ours."""

    def __init__(self, held: str) -> None:
        self._held = held

    @property
    def value(self) -> str | None:
        """The lease's value."""
        return self._held


def main() -> None:
    """Measure, print."""
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    log.configure(level="error", form="json")
    with EmbeddedServer() as server:
        asyncio.run(_measure(server.url, experiments))


async def _measure(url: str, experiments: int) -> None:
    client = connect(Address(url), name="bench")
    ids = [f"exp_{n:05}" for n in range(experiments)]
    value = await Lease(client, name=keys.LEASE_SCHEDULER, owner="bench", ttl_ms=3_600_000).acquire() or ""
    clock, telemetry = _SetClock(), Telemetry()
    examiner = Examiner(
        leadership=_Leading(value),
        anomalies=Anomalies(client, ttl_seconds=86_400),
        windows=Windows(client),
        aggregates=Aggregates(client),
        catalogue=Catalogue(definitions=Definitions(client), telemetry=telemetry, ttl_seconds=3_600),
        outbox=Outbox(client),
        telemetry=telemetry,
        liveness=Liveness(),
        clock=clock,
        policy=Policy(300_000, 2.0, early=True),
        window_seconds=_WINDOW,
        max_series=100,
        hours_kept=True,
    )
    rng = random.Random(1)
    passes: list[float] = []
    reads: list[float] = []
    print(f"{experiments} experiments with {_COUNTS} event names and {_GAUGES} gauges in each minute of 10 minutes")
    for n in range(_HISTORY + _ROUNDS):
        start = _BEGIN + n * _WINDOW
        await _fill(client, ids, start, rng)
        clock.at_s = start + _WINDOW + 60
        begin = time.perf_counter()
        while await examiner.examine():
            pass
        passes.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        await _read(client, ids, start)
        reads.append(time.perf_counter() - begin)
    uptos = await Anomalies(client, ttl_seconds=1).examined_upto(ids)
    if set(uptos) != {str(_BEGIN + (_HISTORY + _ROUNDS) * _WINDOW)}:
        raise RuntimeError("not every window was examined")
    sizes = [await client.memory_usage(keys.anomalies(i), samples=0) for i in ids[:20]]
    whole, bare = median(passes[_HISTORY:]), median(reads[_HISTORY:])
    print(f"a pass {whole:.2f} s ({', '.join(f'{p:.2f}' for p in passes[_HISTORY:])}); the bare reading {bare:.2f} s")
    print(f"pass / reading {whole / bare:.2f}; {1e6 * whole / experiments / (_COUNTS + _GAUGES):.0f} us a series")
    print(f"what is kept of an experiment: {median(sizes):,.0f} bytes")
    await client.aclose()


async def _fill(client: Redis, ids: list[str], start: int, rng: random.Random) -> None:
    """Windows as the gate writes them."""
    for first in range(0, len(ids), 100):
        async with client.pipeline(transaction=False) as pipe:
            for i in ids[first : first + 100]:
                for minute in range(start, start + _WINDOW, 60):
                    fields: dict[str, object] = {f"event_{c}_count": rng.randrange(1, 9) for c in range(_COUNTS)}
                    for g in range(_GAUGES):
                        mean = rng.gauss(5.0, 0.5)
                        fields |= {f"gauge_{g}_sum": f"{2 * mean:.4f}", f"gauge_{g}_samples": 2}
                        fields |= {f"gauge_{g}_min": f"{mean - 1:.4f}", f"gauge_{g}_max": f"{mean + 1:.4f}"}
                    pipe.hset(keys.window(i, "minute", minute), mapping={"events": 100, **fields})
                    pipe.expire(keys.window(i, "minute", minute), 7_200)
                pipe.zadd(keys.EXPERIMENTS, {i: 1000 * start})
            await pipe.execute()


async def _read(client: Redis, ids: list[str], start: int) -> None:
    for first in range(0, len(ids), 20):
        async with client.pipeline(transaction=False) as pipe:
            for i in ids[first : first + 20]:
                for minute in range(start, start + _WINDOW, 60):
                    pipe.hgetall(keys.window(i, "minute", minute))
            await pipe.execute()


if __name__ == "__main__":
    main()
