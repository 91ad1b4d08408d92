"""Alerts say what the contract names, make sense alone, and are told apart by what they are about."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from redis_agent.alerts import (
    MAX_TEXT,
    Alert,
    Crossing,
    FinalVerdict,
    completed_alert,
    error_alert,
    error_fingerprint,
    short_hash,
    summary_alert,
    threshold_alert,
)
from redis_agent.lifecycle import Reason

NOW = datetime(2026, 2, 1, 10, 0, 0, 123_000, tzinfo=UTC)


def crossing(**changes: Any) -> Crossing:
    given: dict[str, Any] = {
        "kind": "success", "criterion": "response_rate > 0.10", "fingerprint": "abc", "metric": "response_rate",
        "operator": ">", "threshold": 0.1, "value": 0.15, "samples": None, "interval": None, "evidence": "fact",
        "reason": "response_rate is 0.15.",
    }  # fmt: skip
    return Crossing(**(given | changes))


def threshold(reason: Reason = Reason.ROSE, since: datetime | None = None, **changes: Any) -> Alert:
    found = crossing(**changes)
    return threshold_alert(found, experiment_id="exp", alert_id="id", now=NOW, why=reason, since=since)


def error(**changes: Any) -> Alert:
    given: dict[str, Any] = {"message": "boom", "error_type": None, "run_id": None}
    return error_alert(experiment_id="exp", alert_id="id", now=NOW, **(given | changes))


def test_threshold_alert_has_every_field_of_the_contract() -> None:
    assert json.loads(threshold().dumps()) == threshold().as_json()
    found = threshold().as_json()
    recommendation = found.pop("recommendation")
    assert recommendation
    assert "response_rate is 0.15" in found.pop("message")
    assert found == {
        "type": "success_threshold", "alert_type": "success_threshold", "experiment_id": "exp", "severity": "info",
        "priority": "low", "timestamp": "2026-02-01T10:00:00.123Z", "source": "redis_agent", "alert_id": "id",
        "criterion": "response_rate > 0.10", "current_value": 0.15, "metric": "response_rate", "value": 0.15,
        "threshold": 0.1, "operator": ">", "evidence": "fact",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "evidence", "severity", "priority"),
    [
        ("success", "fact", "info", "low"),
        ("success", "confirmed", "info", "low"),
        ("success", "early", "info", "low"),
        ("failure", "fact", "high", "high"),
        ("failure", "confirmed", "high", "high"),
        ("failure", "early", "medium", "medium"),
    ],
)
def test_early_crossing_is_one_severity_lower(kind: str, evidence: str, severity: str, priority: str) -> None:
    found = threshold(kind=kind, evidence=evidence).as_json()
    assert (found["type"], found["severity"], found["priority"]) == (f"{kind}_threshold", severity, priority)


def test_early_crossing_is_worded_as_one_and_does_not_hold_back_its_confirmation() -> None:
    early, confirmed = threshold(evidence="early"), threshold(evidence="confirmed")
    assert "looks met" in early.message
    assert "is met" in confirmed.message
    assert early.fingerprint != confirmed.fingerprint
    assert early.details["recommendation"] != confirmed.details["recommendation"]


def test_alert_that_is_not_the_first_says_so() -> None:
    since = datetime(2026, 2, 1, 9, 30, tzinfo=UTC)
    assert "since 2026-02-01 09:30 UTC" in threshold(reason=Reason.LASTS, since=since).message
    found = threshold(reason=Reason.LASTS, since=since).as_json()
    assert (found["since"], found["repeated"]) == ("2026-02-01T09:30:00.000Z", True)
    found = threshold(reason=Reason.FLAPS, since=since).as_json()
    assert found["flapping"] is True
    assert "coming and going" in found["message"]
    assert "came and went before" in threshold(reason=Reason.SETTLED, since=since).message


def test_what_is_not_known_is_left_out() -> None:
    found = threshold(metric=None, operator=None, threshold=None, value=None).as_json()
    assert not {"metric", "operator", "threshold", "value", "current_value", "samples", "interval"} & found.keys()
    assert threshold(samples=40, interval=(0.1, 0.2)).as_json()["interval"] == [0.1, 0.2]


def test_zero_is_a_value() -> None:
    found = threshold(value=0, threshold=0.0, samples=0).as_json()
    assert (found["value"], found["current_value"], found["threshold"], found["samples"]) == (0, 0, 0, 0)


def test_error_alert_says_what_was_said_and_names_the_run() -> None:
    found = error(error_type="Timeout", run_id="exp:1").as_json()
    assert (found["type"], found["severity"], found["priority"]) == ("error", "high", "high")
    assert (found["run_id"], found["error_type"]) == ("exp:1", "Timeout")
    assert all(word in found["message"] for word in ("exp", "Timeout", "boom"))
    assert "no message" in error(message=None).message


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "a\nb\x00\x1b[31mc", "\ud800 half", "é" * 5000, "  a \t b  ", "\u202eevil", "🎉" * 1000]
)
def test_texts_from_events_are_cut_to_one_printable_line(text: str) -> None:
    alert = error(message=text, error_type=text, run_id=text)
    encoded = alert.dumps().encode()
    assert len(encoded) < 4 * (MAX_TEXT + 100 + 100 + 200) + 1000
    assert alert.message.isprintable()
    assert json.loads(encoded)["run_id"].isprintable()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((None, "timeout after 30 s"), (None, "timeout after 31 s"), True),
        ((None, "no file 'a.txt'"), (None, "no file 'b.txt'"), True),
        ((None, "run 5f3a9c11d2 failed"), (None, "run 77ab01ff09 failed"), True),
        ((None, "timeout"), (None, "refused"), False),
        (("T", "one"), ("T", "another"), True),
        (("T", "one"), ("U", "one"), False),
        ((None, None), (None, ""), True),
    ],
)
def test_errors_alike_share_a_cooldown(first: Any, second: Any, same: bool) -> None:
    assert (error_fingerprint(*first) == error_fingerprint(*second)) is same


def test_fingerprint_of_any_text_fits_into_a_key() -> None:
    for text in ("", "a", "x" * 10**6, "\ud800", "🎉:*?[]"):
        assert len(short_hash(text)) == 12
        assert short_hash(text).isalnum()


def test_summary_stands_for_all_experiments_and_its_message_is_its_first_line() -> None:
    found = summary_alert(alert_id="id", now=NOW, summary="Headline.\nWins\n- a", experiments=3).as_json()
    assert (found["type"], found["severity"], found["experiment_id"]) == ("periodic_summary", "info", "all")
    assert (found["message"], found["summary"], found["experiment_count"]) == ("Headline.", "Headline.\nWins\n- a", 3)


def test_completion_tells_the_final_verdict_for_each_criterion() -> None:
    verdicts = [
        FinalVerdict("success", "replies >= 3", "met", 4.0, "replies is 4, at least 3"),
        FinalVerdict("success", "delight", "unsupported", None, "no metric is named"),
        FinalVerdict("failure", "bounce_rate > 0.05", "unknown", None, "no event"),
    ]
    found = completed_alert(verdicts, experiment_id="exp", alert_id="id", now=NOW, run_id="exp:1").as_json()
    assert (found["type"], found["severity"], found["run_id"]) == ("experiment_completed", "info", "exp:1")
    assert found["message"] == (
        "exp: the experiment is completed. 1 of 2 success criteria met (1 unsupported); 0 of 1 failure criteria met"
        " (1 unknown). Success (replies >= 3): replies is 4, at least 3."
    )
    assert found["verdicts"][0] == {
        "kind": "success", "criterion": "replies >= 3", "state": "met", "value": 4.0,
        "reason": "replies is 4, at least 3",
    }  # fmt: skip


def test_completion_of_an_experiment_with_many_long_criteria_stays_small() -> None:
    verdicts = [FinalVerdict("failure", "x" * 5000, "met", 1.0, "y" * 5000)] * 200
    alert = completed_alert(verdicts, experiment_id="exp", alert_id="id", now=NOW, run_id=None)
    assert len(alert.dumps()) < 40_000
    assert (len(alert.details["verdicts"]), alert.details["verdicts_left_out"]) == (50, 150)
    assert "no criteria" in completed_alert([], experiment_id="e", alert_id="id", now=NOW, run_id=None).message
