"""Clocks that jump an hour, the server's and the agents', together and apart: nothing lost, twice or stuck."""

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.clock import stream_id
from redis_agent.embedded import EmbeddedServer
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.stream import EventStream
from tests.conftest import OwnServerFactory
from tests.faketime import FakeClock
from tests.fault.havoc import OUTBOX, STREAM, Havoc
from tests.processes import Agents
from tests.seeds import SEED
from tests.waiting import eventually

HOUR = 3_600
SUMMARY_SECONDS = 2

FakedServer = Callable[[FakeClock], EmbeddedServer]


@pytest.fixture
def faked_server(own_server: OwnServerFactory, monkeypatch: pytest.MonkeyPatch) -> FakedServer:
    """Starts a server whose clock can be set."""

    def start(clock: FakeClock) -> EmbeddedServer:
        with monkeypatch.context() as patch:
            for name, value in clock.env.items():
                patch.setenv(name, value)
            return own_server()

    return start


@pytest.mark.timeout(300)
async def test_clocks_jump_an_hour_both_ways_under_load(faked_server: FakedServer, tmp_path: Path) -> None:
    await jump(faked_server, tmp_path, rounds=1)


@pytest.mark.fault
@pytest.mark.timeout(3_600)
async def test_clocks_jump_an_hour_both_ways_ten_times_each(faked_server: FakedServer, tmp_path: Path) -> None:
    await jump(faked_server, tmp_path, rounds=10)


async def jump(faked_server: FakedServer, directory: Path, *, rounds: int) -> None:
    theirs, ours = FakeClock(directory, "server"), FakeClock(directory, "agents")
    server = faked_server(theirs)
    settings: dict[str, Any] = {
        # Longer than all jumps: what is told twice is told twice because of a fault.
        "ALERT_COOLDOWN_SECONDS": 604_800,
        "SUMMARY_INTERVAL_SECONDS": SUMMARY_SECONDS,
    }
    havoc = Havoc(server, directory, seed=SEED, env=settings | ours.env)
    client: Redis = Redis.from_url(server.url, protocol=2)
    whose = {"server's clock": [theirs], "agents' clocks": [ours], "all clocks": [theirs, ours]}
    # From where the clocks stand to an hour ahead, back, an hour behind, and forward again.
    jumps = [(name, offset) for name in whose for offset in (HOUR, 0, -HOUR, 0)] * rounds
    loop = asyncio.get_running_loop()

    async def summaries() -> int:
        data = [json.loads(fields[b"data"]) for _, fields in await client.xrange(OUTBOX)]
        return len([alert for alert in data if alert["type"] == "periodic_summary"])

    async def told_since(count: int) -> bool:
        return await summaries() > count

    async def schedule(rng: random.Random) -> None:
        began = loop.time()
        for name, offset in rng.sample(jumps, len(jumps)) if rounds > 1 else jumps:
            await havoc.at_work()

            before = await summaries()
            for clock in whose[name]:
                clock.set(offset)
            havoc.done[f"{name} to {offset:+d} s"] += 1
            await havoc.at_work()
            await eventually(lambda before=before: told_since(before), 20, what=f"a summary after {name} {offset:+d}")  # type: ignore[misc]
        bound = (loop.time() - began) / SUMMARY_SECONDS + len(jumps) + 1
        assert await summaries() <= bound, "one an interval, and one a jump"

    try:
        verdict = await havoc.run(schedule)
        print(f"\n{dict(havoc.done)}\n{verdict}")
        ids = [stream_id(entry_id.decode()) for entry_id, _ in await client.xrange(STREAM)]
        assert ids == sorted(set(ids))
        assert havoc.done.total() == len(jumps)
    finally:
        await client.aclose()


async def test_summaries_come_although_the_bridges_clock_is_an_hour_behind_the_schedulers(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    behind = FakeClock(tmp_path, "bridge")
    behind.set(-HOUR)
    server = own_server()
    agents, client = Agents(server.url, tmp_path), Redis.from_url(server.url, decode_responses=True)
    try:
        await agents.start("bridge", "worker", **behind.env).ready()
        await agents.start("scheduler", SUMMARY_INTERVAL_SECONDS=1, REDIS_AGENT_QUIET_AFTER_SECONDS=60).ready()

        async def four() -> bool:
            await client.publish("fullsend:metrics", json.dumps({"experiment_id": "e", "event": "tick"}))
            return await client.xlen(OUTBOX) >= 4

        await eventually(four, 20, interval=0.1, what="four summaries")
        published = await client.hget("metrics_aggregated:e", "tick_count")
        await asyncio.sleep(2.5)
        told = await client.xlen(OUTBOX)
        await asyncio.sleep(2.5)
        assert await client.xlen(OUTBOX) == told, f"nothing new after {published} events, nothing to tell"
    finally:
        agents.end()
        await client.aclose()


async def test_entries_of_a_dead_worker_are_taken_over_although_the_clock_was_set_back(
    faked_server: FakedServer, tmp_path: Path
) -> None:
    clock = FakeClock(tmp_path, "server")
    client = connect(Address(faked_server(clock).url), name="clocks")
    try:
        dead, alive = (
            EventStream(reader=client, client=client, consumer=name, max_fields=9, max_raw=9, max_dead=9)
            for name in ("dead", "alive")
        )
        await alive.ensure_group()
        clock.set(HOUR)
        for n in range(30):
            await client.xadd(keys.STREAM, {"data": b"{}", "at": n})
        ids = [entry.id for entry in await dead.read_new(count=30, block_ms=1)]
        await alive.reclaim(idle_ms=100, every_ms=50, count=2)  # it came by before the clock was set back
        clock.set(0)

        taken: list[str] = []

        async def all_taken() -> bool:
            step = await alive.reclaim(idle_ms=100, every_ms=50, count=2)
            taken.extend(entry.id for entry in step.entries)
            return len(taken) >= len(ids)

        await eventually(all_taken, 20, what="all that the dead one held is taken over")
        assert taken == ids
        assert {
            row["times_delivered"] for row in await client.xpending_range(keys.STREAM, keys.GROUP, "-", "+", 99)
        } == {2}
    finally:
        await client.aclose()
