"""No gap while one bridge lives: real processes."""

import asyncio
import json
import random
import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.bridges.hand_over import BRIDGE, FAULTS, LEASE, METRICS, STREAM, HandOver
from tests.conftest import OwnServerFactory
from tests.fault.proxy import Proxy
from tests.integration.flow import answered, http
from tests.processes import Agents, unused_port
from tests.seeds import SEED
from tests.waiting import eventually


async def test_leader_killed_paused_cut_off_and_stopped_loses_nothing_while_another_is_in_step(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    faults = [*FAULTS, *random.Random(SEED).sample(FAULTS, 2)]
    verdict = await HandOver(own_server().url, tmp_path, seed=1, rate=1_000).run(faults)
    assert (verdict.lost, verdict.twice, verdict.gaps, verdict.in_order) == (0, 0, 0, True), verdict


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["killed", "paused", "cut", "stopped"])
async def test_fifty_times_at_two_thousand_events_a_second(
    own_server: OwnServerFactory, tmp_path: Path, fault: str
) -> None:
    verdict = await HandOver(own_server().url, tmp_path, seed=1, rate=2_000).run([fault] * 50)
    print(verdict)
    assert (verdict.lost, verdict.twice, verdict.gaps, verdict.in_order) == (0, 0, 0, True), verdict


