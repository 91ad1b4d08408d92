"""A bridge's term begins whole or not at all."""

import asyncio

import pytest
from redis import exceptions
from redis.asyncio import Redis

from redis_agent import app
from redis_agent.config import Settings
from redis_agent.store import keys
from redis_agent.store.mirror import Mirror
from tests.integration.flow import METRICS
from tests.waiting import eventually


@pytest.mark.parametrize("written", [0, 1000])
async def test_failing_read_of_the_position_loses_nothing_that_is_published_afterwards(
    redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    real, failures = Mirror.position, 0

    async def flaky(mirror: Mirror) -> tuple[int, int]:
        nonlocal failures
        failures += 1
        if failures <= 3:
            raise exceptions.ConnectionError("cut off at the worst moment")
        return await real(mirror)

    monkeypatch.setattr(Mirror, "position", flaky)
    if written:
        await client.hset(keys.BRIDGE, mapping={"written": written})
    stop = asyncio.Event()
    settings = Settings(redis_url=redis_url, http_port=0)
    running = asyncio.create_task(app.run(settings, roles=frozenset({"bridge"}), stop=stop))
    await eventually(lambda: client.exists(keys.LEASE_BRIDGE), 10, what="the lease is held")
    await eventually(lambda: client.publish(METRICS, "first"), 10, what="the bridge listens")
    for n in range(9):
        assert await client.publish(METRICS, f"event {n}") == 1

    async def all_written() -> bool:
        return await client.xlen(keys.STREAM) == 10

    await eventually(all_written, 15, what="everything is in the stream")
    stop.set()
    assert await running == 0
    assert failures > 3
    assert await client.hget(keys.BRIDGE, "written") == str(written + 10)
