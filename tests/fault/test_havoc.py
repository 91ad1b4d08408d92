"""Nothing lost, nothing twice, whatever befalls the processes, their connections and the server.

`make fault` runs the long form; MINUTES=30 sets how long the random mixture lasts, SEED=123 does one again.
"""

import asyncio
import os
import random
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.conftest import OwnServerFactory
from tests.failover import replica_of
from tests.fault.havoc import ROLES, Havoc
from tests.fault.proxy import script_names
from tests.seeds import SEED

# Scripts that no agent sends in a run, and where it is shown that they may be sent twice.
NOT_SENT = {
    "remove_consumer": "only an hour after a consumer was seen: tests/store/test_housekeeping.py",
    "dead_letter_replay": "a command: tests/store/test_scripts.py",
    "replay_snapshot": "a command that only reads",
    "bridge_node": "only in a cluster: tests/fault/test_cluster.py",
    **dict.fromkeys(
        ("projection_read", "projection_done", "project_aggregate", "project_list"),
        "only where there is more than one partition: tests/store/test_projections.py",
    ),
    **dict.fromkeys(("partitions_change", "arrive"), "a command: tests/integration/test_repartition.py"),
    "partitions": "only where there is more than one: tests/store/test_partitions.py",
    "llm_admit": "there is no key here; a call that was admitted and not made is one less in its minute, no more",
    "llm_settle": "there is no key here; an outcome counted twice opens a circuit sooner, or adds tokens to a count",
}
MINUTES = float(os.environ.get("MINUTES") or 2)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [SEED], ids=["seed"])
async def test_each_fault_once_under_load(own_server: OwnServerFactory, tmp_path: Path, seed: int) -> None:
    print(f"seed: {seed}")
    havoc = Havoc(own_server(), tmp_path, seed=seed)

    async def schedule(rng: random.Random) -> None:
        for fault in rng.sample(sorted(havoc.faults), len(havoc.faults)):
            await havoc.do(fault)

    await havoc.run(schedule)
    assert havoc.done.total() == len(havoc.faults)


@pytest.mark.timeout(300)
async def test_reply_of_every_kind_of_command_is_lost_and_nothing_is_twice(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    await lose_replies(own_server, tmp_path, times=1)


@pytest.mark.fault
@pytest.mark.timeout(1_800)
async def test_five_replies_of_every_kind_of_command_are_lost_and_nothing_is_twice(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    await lose_replies(own_server, tmp_path, times=5)


async def lose_replies(own_server: OwnServerFactory, directory: Path, *, times: int) -> None:
    havoc = Havoc(own_server(appendfsync="always"), directory, seed=SEED, env={"REDIS_AGENT_DURABILITY": "disk"})

    async def schedule(rng: random.Random) -> None:
        await havoc.at_work()
        await asyncio.sleep(2)  # so that each role has sent what it sends
        for kind in havoc.kinds():
            await havoc.lose_replies(kind, times)

    await havoc.run(schedule)
    print(dict(havoc.done))
    lost = {kind.removeprefix("reply lost: ") for kind, number in havoc.done.items() if number}
    assert lost >= {*script_names().values(), "XREADGROUP", "WAITAOF"} - NOT_SENT.keys()


@pytest.mark.timeout(300)
async def test_links_between_master_and_replica_are_cut_and_nothing_is_lost(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server()
    replica = await replica_of(server, own_server)
    havoc = Havoc(server, tmp_path, seed=SEED, env={"REDIS_AGENT_DURABILITY": "replica"})

    async def schedule(rng: random.Random) -> None:
        async with Redis.from_url(server.url) as master, Redis.from_url(replica.url) as follower:
            for _ in range(3):
                for client, kind in ((master, "replica"), (follower, "master")):
                    await havoc.at_work()
                    assert await client.execute_command("CLIENT", "KILL", "TYPE", kind) >= 1
            await havoc.at_work()

    await havoc.run(schedule)


@pytest.mark.fault
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", [SEED], ids=["seed"])
async def test_two_hundred_faults_of_processes(own_server: OwnServerFactory, tmp_path: Path, seed: int) -> None:
    """Seventeen times each role by each signal, one victim of each role at a time."""
    print(f"seed: {seed}")
    havoc = Havoc(own_server(), tmp_path, seed=seed)
    signals = ("SIGKILL", "SIGSTOP", "SIGTERM")

    async def schedule(rng: random.Random) -> None:
        orders = [[f"{role} {how}" for how in rng.sample(signals * 17, 17 * len(signals))] for role in ROLES]
        for faults in zip(*orders, strict=True):
            await havoc.do(*faults)

    verdict = await havoc.run(schedule)
    print(verdict)
    assert len(verdict.faults) == 17 * len(signals) * len(ROLES) >= 200


@pytest.mark.fault
@pytest.mark.timeout(60 * MINUTES + 600)
@pytest.mark.parametrize("seed", [SEED], ids=["seed"])
async def test_random_mixture_for_minutes(own_server: OwnServerFactory, tmp_path: Path, seed: int) -> None:
    print(f"seed: {seed}")
    havoc = Havoc(own_server(), tmp_path, seed=seed)

    async def schedule(rng: random.Random) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + 60 * MINUTES
        while loop.time() < until:
            await havoc.do(rng.choice(sorted(havoc.faults)))

    print(await havoc.run(schedule))