async def test_bridge_that_was_stopped_for_long_is_in_step_when_it_comes_back(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server()
    agents = Agents(server.url, tmp_path)
    client: Redis = Redis.from_url(server.url)
    try:
        first, second = (agents.start("bridge") for _ in range(2))
        await eventually(lambda: in_step(client, 2), 20, what="both are in step")
        holder = (await client.get("redis_agent:lease:bridge") or b"").decode()
        leader, follower = (first, second) if f"-{first.pid}-" in holder else (second, first)
        follower.signal(signal.SIGSTOP)
        try:
            for n in range(300):
                await client.publish(METRICS, json.dumps({"experiment_id": "e", "event": "x", "n": str(n)}))
            await asyncio.sleep(6)  # longer than a silent subscription is trusted
        finally:
            follower.signal(signal.SIGCONT)
        await eventually(lambda: in_step(client, 2), 20, what="both are in step again")
        leader.kill()
        await eventually(lambda: leads_now(client, holder), 20, what="the other leads")
        for n in range(300, 400):
            await client.publish(METRICS, json.dumps({"experiment_id": "e", "event": "x", "n": str(n)}))
        await eventually(lambda: length_is(client, 400), 20, what="all is written")
        assert await client.hget(BRIDGE, "gaps") is None
        events = {line["event"] for line in follower.log()}
        assert not events & {"subscription_silent", "bridge_out_of_step"}
    finally:
        agents.end()
        await client.aclose()


async def test_bridge_started_in_a_long_outage_does_not_lead_before_one_that_is_in_step(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server()
    agents = Agents(server.url, tmp_path)
    client: Redis = Redis.from_url(server.url)
    published = 0

    async def publish(events: int) -> None:
        nonlocal published
        for _ in range(events):
            await client.publish(METRICS, json.dumps({"experiment_id": "e", "event": "x", "n": str(published)}))
            published += 1

    try:
        bridges = [agents.start("bridge") for _ in range(2)]
        for round_number in range(3):
            await eventually(lambda: in_step(client, 2), 20, what="both are in step")
            holder = (await client.get(LEASE) or b"").decode()
            # In turn the one that leads and the one that follows.
            leads = [f"-{bridge.pid}-" in holder for bridge in bridges]
            victim = bridges[leads.index(round_number % 2 == 0)]
            await publish(50)
            await client.execute_command("REPLICAOF", "127.0.0.1", str(unused_port()))
            victim.kill()
            await publish(50)
            victim.start()
            await victim.logged("subscribed", timeout=20)
            await publish(50)
            await asyncio.sleep(1.6)  # longer than the lease and than any sign of life counts
            await client.execute_command("REPLICAOF", "NO", "ONE")
            await publish(50)
            await eventually(lambda: length_is(client, published), 20, what="all is written")
            assert await client.hget(BRIDGE, "gaps") is None
        numbers = [json.loads(fields[b"data"])["n"] for _, fields in await client.xrange(STREAM)]
        assert numbers == [str(n) for n in range(published)]
    finally:
        agents.end()
        await client.aclose()


async def test_subscription_on_another_server_than_what_is_written_to_is_made_anew_without_a_gap(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server, replica = own_server(), own_server()
    agents = Agents(server.url, tmp_path)
    client: Redis = Redis.from_url(server.url)
    try:
        async with Redis.from_url(replica.url) as other, Proxy(server.port) as proxy:
            await other.replicaof("127.0.0.1", server.port)
            strayed = agents.start("bridge", url=proxy.url)
            await eventually(lambda: in_step(client, 1), 20, what="it is in step")
            agents.start("bridge")
            await eventually(lambda: in_step(client, 2), 20, what="both are in step")
            proxy.lead_to(replica.port)
            (subscribed,) = [c for c in await client.client_list() if int(c["sub"]) and str(strayed.pid) in c["name"]]
            await client.client_kill_filter(_id=subscribed["id"])
            await eventually(lambda: listens(other), 20, what="it has subscribed on the replica")
            proxy.lead_to(server.port)
            for n in range(200):
                await client.publish(METRICS, json.dumps({"experiment_id": "e", "event": "x", "n": str(n)}))
            await strayed.logged("subscription_elsewhere")
            await eventually(lambda: in_step(client, 2), 20, what="both are in step again")
            await eventually(lambda: length_is(client, 200), 20, what="all is written")
            assert await client.hget(BRIDGE, "gaps") is None
    finally:
        agents.end()
        await client.aclose()


async def test_cut_of_all_bridges_at_once_is_a_gap_that_is_counted_once_and_said_with_its_length(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server()
    agents = Agents(server.url, tmp_path)
    client: Redis = Redis.from_url(server.url)
    try:
        bridges = [agents.start("bridge", http=True) for _ in range(2)]
        await eventually(lambda: in_step(client, 2), 20, what="both are in step")
        await client.client_kill_filter(_type="pubsub")
        await eventually(lambda: counted(client, "gaps"), 20, what="the gap is counted")
        await eventually(lambda: in_step(client, 2), 20, what="both are in step again")

        for n in range(100):
            await client.publish(METRICS, json.dumps({"experiment_id": "e", "event": "x", "n": str(n)}))
        await eventually(lambda: length_is(client, 100), what="what comes afterwards is written")

        said = [line for bridge in bridges for line in bridge.log() if line["event"] == "bridge_gap"]
        assert len(said) == 1
        assert said[0]["seconds"] >= 0
        assert await client.hget(BRIDGE, "gaps") == b"1"
        shown = [await metric(bridge, "redis_agent_bridge_gaps_total") for bridge in bridges]
        assert sorted(shown) == [0, 1]
    finally:
        agents.end()
        await client.aclose()


async def test_two_bridges_hold_what_redis_cannot_take_and_write_it_when_it_can(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server(maxmemory_policy="noeviction")
    agents = Agents(server.url, tmp_path)
    client: Redis = Redis.from_url(server.url)
    try:
        bridges = [agents.start("bridge", http=True) for _ in range(2)]
        await eventually(lambda: in_step(client, 2), 20, what="both are in step")
        await client.config_set("maxmemory", "1")
        for n in range(500):
            await client.publish(METRICS, json.dumps({"experiment_id": "e", "event": "x", "n": str(n)}))
        holder = (await client.get("redis_agent:lease:bridge") or b"").decode()
        (leader,) = [bridge for bridge in bridges if f"-{bridge.pid}-" in holder]
        assert "500 events held" in await answered(leader, "/readyz", 503)
        assert await metric(leader, "redis_agent_bridge_buffer_bytes") > 0
        leader.kill()  # what it held is lost with it, and the other has the same
        await eventually(lambda: leads_now(client, holder), 20, what="the other leads")
        assert await client.xlen(STREAM) == 0

        await client.config_set("maxmemory", "0")

        await eventually(lambda: length_is(client, 500), 20, what="all is written")
        numbers = [json.loads(fields[b"data"])["n"] for _, fields in await client.xrange(STREAM)]
        assert numbers == [str(n) for n in range(500)]
        assert await client.hget(BRIDGE, "gaps") is None
    finally:
        agents.end()
        await client.aclose()


async def test_full_buffer_drops_the_oldest_with_a_count(own_server: OwnServerFactory, tmp_path: Path) -> None:
    server = own_server(maxmemory_policy="noeviction")
    agents = Agents(server.url, tmp_path)
    client: Redis = Redis.from_url(server.url)
    try:
        agents.start("bridge", http=True, REDIS_AGENT_BRIDGE_BUFFER_BYTES=1_048_576)
        await eventually(lambda: in_step(client, 1), 20, what="it is in step")
        await client.config_set("maxmemory", "1")
        for n in range(200):
            await client.publish(METRICS, json.dumps({"experiment_id": "e", "n": str(n), "text": "x" * 10_000}))
            if n == 150:  # what was dropped in one term is not counted again in the next
                holder = (await client.get("redis_agent:lease:bridge") or b"").decode()
                await client.delete("redis_agent:lease:bridge")
                await eventually(lambda old=holder: leads_now(client, old), 20, what="it leads again")  # type: ignore[misc]
        await client.config_set("maxmemory", "0")

        await eventually(lambda: written_up_to(client, 199), 20, what="the newest is written")
        numbers = [int(json.loads(fields[b"data"])["n"]) for _, fields in await client.xrange(STREAM)]
        given_up = int(await client.hget(BRIDGE, "given_up") or 0)
        assert 0 < len(numbers) < 200
        assert len(numbers) + given_up == 200
        assert numbers == sorted(set(numbers))
        (agent,) = agents._started
        assert await metric(agent, "redis_agent_bridge_dropped_total") == given_up
        assert await agent.logged("bridge_buffer_full")
    finally:
        agents.end()
        await client.aclose()


async def in_step(client: Redis, number: int) -> bool:
    now = int((await client.time())[0]) * 1000
    return await client.zcount("redis_agent:bridge:ready", now - 1_500, "+inf") == number


async def listens(client: Redis) -> bool:
    return bool(await client.pubsub_channels("redis_agent:bridge:alive:*"))


async def counted(client: Redis, field: str) -> bool:
    return int(await client.hget(BRIDGE, field) or 0) > 0


async def length_is(client: Redis, number: int) -> bool:
    return await client.xlen(STREAM) == number


async def written_up_to(client: Redis, number: int) -> bool:
    newest = await client.xrevrange(STREAM, count=1)
    return bool(newest) and json.loads(newest[0][1][b"data"])["n"] == str(number)


async def leads_now(client: Redis, old: str) -> bool:
    return (await client.get("redis_agent:lease:bridge") or old.encode()).decode() != old


async def metric(agent: object, name: str) -> float:
    _, body = await http(agent, "/metrics")  # type: ignore[arg-type]
    return float(next(line.split()[1] for line in body.splitlines() if line.startswith(name + " ")))
