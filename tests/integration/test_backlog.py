"""A worker with a backlog: large batches, judged less often than they are applied, and to the last event."""

from redis.asyncio import Redis

from tests.integration.flow import alerts, mirror, ticks
from tests.processes import Agents
from tests.waiting import eventually

EVENTS = 12_000


async def test_a_backlog_is_judged_on_its_last_event_without_one_that_follows(agents: Agents, client: Redis) -> None:
    await client.hset("experiments:exp", mapping={"success_criteria": f'["ticks >= {EVENTS}"]'})
    for first in range(0, EVENTS, 2_000):
        await mirror(client, 2_000, first=first)
    worker = await agents.start("worker").ready()

    async def told() -> bool:
        return bool(await alerts(client))

    await eventually(told, 20, what="the last event has met the criterion")
    assert [alert["current_value"] for alert in await alerts(client)] == [EVENTS]
    assert await ticks(client) == EVENTS
    assert await worker.terminate() == 0
