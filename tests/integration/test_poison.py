"""An entry that processes die of costs only itself."""

import asyncio
import os
import sys

from redis.asyncio import Redis

from redis_agent.store import keys
from tests.cli.conftest import run_cli
from tests.integration.flow import http, mirror, settled, ticks
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually


async def held_by_the_dead(client: Redis, count: int, *, times: int) -> list[str]:
    """Entries that a consumer was given so often, and died each time."""
    await client.xgroup_create(keys.STREAM, keys.GROUP, id="0", mkstream=True)
    await mirror(client, count)
    (given,) = await client.xreadgroup(keys.GROUP, "dead", {keys.STREAM: ">"}, count=count)
    ids = [entry_id for entry_id, _ in given[1]]
    await client.xclaim(keys.STREAM, keys.GROUP, "dead", 0, ids, idle=60_000, retrycount=times)
    return ids


async def test_entry_that_was_handed_out_too_often_becomes_a_dead_letter_with_its_reason(
    agents: Agents, client: Redis
) -> None:
    ids = await held_by_the_dead(client, 50, times=3)
    await client.xclaim(keys.STREAM, keys.GROUP, "dead", 0, ids[20:22], idle=60_000, retrycount=5, justid=True)

    await agents.start("worker").ready()
    await settled(client, 50)

    assert await ticks(client) == 48
    letters = [letter for _, letter in await client.xrange(keys.DEAD_LETTERS)]
    assert [letter["source_id"] for letter in letters] == ids[20:22]
    assert {letter["reason"] for letter in letters} == {"max_deliveries: handed out 6 times, and never applied"}
    assert {letter["deliveries"] for letter in letters} == {"6"}


async def test_entry_is_given_its_deliveries_before_it_is_given_up(agents: Agents, client: Redis) -> None:
    await held_by_the_dead(client, 3, times=4)

    await agents.start("worker").ready()
    await settled(client, 3)

    assert await ticks(client) == 3
    assert await client.xlen(keys.DEAD_LETTERS) == 0


async def test_limit_of_one_delivery_is_kept(agents: Agents, client: Redis) -> None:
    await held_by_the_dead(client, 2, times=1)
    await mirror(client, 3)

    await agents.start("worker", REDIS_AGENT_MAX_DELIVERIES=1).ready()
    await settled(client, 5)

    assert await ticks(client) == 3
    assert await client.xlen(keys.DEAD_LETTERS) == 2


async def test_entry_that_waits_for_a_key_to_be_repaired_does_not_grow_old_meanwhile(
    agents: Agents, client: Redis
) -> None:
    await client.set(keys.OUTBOX, "not a stream")
    await client.xgroup_create(keys.STREAM, keys.GROUP, id="0", mkstream=True)
    await mirror(client, 1, event="error", message="it broke")
    worker = agents.start("worker", REDIS_AGENT_RECLAIM_IDLE_SECONDS=0.1, http=True)
    await worker.ready()
    await eventually(lambda: reclaimed(worker, 10), 30, what="it was taken up again and again")
    ((_, row),) = [
        (row["message_id"], row) for row in await client.xpending_range(keys.STREAM, keys.GROUP, "-", "+", 9)
    ]
    assert row["times_delivered"] <= 3

    await client.delete(keys.OUTBOX)

    await settled(client, 1)
    assert await client.xlen(keys.OUTBOX) == 1
    assert await client.xlen(keys.DEAD_LETTERS) == 0


async def reclaimed(agent: AgentProcess, number: int) -> bool:
    _, text = await http(agent, "/metrics")
    (line,) = [line for line in text.splitlines() if line.startswith("redis_agent_reclaimed_total ")]
    return float(line.partition(" ")[2]) >= number


_DIES_OF_POISON = """
import asyncio, os
from redis_agent import app, folding, log
from redis_agent.config import Settings

def read(data, *, max_bytes, real=folding.read):
    if b"poison" in data:
        os._exit(9)
    return real(data, max_bytes=max_bytes)

folding.read = read
log.configure(level="error", form="json")
settings = Settings(redis_url=os.environ["REDIS_URL"], http_port=0, reclaim_idle_seconds=0.1)
asyncio.run(app.run(settings, roles=frozenset({"worker"})))
"""


async def test_processes_that_die_of_one_event_end_by_giving_up_that_event_alone(redis_url: str, client: Redis) -> None:
    await client.xgroup_create(keys.STREAM, keys.GROUP, id="0", mkstream=True)
    await mirror(client, 60)
    await mirror(client, 1, event="poison")
    await mirror(client, 60)

    for _ in range(40):  # a supervisor that starts it again
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _DIES_OF_POISON, env={**os.environ, "REDIS_URL": redis_url}
        )
        done = asyncio.create_task(settled(client, 121))
        died = asyncio.create_task(process.wait())
        await asyncio.wait({done, died}, return_when=asyncio.FIRST_COMPLETED)
        if process.returncode is None:
            process.kill()
        await process.wait()
        if done.done():
            break
        done.cancel()

    assert await ticks(client) == 120
    ((_, letter),) = await client.xrange(keys.DEAD_LETTERS)
    assert "poison" in letter["data"]
    assert letter["reason"].startswith("max_deliveries: ")


async def test_dead_letters_of_an_operator_are_counted_by_the_leading_scheduler(
    agents: Agents, client: Redis, redis_url: str
) -> None:
    ids = await held_by_the_dead(client, 3, times=1)
    scheduler = await agents.start("scheduler", http=True).ready()

    done = await run_cli("pending", "--dead-letter", *ids[:2], "--json", REDIS_URL=redis_url)

    assert [entry["outcome"] for entry in done.document["entries"]] == ["dead_letter", "dead_letter"]
    await eventually(lambda: counted(scheduler, 2), 20, what="both are counted")


async def counted(agent: AgentProcess, number: int) -> bool:
    _, text = await http(agent, "/metrics")
    return f'redis_agent_dead_letters_total{{reason="operator"}} {number}.0' in text
