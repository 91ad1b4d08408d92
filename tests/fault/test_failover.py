"""Failovers through Sentinel: the aggregates equal a replay of the surviving stream, always."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_agent.config import load_settings
from redis_agent.store.client import connect, follow_master
from tests.failover import DOWN_AFTER_MS, Replicated
from tests.ledger import replay
from tests.processes import Agents
from tests.waiting import eventually

METRICS, STREAM = "fullsend:metrics", "fullsend:metrics:stream"
WAYS = ("asked for", "killed", "stopped")


async def test_failover_through_sentinel_in_each_way(tmp_path: Path) -> None:
    await fail_over_again_and_again(tmp_path, times=len(WAYS), durability="memory")


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("durability", ["memory", "replica"])
async def test_ten_failovers_through_sentinel(tmp_path: Path, durability: str) -> None:
    await fail_over_again_and_again(tmp_path, times=10, durability=durability)


class Publisher:
    """Publishes to whoever is the master; knows what a bridge was sent."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.tried = 0
        self.heard: set[int] = set()
        self.over = asyncio.Event()

    async def run(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(RedisError, OSError):
                for _ in range(10):
                    self.tried += 1
                    event = {"experiment_id": f"e{self.tried % 7}", "event": "x", "n": f"{self.tried}"}
                    if await self._client.publish(METRICS, json.dumps(event)):
                        self.heard.add(self.tried)
            await asyncio.sleep(0.03)


async def fail_over_again_and_again(directory: Path, *, times: int, durability: str) -> None:
    async with Replicated(directory) as servers:
        agents = Agents(servers.master.url, directory)
        environment = {**servers.settings, "REDIS_AGENT_DURABILITY": durability}
        client = connect(load_settings({"REDIS_URL": servers.master.url, **servers.settings}).address, name="publisher")
        publisher = Publisher(client)
        try:
            for roles in (("bridge",), ("bridge",), ("worker",), ("worker",), ("scheduler", "dispatcher")):
                agents.start(*roles, **environment)
            publishing = asyncio.create_task(publisher.run())
            watching = asyncio.create_task(follow_master(client, publisher.over))
            await flows(client)
            for n in range(times):
                await fail_over(servers, WAYS[n % len(WAYS)])
                await flows(client)
                await servers.mended()
            publisher.over.set()
            await asyncio.gather(publishing, watching)
            await eventually(lambda: settled(client), 60, interval=0.1, what="all is read and acked")

            code, document = replay(servers.master.url)
            assert (code, document["agree"], document["differences"]) == (0, True, [])
            numbers = Counter(int(json.loads(fields[b"data"])["n"]) for _, fields in await client.xrange(STREAM))
            assert max(numbers.values()) == 1, "nothing is twice in the stream"
            assert document["entries"] == numbers.total()
            lost = len(publisher.heard - numbers.keys())
            gaps = int(await client.hget("redis_agent:bridge", "gaps") or 0)
            print(f"{times} failovers, durability {durability}: {len(publisher.heard)} events heard by a bridge, ")
            print(f"{numbers.total()} in the stream, twice 0, heard and lost {lost}, gaps counted {gaps}")
        except BaseException:
            for log in agents.logs():
                print(log)
            raise
        finally:
            publisher.over.set()
            agents.end()
            await client.aclose()


async def fail_over(servers: Replicated, way: str) -> None:
    """Make the replica the master; the old one is back afterwards."""
    old = servers.master
    new = next(server for server in servers.servers if server is not old)
    if way == "asked for":
        servers.ask_for_failover()
        await servers.promoted(new)
    elif way == "killed":
        old.kill()
        await servers.promoted(new)
        old.restart()
    else:
        os.kill(old.pid, signal.SIGSTOP)
        try:
            await servers.promoted(new)
            await asyncio.sleep(2 * DOWN_AFTER_MS / 1000)  # it is away for a while, then back and thinks it leads
        finally:
            os.kill(old.pid, signal.SIGCONT)


async def flows(client: Redis) -> None:
    """Events flow: they are published, mirrored and applied."""

    async def applied() -> int | None:
        with contextlib.suppress(RedisError, OSError):
            return 1 + int(await client.hget("metrics_aggregated:e1", "events_total") or 0)
        return None

    async def grown() -> bool:
        return (await applied() or 0) > before + 5

    before = await eventually(applied, 60, interval=0.05, what="the master answers")
    assert before is not None
    await eventually(grown, 60, interval=0.05, what="events are applied")


async def settled(client: Redis) -> bool:
    with contextlib.suppress(RedisError, OSError):
        (group,) = await client.xinfo_groups(STREAM)
        ((newest, _),) = await client.xrevrange(STREAM, count=1)
        return group["pending"] == 0 and group["last-delivered-id"] == newest
    return False
