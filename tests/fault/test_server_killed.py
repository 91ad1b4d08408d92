"""A server that is killed and comes back with what it had written to disk: the aggregates equal a replay, always."""

import asyncio
import contextlib
import json
from collections import Counter
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_agent.embedded import EmbeddedServer
from tests.conftest import OwnServerFactory
from tests.ledger import replay
from tests.processes import Agents
from tests.waiting import eventually

METRICS, STREAM, GROUP = "fullsend:metrics", "fullsend:metrics:stream", "redis_agent"


async def test_server_killed_under_load_twice(own_server: OwnServerFactory, tmp_path: Path) -> None:
    await kill_again_and_again(own_server(appendfsync="always"), tmp_path, times=2)


@pytest.mark.fault
@pytest.mark.timeout(900)
async def test_server_killed_under_load_twenty_times(own_server: OwnServerFactory, tmp_path: Path) -> None:
    await kill_again_and_again(own_server(appendfsync="always"), tmp_path, times=20)


async def kill_again_and_again(server: EmbeddedServer, directory: Path, *, times: int) -> None:
    agents = Agents(server.url, directory)
    client: Redis = Redis.from_url(server.url, protocol=2)
    over = asyncio.Event()
    published = 0

    async def publish() -> None:
        nonlocal published
        while not over.is_set():
            with contextlib.suppress(RedisError, OSError):
                for _ in range(20):
                    event = {"experiment_id": f"e{published % 7}", "event": "x", "n": str(published), "rate": published}
                    published += 1
                    await client.publish(METRICS, json.dumps(event))
            await asyncio.sleep(0.05)

    try:
        for roles in (("bridge",), ("bridge",), ("worker",), ("worker",), ("scheduler", "dispatcher")):
            agents.start(*roles)
        await eventually(lambda: client.exists(STREAM) or publish_one(client), 20, what="a bridge leads")
        publishing = asyncio.create_task(publish())
        for _ in range(times):
            before = await eventually(lambda: length(client), 30, what="the server answers")
            await eventually(lambda before=before: grows(client, before + 100), 30, what="events flow")
            server.kill()
            server.restart()
        before = await eventually(lambda: length(client), 30, what="the server answers")
        await eventually(lambda: grows(client, before + 100), 30, what="events flow")
        over.set()
        await publishing
        await eventually(lambda: settled(client), 30, interval=0.1, what="all is read and acked")

        code, document = replay(server.url)
        assert (code, document["agree"], document["differences"]) == (0, True, [])
        numbers = Counter(json.loads(fields[b"data"]).get("n") for _, fields in await client.xrange(STREAM))
        assert max(numbers.values()) == 1, "nothing is twice in the stream"
        assert document["entries"] == numbers.total()
        gaps = int(await client.hget("redis_agent:bridge", "gaps") or 0)
        assert times <= gaps <= 2 * times, "every bridge was cut off each time, and that was counted"
    except BaseException:
        for log in agents.logs():
            print(log)
        raise
    finally:
        over.set()
        agents.end()
        await client.aclose()


async def publish_one(client: Redis) -> bool:
    await client.publish(METRICS, json.dumps({"experiment_id": "e0", "event": "x"}))
    return False


async def grows(client: Redis, wanted: int) -> bool:
    return await length(client) >= wanted


async def length(client: Redis) -> int:
    with contextlib.suppress(RedisError, OSError):
        return int(await client.xlen(STREAM))
    return 0


async def settled(client: Redis) -> bool:
    (group,) = await client.xinfo_groups(STREAM)
    ((newest, _),) = await client.xrevrange(STREAM, count=1)
    return group["pending"] == 0 and group["last-delivered-id"] == newest
