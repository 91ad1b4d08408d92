"""Thresholds of metrics are criteria, on the side that their author means."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from redis_agent.criteria.thresholds import threshold_criteria
from redis_agent.experiments import Experiment, Verdict, judge, parse_experiment, without_repeats

NOW = datetime(2026, 2, 3, tzinfo=UTC)


def read(metric: dict[str, Any], **fields: str) -> Experiment:
    return parse_experiment("e", fields, json.dumps([metric]))


@pytest.mark.parametrize(
    ("metric", "criteria"),
    [
        ({"name": "response_rate", "type": "percentage", "success_threshold": 0.08}, ["response_rate >= 0.08"]),
        ({"name": "emails_sent", "type": "counter", "success_threshold": 180}, ["emails_sent >= 180"]),
        ({"name": "time_to_first_reply", "type": "duration", "success_threshold": 72}, ["time_to_first_reply <= 72"]),
        ({"name": "session_length", "type": "duration", "success_threshold": 72}, ["session_length >= 72"]),
        ({"name": "bounce_rate", "type": "percentage", "failure_threshold": 5.0}, ["bounce_rate >= 5"]),
        ({"name": "unsubscribe_rate", "failure_threshold": 10}, ["unsubscribe_rate >= 10"]),
        ({"name": "bounce_rate", "success_threshold": 2}, ["bounce_rate <= 2"]),
        ({"name": "cost_per_lead", "success_threshold": 30}, ["cost_per_lead <= 30"]),
        ({"name": "reply_rate", "failure_threshold": 2}, ["reply_rate <= 2"]),
        ({"name": "costumes_sold", "failure_threshold": 2}, ["costumes_sold <= 2"]),
        ({"name": "flags", "type": "counter", "failure_threshold": 3}, ["flags >= 3"]),
        ({"name": "spam_complaints", "type": "counter", "failure_threshold": 0}, ["spam_complaints > 0"]),
        ({"name": "x", "success_threshold": 8, "failure_threshold": 2}, ["x >= 8", "x <= 2"]),
        ({"name": "x", "success_threshold": 2, "failure_threshold": 8}, ["x <= 2", "x >= 8"]),
        ({"name": "errors_found", "failure_threshold": 2, "target": 10}, ["errors_found <= 2"]),
        ({"name": "x", "success_threshold": 5, "target": 2}, ["x <= 5"]),
        ({"name": "x", "success_threshold": "< 5%"}, ["x <= 5%"]),
        ({"name": "x", "failure_threshold": "< 5%"}, ["x <= 5%"]),
        ({"name": "x", "failure_threshold": 5, "direction": "lower_is_better"}, ["x >= 5"]),
        # A ratio of counts that is to reach 8: the author thinks in percent.
        (
            {"name": "r", "type": "percentage", "formula": "replies / sent", "success_threshold": 8},
            ["r >= 8%"],
        ),
        ({"name": "my metric", "success_threshold": 1}, ["`my metric` >= 1"]),
        ({"name": "x", "target": 4}, []),
    ],
)
def test_the_side_is_the_one_that_is_meant(metric: dict[str, Any], criteria: list[str]) -> None:
    (spec,) = read(metric).metrics
    assert [entry.criterion.text for entry in threshold_criteria(spec)] == criteria


def test_thresholds_come_behind_the_listed_criteria_in_the_order_of_the_metrics() -> None:
    metrics = [{"name": "b", "success_threshold": 2, "failure_threshold": 1}, {"name": "a", "success_threshold": 3}]
    experiment = parse_experiment(
        "e", {"success_criteria": '["x > 1"]', "failure_criteria": '["y > 1"]'}, json.dumps(metrics)
    )
    assert [(entry.kind, entry.text, entry.listed) for entry in experiment.criteria] == [
        ("success", "x > 1", True),
        ("failure", "y > 1", True),
        ("success", "b >= 2 (success_threshold)", False),
        ("failure", "b <= 1 (failure_threshold)", False),
        ("success", "a >= 3 (success_threshold)", False),
    ]
    assert len({entry.fingerprint for entry in experiment.criteria}) == 5


def test_a_counter_is_too_small_only_when_the_experiment_is_over() -> None:
    metric = {"name": "replies", "type": "counter", "success_threshold": 10, "failure_threshold": 2}
    running, over = read(metric), read(metric, state="completed")
    fields = {"reply_count": "1", "events_total": "1"}
    waiting = judge(running, fields, now=NOW)[1]
    assert (waiting.state, waiting.as_json()["evidence"]) == ("not_met", None)
    assert waiting.reason.endswith("counts only when the experiment is over")
    assert judge(running, fields, now=NOW, final=True)[1].state == "met"
    assert judge(over, fields, now=NOW)[1].state == "met"
    assert judge(over, {}, now=NOW)[1].state == "unknown"


def test_a_threshold_that_a_listed_criterion_repeats_is_told_once() -> None:
    def told(criterion: str, replies: int) -> list[str]:
        metric = {"name": "reply_rate", "calculation": "replies / sent * 100", "success_threshold": 8}
        experiment = read(metric, success_criteria=json.dumps([criterion]))
        fields = {"reply_count": str(replies), "sent_count": "500"}
        verdicts: list[Verdict] = judge(experiment, fields, now=NOW)
        return [verdict.text for verdict in without_repeats(verdicts) if verdict.state == "met"]

    threshold = "reply_rate >= 8 (success_threshold)"
    assert told("reply_rate > 8%", 90) == ["reply_rate > 8%"]
    assert told("reply_rate >= 8", 90) == ["reply_rate >= 8"]
    assert told("reply_rate >= 8 after 100 sends", 90) == ["reply_rate >= 8 after 100 sends"]
    assert told("reply_rate > 20%", 90) == [threshold]
    assert told("reply_rate >= 8 after 1000 sends", 90) == [threshold]
    assert told("reply_rate >= 5", 90) == ["reply_rate >= 5", threshold]


def test_a_declared_counter_without_an_event_of_its_own_is_zero_once_there_are_events() -> None:
    experiment = read({"name": "complaints", "type": "counter", "failure_threshold": 3})
    before = judge(experiment, {}, now=NOW)[0]
    assert (before.state, before.as_json()["value"]) == ("unknown", None)
    after = judge(experiment, {"email_sent_count": "1", "events_total": "1"}, now=NOW)[0]
    assert (after.state, after.as_json()["value"]) == ("not_met", 0)
    assert judge(experiment, {"email_sent_count": "0", "events_total": "0"}, now=NOW)[0].state == "unknown"
