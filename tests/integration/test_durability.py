"""A batch counts as applied, and an alert is delivered, only when they are as durable as asked for."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from redis_agent.embedded import EmbeddedServer
from redis_agent.errors import DurabilityError
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.durability import Durability, Level
from redis_agent.telemetry import Telemetry
from tests.conftest import OwnServerFactory
from tests.failover import replica_of
from tests.fault.proxy import Proxy
from tests.integration.flow import ORCHESTRATOR, alerts, http, mirror, ticks
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually


@asynccontextmanager
async def durability(url: str, level: Level) -> AsyncIterator[Durability]:
    client = connect(Address(url), name="test-durability")
    try:
        yield Durability(client, level=level, replicas=1, telemetry=Telemetry())
    finally:
        await client.aclose()


def believed(server: EmbeddedServer) -> bool:
    """Whether WAITAOF of this server waits, also with appendfsync everysec: redis/redis#13793."""
    version = tuple(int(part) for part in server.binary.version.split(".")[:2])
    return server.binary.name == "redis" and (version == (7, 2) or version >= (8, 0))


async def test_memory_waits_for_nothing_and_still_answers(own_server: OwnServerFactory) -> None:
    async with durability(own_server().url, "memory") as memory:
        await memory.check()
        assert not memory.waits
        assert await memory.reached(("EXISTS", keys.BARRIER)) == [0]


async def test_replica_waits_until_the_replica_has_what_another_connection_wrote(own_server: OwnServerFactory) -> None:
    server = own_server()
    replica = await replica_of(server, own_server)
    other: Redis = Redis.from_url(server.url)
    async with durability(server.url, "replica") as with_replica:
        await eventually(lambda: with_replica.reached(("PING",)), 20, what="the replica confirms")
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            await other.set("written", "by another connection")
            assert await with_replica.reached(("GET", "written")) is None
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        answers = await eventually(lambda: with_replica.reached(("GET", "written")), 20, what="the replica confirms")
        assert answers == [b"by another connection"]
    await other.aclose()


async def test_disk_is_promised_by_appendfsync_always(own_server: OwnServerFactory) -> None:
    async with durability(own_server(appendfsync="always").url, "disk") as disk:
        await disk.check()
        assert await disk.reached() == []


async def test_disk_with_everysec_is_promised_only_where_waitaof_is_true(own_server: OwnServerFactory) -> None:
    server = own_server(appendfsync="everysec")
    async with durability(server.url, "disk") as disk:
        if believed(server):
            await disk.check()
        else:
            with pytest.raises(DurabilityError, match="WAITAOF"):
                await disk.check()


async def test_a_waitaof_that_takes_its_time_is_believed(own_server: OwnServerFactory) -> None:
    server = own_server(appendfsync="everysec")
    if not server.binary.version.startswith("7.0"):
        async with Proxy(server.port) as proxy, durability(proxy.url, "disk") as disk:
            proxy.delay = 0.4
            await disk.check()


@pytest.mark.parametrize(
    ("config", "why"),
    [({"appendonly": "no"}, "appendonly no"), ({"appendfsync": "no"}, "appendfsync no|no WAITAOF")],
    ids=["no append-only file", "no fsync"],
)
async def test_disk_is_refused_in_words(own_server: OwnServerFactory, config: dict[str, str], why: str) -> None:
    async with durability(own_server(**config).url, "disk") as disk:
        with pytest.raises(DurabilityError, match=why):
            await disk.check()


async def test_agent_that_cannot_promise_what_is_asked_for_does_not_start(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    agents = Agents(own_server(appendonly="no").url, tmp_path)
    agent = agents.start("worker", REDIS_AGENT_DURABILITY="disk")
    await eventually(lambda: not agent.alive, 20, what="the agent ends")
    assert agent.exit_code == 1
    assert "REDIS_AGENT_DURABILITY=disk cannot be promised" in agent.log_text()
    assert "Traceback" not in agent.log_text()


async def applied(agent: AgentProcess) -> float:
    _, text = await http(agent, "/metrics")
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith('redis_agent_events_total{result="applied"}')
    )


async def test_batch_counts_as_applied_and_its_alert_goes_out_when_the_replica_has_it(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server()
    replica = await replica_of(server, own_server)
    client: Redis = Redis.from_url(server.url, decode_responses=True)
    listener = client.pubsub()
    await listener.subscribe(ORCHESTRATOR)
    agents = Agents(server.url, tmp_path)
    try:
        agent = await agents.start("worker", "dispatcher", http=True, REDIS_AGENT_DURABILITY="replica").ready()
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            await mirror(client, 10)
            await mirror(client, 1, first=10, event="error", message="broken")
            await eventually(lambda: ticks(client), 20, what="the server has applied them")
            await agent.logged("durability_not_reached", timeout=20)
            assert await applied(agent) == 0
            assert [a["type"] for a in await alerts(client)] == ["error"]
            assert await delivered(listener, 0.5) == []
        finally:
            os.kill(replica.pid, signal.SIGCONT)

        async def all_applied() -> bool:
            return await applied(agent) == 11

        await eventually(all_applied, 20, what="the batch counts as applied")
        assert len(await delivered(listener, 20)) == 1
        assert await agent.terminate() == 0
    finally:
        agents.end()
        await listener.aclose()
        await client.aclose()


async def delivered(listener: object, timeout: float) -> list[object]:
    """The next alert within this time, if one comes."""
    found: list[object] = []
    deadline = asyncio.get_running_loop().time() + timeout
    while not found and asyncio.get_running_loop().time() < deadline:
        message = await listener.get_message(ignore_subscribe_messages=True, timeout=0.1)  # type: ignore[attr-defined]
        found += [message] if message else []
    return found


async def test_batches_of_a_server_that_was_restarted_before_they_were_durable_are_not_called_applied(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server(appendfsync="always")
    replica = await replica_of(server, own_server)
    client: Redis = Redis.from_url(server.url, decode_responses=True)
    agents = Agents(server.url, tmp_path)
    try:
        agent = await agents.start("worker", http=True, REDIS_AGENT_DURABILITY="replica").ready()
        await mirror(client, 1)

        async def one() -> bool:
            return await applied(agent) == 1

        await eventually(one, 20, what="the first is confirmed")
        os.kill(replica.pid, signal.SIGSTOP)
        await mirror(client, 10, first=1)

        async def all_ticks() -> bool:
            return await ticks(client) == 11

        await eventually(all_ticks, 20, what="the server has applied them")
        server.kill()
        server.restart()
        await client.connection_pool.disconnect()
        os.kill(replica.pid, signal.SIGCONT)
        await agent.logged("batches_unconfirmed", timeout=30)
        assert await applied(agent) == 1
        assert await ticks(client) == 11
        await mirror(client, 5, first=11)

        async def flows() -> bool:
            return await applied(agent) == 6

        await eventually(flows, 20, what="what comes later is confirmed")
    finally:
        agents.end()
        await client.aclose()
