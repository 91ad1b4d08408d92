"""Definitions are parsed when they change, and what is wrong with them is said once."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio import Redis
from structlog.testing import capture_logs

from redis_agent import catalogue as module
from redis_agent import experiments, log
from redis_agent.catalogue import Catalogue
from redis_agent.store import keys
from redis_agent.store.definitions import Definitions
from redis_agent.telemetry import Telemetry

GOOD = {"success_criteria": '["x > 1"]'}


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    """As the agent's own clients answer: in bytes."""
    connection = redis.asyncio.Redis.from_url(redis_url, protocol=2)
    yield connection
    await connection.aclose()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of what is parsed."""
    ids: list[str] = []
    parse = experiments.parse_experiment

    def counted(experiment_id: str, *documents: Any) -> experiments.Experiment:
        ids.append(experiment_id)
        return parse(experiment_id, *documents)

    monkeypatch.setattr(experiments, "parse_experiment", counted)
    return ids


def catalogue(raw: Redis, *, ttl_seconds: float = 0.0) -> tuple[Catalogue, Telemetry]:
    log.configure(level="info", form="json")  # whatever a test before has made of it
    telemetry = Telemetry()
    return Catalogue(definitions=Definitions(raw), telemetry=telemetry, ttl_seconds=ttl_seconds), telemetry


def errors(telemetry: Telemetry) -> float:
    return telemetry.registry.get_sample_value("redis_agent_definition_errors_total") or 0.0


async def test_a_definition_is_parsed_when_it_changes_and_not_before(
    raw: Redis, client: Redis, parsed: list[str]
) -> None:
    known, _ = catalogue(raw)
    assert await known.experiments(["exp"]) == {}
    await client.hset(keys.experiment("exp"), mapping=GOOD)
    first = (await known.experiments(["exp"]))["exp"]
    assert (await known.experiments(["exp"]))["exp"] is first
    assert parsed == ["exp"]
    await client.set(keys.metrics_specs("exp"), json.dumps([{"name": "x", "success_threshold": 9}]))
    second = (await known.experiments(["exp"]))["exp"]
    assert len(second.criteria) == 2
    await client.delete(keys.experiment("exp"), keys.metrics_specs("exp"))
    assert await known.experiments(["exp"]) == {}


async def test_within_its_time_a_definition_is_not_read_again(raw: Redis, client: Redis) -> None:
    known, _ = catalogue(raw, ttl_seconds=60)
    await client.hset(keys.experiment("exp"), mapping=GOOD)
    assert "exp" in await known.experiments(["exp"])
    await client.delete(keys.experiment("exp"))
    assert "exp" in await known.experiments(["exp"])
    assert "later" not in await known.experiments(["later"])
    await client.hset(keys.experiment("later"), mapping=GOOD)
    assert "later" in await known.experiments(["later"]), "what was not there is asked for again at once"


async def test_what_is_wrong_is_said_once_until_it_was_mended(raw: Redis, client: Redis, parsed: list[str]) -> None:
    known, telemetry = catalogue(raw)
    await client.hset(keys.experiment("broken"), mapping={"spec": "experiment: ["})
    await client.rpush(keys.experiment("list"), "x")
    await client.hset(keys.experiment("part"), mapping={**GOOD, "created_at": "soon", "state": "paused"})
    await client.hset(keys.experiment("good"), mapping=GOOD)
    await client.hset(keys.experiment("vague"), "success_criteria", json.dumps(["People love it", "x > 1"]))
    ids = ["broken", "list", "part", "good", "good:results", "vague"]
    with capture_logs() as lines:
        for _ in range(5):
            assert set(await known.experiments(ids)) == {"part", "good", "vague"}
    vague = lines.pop()
    assert (vague["event"], vague["experiment_id"]) == ("criterion_unsupported", "vague")
    assert vague["problem"].startswith("People love it: ")
    assert [(line["event"], line["experiment_id"]) for line in lines] == [
        ("definition_unreadable", "broken"),
        ("definition_unreadable", "list"),
        ("definition_problem", "part"),
        ("definition_problem", "part"),
    ]
    assert errors(telemetry) == 4
    assert parsed == ["broken", "part", "good", "vague"]

    await client.hset(keys.experiment("part"), "created_at", "later")
    with capture_logs() as lines:
        await known.experiments(ids)
    assert [line["problem"] for line in lines] == ["created_at is no time: later"], "the state is known to be none"

    await client.hset(keys.experiment("broken"), "spec", "experiment: {}")
    with capture_logs() as lines:
        assert "broken" in await known.experiments(ids)
        await client.hset(keys.experiment("broken"), "spec", "experiment: [")
        assert "broken" not in await known.experiments(ids)
    assert [line["event"] for line in lines] == ["definition_unreadable"]


async def test_what_is_remembered_is_bounded(
    raw: Redis, client: Redis, monkeypatch: pytest.MonkeyPatch, parsed: list[str]
) -> None:
    monkeypatch.setattr(module, "_MEMORY", 3)
    known, _ = catalogue(raw, ttl_seconds=60)
    ids = [f"exp_{n}" for n in range(5)]
    for experiment_id in ids:
        await client.hset(keys.experiment(experiment_id), mapping=GOOD)
    assert list(await known.experiments(ids)) == ids
    assert list(await known.experiments(ids)) == ids
    assert len(parsed) == 7, "the last three were known"
