"""Each event counts once, while workers are killed, stopped, cut off, and the script cache is flushed under load."""

import asyncio
import random
import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.conftest import OwnServerFactory
from tests.ledger import Ledger, check_replay, compare
from tests.processes import AgentProcess, Agents
from tests.seeds import SEED
from tests.waiting import eventually

SECONDS = 14
EVENTS_A_TICK = 22
TICK_SECONDS = 0.05
STREAM, GROUP = "fullsend:metrics:stream", "redis_agent"


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


@pytest.mark.parametrize("seed", [SEED], ids=["seed"])
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
