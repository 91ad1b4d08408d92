"""What a worker has in hand stays its own for as long as it lives, and not a moment longer."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.store import keys
from tests.conftest import OwnServerFactory
from tests.integration.flow import GROUP, STREAM, http, mirror, settled, ticks
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually


async def pending(client: Redis) -> list[dict[str, Any]]:
    return list(await client.xpending_range(STREAM, GROUP, "-", "+", 100_000))


async def held(client: Redis, count: int, *by: str) -> None:
    """Wait until that many entries are pending under these consumers."""

    async def found() -> bool:
        if not await client.exists(STREAM) or not await client.xinfo_groups(STREAM):
            return False
        rows = await pending(client)
        return len(rows) == count and {row["consumer"] for row in rows} <= set(by)

    await eventually(found, 20, what=f"{count} entries are in hand of {by}")


async def nothing_is_applied(client: Redis) -> None:
    """From now on no batch can be applied: the index of experiments, a key of all batches, has another type."""
    await client.set(keys.EXPERIMENTS, "something else")


async def applied_again(client: Redis) -> None:
    await client.delete(keys.EXPERIMENTS)


async def scans(client: Redis, number: int) -> None:
    """Wait until so many complete scans for abandoned entries have been made."""
    seen: set[str | None] = set()

    async def enough() -> bool:
        seen.add(await client.hget(keys.RECLAIM, "done_ms"))
        return len(seen) > number

    await eventually(enough, 40, what=f"{number} scans")


async def counter(agent: AgentProcess, name: str) -> float:
    _, text = await http(agent, "/metrics")
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def reclaimed(*agents: AgentProcess) -> float:
    return sum([await counter(agent, "redis_agent_reclaimed_total") for agent in agents])


async def two_workers(agents: Agents, **env: object) -> tuple[AgentProcess, AgentProcess]:
    first = agents.start("worker", http=True, REDIS_AGENT_CONSUMER="ann", **env)
    second = agents.start("worker", http=True, REDIS_AGENT_CONSUMER="bob", **env)
    return await first.ready(), await second.ready()


async def test_batch_that_waits_for_long_is_neither_taken_over_nor_delivered_again(
    agents: Agents, client: Redis
) -> None:
    ann, bob = await two_workers(agents, REDIS_AGENT_BATCH_SIZE=50)
    await nothing_is_applied(client)
    await mirror(client, 200)
    await held(client, 200, "ann", "bob")

    idle = await agents.start("worker", http=True, REDIS_AGENT_CONSUMER="cyd").ready()
    await scans(client, 6)  # two and a half idle times at least

    assert Counter(row["times_delivered"] for row in await pending(client)) == {1: 200}
    assert await reclaimed(ann, bob, idle) == 0
    await applied_again(client)
    await settled(client, 200)
    assert await ticks(client) == 200
    assert await reclaimed(ann, bob, idle) == 0


async def test_pause_of_the_server_makes_nobody_take_over_from_the_living(agents: Agents, client: Redis) -> None:
    ann, bob = await two_workers(agents, REDIS_AGENT_BATCH_SIZE=50)
    await nothing_is_applied(client)
    await mirror(client, 200)
    await held(client, 200, "ann", "bob")
    idle = await agents.start("worker", http=True, REDIS_AGENT_CONSUMER="cyd").ready()
    await scans(client, 2)

    await client.execute_command("CLIENT", "PAUSE", 600, "ALL")  # three idle times, in which nobody can renew
    await scans(client, 3)

    assert Counter(row["times_delivered"] for row in await pending(client)) == {1: 200}
    await applied_again(client)
    await settled(client, 200)
    assert await ticks(client) == 200
    assert await reclaimed(ann, bob, idle) == 0


async def test_workers_out_of_memory_read_no_further_and_keep_what_they_have(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server(maxmemory_policy="noeviction")
    agents = Agents(server.url, tmp_path)
    client = Redis.from_url(server.url, decode_responses=True, protocol=2)
    try:
        ann, bob = await two_workers(agents, REDIS_AGENT_BATCH_SIZE=20)
        async with client.pipeline(transaction=True) as pipe:
            for n in range(2000):
                pipe.xadd(STREAM, {"data": json.dumps({"experiment_id": "exp", "event": "tick"}), "at": n})
            pipe.config_set("maxmemory", "1")
            await pipe.execute()

        for worker in (ann, bob):
            await eventually(
                lambda worker=worker: counter_reaches(worker, 4), 60, what="it was refused again and again"
            )
        rows = await pending(client)
        assert 0 < len(rows) <= 2 * 5 * 20, "five batches each at most: applying, folded, folding, read, reading"
        assert Counter(row["times_delivered"] for row in rows) == {1: len(rows)}

        await client.config_set("maxmemory", "0")
        await settled(client, 2000)
        assert await ticks(client) == 2000
        assert await reclaimed(ann, bob) == 0
    finally:
        for log in agents.logs():
            print(log)
        agents.end()
        await client.aclose()


async def counter_reaches(worker: AgentProcess, number: int) -> bool:
    return await counter(worker, 'redis_agent_redis_errors_total{kind="oom"}') >= number


async def test_stopped_worker_that_comes_back_takes_nothing_from_who_has_taken_over(
    agents: Agents, client: Redis
) -> None:
    ann = await agents.start("worker", http=True, REDIS_AGENT_CONSUMER="ann").ready()
    await nothing_is_applied(client)
    await mirror(client, 60)
    await held(client, 60, "ann")
    ann.signal(signal.SIGSTOP)
    bob = await agents.start("worker", http=True, REDIS_AGENT_CONSUMER="bob").ready()
    await held(client, 60, "bob")

    ann.signal(signal.SIGCONT)
    await scans(client, 4)

    assert {row["consumer"] for row in await pending(client)} == {"bob"}
    await applied_again(client)
    await settled(client, 60)
    assert await ticks(client) == 60
    assert await reclaimed(bob) == 60
    assert await reclaimed(ann) == 0


async def test_worker_killed_six_times_with_a_batch_in_hand_buries_none_of_it(agents: Agents, client: Redis) -> None:
    worker = await agents.start("worker", REDIS_AGENT_CONSUMER="me").ready()
    await nothing_is_applied(client)
    await mirror(client, 40)
    await held(client, 40, "me")
    for _ in range(6):
        worker.kill()
        await worker.start().logged("own_pending_read")
        await worker.logged("redis_failure", doing="apply")  # it has looked at what is tried alone, too
        await eventually(lambda: grown_old(client, 3), what="what it has lived through counts as handed out once again")
    worker.kill()

    await applied_again(client)
    await worker.start().ready()
    await settled(client, 40)
    assert await ticks(client) == 40
    assert await client.xlen(keys.DEAD_LETTERS) == 0


async def test_two_live_processes_with_one_name_count_once_and_say_so(agents: Agents, client: Redis) -> None:
    same = {"REDIS_AGENT_CONSUMER": "same", "REDIS_AGENT_BATCH_SIZE": 20}
    first = await agents.start("worker", **same).ready()
    await mirror(client, 2000)
    second = await agents.start("worker", **same).ready()  # reads first what the other has in hand
    await mirror(client, 2000, first=2000)

    await settled(client, 4000)
    assert await ticks(client) == 4000
    for worker in (first, second):
        await worker.logged("consumer_name_shared", consumer="same")
    assert await second.terminate() == 0


async def test_process_started_again_under_its_name_is_not_taken_for_two(agents: Agents, client: Redis) -> None:
    worker = await agents.start("worker", REDIS_AGENT_CONSUMER="me").ready()
    await eventually(lambda: client.zcard(keys.OWNERS))
    worker.kill()
    await worker.start().ready()
    own = await eventually(lambda: latest_owner(client, 2))
    beat = await client.zscore(keys.OWNERS, own)

    async def later() -> bool:
        return await client.zscore(keys.OWNERS, own) >= beat + 2000

    await eventually(later, 20, what="it has looked at the roster again and again")
    assert not [line for line in worker.log() if line["event"] == "consumer_name_shared"]


async def latest_owner(client: Redis, number: int) -> str:
    owners = await client.zrange(keys.OWNERS, 0, -1)
    return str(owners[-1]) if len(owners) == number else ""


@pytest.mark.parametrize("key", [keys.DEAD_LETTERS, keys.OUTBOX])
async def test_shared_key_of_the_wrong_type_is_named_and_holds_up_only_what_needs_it(
    agents: Agents, client: Redis, key: str
) -> None:
    await client.set(key, "something else")
    worker = await agents.start("worker").ready()
    needs_it = "junk" if key == keys.DEAD_LETTERS else json.dumps({"experiment_id": "exp", "event": "error"})
    await mirror(client, 100)
    await client.xadd(STREAM, {"data": needs_it, "at": 1})
    await mirror(client, 100, first=100)

    await worker.logged("shared_key_unusable", key=key)
    await eventually(lambda: ticks_reach(client, 200), what="all others are applied")
    assert len(await pending(client)) == 1
    await scans(client, 4)
    assert await ticks(client) == 200

    await client.delete(key)
    await settled(client, 201)
    assert await client.xlen(key) == 1
    if key == keys.DEAD_LETTERS:
        ((_, letter),) = await client.xrange(key)
        assert letter["reason"].startswith("not_json")


async def grown_old(client: Redis, most: int) -> bool:
    return max(row["times_delivered"] for row in await pending(client)) < most


async def ticks_reach(client: Redis, number: int) -> bool:
    return await ticks(client) == number


async def test_right_taken_away_while_workers_run_counts_nothing_twice(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server()
    client = Redis.from_url(server.url, decode_responses=True, protocol=2)
    await client.execute_command("ACL", "SETUSER", "agent", "on", ">secret", "~*", "&*", "+@all")
    agents = Agents(server.url.replace("redis://", "redis://agent:secret@"), tmp_path)
    try:
        workers = await two_workers(agents)
        await mirror(client, 100)
        await settled(client, 100)
        await client.execute_command("ACL", "SETUSER", "agent", "-xack")
        await mirror(client, 100, first=100)
        for worker in workers[:1]:
            await eventually(lambda: refused(*workers), 20, what=f"{worker.pid} is refused")
        assert await ticks(client) == 100
        await client.execute_command("ACL", "SETUSER", "agent", "+xack")
        await settled(client, 200)
        assert await ticks(client) == 200
    finally:
        for log in agents.logs():
            print(log)
        agents.end()
        await client.aclose()


async def refused(*workers: AgentProcess) -> bool:
    return sum([await counter(w, 'redis_agent_redis_errors_total{kind="noperm"}') for w in workers]) > 0
