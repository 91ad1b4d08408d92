"""A role that dies takes the process down, so that a supervisor restarts it."""

import asyncio

import pytest
from redis.asyncio import Redis

from redis_agent import aggregate, app
from redis_agent.config import Settings
from tests.integration.flow import mirror


async def test_worker_that_fails_at_an_unforeseen_place_ends_the_run_instead_of_hanging(
    redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise NameError("a bug nobody has thought of")

    monkeypatch.setattr(aggregate.ExperimentChange, "add", broken)
    await mirror(client, 5_000)
    settings = Settings(redis_url=redis_url, http_port=0, batch_size=50)

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(20):
            await app.run(settings, roles=frozenset({"worker", "scheduler"}), stop=asyncio.Event())

    assert caught.group_contains(NameError)
