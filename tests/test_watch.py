"""The watch finds what is to be judged although no event came, at a bounded cost."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from redis.asyncio import Redis

from redis_agent import watch as module
from redis_agent.catalogue import Catalogue
from redis_agent.store import keys
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.definitions import Definitions
from redis_agent.store.finals import Finals
from redis_agent.telemetry import Telemetry
from redis_agent.watch import Watch
from tests.waiting import eventually

NOW_MS = 1_770_000_000_000


@pytest.fixture
async def watch(redis_url: str) -> AsyncIterator[Watch]:
    raw = redis.asyncio.Redis.from_url(redis_url, protocol=2)
    definitions = Catalogue(definitions=Definitions(raw), telemetry=Telemetry(), ttl_seconds=0)
    yield Watch(catalogue=definitions, aggregates=Aggregates(raw), finals=Finals(raw))
    await raw.aclose()


async def define(client: Redis, experiment_id: str, *, age_ms: int = 60_000, **fields: str) -> None:
    await client.zadd(keys.EXPERIMENTS, {experiment_id: NOW_MS - age_ms})
    await client.hset(keys.experiment(experiment_id), mapping={"success_criteria": '["x > 1"]', **fields})


async def test_what_was_judged_is_named_again_only_when_its_definition_has_changed(watch: Watch, client: Redis) -> None:
    await client.zadd(keys.EXPERIMENTS, {"undefined": NOW_MS})
    await define(client, "exp")
    assert await watch.changed() == ["exp"]
    assert await watch.changed() == ["exp"], "as long as nobody has judged it"
    watch.judged(["exp"])
    assert await watch.changed() == []
    await client.hset(keys.experiment("exp"), "state", "run")
    assert await watch.changed() == ["exp"]
    watch.judged(["exp"])
    await define(client, "undefined")
    assert await watch.changed() == ["undefined"]


async def test_all_experiments_have_their_turn_and_the_newest_always(
    watch: Watch, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)
    for n in range(10):
        await define(client, f"exp_{n}", age_ms=n)
    rounds = []
    for _ in range(3):
        rounds.append(sorted(await watch.changed()))
        watch.judged(rounds[-1])
    assert rounds == [[f"exp_{n}" for n in range(6)], ["exp_6", "exp_7", "exp_8"], ["exp_9"]]
    await client.hset(keys.experiment("exp_1"), "state", "run")
    assert await watch.changed() == ["exp_1"]
    await client.hset(keys.experiment("exp_8"), "state", "run")
    assert "exp_8" in await watch.changed() + await watch.changed() + await watch.changed()


async def test_a_completed_experiment_is_named_when_it_has_all_its_events(
    watch: Watch, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_SECONDS", 0.0)
    await client.xadd(keys.STREAM, {"data": "{}"}, id="5-1")
    await define(client, "exp", state="completed")
    await define(client, "running")
    assert await watch.changed() == ["running"]
    assert await watch.completed() == [], "the event is not applied"
    await client.xadd(keys.STREAM, {"data": "{}"}, id="6-1")
    await client.set(keys.FLOOR, "5-1")
    assert await watch.completed() == ["exp"], "what came later is not waited for"
    await watch.judged_finally(["exp"], "2026-02-01T00:00:00Z")
    assert await watch.completed() == []

    await define(client, "exp", state="running")
    await watch.changed()
    await watch.completed()
    assert not await client.hexists(keys.FINALS, "exp")


async def test_the_last_judgement_waits_until_no_more_events_come(
    watch: Watch, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_SECONDS", 0.3)
    await define(client, "exp", state="completed")
    for n in range(4):
        await define(client, "exp", age_ms=-3_600_000 - n)  # by whatever clock
        await watch.changed()
        assert await watch.completed() == []
        await asyncio.sleep(0.1)

    async def named() -> bool:
        await watch.changed()
        return await watch.completed() == ["exp"]

    await eventually(named, 5)


async def test_what_cannot_be_applied_is_not_waited_for_without_end(
    watch: Watch, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.xadd(keys.STREAM, {"data": "{}"}, id="5-1")
    await define(client, "exp", state="completed")
    await watch.changed()
    assert await watch.completed() == []
    monkeypatch.setattr(module, "_LONGEST_SECONDS", 0.0)
    assert await watch.completed() == ["exp"]
