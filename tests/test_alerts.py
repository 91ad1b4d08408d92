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
        "reason": "response_rate is 0.15, above 0.1",
    }  # fmt: skip
    return Crossing(**(given | changes))


def threshold(why: Reason = Reason.ROSE, since: datetime | None = None, **changes: Any) -> Alert:
    found = crossing(**changes)
    return threshold_alert(found, experiment_id="exp", alert_id="id", now=NOW, why=why, since=since)


def error(**changes: Any) -> Alert:
    given: dict[str, Any] = {"message": "boom", "error_type": None, "run_id": None}
    return error_alert(experiment_id="exp", alert_id="id", now=NOW, **(given | changes))


def test_threshold_alert_has_every_field_of_the_contract() -> None:
    assert json.loads(threshold().dumps()) == threshold().as_json()
    found = threshold().as_json()
    recommendation = found.pop("recommendation")
    assert recommendation
    assert found.pop("message") == (
        "exp: response_rate 0.15 is above the success threshold of 0.1. The success criterion (response_rate > 0.10)"
        " is met."
    )
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


def rate(**changes: Any) -> Alert:
    given: dict[str, Any] = {
        "criterion": "Reply rate >= 8%", "metric": "reply_rate", "operator": ">=", "threshold": 0.08, "value": 0.112,
        "samples": 250, "interval": (0.081, 0.15), "evidence": "confirmed", "successes": 28, "confidence": 0.95,
        "reason": "reply_rate is 0.112 (28 of 250), at least 0.08; confirmed",
    }  # fmt: skip
    return threshold(**(given | changes))


CONFIRMED = (
    "reply_rate 11.2 % (28 of 250) is at or above the success threshold of 8 %; confirmed"
    " (95 % interval 8.1 to 15.0 %). The success criterion (Reply rate >= 8%) is met."
)
EARLY = (
    "reply_rate 0.01 % (28 of 280000) is below the failure threshold of 0.04 %; early, not yet confirmed"
    " (95 % interval 0.0010 to 0.0700 %). The failure criterion (few) looks met."
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, CONFIRMED),
        ({"value": 11.2, "threshold": 8.0, "interval": (8.1, 15.0), "scale": 100.0}, CONFIRMED),
        ({"kind": "failure", "operator": "<", "threshold": 0.0004, "value": 0.0001, "interval": (0.00001, 0.0007),
          "reason": "reply_rate is 0.0001 (28 of 280000), below 0.0004; early, not yet confirmed", "samples": 280_000,
          "evidence": "early", "criterion": "few"},
         EARLY),
        ({"reason": "a is 1, above 0 and b is 2, above 1"},
         "a is 1, above 0 and b is 2, above 1. The success criterion (Reply rate >= 8%) is met."),
        ({"reason": "reply_rate is 0.112 (28 of 250), at least base, 0.08", "successes": None},
         "reply_rate is 0.112 (28 of 250), at least base, 0.08. The success criterion (Reply rate >= 8%) is met."),
        ({"operator": "==", "metric": "account_restricted", "reason": "account_restricted is true"},
         "account_restricted is true. The success criterion (Reply rate >= 8%) is met."),
        ({"metric": "replies", "value": 12.0, "threshold": 12.0, "reason": "replies is 12, at least 12",
          "successes": None, "interval": None},
         "replies 12 is at or above the success threshold of 12. The success criterion (Reply rate >= 8%) is met."),
    ],
)  # fmt: skip
def test_message_says_what_is_what_was_expected_from_how_many_and_how_sure(
    changes: dict[str, Any], message: str
) -> None:
    assert rate(**changes).message == f"exp: {message}"


def test_alert_that_is_not_the_first_says_so() -> None:
    since = datetime(2026, 2, 1, 9, 30, tzinfo=UTC)
    assert "since 2026-02-01 09:30 UTC" in threshold(why=Reason.LASTS, since=since).message
    found = threshold(why=Reason.LASTS, since=since).as_json()
    assert (found["since"], found["repeated"]) == ("2026-02-01T09:30:00.000Z", True)
    found = threshold(why=Reason.FLAPS, since=since).as_json()
    assert found["flapping"] is True
    assert "coming and going" in found["message"]
    assert "came and went before" in threshold(why=Reason.SETTLED, since=since).message


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
