"""Roles as processes: they start without Redis, stop in good order, take over from each other."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from redis_agent.bridge import PING_SECONDS
from tests.conftest import OwnServerFactory
from tests.integration.flow import (
    GROUP,
    METRICS,
    STREAM,
    answered,
    group,
    http,
    mirror,
    publish,
    settled,
    ticks,
    ticks_are,
)
from tests.processes import Agents, unused_port
from tests.waiting import eventually

# Starting and stopping -----------------------------------------------------------------------------------------


async def test_redis_away_at_start_is_said_in_one_line_and_the_agent_starts_when_it_comes(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server(requirepass="secret")
    agents = Agents(server.url, tmp_path)
    server.kill()
    try:
        agent = agents.start(http=True)
        line = await agent.logged("redis_failure")
        assert str(server.port) in line["doing"]
        assert await answered(agent, "/healthz", 200)
        assert "Redis does not answer" in await answered(agent, "/readyz", 503)
        assert await answered(agent, "/metrics", 200)
        await asyncio.sleep(1)  # it goes on trying, and does not repeat itself
        assert [e["event"] for e in agent.log()].count("redis_failure") == 1
        assert "Traceback" not in agent.log_text()
        assert "secret" not in agent.log_text()

        server.restart()

        await agent.ready()
        assert await answered(agent, "/readyz", 200)
        assert await agent.terminate() == 0
    finally:
        agents.end()


_IMPATIENT = """
import asyncio, os
from redis_agent import app, endpoint, log
from redis_agent.config import Settings

