"""What integration tests do with an agent from outside: publish, look at the stream, ask the endpoint."""

import json
import time
from typing import Any

import aiohttp
from redis.asyncio import Redis

from tests.processes import AgentProcess
from tests.waiting import eventually

METRICS, ORCHESTRATOR = "fullsend:metrics", "fullsend:to_orchestrator"
STREAM, GROUP, OUTBOX, DEAD = "fullsend:metrics:stream", "redis_agent", "fullsend:alerts", "fullsend:metrics:dead"


async def publish(client: Redis, **event: Any) -> None:
    assert await client.publish(METRICS, json.dumps({"experiment_id": "exp", **event})) >= 1


async def mirror(client: Redis, count: int, *, first: int = 0, **event: Any) -> None:
    """Events in the stream as a bridge writes them, in one go."""
    async with client.pipeline() as pipe:
        for n in range(first, first + count):
            data = json.dumps({"experiment_id": "exp", "event": "tick", "n": str(n), **event})
            pipe.xadd(STREAM, {"data": data, "at": int(time.time() * 1000)})
        await pipe.execute()


async def group(client: Redis) -> dict[str, Any]:
    found = await client.xinfo_groups(STREAM)
    assert len(found) == 1, f"there is no group yet: {found}"
    return dict(found[0])


async def settled(client: Redis, entries: int) -> None:
    async def done() -> bool:
        written = await client.xlen(STREAM)
        state = await group(client)
        return written == entries and state["pending"] == 0 and state["lag"] == 0

    await eventually(done, 20, what=f"{entries} entries are applied")


async def ticks(client: Redis) -> int:
    return int(await client.hget("metrics_aggregated:exp", "tick_count") or 0)


async def http(agent: AgentProcess, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{agent.port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def answered(agent: AgentProcess, path: str, status: int) -> str:
    async def right() -> str | None:
        try:
            found, body = await http(agent, path)
        except aiohttp.ClientError:
            return None
        return body if found == status else None

    return await eventually(right, 20, what=f"{path} answers {status}") or ""


async def alerts(client: Redis) -> list[dict[str, Any]]:
    return [json.loads(fields["data"]) for _, fields in await client.xrange(OUTBOX)]


async def ticks_are(client: Redis, number: int) -> bool:
    return await ticks(client) == number
