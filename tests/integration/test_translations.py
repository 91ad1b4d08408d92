"""A criterion that nobody understands is offered to a model once; what our parser makes of the answer counts."""

import json
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent import experiments
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.translations import Translations
from tests.analyst.askers import Fake, role
from tests.cli.conftest import run_cli
from tests.integration.flow import alerts
from tests.waiting import eventually

TEXT = "People love the onboarding"
DEFINITION = {
    "success_criteria": json.dumps([TEXT, "signups >= 1000"]),
    "metrics": json.dumps([{"name": "nps", "type": "gauge"}, {"name": "signups", "type": "counter"}]),
}
ON = {"translate_criteria": True, "summary_interval_seconds": 2_592_000.0, "threshold_check_interval_seconds": 0.3}


class Translator(Fake):
    def __init__(self, translation: str) -> None:
        super().__init__()
        self.translation = translation


async def experiment(client: Redis, name: str = "exp") -> None:
    await client.hset(f"experiments:{name}", mapping=DEFINITION)
    await client.hset(f"metrics_aggregated:{name}", mapping={"events_total": 3, "nps_latest": 62, "nps_samples": 3})
    await client.zadd(keys.EXPERIMENTS, {name: int(time.time() * 1000)})


def key() -> str:
    (found,) = experiments.parse_experiment("exp", DEFINITION).untranslated
    return keys.translation(found)


async def check(redis_url: str, **environment: str) -> dict[str, Any]:
    finished = await run_cli("check", "exp", "--json", REDIS_URL=redis_url, **environment)
    return next(c for c in finished.document["criteria"] if c["criterion"] == TEXT)


async def test_text_is_offered_once_and_judged_and_shown_as_translated(client: Redis, redis_url: str) -> None:
    await experiment(client)
    await experiment(client, "another")
    asker = Translator("nps >= 50")
    async with role("scheduler", redis_url, asker, **ON):

        async def told() -> bool:
            return {a["experiment_id"] for a in await alerts(client)} == {"exp", "another"}

        await eventually(told, 20, what="the translated criterion is told")
    async with role("scheduler", redis_url, asker, **ON):
        await eventually(lambda: client.hexists(keys.SCHEDULER, "swept_ms"), what="a sweep")
    (asked,) = asker.asked
    assert asked == {"kind": "success", "criterion": TEXT, "metrics": ["nps", "signups"]}
    assert json.loads(await client.get(key())) == {"text": TEXT, "criterion": "nps >= 50"}
    assert (await alerts(client))[0]["criterion"] == TEXT

    shown = await check(redis_url, REDIS_AGENT_TRANSLATE_CRITERIA="true")
    assert (shown["parsed"], shown["state"], shown["translated"]) == ("nps >= 50", "met", True)
    people = await run_cli("check", "exp", REDIS_URL=redis_url, REDIS_AGENT_TRANSLATE_CRITERIA="true")
    assert "nps >= 50 (translated)" in people.out
    unused = await check(redis_url)
    assert (unused["parsed"], unused["state"], unused["translated"]) == (None, "unsupported", False)


@pytest.mark.parametrize("translation", ["", "no grammar at all", "account_deleted >= 1", "1 > 0"])
async def test_what_does_not_parse_or_reads_another_metric_is_kept_as_nothing(
    client: Redis, redis_url: str, translation: str
) -> None:
    await experiment(client)
    async with role("scheduler", redis_url, Translator(translation), **ON):
        await eventually(lambda: client.exists(key()), what="the text was offered")
    assert json.loads(await client.get(key()))["criterion"] == ""
    assert await alerts(client) == []


@pytest.mark.parametrize("kept", ['{"criterion": "account_deleted >= 1"}', '{"criterion": 5}', "no json", "[1]"])
async def test_what_somebody_else_keeps_is_read_by_the_same_rules(client: Redis, redis_url: str, kept: str) -> None:
    await experiment(client)
    await client.set(key(), kept)
    shown = await check(redis_url, REDIS_AGENT_TRANSLATE_CRITERIA="true")
    assert (shown["state"], shown["translated"]) == ("unsupported", False)


async def test_by_default_nothing_is_offered(client: Redis, redis_url: str) -> None:
    await experiment(client)
    asker = Translator("nps >= 50")
    async with role("scheduler", redis_url, asker, threshold_check_interval_seconds=0.3):
        await eventually(lambda: client.hexists(keys.SCHEDULER, "swept_ms"), what="a sweep")
    assert asker.asked == []
    assert not await client.exists(key())


async def test_definition_that_knows_other_metrics_has_another_key(redis_url: str) -> None:
    other = DEFINITION | {"metrics": json.dumps([{"name": "nps"}])}
    first, second = (experiments.parse_experiment("e", d) for d in (DEFINITION, other))
    assert first.untranslated.keys() != second.untranslated.keys()
    (one,) = first.untranslated
    async with connect(Address(redis_url), name="test") as raw:
        store = Translations(raw)
        await store.keep(one, TEXT, "nps >= 50")
        assert await store.of([*first.untranslated, *second.untranslated]) == {one: "nps >= 50"}
    assert experiments.with_translations(second, dict.fromkeys(second.untranslated, "signups > 5")) is second