endpoint.STALLED_SECONDS = 2.0
log.configure(level="error", form="json")
settings = Settings(redis_url=os.environ["REDIS_URL"], http_port=int(os.environ["PORT"]))
asyncio.run(app.run(settings, roles=frozenset({"worker"})))
"""


async def test_worker_that_has_nothing_to_do_is_ready(redis_url: str, client: Redis) -> None:
    port = unused_port()
    environment = {**os.environ, "REDIS_URL": redis_url, "PORT": str(port)}
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", _IMPATIENT, env=environment)
    try:

        async def ready() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with aiohttp.ClientSession() as s, s.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    return answer.status == 200
            return False

        await eventually(ready, 20, what="it is ready")
        await mirror(client, 1)
        await settled(client, 1)
        for _ in range(6):
            await asyncio.sleep(0.5)
            assert await ready()
    finally:
        worker.terminate()
        await worker.wait()


async def test_sigterm_while_redis_is_away_ends_at_once_with_0(agents: Agents) -> None:
    agent = agents.start(url=f"redis://127.0.0.1:{unused_port()}/0")
    await agent.logged("redis_failure")
    assert await agent.terminate(timeout=3) == 0


async def test_redis_that_goes_away_and_comes_back_is_survived(own_server: OwnServerFactory, tmp_path: Path) -> None:
    server = own_server(appendfsync="always")  # what it has confirmed it knows again
    agents = Agents(server.url, tmp_path)
    try:
        agent = await agents.start(http=True).ready()
        async with Redis.from_url(server.url, decode_responses=True) as client:
            await publish(client, event="tick")
            await settled(client, 1)
        server.kill()
        await answered(agent, "/readyz", 503)
        assert await answered(agent, "/healthz", 200)
        server.restart()
        await answered(agent, "/readyz", 200)
        async with Redis.from_url(server.url, decode_responses=True) as client:
            await agent.logged("bridge_gap")
            await eventually(lambda: client.get("redis_agent:lease:bridge"))
            await publish(client, event="tick")
            await eventually(lambda: ticks_are(client, 2))
        assert await agent.terminate() == 0
    except BaseException:
        print(agent.log_text())
        raise
    finally:
        agents.end()


async def test_sigterm_under_load_drains_and_leaves_nothing_pending(agents: Agents, client: Redis) -> None:
    agent = await agents.start(REDIS_AGENT_BATCH_SIZE=50, REDIS_AGENT_SHUTDOWN_SECONDS=5).ready()
    await mirror(client, 20_000)
    await eventually(lambda: ticks(client), what="it is at work")

    started = time.monotonic()
    assert await agent.terminate(timeout=6) == 0
    assert time.monotonic() - started < 5

    state = await group(client)
    assert state["pending"] == 0
    assert await ticks(client) == state["entries-read"] < 20_000
    for role in ("bridge", "scheduler", "dispatcher"):
        assert await client.get(f"redis_agent:lease:{role}") is None
    assert not [e for e in agent.log() if e["level"] in ("error", "critical")]
    await agents.start("worker").ready()
    await settled(client, 20_000)
    assert await ticks(client) == 20_000


async def test_published_events_that_were_received_before_sigterm_are_all_applied(
    agents: Agents, client: Redis
) -> None:
    agent = await agents.start().ready()
    for _ in range(500):
        await publish(client, event="tick")
    assert await agent.terminate() == 0
    assert await client.xlen(STREAM) == 500
    await agents.start("worker").ready()
    await settled(client, 500)
    assert await ticks(client) == 500


async def test_wrong_password_is_said_in_one_line_without_the_password(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server(requirepass="right")
    agents = Agents(server.url.replace("right", "wrong"), tmp_path)
    try:
        agent = agents.start()
        await eventually(lambda: not agent.alive, what="it ends")
        assert agent.exit_code not in (0, None)
        assert "refuses" in agent.log_text()
        assert "wrong@" not in agent.log_text()
        assert "Traceback" not in agent.log_text()
    finally:
        agents.end()


@pytest.mark.parametrize("right", ["xack", "rpush", "sadd", "hincrby"])
async def test_user_who_may_not_do_what_the_scripts_do_is_told_at_the_start(
    own_server: OwnServerFactory, tmp_path: Path, right: str
) -> None:
    server = own_server()
    async with Redis.from_url(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "weak", "on", ">secret", "~*", "&*", "+@all", f"-{right}")
    agents = Agents(server.url.replace("redis://", "redis://weak:secret@"), tmp_path)
    try:
        agent = agents.start()
        await eventually(lambda: not agent.alive, what="it ends")
        assert agent.exit_code == 1
        assert f"does not let this user run {right.upper()}" in agent.log_text()
        assert "secret" not in agent.log_text()
        assert "Traceback" not in agent.log_text()
    finally:
        agents.end()


# Taking over ---------------------------------------------------------------------------------------------------


async def test_two_bridges_write_each_event_once_and_one_takes_over_from_the_other(
    agents: Agents, client: Redis
) -> None:
    first = await agents.start("bridge").ready()
    second = agents.start("bridge")
    await second.logged("subscribed")
    for n in range(300):
        assert await client.publish(METRICS, json.dumps({"experiment_id": "exp", "event": "tick", "n": n})) == 2
    await eventually(lambda: written_are(client, 300), what="all is written")

    assert await first.terminate() == 0
    await second.logged("bridge_leads")
    for n in range(300, 600):
        assert await client.publish(METRICS, json.dumps({"experiment_id": "exp", "event": "tick", "n": n})) == 1
    await eventually(lambda: written_are(client, 600), what="all is written")

    numbers = [json.loads(fields["data"])["n"] for _, fields in await client.xrange(STREAM)]
    assert numbers == list(range(600))


async def test_what_is_published_while_the_server_loads_its_data_is_written(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server(enable_debug_command="yes", loading_process_events_interval_bytes="1024")
    agents = Agents(server.url, tmp_path)
    published = 0
    async with Redis.from_url(server.url) as client, Redis.from_url(server.url) as other:
        try:
            bridge = await agents.start("bridge").ready()
            await bridge.logged("bridge_leads")
            await client.mset({f"key {n}": "x" * 100 for n in range(1000)})
            await client.config_set("key-load-delay", "2000")  # microseconds for each key
            began = time.monotonic()
            loading = asyncio.create_task(other.execute_command("DEBUG", "RELOAD"))
            while not loading.done():
                assert await client.publish(METRICS, json.dumps({"experiment_id": "exp", "n": published})) == 1
                published += 1
                await asyncio.sleep(0.01)
            await loading
            assert time.monotonic() - began > 1.5 * PING_SECONDS, "it has asked for a sign of life meanwhile"
            await eventually(lambda: written_are(client, published), what="all is written")
            assert "bridge_gap" not in {line["event"] for line in bridge.log()}
        finally:
            agents.end()


async def written_are(client: Redis, number: int) -> bool:
    return await client.xlen(STREAM) == number


async def test_own_pending_entries_are_applied_after_a_restart_under_the_same_name(
    agents: Agents, client: Redis
) -> None:
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await mirror(client, 700)
    await client.xreadgroup(GROUP, "me", {STREAM: ">"}, count=600)  # read by a process that then died

    worker = await agents.start("worker", REDIS_AGENT_CONSUMER="me", REDIS_AGENT_RECLAIM_IDLE_SECONDS=3600).ready()

    await settled(client, 700)
    assert await ticks(client) == 700
    assert worker.alive


async def test_entries_of_a_dead_consumer_are_reclaimed_by_another(agents: Agents, client: Redis) -> None:
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await mirror(client, 1200)
    await client.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=1100)

    worker = await agents.start("worker", http=True, REDIS_AGENT_CONSUMER="alive").ready()

    await settled(client, 1200)
    assert await ticks(client) == 1200
    _, text = await http(worker, "/metrics")
    assert "redis_agent_reclaimed_total 1100.0" in text


async def test_stopped_worker_that_comes_back_adds_nothing_twice(agents: Agents, client: Redis) -> None:
    await agents.start("worker", REDIS_AGENT_CONSUMER="steady").ready()
    stopped = await agents.start("worker", REDIS_AGENT_CONSUMER="stopped", REDIS_AGENT_BATCH_SIZE=20).ready()
    for first in range(0, 3000, 300):
        await mirror(client, 300, first=first)
        stopped.signal(signal.SIGSTOP if first % 600 == 0 else signal.SIGCONT)
    stopped.signal(signal.SIGSTOP)
    await settled(client, 3000)
    stopped.signal(signal.SIGCONT)
    await mirror(client, 10, first=3000)
    await settled(client, 3010)
    assert await ticks(client) == 3010


async def test_destroyed_group_is_recreated_at_its_floor_and_nothing_is_applied_twice(
    agents: Agents, client: Redis
) -> None:
    worker = await agents.start("worker").ready()
    await mirror(client, 100)
    await settled(client, 100)
    floor = await client.get("redis_agent:floor")

    await client.xgroup_destroy(STREAM, GROUP)
    await worker.logged("group_created", at=floor)
    await mirror(client, 50, first=100)

    await settled(client, 150)
    assert await ticks(client) == 150


async def test_what_is_applied_beyond_the_streams_length_goes_within_a_second_or_two(
    agents: Agents, client: Redis
) -> None:
    await agents.start("worker", "scheduler", REDIS_AGENT_STREAM_MAX_LENGTH=1000).ready()

    async def trimmed() -> bool:
        return await client.xlen(STREAM) == 1000

    await mirror(client, 1500)
    await eventually(trimmed, 15, what="the stream is trimmed")
    await mirror(client, 500)
    await eventually(trimmed, 3, what="what came right after a trimming is trimmed soon")


async def test_flushed_server_is_begun_anew(agents: Agents, client: Redis) -> None:
    await agents.start().ready()
    await publish(client, event="tick", count=5)
    await settled(client, 1)

    await client.flushall()
    await eventually(lambda: client.exists(STREAM), what="the group is created anew")
    await eventually(lambda: client.get("redis_agent:lease:bridge"), what="the bridge leads again")
    await publish(client, event="tick", count=7)

    await eventually(lambda: ticks_are(client, 7))
