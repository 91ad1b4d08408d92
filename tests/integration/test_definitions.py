"""Experiments as the field publishes them: every form, every state, broken ones beside good ones, and what changes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis.asyncio import Redis

from tests.conftest import OwnServerFactory
from tests.integration.flow import STREAM, alerts, http, mirror, publish, settled
from tests.processes import Agents
from tests.waiting import eventually

METRICS = [
    {"name": "emails_sent", "type": "counter"},
    {"name": "complaints", "type": "counter", "failure_threshold": 5},
    {
        "name": "reply_rate",
        "type": "percentage",
        "calculation": "(replies / emails_sent) * 100",
        "success_threshold": 8.0,
    },
]
EXPERIMENT = {
    "hypothesis": "CTOs reply",
    "target": {"who": ["ctos"], "limit": 500},
    "execution": {"steps": ["find", "write"]},
    "success_criteria": ["demos_booked >= 3"],
    "failure_criteria": [{"account_restricted": True}],
    "schedule": {"every": "day", "until": "2026-03-01"},
}
FILE = yaml.safe_dump({"experiment": {"id": "exp", **EXPERIMENT, "metrics": METRICS}}, sort_keys=False)
PIECE = FILE[FILE.index("  metrics:") :]
LIFE = {"state": "running", "created_at": "2026-02-01T10:00:00", "updated_at": "1769940000.25"}
HASH = {name: value if isinstance(value, str) else json.dumps(value) for name, value in EXPERIMENT.items()}

# What is under experiments:{id}, and what is under metrics_specs:{id}.
FORMS: dict[str, tuple[Any, Any]] = {
    "hash": ({**HASH, **LIFE}, {"metrics": json.dumps(METRICS)}),
    "hash_inside": ({**HASH, "metrics": json.dumps(METRICS)}, None),
    "hash_string": (HASH, json.dumps(METRICS)),
    "hash_piece": ({**HASH, **LIFE}, {"metrics_yaml": PIECE}),
    "spec": ({"spec": FILE, **LIFE}, None),
    "spec_piece": ({"spec": FILE, **LIFE}, {"metrics_yaml": PIECE}),
    "spec_cut": ({"spec": FILE, **LIFE}, {"metrics_yaml": PIECE[: len(PIECE) // 2]}),
    "spec_cut_word": ({"spec": FILE, **LIFE}, {"metrics_yaml": PIECE[: PIECE.index("_threshold")]}),
    "spec_list": ({"spec": FILE, **LIFE}, {"metrics": json.dumps(METRICS), "metrics_yaml": PIECE[:30]}),
    "string": (json.dumps({**EXPERIMENT, **LIFE, "metrics": METRICS}), None),
    "string_specs": (json.dumps({"experiment": EXPERIMENT}), json.dumps(METRICS)),
}
BROKEN: dict[str, tuple[Any, Any]] = {
    "bad_yaml": ({"spec": "experiment:\n  success_criteria:\n  - @reply", **LIFE}, {"metrics_yaml": PIECE}),
    "bad_laughs": ({"spec": "a: &a [x, x]\nb: [" + "*a, " * 5_000 + "]"}, None),
    "bad_depth": ({"spec": "- " * 50_000}, None),
    "bad_json": ('{"success_criteria": [', None),
    "bad_type": (["a list"], None),
    "bad_size": ({"spec": "experiment:\n  hypothesis: " + "x" * 300_000}, None),
}


async def define(client: Redis, experiment_id: str, experiment: Any, specs: Any = None) -> None:
    for key, value in ((f"experiments:{experiment_id}", experiment), (f"metrics_specs:{experiment_id}", specs)):
        if isinstance(value, dict):
            await client.hset(key, mapping=value)
        elif isinstance(value, list):
            await client.rpush(key, *value)
        elif value is not None:
            await client.set(key, value)


async def told(client: Redis) -> dict[str, set[str]]:
    """Criteria that were told, by experiment."""
    found: dict[str, set[str]] = {}
    for alert in await alerts(client):
        if "criterion" in alert:
            found.setdefault(alert["experiment_id"], set()).add(alert["criterion"])
    return found


async def told_of(client: Redis, experiment_id: str) -> bool:
    return experiment_id in await told(client)


async def test_every_form_is_judged_and_what_is_broken_is_said_once(agents: Agents, client: Redis) -> None:
    for experiment_id, (experiment, specs) in {**FORMS, **BROKEN}.items():
        await define(client, experiment_id, experiment, specs)
    agent = await agents.start(http=True, THRESHOLD_CHECK_INTERVAL_SECONDS=0.5).ready()
    sent = 0
    for experiment_id in (*BROKEN, *FORMS):
        for event, count in (("email_sent", 500), ("reply", 100), ("demo_booked", 3), ("complaint", 5)):
            await publish(client, experiment_id=experiment_id, event=event, count=count)
            sent += 1
        await publish(client, experiment_id=experiment_id, account_restricted=True)
        sent += 1
    await settled(client, sent)
    expected = {
        "demos_booked >= 3",
        "account_restricted: true",
        "complaints >= 5 (failure_threshold)",
        "reply_rate >= 8 (success_threshold)",
    }

    async def all_told() -> bool:
        assert await told(client) == dict.fromkeys(FORMS, expected)
        return True

    await eventually(all_told, 20)
    for experiment_id in FORMS:
        assert await client.hget(f"metrics_aggregated:{experiment_id}", "reply_rate") == "20"

    for _ in range(3):  # more events, and more looks at the definitions
        for experiment_id in BROKEN:
            await publish(client, experiment_id=experiment_id, event="email_sent")
            sent += 1
        await settled(client, sent)
        await swept_twice(client)
    said = [line["experiment_id"] for line in agent.log() if line["event"] == "definition_unreadable"]
    assert sorted(said) == sorted(BROKEN)
    cut = [line["experiment_id"] for line in agent.log() if line["event"] == "definition_problem"]
    assert sorted(cut) in (["spec_cut_word"], ["spec_cut", "spec_cut_word"])
    _, text = await http(agent, "/metrics")
    assert f"redis_agent_definition_errors_total {len(said) + len(cut)}.0" in text


@pytest.mark.parametrize("where", ["hash", "spec", "yaml", "string"])
async def test_every_state_is_honoured_wherever_it_stands(agents: Agents, client: Redis, where: str) -> None:
    states = ["draft", "ready", "running", "run", "", "paused", "archived", "failed", "Archived"]
    for state in states:
        experiment = {"success_criteria": ["tick >= 1"], **({"state": state} if state else {})}
        beside = {"state": state} if state else {}
        text = yaml.safe_dump({"experiment": {**experiment, "state": "archived" if state == "run" else "running"}})
        form: Any = {
            "hash": {**beside, "success_criteria": '["tick >= 1"]'},
            "spec": {**beside, "spec": text},
            "yaml": {"spec": yaml.safe_dump({"experiment": experiment})},
            "string": json.dumps(experiment),
        }[where]
        await define(client, f"exp_{state}", form)
    await agents.start().ready()
    for state in states:
        await publish(client, experiment_id=f"exp_{state}", event="tick")
    await publish(client, experiment_id="exp_:results", event="tick")
    await client.hset("experiments:exp_:results", mapping={"success_criteria": '["tick >= 1"]'})
    await settled(client, len(states) + 1)

    async def active_told() -> bool:
        return len(await told(client)) >= 6

    await eventually(active_told, 15, what="the active ones are told")
    await publish(client, experiment_id="exp_running", event="tick")
    await settled(client, len(states) + 2)
    assert set(await told(client)) == {f"exp_{state}" for state in ("draft", "ready", "running", "run", "", "paused")}


async def test_a_definition_that_changes_is_judged_within_seconds_and_without_an_event(
    agents: Agents, client: Redis
) -> None:
    agent = await agents.start(THRESHOLD_CHECK_INTERVAL_SECONDS=3600, REDIS_AGENT_DEFINITIONS_TTL_SECONDS=1).ready()
    await publish(client, event="reply", count=5)
    await publish(client, experiment_id="later", event="reply", count=5)
    await define(client, "exp", {"success_criteria": '["replies >= 10"]', "state": "running"})
    await settled(client, 2)
    await client.hset("experiments:exp", "success_criteria", '["replies >= 5"]')
    await eventually(lambda: told_of(client, "exp"), 5, what="the lower threshold is met")
    await define(client, "later", {"spec": "experiment:\n  failure_criteria: [replies < 10]\n"})
    await eventually(lambda: told_of(client, "later"), 5, what="what is defined later is met")

    await define(client, "exp", {"success_criteria": "[", "failure_criteria": '["replies > 4"]'})
    await agent.logged("definition_problem", 5, experiment_id="exp")
    await eventually(lambda: told_by(client, "exp", "replies > 4"), 5, what="the other list still counts")


async def told_by(client: Redis, experiment_id: str, criterion: str) -> bool:
    return criterion in (await told(client)).get(experiment_id, set())


async def test_a_completed_experiment_is_judged_once_more_literally_and_then_never_again(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server()
    agents = Agents(server.url, tmp_path)
    settings = {"ALERT_COOLDOWN_SECONDS": 1, "THRESHOLD_CHECK_INTERVAL_SECONDS": 0.5}
    try:
        async with Redis.from_url(server.url, decode_responses=True) as client:
            first = await agents.start(**settings).ready()
            await define(
                client,
                "exp",
                {
                    "state": "running",
                    "success_criteria": '["replies / emails_sent > 5%", "replies >= 100"]',
                    "metrics": '[{"name": "replies", "type": "counter", "failure_threshold": "< 5"}]',
                },
            )
            await publish(client, event="email_sent", count=10)
            await publish(client, event="reply", count=2)
            await settled(client, 2)
            await client.hset("experiments:exp", "state", "completed")
            await publish(client, event="reply", count=1)  # on its way when the state was set

            await eventually(lambda: client.hexists("redis_agent:finals", "exp"), 15, what="the last judgement")
            final = {"replies / emails_sent > 5%", "replies <= 5 (failure_threshold)"}
            assert await told(client) == {"exp": final}
            *others, completed = await alerts(client)
            values = {a["criterion"]: a["value"] for a in others}
            assert values == {"replies / emails_sent > 5%": 0.3, "replies <= 5 (failure_threshold)": 3}
            assert (completed["type"], completed["severity"]) == ("experiment_completed", "info")
            assert [(v["criterion"], v["state"]) for v in completed["verdicts"]] == [
                ("replies / emails_sent > 5%", "met"),
                ("replies >= 100", "not_met"),
                ("replies <= 5 (failure_threshold)", "met"),
            ]
            assert "1 of 2 success criteria met; 1 of 1 failure criteria met" in completed["message"]

            # Neither more events nor another process, nor time, tell it again.
            assert await first.terminate() == 0
            for _ in range(2):
                await agents.start(**settings).ready()
            for n in range(4, 8):
                await publish(client, event="reply", count=1)
                await settled(client, n)
                await swept_twice(client)
            assert len(await alerts(client)) == 3

            # It goes on, and is completed once more.
            await client.hset("experiments:exp", "state", "running")

            async def forgotten() -> bool:
                return not await client.hexists("redis_agent:finals", "exp")

            await eventually(forgotten, 10, what="it is open again")
            await publish(client, event="reply", count=200)
            await eventually(lambda: told_by(client, "exp", "replies >= 100"), 10, what="it is judged again")
            await client.hset("experiments:exp", "state", "completed")
            await eventually(lambda: client.hexists("redis_agent:finals", "exp"), 15, what="the next last judgement")
            kinds = [a["type"] for a in await alerts(client)]
            assert kinds.count("experiment_completed") == 1, "once for each experiment"
    finally:
        agents.end()
        for log in agents.logs():
            print(log)


async def swept_twice(client: Redis) -> None:
    for _ in range(2):
        before = await client.hget("redis_agent:scheduler", "swept_ms")

        async def swept(before: str | None = before) -> bool:
            return await client.hget("redis_agent:scheduler", "swept_ms") != before

        await eventually(swept, what="a sweep")


@pytest.mark.parametrize("ending", ["event", "runs"])
async def test_an_experiment_that_events_end_is_told_as_completed_once_with_the_run(
    agents: Agents, client: Redis, ending: str
) -> None:
    definition = {"state": "running", "success_criteria": '["replies >= 3"]', "execution": '{"max_runs": 2}'}
    await define(client, "exp", definition)
    await agents.start(THRESHOLD_CHECK_INTERVAL_SECONDS=0.5).ready()
    await agents.start("scheduler", "worker", THRESHOLD_CHECK_INTERVAL_SECONDS=0.5).ready()
    await publish(client, event="reply", count=2)
    await publish(client, event="run_completed", run_id="exp:1")
    await settled(client, 2)
    await swept_twice(client)
    assert await alerts(client) == []

    name = "experiment_completed" if ending == "event" else "run_completed"
    await publish(client, event=name, run_id="exp:2", timestamp=1705320123.4)
    await eventually(lambda: client.hexists("redis_agent:completions", "exp"), 20, what="the completion is told")
    await publish(client, event=name, run_id="exp:3")
    await settled(client, 4)
    await swept_twice(client)

    (alert,) = await alerts(client)
    assert (alert["type"], alert["run_id"]) == ("experiment_completed", "exp:2")
    assert [v["state"] for v in alert["verdicts"]] == ["not_met"]
    assert await client.hget("redis_agent:completions", "exp") == alert["alert_id"]


async def test_the_last_judgement_waits_for_events_that_are_in_the_stream(agents: Agents, client: Redis) -> None:
    await define(client, "exp", {"state": "running", "success_criteria": '["ticks == 50"]'})
    worker = await agents.start("worker").ready()
    await worker.logged("group_created")
    await mirror(client, 1)
    await settled(client, 1)
    worker.kill()
    await mirror(client, 49, first=1)  # nobody applies them yet
    await client.hset("experiments:exp", "state", "completed")
    await agents.start("scheduler", THRESHOLD_CHECK_INTERVAL_SECONDS=0.5).ready()
    for _ in range(4):  # longer than it waits for events that may come
        await swept_twice(client)
    assert not await client.hexists("redis_agent:finals", "exp")

    await agents.start("worker").ready()
    await eventually(lambda: client.hexists("redis_agent:finals", "exp"), 15, what="the last judgement")
    assert await told(client) == {"exp": {"ticks == 50"}}
    assert await client.xlen(STREAM) == 50
