"""A server that cuts a subscription because it is read too slowly (`client-output-buffer-limit pubsub`)."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from redis.asyncio import Redis

from tests.bridges.hand_over import BRIDGE, LEASE, METRICS, STREAM
from tests.conftest import OwnServerFactory
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

LIMIT = "pubsub 1mb 256kb 5"
EVENT_BYTES = 16_000
# With a limit of 1 MB the buffers of both sockets are what decides how much it takes; so much is enough.
ENOUGH = 4_000


async def test_subscription_that_is_cut_for_being_slow_is_a_gap_that_is_counted_and_said(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    async with bridges(own_server, tmp_path, 1) as (client, agents):
        (bridge,) = agents
        before = await publish(client, 0, 50)
        heard = await publish_until_cut(client, bridge, before)
        await bridge.logged("bridge_gap", why="subscription_broken")
        await eventually(lambda: subscribers(client), 20, what="it has subscribed again")
        after = await publish(client, heard, heard + 200)

        await eventually(lambda: newest_is(client, after - 1), 20, what="what comes afterwards is written")
        numbers = await written(client)
        assert numbers == sorted(set(numbers)), "in order, and nothing twice"
        (missed,) = holes(numbers, after)
        assert before <= missed.start < missed.stop <= heard, (
            "one hole, at the cut, and nothing after the new subscription"
        )
        assert await client.hget(BRIDGE, "gaps") == b"1"
        said = [line for line in bridge.log() if line["event"] == "bridge_gap"]
        assert len(said) == 1
        assert said[0]["seconds"] > 0


async def test_leader_that_is_cut_for_being_slow_loses_nothing_while_another_bridge_keeps_up(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    async with bridges(own_server, tmp_path, 2) as (client, agents):
        holder = (await client.get(LEASE) or b"").decode()
        leader = next(agent for agent in agents if f"-{agent.pid}-" in holder)
        before = await publish(client, 0, 50)
        heard = await publish_until_cut(client, leader, before)
        after = await publish(client, heard, heard + 200)

        await eventually(lambda: newest_is(client, after - 1), 20, what="all is written")
        assert await written(client) == list(range(after)), "nothing lost, nothing twice, in order"
        assert await client.hget(BRIDGE, "gaps") is None
        await eventually(lambda: in_step(client, 2), 20, what="both are in step again")


@asynccontextmanager
async def bridges(
    own_server: OwnServerFactory, directory: Path, number: int
) -> AsyncIterator[tuple[Redis, list[AgentProcess]]]:
    server = own_server(client_output_buffer_limit=LIMIT)
    agents = Agents(server.url, directory)
    client: Redis = Redis.from_url(server.url)
    try:
        # The lease outlasts the pause: the leader comes back as the leader, and finds that it was cut off.
        started = [agents.start("bridge", REDIS_AGENT_LEASE_SECONDS=30) for _ in range(number)]
        await eventually(lambda: in_step(client, number), 20, what="all are in step")
        yield client, started
    except BaseException:
        for log in agents.logs():
            print(log)
        raise
    finally:
        agents.end()
        await client.aclose()


async def publish(client: Redis, first: int, last: int) -> int:
    async with client.pipeline(transaction=False) as pipe:
        for n in range(first, last):
            event = {"experiment_id": "e", "event": "x", "n": n, "text": "x" * EVENT_BYTES}
            pipe.publish(METRICS, json.dumps(event))
        await pipe.execute()
    return last


async def publish_until_cut(client: Redis, bridge: AgentProcess, published: int) -> int:
    """Publish while this bridge is stopped and until the server has cut it off, as fast as the others read."""
    slow = {c["id"] for c in await client.client_list(_type="pubsub") if str(bridge.pid) in c["name"]}
    bridge.signal(signal.SIGSTOP)
    try:
        while slow & {c["id"] for c in await client.client_list(_type="pubsub")}:
            assert published < ENOUGH, "the server cuts off who does not read"
            published = await publish(client, published, published + 16)

            async def others_have_read() -> bool:
                held = {c["id"]: int(c["omem"]) for c in await client.client_list(_type="pubsub")}
                return not any(held[one] for one in held.keys() - slow)

            await eventually(others_have_read, 20, what="the others have read all")
    finally:
        bridge.signal(signal.SIGCONT)
    return published


async def subscribers(client: Redis) -> int:
    return int(dict(await client.pubsub_numsub(METRICS))[METRICS.encode()])


async def in_step(client: Redis, number: int) -> bool:
    return await client.zcard("redis_agent:bridge:ready") == number


async def newest_is(client: Redis, number: int) -> bool:
    newest = await client.xrevrange(STREAM, count=1)
    return bool(newest) and json.loads(newest[0][1][b"data"])["n"] == number


async def written(client: Redis) -> list[int]:
    return [json.loads(fields[b"data"])["n"] for _, fields in await client.xrange(STREAM)]


def holes(numbers: list[int], end: int) -> list[range]:
    """Where numbers are missing below `end`."""
    edges = [-1, *numbers, end]
    return [range(a + 1, b) for a, b in pairwise(edges) if b > a + 1]
