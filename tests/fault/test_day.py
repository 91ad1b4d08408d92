"""A day's worth of events through real processes: exact sums, flat memory of each process, a bounded Redis.

`EVENTS=2000000` makes it shorter; of fewer the first quarter does not reach every bound. The publisher waits while the
agents are behind, so the machine sets the pace.

The day is over in minutes, and keys with a TTL live by the real clock: the windows of its hours stay, how many
cooldowns there are depends on the pace, and on the moment when series are first examined. So windows are compared with
the day's own, cooldowns have a bound for each experiment, and each has what is known of its series once, at most; all
other keys are as many in the last quarter as in the second.
"""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.embedded import EmbeddedServer
from tests.conftest import OwnServerFactory
from tests.processes import AgentProcess, Agents
from tests.seeds import SEED
from tests.waiting import eventually

EVENTS = int(os.environ.get("EVENTS") or 5_000_000)
EXPERIMENTS, ACTIVE = 200, 40
# In a quarter of the day every experiment has its turn, so that quarters can be compared.
QUARTERS = 4
CHUNK = 2_000
UNWRITTEN, UNREAD = 20_000, 60_000
SAMPLE_SECONDS = 1.0
HOUR, DAY = 3_600, 86_400
# So long ago that the windows of minutes are not kept, and those of hours are.
MIDNIGHT = (int(time.time()) // DAY - 7) * DAY
METRICS, ORCHESTRATOR = "fullsend:metrics", "fullsend:to_orchestrator"
STREAM, DEAD, OUTBOX = "fullsend:metrics:stream", "fullsend:metrics:dead", "fullsend:alerts"
# Every bound is reached within the first quarter.
STREAM_MAX, DEAD_MAX, ALERTS_MAX, LIST_MAX, MAX_FIELDS = 200_000, 1_000, 1_000, 500, 60
SETTINGS = {
    "REDIS_AGENT_STREAM_MAX_LENGTH": STREAM_MAX,
    "REDIS_AGENT_DEAD_LETTERS_MAX_LENGTH": DEAD_MAX,
    "REDIS_AGENT_ALERTS_MAX_LENGTH": ALERTS_MAX,
    "REDIS_AGENT_METRICS_LIST_LENGTH": LIST_MAX,
    "REDIS_AGENT_MAX_FIELDS": MAX_FIELDS,
    "REDIS_AGENT_DEFINITIONS_TTL_SECONDS": 5,
    "REDIS_AGENT_LEASE_SECONDS": 5,
    "REDIS_AGENT_RECLAIM_IDLE_SECONDS": 5,
    "ALERT_COOLDOWN_SECONDS": 10,
    "THRESHOLD_CHECK_INTERVAL_SECONDS": 5,
    "SUMMARY_INTERVAL_SECONDS": 10,
}
COUNTERS = ("emails_sent", "replies_received", "bounced", "unsubscribed")
GAUGES = ("cost", "open_rate", "latency")
HOURS_KEPT_SECONDS = 90 * DAY
SERIES = "redis_agent:anomalies:"
# Cooldowns of one experiment: the count of a burst of errors and what two bursts, one soon after the other, may raise;
# and of each criterion that it has had (one of four is new each time) one for what was told, and one for told early.
TURNS = 5
COOLDOWNS_MAX = 1 + 2 * 5 + 2 * (3 + TURNS)
# The stream is trimmed each second, as far as it is read and acked; what comes meanwhile is above its bound.
UNTRIMMED_SECONDS = 3.0
# What the median of the last quarter may be above that of the second.
RSS_SHARE, RSS_SPARE_BYTES = 1.03, 2_000_000
SHARE, SPARE, SPARE_BYTES = 1.10, 20.0, 6_000_000


class Day:
    """The events of a day and what must come of them, whole numbers throughout."""

    def __init__(self, seed: int, events: int) -> None:
        self._rng = random.Random(seed)
        self._events = events
        self.junk = 0
        self.totals: Counter[str] = Counter()
        self.counters: Counter[tuple[str, str]] = Counter()
        # (experiment, start of the hour) -> events
        self.hours: Counter[tuple[str, int]] = Counter()
        # (experiment, gauge) -> samples, sum, min, max and latest, in hundredths
        self.gauges: dict[tuple[str, str], list[int]] = {}

    def active(self, done: int) -> range:
        """The numbers of the experiments that run when so many events have been published."""
        first = done * EXPERIMENTS * QUARTERS // self._events
        return range(first, first + ACTIVE)

    def chunk(self, done: int) -> list[bytes]:
        """The next events."""
        rng, running = self._rng, [f"exp_{n % EXPERIMENTS:03d}" for n in self.active(done)]
        return [self._event(rng.random(), rng, rng.choice(running), done + n) for n in range(CHUNK)]

    def _event(self, kind: float, rng: random.Random, experiment: str, number: int) -> bytes:
        if kind < 0.01:
            self.junk += 1
            return (b"junk %d", b'{"experiment_id":%d}', b"\xff%d")[number % 3] % number
        self.totals[experiment] += 1
        at = MIDNIGHT + DAY * number // self._events
        self.hours[experiment, at // HOUR * HOUR] += 1
        head = f'{{"experiment_id":"{experiment}","timestamp":{at},"run_id":"{number}",'
        if kind < 0.015:
            self.counters[experiment, "error"] += 1
            return f'{head}"event":"error","error_type":"kind {number}","message":"no answer {number}"}}'.encode()
        if kind < 0.8:
            name, count = rng.choice(COUNTERS), 1 + number % 3
            self.counters[experiment, name] += count
            return f'{head}"event":"{name}","count":{count}}}'.encode()
        name, value = rng.choice(GAUGES), rng.randrange(-1_000, 100_000)
        found = self.gauges.setdefault((experiment, name), [0, 0, value, value, value])
        found[:] = found[0] + 1, found[1] + value, min(found[2], value), max(found[3], value), value
        return f'{head}"{name}":{value / 100!r}}}'.encode()

    def aggregate(self, experiment: str) -> dict[str, float]:
        """The aggregate's fields that are sums, counts or extremes; the latest of a gauge is the last published."""
        fields: dict[str, float] = {"events_total": self.totals[experiment]}
        fields |= {f"{name}_count": total for (of, name), total in self.counters.items() if of == experiment}
        for (of, name), (samples, total, low, high, latest) in self.gauges.items():
            if of == experiment:
                fields |= {f"{name}_samples": samples, f"{name}_sum": total / 100}
                fields |= {f"{name}_min": low / 100, f"{name}_max": high / 100, f"{name}_latest": latest / 100}
        return fields


class Samples:
    """What the processes and the server hold, every few seconds."""

    def __init__(self, client: Redis, agents: dict[str, AgentProcess]) -> None:
        self._client = client
        self._agents = agents
        self.taken: list[tuple[int, dict[str, float]]] = []
        self._at: list[float] = []

    async def take(self, published: int) -> None:
        pids = {agent.pid: name for name, agent in self._agents.items()}
        said = subprocess.run(
            ["ps", "-o", "pid=,rss=", "-p", ",".join(map(str, pids))], capture_output=True, text=True, check=True
        )
        held = {f"{pids[int(pid)]} RSS": 1024.0 * int(rss) for pid, rss in map(str.split, said.stdout.splitlines())}
        memory, keyspace = await self._client.info("memory"), await self._client.info("keyspace")
        keys = await found(self._client, "*")
        cooldowns = Counter(key.split(":")[2] for key in keys if key.startswith("redis_agent:cooldown:"))
        apart = cooldowns.total() + sum(key.startswith(("metrics_windows:", SERIES)) for key in keys)
        held |= {
            "server used_memory": float(memory["used_memory"]),
            "keys without a TTL": float(keyspace["db0"]["keys"] - keyspace["db0"]["expires"]),
            "keys but windows and the like": float(len(keys) - apart),
            "cooldowns of one": float(max(cooldowns.values(), default=0)),
            "clients": float(len(await self._client.client_list())),
            "stream": float(await self._client.xlen(STREAM)),
            "dead letters": float(await self._client.xlen(DEAD)),
            "alerts": float(await self._client.xlen(OUTBOX)),
        }
        self.taken.append((published, held))
        self._at.append(time.monotonic())

    def pace(self) -> float:
        """The most events a second between two looks."""
        looks = [(at, published) for at, (published, _) in zip(self._at, self.taken, strict=True)]
        return max((then - before) / (at - since) for (since, before), (at, then) in pairwise(looks))

    def quarter(self, which: int, name: str) -> float:
        """The median in one quarter of the day, 1 to 4."""
        low, high = EVENTS * (which - 1) / QUARTERS, EVENTS * which / QUARTERS
        return median(held[name] for published, held in self.taken if low <= published < high)

    def names(self) -> list[str]:
        return list(self.taken[0][1])

    def grown(self) -> list[str]:
        """What is not flat."""
        return [name for name in self.names() if self.quarter(4, name) > self._most(name, self.quarter(2, name))]

    @staticmethod
    def _most(name: str, before: float) -> float:
        """What may have come of it by the last quarter: a process stays as it is, the server's data comes and goes."""
        if name.endswith("RSS"):
            return RSS_SHARE * before + RSS_SPARE_BYTES
        if name.startswith("keys"):
            return before + SPARE
        return SHARE * before + (SPARE_BYTES if name.endswith("memory") else SPARE)

    def __str__(self) -> str:
        lines = [
            f"{'median in the quarter':28} " + " ".join(f"{q:>12}" for q in range(1, QUARTERS + 1)) + f"{'most':>13}"
        ]
        for name in self.names():
            scale, unit = (1e6, " MB") if name.endswith(("RSS", "memory")) else (1, "")
            figures = [self.quarter(q, name) for q in range(1, QUARTERS + 1)] + [max(h[name] for _, h in self.taken)]
            lines.append(f"{name + unit:28} " + " ".join(f"{figure / scale:12,.1f}" for figure in figures))
        return "\n".join(lines)


@pytest.mark.fault
@pytest.mark.timeout(2_400)
async def test_day_of_events_is_counted_exactly_in_bounded_memory(own_server: OwnServerFactory, tmp_path: Path) -> None:
    print(f"seed: {SEED}")
    server, day, loop = own_server(), Day(SEED, EVENTS), asyncio.get_running_loop()
    started = Agents(server.url, tmp_path)
    client: Redis = Redis.from_url(server.url, protocol=2, decode_responses=True, encoding_errors="replace")
    told: Counter[str] = Counter()
    listening = asyncio.create_task(listen(client, told))
    try:
        await eventually(lambda: client.execute_command("PUBSUB", "NUMSUB", ORCHESTRATOR), 5, what="a subscriber")
        roles = {"bridge": "bridge", "worker 1": "worker", "worker 2": "worker"}
        roles |= {"scheduler": "scheduler", "dispatcher": "dispatcher"}
        agents = {name: started.start(role, **SETTINGS) for name, role in roles.items()}
        for agent in agents.values():
            await agent.ready()
        samples, began = Samples(client, agents), loop.time()
        await publish(server, client, day, samples)
        print(samples)
        await eventually(lambda: at_rest(client, day), 120, interval=0.2, what="all is written, applied and delivered")
        took = loop.time() - began
        print(f"{EVENTS:,} events in {took:.0f} s, {EVENTS / took:,.0f} a second; {told.total()} alerts delivered")

        differing = [e for e in sorted(day.totals) if await aggregate(client, e) != day.aggregate(e)]
        assert not differing, f"{len(differing)} of {len(day.totals)} aggregates are not what was published"
        assert await hours(client) == day.hours, "each hour has the window that its events add up to"
        assert set(told.values()) == {1}, "each alert came once"
        bridge = await client.hgetall("redis_agent:bridge")
        assert (bridge.get("gaps"), bridge.get("given_up")) == (None, None)
        assert not samples.grown(), f"in the last quarter more than in the second: {samples.grown()}"
        most = {name: max(held[name] for _, held in samples.taken) for name in samples.names()}
        assert most["cooldowns of one"] <= COOLDOWNS_MAX
        series = await found(client, f"{SERIES}*")
        assert {key.removeprefix(SERIES) for key in series} <= day.totals.keys()
        assert all([await client.ttl(key) > 0 for key in series])
        # What comes between two trimmings is above the bound; the alerts and dead letters are trimmed by whole nodes.
        assert most["stream"] < STREAM_MAX + UNTRIMMED_SECONDS * samples.pace()
        assert most["dead letters"] < 2 * DEAD_MAX
        assert most["alerts"] < 2 * ALERTS_MAX
    except BaseException:
        for log in started.logs():
            print(log)
        raise
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        started.end()
        await client.aclose()


async def listen(client: Redis, told: Counter[str]) -> None:
    async with client.pubsub() as subscriber:
        await subscriber.subscribe(ORCHESTRATOR)
        async for message in subscriber.listen():
            if message["type"] == "message":
                told[json.loads(message["data"])["alert_id"]] += 1


async def publish(server: EmbeddedServer, client: Redis, day: Day, samples: Samples) -> None:
    """Publish the day, no faster than it is worked off; experiments are defined when their turn comes."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    defined, due = 0, loop.time()
    for done in range(0, EVENTS, CHUNK):
        for n in range(defined, day.active(done).stop):
            await define(client, n)
        defined = day.active(done).stop
        writer.write(b"".join(commands(day.chunk(done))))
        await writer.drain()
        answer = b":1\r\n" * CHUNK
        assert await reader.readexactly(len(answer)) == answer, "the bridge, and nobody else, hears each event"
        await eventually(lambda done=done: keeps_up(client, done + CHUNK), 60, what="the agents keep up")
        if loop.time() >= due:
            await samples.take(done)
            due = loop.time() + SAMPLE_SECONDS
    writer.close()
    await writer.wait_closed()


def commands(events: list[bytes]) -> Iterator[bytes]:
    for event in events:
        yield b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(METRICS), METRICS.encode(), len(event), event)


async def define(client: Redis, number: int) -> None:
    """An experiment, in words that differ each time it comes."""
    experiment = f"exp_{number % EXPERIMENTS:03d}"
    document = {
        "hypothesis": f"Short mails are answered more often, attempt {number}",
        "state": "running",
        "success_criteria": json.dumps(["reply_rate >= 90%", f"emails_sent >= {10 + number % 7}"]),
        "failure_criteria": json.dumps(["bounce_rate > 5% after 100 sends", "within 2 weeks unsubscribed > 1000000"]),
    }
    specs: list[dict[str, Any]] = [
        {"name": "reply_rate", "type": "percentage", "formula": "replies_received / emails_sent"},
        {"name": "bounce_rate", "type": "percentage", "formula": "bounced / emails_sent"},
    ]
    await client.hset(f"experiments:{experiment}", mapping=document)
    await client.hset(f"metrics_specs:{experiment}", mapping={"metrics": json.dumps(specs)})


async def keeps_up(client: Redis, published: int) -> bool:
    async with client.pipeline(transaction=False) as pipe:
        pipe.hget("redis_agent:bridge", "written")
        pipe.xinfo_groups(STREAM)
        written, groups = await pipe.execute()
    (group,) = groups
    return published - int(written or 0) < UNWRITTEN and (group["lag"] or 0) + group["pending"] < UNREAD


async def at_rest(client: Redis, day: Day) -> bool:
    assert int(await client.hget("redis_agent:bridge", "written")) == EVENTS
    for stream in (STREAM, OUTBOX):
        (group,) = await client.xinfo_groups(stream)
        assert group["pending"] == 0, (stream, group)
        (newest, _), *_ = await client.xrevrange(stream, count=1)
        assert group["last-delivered-id"] == newest, (stream, group)
    dead = await client.xinfo_stream(DEAD)
    assert dead["entries-added"] == day.junk
    return True


async def found(client: Redis, pattern: str) -> set[str]:
    """The keys of this pattern."""
    return {key async for key in client.scan_iter(pattern, count=5_000)}


async def hours(client: Redis) -> Counter[tuple[str, int]]:
    """The events of each window; all are of hours, and each goes when its time is over."""
    events: Counter[tuple[str, int]] = Counter()
    for key in await found(client, "metrics_windows:*"):
        _, experiment, kind, start = key.split(":")
        assert kind == "hour", key
        assert 0 < await client.ttl(key) <= HOURS_KEPT_SECONDS, key
        events[experiment, int(start)] = int(await client.hget(key, "events"))
    return events


async def aggregate(client: Redis, experiment: str) -> dict[str, float]:
    """What the day's ledger knows of, without times and derived rates."""
    found = await client.hgetall(f"metrics_aggregated:{experiment}")
    left_out = {"first_event_at", "last_updated", "reply_rate", "bounce_rate"}
    return {name: float(value) for name, value in found.items() if name not in left_out}
