"""`check` says for each criterion what was understood, what it comes to, and why."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import yaml

from redis_agent.store import keys
from tests.cli.conftest import Cli, run_cli

NOWHERE = {"REDIS_URL": "redis://127.0.0.1:1"}  # --file needs no server
FIELDS = {
    "kind",
    "criterion",
    "parsed",
    "state",
    "evidence",
    "metric",
    "operator",
    "threshold",
    "value",
    "samples",
    "interval",
    "reason",
}

EXPERIMENT = """
experiment:
  id: exp_by_hand
  hypothesis: people answer
  state: running
  created_at: 2026-02-01T00:00:00Z
  metrics:
    - name: reply_rate
      type: percentage
      formula: replies / emails_sent
  success_criteria:
    - "reply_rate >= 10%"
    - "replies >= 5 after 7 days"
    - "make everybody happy"
  failure_criteria:
    - account_restricted: true
    - "spam_complaints > 3"
"""
METRICS = {"email_sent_count": 100, "reply_count": "30", "account_restricted_latest": False, "events_total": 130}


def files(tmp_path: Path, experiment: str = EXPERIMENT, metrics: Any = METRICS) -> list[str]:
    (tmp_path / "experiment.yaml").write_text(experiment)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    return ["--file", str(tmp_path / "experiment.yaml"), "--metrics", str(tmp_path / "metrics.json")]


async def check(*args: str) -> dict[str, Any]:
    done = await run_cli("check", *args, "--json", **NOWHERE)
    assert done.code == 0, done.err
    return done.document


async def test_a_file_is_judged_without_a_server(tmp_path: Path) -> None:
    document = await check(*files(tmp_path), "--now", "2026-02-02T00:00:00Z")
    assert document["experiment_id"] == "exp_by_hand"
    assert document["state"] == "running"
    assert document["problems"] == []
    criteria = document["criteria"]
    assert all(set(c) >= FIELDS for c in criteria)
    assert [(c["kind"], c["state"]) for c in criteria] == [
        ("success", "met"),
        ("success", "not_met"),
        ("success", "unsupported"),
        ("failure", "not_met"),
        ("failure", "unknown"),
    ]
    rate = criteria[0]
    assert rate["parsed"] is not None
    assert (rate["metric"], rate["operator"], rate["threshold"]) == ("reply_rate", ">=", 0.1)
    assert (rate["value"], rate["samples"]) == (0.3, 100)
    assert rate["evidence"] in ("early", "confirmed")
    low, high = rate["interval"]
    assert low < 0.3 < high
    assert criteria[2]["parsed"] is None
    assert criteria[2]["evidence"] is None
    assert "spam_complaints" in criteria[4]["reason"]


OBJECT = {
    "id": "exp_by_hand",
    "created_at": "2026-02-01T00:00:00",
    "metrics": [
        {"name": "emails_sent", "type": "counter", "success_threshold": 80},
        {
            "name": "reply_rate",
            "type": "percentage",
            "calculation": "(replies / emails_sent) * 100",
            "success_threshold": 8,
        },
        {"name": "bounces", "type": "counter"},
        {"name": "bounce_rate", "type": "percentage", "formula": "bounces / emails_sent", "failure_threshold": 0.05},
    ],
    "success_criteria": ["reply_rate >= 50", "bounces == 0"],
    "failure_criteria": [{"account_restricted": True}, "make everybody happy", "replies < 50 after 7 days"],
}
FORMS = {
    "json": json.dumps(OBJECT),
    "json under experiment": json.dumps({"experiment": OBJECT}),
    "yaml": yaml.safe_dump(OBJECT),
    "yaml under experiment": yaml.safe_dump({"experiment": OBJECT}),
    "with a mark of its encoding": "\ufeff" + yaml.safe_dump({"experiment": OBJECT}),
    "a hash of the field": json.dumps({"state": "", "spec": yaml.safe_dump({"experiment": OBJECT})}),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_file_has_any_form_and_thresholds_come_behind_the_listed_criteria(tmp_path: Path, form: str) -> None:
    document = await check(*files(tmp_path, FORMS[form]), "--now", "2026-02-09")
    assert (document["experiment_id"], document["state"], document["judged"]) == ("exp_by_hand", "", True)
    assert document["problems"] == []
    assert [(c["kind"], c["criterion"], c["state"], c["value"]) for c in document["criteria"]] == [
        ("success", "reply_rate >= 50", "not_met", 30),
        ("success", "bounces == 0", "met", 0),
        ("failure", "account_restricted: true", "not_met", 0),
        ("failure", "make everybody happy", "unsupported", None),
        ("failure", "replies < 50 after 7 days", "met", 30),
        ("success", "emails_sent >= 80 (success_threshold)", "met", 100),
        ("success", "reply_rate >= 8 (success_threshold)", "met", 30),
        ("failure", "bounce_rate >= 0.05 (failure_threshold)", "not_met", 0),
    ]


@pytest.mark.parametrize(
    ("state", "judged", "of_rate"),
    [("running", True, "not_met"), ("completed", True, "met"), ("archived", False, "not_met")],
)
async def test_the_state_in_a_file_counts(tmp_path: Path, state: str, judged: bool, of_rate: str) -> None:
    experiment = f"state: {state}\nsuccess_criteria: [replies / emails_sent > 5%]\n"
    document = await check(*files(tmp_path, experiment, {"email_sent_count": 10, "reply_count": 1}))
    assert (document["state"], document["judged"]) == (state, judged)
    assert document["criteria"][0]["state"] == of_rate  # 1 of 10 is little, unless it is all there will be
    done = await run_cli("check", *files(tmp_path, experiment), **NOWHERE)
    assert ("not judged" in done.out) == (not judged)


async def test_now_moves_the_clock(tmp_path: Path) -> None:
    early = await check(*files(tmp_path), "--now", "2026-02-02T00:00:00Z")
    late = await check(*files(tmp_path), "--now", "2026-02-09T00:00:00Z")
    assert early["criteria"][1]["state"] == "not_met"
    assert late["criteria"][1]["state"] == "met"


async def test_without_metrics_nothing_is_known(tmp_path: Path) -> None:
    document = await check(*files(tmp_path)[:2])
    assert {c["state"] for c in document["criteria"]} <= {"unknown", "not_met", "unsupported"}
    assert document["criteria"][0]["state"] == "unknown"
    assert document["criteria"][0]["value"] is None


async def test_people_see_every_criterion_with_its_reason(tmp_path: Path) -> None:
    done = await run_cli("check", *files(tmp_path), **NOWHERE)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "exp_by_hand  (running)"
    assert len(lines) == 2 + 5
    assert "30 of 100" in lines[2]
    assert "make everybody happy" in lines[4]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "name an experiment"),
        (("exp", "--file", "EXPERIMENT"), "name an experiment"),
        (("exp", "--metrics", "METRICS"), "--metrics belongs to --file"),
        (("--file", "/nowhere"), "does not exist"),
        (("--file", "EXPERIMENT", "--now", "tomorrow"), "'tomorrow' is no time"),
    ],
)
async def test_what_cannot_be_meant_is_refused(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    _, experiment, _, metrics = files(tmp_path)
    chosen = [{"EXPERIMENT": experiment, "METRICS": metrics}.get(arg, arg) for arg in args]
    done = await run_cli("check", *chosen, **NOWHERE)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(
    ("experiment", "metrics"),
    [
        ("just a text", METRICS),
        ("[1, 2]", METRICS),
        ("{unclosed", METRICS),
        ("experiment:\n  - @x", METRICS),
        ("a: &a [x, x]\nb: &b [*a, *a]\n" + "c: [" + "*b, " * 300 + "]", METRICS),
        ("- " * 1_000, METRICS),
        ("\x00\x01", METRICS),
        (EXPERIMENT, [1]),
        (EXPERIMENT, {"a": {"b": 1}}),
    ],
)
async def test_a_file_that_is_no_use_is_one_line(tmp_path: Path, experiment: str, metrics: Any) -> None:
    done = await run_cli("check", *files(tmp_path, experiment, metrics), "--json", **NOWHERE)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("Error: ")


async def test_an_experiment_is_judged_as_it_stands_in_redis(cli: Cli, client: redis.asyncio.Redis) -> None:
    await client.hset(
        keys.experiment("exp_a"),
        mapping={
            "state": "running",
            "success_criteria": '["response_rate > 0.1"]',
            "failure_criteria": '[{"account_restricted": true}]',
        },
    )
    await client.hset(keys.aggregate("exp_a"), mapping={"response_rate_latest": "0.15", "events_total": "1"})
    document = (await cli("check", "exp_a", "--json")).document
    assert document["experiment_id"] == "exp_a"
    assert [(c["state"], c["evidence"], c["value"]) for c in document["criteria"]] == [
        ("met", "fact", 0.15),
        ("unknown", None, None),
    ]


async def test_an_experiment_without_events_can_be_checked(cli: Cli, client: redis.asyncio.Redis) -> None:
    await client.hset(keys.experiment("exp_a"), mapping={"success_criteria": '["x > 1"]'})
    document = (await cli("check", "exp_a", "--json")).document
    assert document["criteria"][0]["state"] == "unknown"


async def test_a_definition_that_is_none_is_said(cli: Cli, client: redis.asyncio.Redis) -> None:
    await client.rpush(keys.experiment("exp_list"), "x")
    await client.set(keys.experiment("exp_text"), "no json")
    await client.hset(keys.aggregate("exp_events"), mapping={"events_total": "1"})
    await client.hset(keys.experiment("exp_type"), mapping={"success_criteria": '["x > 1"]'})
    await client.set(keys.aggregate("exp_type"), "x")
    await client.hset(keys.experiment("exp_spec"), mapping={"spec": "experiment: [", "state": "running"})
    await client.hset(keys.experiment("exp_type:results"), mapping={"success_criteria": '["x > 1"]'})
    for experiment_id in ("exp_list", "exp_text", "exp_events", "exp_type", "exp_spec", "exp_type:results"):
        done = await cli("check", experiment_id, "--json")
        assert done.code == 1
        assert done.out == ""
        assert experiment_id in done.err
        assert done.err.count("\n") == 1


async def test_a_key_that_is_no_use_beside_one_that_is_is_a_problem(cli: Cli, client: redis.asyncio.Redis) -> None:
    await client.hset(keys.experiment("exp_a"), mapping={"success_criteria": '["x > 1"]', "state": "paused"})
    await client.rpush(keys.metrics_specs("exp_a"), "x")
    document = (await cli("check", "exp_a", "--json")).document
    assert len(document["criteria"]) == 1
    assert document["problems"] == [
        "the metrics_specs key is neither a hash nor a string",
        "the state paused is not known and counts as active",
    ]
    assert document["problems"] == (await cli("experiments", "exp_a", "--json")).document["problems"]


async def test_an_experiment_of_the_field_is_checked_as_it_stands_in_redis(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    text = yaml.safe_dump({"experiment": OBJECT})
    await client.hset(keys.experiment("exp_a"), mapping={"spec": text, "state": "running"})
    await client.hset(keys.metrics_specs("exp_a"), mapping={"metrics_yaml": "  " + text[text.index("metrics:") :][:60]})
    await client.hset(
        keys.aggregate("exp_a"), mapping={"email_sent_count": "100", "reply_count": "30", "events_total": "9"}
    )
    document = (await cli("check", "exp_a", "--json")).document
    assert document["state"] == "running"
    assert len(document["criteria"]) == 8
    assert document["criteria"][6]["value"] == 30
    assert len(document["problems"]) <= 1
