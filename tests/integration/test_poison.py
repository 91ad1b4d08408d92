"""An entry that processes die of costs only itself."""

from redis.asyncio import Redis

from redis_agent.store import keys
from tests.integration.flow import mirror, settled, ticks
from tests.processes import Agents


async def held_by_the_dead(client: Redis, count: int, *, times: int) -> list[str]:
    """Entries that a consumer was given so often, and died each time."""
    await client.xgroup_create(keys.STREAM, keys.GROUP, id="0", mkstream=True)
    await mirror(client, count)
    (given,) = await client.xreadgroup(keys.GROUP, "dead", {keys.STREAM: ">"}, count=count)
    ids = [entry_id for entry_id, _ in given[1]]
    await client.xclaim(keys.STREAM, keys.GROUP, "dead", 0, ids, idle=60_000, retrycount=times)
    return ids


async def test_entries_that_were_handed_out_often_beside_a_culprit_are_applied(agents: Agents, client: Redis) -> None:
    await held_by_the_dead(client, 50, times=100)

    await agents.start("worker").ready()
    await settled(client, 50)

    assert await ticks(client) == 50
    assert await client.xlen(keys.DEAD_LETTERS) == 0
    assert await client.exists(keys.SUSPECTS) == 0, "the process lived through each of them"


async def test_entry_that_was_in_hand_alone_when_a_process_died_becomes_a_dead_letter(
    agents: Agents, client: Redis
) -> None:
    ids = await held_by_the_dead(client, 50, times=6)
    await client.hset(keys.SUSPECTS, ids[20], 1)

    await agents.start("worker").ready()
    await settled(client, 50)

    assert await ticks(client) == 49
    ((_, letter),) = await client.xrange(keys.DEAD_LETTERS)
    assert letter["source_id"] == ids[20]
    assert letter["reason"].startswith("max_deliveries: ")
    assert int(letter["deliveries"]) > 5


async def test_entry_is_given_its_deliveries_before_it_is_given_up(agents: Agents, client: Redis) -> None:
    ids = await held_by_the_dead(client, 3, times=3)
    await client.hset(keys.SUSPECTS, ids[1], 1)

    await agents.start("worker").ready()
    await settled(client, 3)

    assert await ticks(client) == 3
