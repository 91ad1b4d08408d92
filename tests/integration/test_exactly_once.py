"""Each event counts once, while workers are killed, stopped, cut off, and the script cache is flushed under load."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.conftest import OwnServerFactory
from tests.processes import ROOT, AgentProcess, Agents
from tests.waiting import eventually

SECONDS = 14
EVENTS_A_TICK = 22
TICK_SECONDS = 0.05
EXPERIMENTS = [f"exp_{n}" for n in range(5)]
STREAM, GROUP = "fullsend:metrics:stream", "redis_agent"


class Ledger:
    """What was published, and what must come of it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.published = 0
        self.hostile: list[bytes] = []
        self.raw: dict[str, list[bytes]] = defaultdict(list)
        self.counters: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.gauges: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.errors: set[tuple[str, str]] = set()

    def next_event(self) -> bytes:
        """An event, written down before it is published."""
        rng = self._rng
        self.published += 1
        if rng.random() < 0.01:
            number = self.published
            self.hostile.append(rng.choice([b"junk %d", b'{"experiment_id":%d}', b'{"a":%d}', b"\xff%d"]) % number)
            return self.hostile[-1]
        experiment = rng.choice(EXPERIMENTS)
        fields = [f'"experiment_id":"{experiment}"', f'"n":"{self.published}"']
        kind = rng.random()
        if kind < 0.7:
            name, count = rng.choice(["email_sent", "reply", "bounce"]), rng.randint(1, 40)
            fields += [f'"event":"{name}"', f'"count":{count}']
            self.counters[experiment][name] += count
        elif kind < 0.72:
            error_type = rng.choice(["timeout", "auth"])
            fields += ['"event":"error"', f'"error_type":"{error_type}"', '"message":"m"']
            self.counters[experiment]["error"] += 1
            self.errors.add((experiment, error_type))
        if kind > 0.6 and '"event":"error"' not in fields:
            for name in rng.sample(["rate", "cost", "delta"], rng.randint(1, 2)):
                value = rng.choice([f"0.{rng.randint(0, 10**6):06d}", f"{rng.uniform(-1e4, 1e4):.9f}", "0.1", "-7"])
                fields.append(f'"{name}":{value}')
                self.gauges[experiment][name].append(value)
        event = "{" + ",".join(fields) + "}"
        self.raw[experiment].append(event.encode())
        return event.encode()

    def aggregate(self, experiment: str) -> dict[str, str]:
        """The aggregate hash without its times."""
        fields = {"events_total": str(len(self.raw[experiment]))}
        fields |= {f"{name}_count": str(total) for name, total in self.counters[experiment].items()}
        for name, texts in self.gauges[experiment].items():
            values = [float(t) for t in texts]
            fields |= {
                f"{name}_samples": str(len(texts)),
                f"{name}_sum": f"{sum(map(Decimal, texts)).normalize():f}",
                f"{name}_min": repr(min(values)).removesuffix(".0"),
                f"{name}_max": repr(max(values)).removesuffix(".0"),
                f"{name}_latest": repr(values[-1]).removesuffix(".0"),
            }
        return fields


async def havoc(rng: random.Random, workers: list[AgentProcess], killer: Redis) -> None:
    """One second's worth: a worker dies and comes back, and something else goes wrong too."""
    victim = rng.choice(workers)
    victim.kill()
    victim.start()
    match rng.choice(["flush", "cut", "stop"]):
        case "flush":
            await killer.script_flush()
        case "cut":
            await killer.execute_command("CLIENT", "KILL", "TYPE", "normal")  # its own connection is spared
        case "stop":
            paused = rng.choice([w for w in workers if w is not victim])
            paused.signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(1.6, paused.signal, signal.SIGCONT)


async def publish_under_havoc(
    rng: random.Random, ledger: Ledger, workers: list[AgentProcess], client: Redis, seconds: float
) -> None:
    """Publish at a steady pace; what was published is known, since this connection is never cut."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    next_havoc = started + 1
    while (now := loop.time()) < started + seconds:
        for _ in range(EVENTS_A_TICK):
            assert await client.publish("fullsend:metrics", ledger.next_event()) == 1, "the bridge must not be cut"
        if now > next_havoc:
            next_havoc += 1
            await havoc(rng, workers, client)
        await asyncio.sleep(TICK_SECONDS)


def replay(url: str) -> tuple[int, dict[str, Any]]:
    """`redis-agent replay --json`: its exit code and document."""
    done = subprocess.run(
        [sys.executable, "-m", "redis_agent", "replay", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": url},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("seed", [random.randrange(10**9)], ids=["random seed"])
async def test_aggregates_equal_the_truth_after_a_kill_every_second_under_load(
    own_server: OwnServerFactory, tmp_path: Path, seed: int
) -> None:
    await prove(own_server().url, tmp_path, seed=seed, seconds=SECONDS)


async def prove(url: str, directory: Path, *, seed: int, seconds: float) -> None:
    """Publish under havoc, wait until all is applied, compare with what was published and with a replay."""
    print(f"seed: {seed}")
    rng = random.Random(seed)
    agents, ledger = Agents(url, directory), Ledger(random.Random(seed + 1))
    client = Redis.from_url(url, protocol=2, max_connections=1)
    try:
        others = [agents.start(role) for role in ("bridge", "scheduler", "dispatcher")]
        workers = [agents.start("worker", REDIS_AGENT_CONSUMER=f"w{n}") for n in range(3)]
        for agent in others + workers:
            await agent.ready()

        await publish_under_havoc(rng, ledger, workers, client, seconds)

        await eventually(lambda: settled(client, ledger.published), 60, interval=0.1, what="all is read and acked")
        await compare(client, ledger)
        assert all(agent.alive for agent in others)
        await check_replay(url, client)
    except BaseException:
        for log in agents.logs():
            print(log)
        raise
    finally:
        agents.end()
        await client.aclose()


async def settled(client: Redis, published: int) -> bool:
    written = await client.xlen(STREAM)  # first: what is written between the two is not yet in the lag
    (group,) = await client.xinfo_groups(STREAM)
    return written == published and group["pending"] == 0 and group["lag"] == 0


async def compare(client: Redis, ledger: Ledger) -> None:
    for experiment in EXPERIMENTS:
        found = await client.hgetall(f"metrics_aggregated:{experiment}")
        fields = {f.decode(): v.decode() for f, v in found.items()}
        assert fields.pop("first_event_at") <= fields.pop("last_updated")
        assert fields == ledger.aggregate(experiment)
        assert sorted(await client.lrange(f"metrics:{experiment}", 0, -1)) == sorted(ledger.raw[experiment])
    dead = await client.xrange("fullsend:metrics:dead")
    assert sorted(e[b"data"] for _, e in dead) == sorted(ledger.hostile)
    alerts = [json.loads(e[b"data"]) for _, e in await client.xrange("fullsend:alerts")]
    raised = [(a["experiment_id"], a["error_type"]) for a in alerts if a["type"] == "error"]
    assert sorted(raised) == sorted(ledger.errors), "each error is told once within its cooldown"


async def check_replay(url: str, client: Redis) -> None:
    code, document = replay(url)
    assert (code, document["agree"], document["differences"]) == (0, True, [])
    assert document["experiments"] == len(EXPERIMENTS)

    await client.hincrby("metrics_aggregated:exp_1", "reply_count", 1)
    code, document = replay(url)
    assert (code, document["agree"]) == (1, False)
    assert [(d["experiment_id"], d["field"]) for d in document["differences"]] == [("exp_1", "reply_count")]
