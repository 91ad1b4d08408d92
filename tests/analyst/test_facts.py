"""Facts: the important ones first, within a size, the same for the same state, and others' texts are made harmless."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from redis_agent import experiments
from redis_agent.analyst.facts import Facts, Spans, clean, duration
from redis_agent.analyst.gathering import MAX_BYTES, Material, comparison_seconds, comparison_windows, gather
from redis_agent.lifecycle import CriterionState, Level
from redis_agent.windows import WindowSums

NOW = datetime(2026, 2, 5, 12, tzinfo=UTC)
SPECS = [
    {"name": "bounce_rate", "formula": "bounces / emails_sent", "failure_threshold": 0.1},
    {"name": "reply_rate", "formula": "replies / emails_sent"},
    {"name": "link_clicks", "type": "counter"},
]
DEFINITION = {
    "hypothesis": "Short messages are answered",
    "created_at": "2026-02-01T12:00:00Z",
    "success_criteria": json.dumps(["reply_rate > 0.05", "meetings >= 3"]),
    "failure_criteria": json.dumps(["bounce_rate >= 0.1", "spam_complaints > 2", "nobody likes it"]),
    "metrics": json.dumps(SPECS),
}
FIELDS = {
    "events_total": "700",
    "email_sent_count": "400",
    "bounce_count": "90",
    "reply_count": "30",
    "meeting_count": "1",
    "mood_latest": "0.5",
    "first_event_at": "2026-02-02T00:00:00.000Z",
}
ALERT = {"type": "failure_threshold", "alert_id": "a1", "criterion": "bounce_rate >= 0.1", "metric": "bounce_rate"}


def material(definition: dict[str, str] | None = None, fields: dict[str, str] | None = None, **more: Any) -> Material:
    experiment = experiments.parse_experiment("exp", DEFINITION if definition is None else definition)
    fields = FIELDS if fields is None else fields
    return Material("exp", experiment, fields, experiments.judge(experiment, fields, now=NOW), **more)


def sums(**counts: int) -> WindowSums:
    return WindowSums(events=sum(counts.values()), counts=counts)


def size(facts: Facts) -> int:
    return len(json.dumps(facts.as_json()).encode())


def test_what_is_met_comes_first_with_its_counts_then_what_is_open() -> None:
    facts = gather(material(), now=NOW)
    assert [(one.kind, one.standing, one.metric) for one in facts.criteria] == [
        ("failure", "met", "bounce_rate"),
        ("success", "early", "reply_rate"),
        ("success", "not_met", "meetings"),
        ("failure", "unknown", "spam_complaints"),
        ("failure", "unsupported", None),
    ]
    first = facts.criteria[0].as_json()
    assert (first["percent"], first["successes"], first["samples"]) == (22.5, 90, 400)
    assert facts.tally == {
        "success": {"early": 1, "not_met": 1},
        "failure": {"met": 1, "unknown": 1, "unsupported": 1},
    }, "a threshold that says what a listed criterion says is not counted again"


def test_metrics_of_criteria_come_before_the_largest_counts_and_what_nobody_counted_is_left_out() -> None:
    names = [metric.name for metric in gather(material(), now=NOW).metrics]
    assert names == ["bounce_rate", "reply_rate", "meetings", "email_sent", "bounce", "reply", "mood"]


def test_metric_of_the_alert_comes_first_and_the_alert_is_not_among_those_before_it() -> None:
    history = [{"alert_id": "a1", "type": "anomaly"}, {"alert_id": "a0", "type": "error", "message": "boom"}]
    facts = gather(material(history=history), now=NOW, alert=ALERT | {"metric": "mood", "criterion": "meetings >= 3"})
    assert (facts.metrics[0].name, facts.criteria[0].text) == ("mood", "meetings >= 3")
    assert [past.message for past in facts.alerts] == ["boom"]


def test_metrics_are_compared_with_the_span_before() -> None:
    spans = Spans(86_400, sums(email_sent=100, bounce=30, reply=8), sums(email_sent=300, bounce=60, reply=22))
    facts = gather(material(spans=spans), now=NOW)
    bounces = facts.metric("bounce_rate")
    assert bounces is not None
    assert (bounces.recent, bounces.before, bounces.recent_samples, bounces.before_samples) == (0.3, 0.2, 100, 300)
    assert bounces.as_json()["recent_percent"] == 30
    sent = facts.metric("email_sent")
    assert sent is not None
    assert (sent.recent, sent.before) == (100, 300)
    assert (facts.recent, facts.before) == ("the last 24 hours", "the 24 hours before")


def test_spans_without_events_say_nothing() -> None:
    facts = gather(material(spans=Spans(3_600, sums(), sums(email_sent=3))), now=NOW)
    assert (facts.recent, facts.metrics[0].recent) == ("", None)


def test_young_experiment_is_compared_by_the_hour_and_windows_do_not_overlap() -> None:
    assert comparison_seconds(material(), NOW) == 86_400
    assert comparison_seconds(material(DEFINITION | {"created_at": "2026-02-05T09:00:00Z"}), NOW) == 3_600
    for seconds in (3_600, 86_400):
        recent, before = comparison_windows(seconds, int(NOW.timestamp()))
        starts = [window.start_s for window in (*recent, *before)]
        assert len(set(starts)) == len(starts) == 2 * seconds // recent[0].seconds
        assert max(starts) == NOW.timestamp()
        assert min(window.start_s for window in recent) > max(window.start_s for window in before)


def test_since_when_a_criterion_is_met_is_said() -> None:
    known = material()
    fingerprint = next(verdict.fingerprint for verdict in known.verdicts if verdict.text == "bounce_rate >= 0.1")
    state = CriterionState(level=Level.CONFIRMED, since_ms=int(NOW.timestamp() * 1000) - 3_600_000)
    facts = gather(replace(known, states={fingerprint: state}), now=NOW)
    assert facts.criteria[0].since == "2026-02-05 11:00 UTC"


def test_deadline_that_has_passed_is_told_from_a_goal_that_is_open() -> None:
    definition = DEFINITION | {"success_criteria": json.dumps(["meetings >= 3 within 2 days", "meetings >= 5"])}
    facts = gather(material(definition), now=NOW)
    assert facts.tally is not None
    assert facts.tally["success"] == {"missed": 1, "not_met": 1}


@pytest.mark.parametrize("max_bytes", [1_500, 3_000, MAX_BYTES])
def test_facts_keep_to_their_size_whatever_the_experiment_holds(max_bytes: int) -> None:
    wide = "\U0001f680\u4e2d" * 2_000
    criteria = [f"{wide[:50]} metric_{n} > {n}" for n in range(100)] + [f"m{n} > 0.5" for n in range(100)]
    definition = {
        "hypothesis": wide,
        "created_at": "2026-02-01",
        "success_criteria": json.dumps(criteria),
        "metrics": json.dumps([{"name": f"m{n}", "formula": f"a{n} / b{n}"} for n in range(200)]),
    }
    fields = {f"{'n' * 90}{n}_count": str(10**12 + n) for n in range(1_000)} | {"events_total": "9" * 18}
    history = [{"type": "error", "message": wide, "timestamp": wide, "severity": wide} for _ in range(50)]
    alert = dict.fromkeys(("type", "severity", "message", "metric", "criterion", "since", "operator"), wide)
    alert |= {"verdicts": [{"kind": wide, "state": wide}] * 500, "interval": [1.0] * 900}  # type: ignore[dict-item]
    facts = gather(material(definition, fields, history=history), now=NOW, alert=alert, max_bytes=max_bytes)
    bare = len(json.dumps(Facts("exp", alert=facts.alert, hypothesis=facts.hypothesis, tally=facts.tally).as_json()))
    assert size(facts) <= max(max_bytes, bare + 100)
    assert facts.left_out
    assert (facts.left_out["alerts"], size(facts) <= MAX_BYTES) == (50 - len(facts.alerts), True)


def test_same_state_makes_the_same_facts_whatever_the_order_in_redis() -> None:
    forwards = gather(material(), now=NOW, alert=ALERT)
    backwards = gather(material(fields=dict(reversed(FIELDS.items()))), now=NOW + timedelta(minutes=5), alert=ALERT)
    assert json.dumps(forwards.as_json()) == json.dumps(backwards.as_json())


def test_experiment_without_definition_or_events_has_facts_too() -> None:
    facts = gather(Material("exp", None, {}), now=NOW)
    assert facts.as_json()["experiment"] == {
        "id": "exp",
        "hypothesis": "",
        "state": "active",
        "age": "unknown",
        "events": 0,
    }
    assert [m.name for m in gather(Material("exp", None, FIELDS), now=NOW).metrics][:2] == ["email_sent", "bounce"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("could not reach redis://:s3cret@host:6379/0", "could not reach redis://***@host:6379/0"),
        ("key AIzaSyA1234567890abcdefghijklmnopqrstuvw was refused", "key *** was refused"),
        ("one\ntwo\u2028three\x00\x1b[31m", "one two three[31m"),
        ("x" * 500, "x" * 99 + "…"),
    ],
)
def test_texts_of_others_are_one_short_line_without_secrets(text: str, expected: str) -> None:
    assert clean(text, 100) == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(30, "less than a minute"), (60, "1 minute"), (7_199, "119 minutes"), (7_200, "2 hours"), (86_400 * 9, "9 days")],
)
def test_ages_are_told_to_their_largest_unit(seconds: int, words: str) -> None:
    assert duration(seconds) == words
