"""The template: a status that the criteria support, one sentence with the numbers, and no advice beyond the data."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from redis_agent import experiments
from redis_agent.analyst.facts import Spans
from redis_agent.analyst.gathering import Material, gather
from redis_agent.analyst.template import Analysis, analyse
from redis_agent.windows import WindowSums

NOW = datetime(2026, 2, 5, 12, tzinfo=UTC)
SPECS = [
    {"name": "bounce_rate", "formula": "bounces / emails_sent"},
    {"name": "reply_rate", "formula": "replies / emails_sent * 100"},
]
BOUNCES = "bounce_rate > 0.1"
REPLIES = "reply_rate > 5"
MEETINGS = "meetings >= 3"


def of(
    counts: dict[str, int],
    *,
    success: list[str] | None = None,
    failure: list[str] | None = None,
    alert: dict[str, Any] | None = None,
    state: str = "",
    spans: Spans | None = None,
) -> Analysis:
    definition = {
        "success_criteria": json.dumps(success or []),
        "failure_criteria": json.dumps(failure or []),
        "metrics": json.dumps(SPECS),
        "created_at": "2026-02-01T12:00:00Z",
        "state": state,
    }
    experiment = experiments.parse_experiment("exp", definition)
    fields = {f"{name}_count": str(count) for name, count in counts.items()}
    fields |= {"events_total": str(sum(counts.values()))} if counts else {}
    verdicts = experiments.judge(experiment, fields, now=NOW)
    return analyse(gather(Material("exp", experiment, fields, verdicts, spans=spans), now=NOW, alert=alert))


def told(criterion: str, metric: str, *, kind: str = "failure_threshold", **more: Any) -> dict[str, Any]:
    return {"type": kind, "criterion": criterion, "metric": metric, "message": "exp: it. is met.", **more}


FAILING = {"email_sent": 400, "bounce": 90}
FEW = {"email_sent": 30, "bounce": 5}
WELL = {"email_sent": 400, "bounce": 2, "reply": 60, "meeting": 4}


def test_confirmed_failure_is_failing_and_its_author_said_so() -> None:
    found = of(FAILING, success=[MEETINGS], failure=[BOUNCES], alert=told(BOUNCES, "bounce_rate"))
    assert found == Analysis(
        status="failing",
        key_metric="bounce_rate",
        insight="bounce_rate is 22.5 % (90 of 400), above the failure threshold of 10 %; its only success criterion is "
        "not met.",
        action="Pause it and find the cause behind bounce_rate, or decide that it goes on: its author's failure "
        "criterion is met.",
    )


def test_early_sign_is_at_risk_with_its_interval_and_is_waited_out() -> None:
    found = of(FEW, failure=[BOUNCES], alert=told(BOUNCES, "bounce_rate", evidence="early"))
    assert found.status == "at_risk"
    assert "16.7 % (5 of 30), above the failure threshold of 10 %, which is too few to be sure" in found.insight
    assert found.action.startswith("Wait for more data")


def test_success_that_leaves_others_open_is_on_track_and_needs_nothing() -> None:
    alert = told(MEETINGS, "meetings", kind="success_threshold")
    found = of({"email_sent": 400, "meeting": 4}, success=[MEETINGS, REPLIES], failure=[BOUNCES], alert=alert)
    assert (found.status, found.action) == ("on_track", "none")
    assert found.insight == "meetings is 4, at or above the success threshold of 3; 1 of 2 success criteria is met."


def test_all_success_criteria_met_and_no_failure_has_succeeded() -> None:
    assert of(WELL, success=[MEETINGS, REPLIES], failure=[BOUNCES]).status == "succeeded"
    assert of(WELL | {"bounce": 200}, success=[MEETINGS, REPLIES], failure=[BOUNCES]).status == "failing"


def test_rate_on_a_scale_of_hundred_is_told_in_percent() -> None:
    found = of(WELL, success=[REPLIES], alert=told(REPLIES, "reply_rate", kind="success_threshold"))
    assert found.insight.startswith("reply_rate is 15 % (60 of 400), above the success threshold of 5 %")


@pytest.mark.parametrize(
    ("recent", "before", "words"),
    [
        ((100, 30), (300, 30), "it rose from 10 % in the 24 hours before to 30 % in the last 24 hours"),
        ((100, 10), (300, 90), "it fell from 30 % in the 24 hours before to 10 % in the last 24 hours"),
        ((100, 22), (300, 68), "it held at 22 % in the last 24 hours"),
        ((19, 19), (300, 30), ""),
        ((100, 30), (10, 1), ""),
    ],
)
def test_trend_is_told_where_both_spans_have_enough(
    recent: tuple[int, int], before: tuple[int, int], words: str
) -> None:
    sums = [WindowSums(events=99, counts={"email_sent": sent, "bounce": bounced}) for sent, bounced in (recent, before)]
    found = of(FAILING, failure=[BOUNCES], spans=Spans(86_400, *sums))
    assert words in found.insight
    assert words or "hours" not in found.insight


def test_flag_is_told_by_its_reason() -> None:
    alert = told("account_restricted: true", "account_restricted")
    found = of({"account_restricted": 1}, failure=["account_restricted: true"], alert=alert)
    assert found.insight == "account_restricted is true."


def test_what_was_told_and_is_not_met_any_more_is_said() -> None:
    found = of({"email_sent": 400, "bounce": 8}, failure=[BOUNCES], alert=told(BOUNCES, "bounce_rate"))
    assert found.status == "at_risk"
    assert "the criterion was met when this was told" in found.insight
    assert "not met any more" in found.action


ANOMALY = {
    "type": "anomaly",
    "metric": "bounce",
    "anomaly": "high",
    "since": "2026-02-05T11:20:00.000Z",
    "message": "exp: bounce: 41 in the last 10 minutes, 2 to 6 expected, since 11:20 UTC; and 3 more.",
}


def test_anomaly_is_looked_into_and_decides_nothing() -> None:
    found = of(WELL, success=[MEETINGS, "replies > 100"], failure=[BOUNCES], alert=ANOMALY)
    assert (found.status, found.key_metric) == ("at_risk", "bounce")
    assert found.insight.startswith("bounce: 41 in the last 10 minutes, 2 to 6 expected, since 11:20 UTC; no criterion")
    assert found.action == "Find out what changed at 2026-02-05 11:20 UTC before anything is decided by bounce."


def test_silence_asks_whether_it_still_happens() -> None:
    found = of(WELL, success=[REPLIES], alert=ANOMALY | {"anomaly": "silence", "metric": "email_sent"})
    assert "Check whether email_sent still happens" in found.action


def test_more_of_what_is_wanted_is_no_risk() -> None:
    good = ANOMALY | {"metric": "meetings", "anomaly": "shift_up"}
    assert of(WELL, success=["meetings >= 30"], alert=good).status == "on_track"
    assert of(WELL, success=["meetings >= 30"], alert=good | {"anomaly": "low"}).status == "at_risk"
    assert of(WELL, success=["meetings >= 30"], failure=["meetings > 90"], alert=good).status == "at_risk"


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ({"success": ["met", "met"], "failure": ["not_met"]}, "succeeded"),
        ({"success": ["met", "not_met"], "failure": ["not_met"]}, "at_risk"),
        ({"success": ["not_met"], "failure": []}, "failing"),
        ({"success": ["met"], "failure": ["met"]}, "failing"),
        ({"success": [], "failure": ["unknown"]}, "on_track"),
    ],
)
def test_completion_is_judged_by_its_final_verdicts(states: dict[str, list[str]], status: str) -> None:
    verdicts = [{"kind": kind, "state": state} for kind, found in states.items() for state in found]
    alert = {"type": "experiment_completed", "verdicts": verdicts, "message": "exp: the experiment is completed."}
    found = of(FAILING, success=[MEETINGS], failure=[BOUNCES], alert=alert)
    assert found.status == status
    assert found.insight.startswith("the experiment is over; ")
    assert found.action.startswith("Review")


def test_missed_deadline_is_not_on_track() -> None:
    found = of({"email_sent": 50, "meeting": 1}, success=["meetings >= 3 within 2 days", REPLIES])
    assert (found.status, found.key_metric) == ("at_risk", "meetings")
    assert "below the success threshold of 3, and its deadline has passed" in found.insight
    assert of({"meeting": 1}, success=["meetings >= 3 within 2 days"]).status == "failing"


def test_nothing_to_go_by_recommends_nothing() -> None:
    found = of({})
    assert found == Analysis("on_track", "none", "no event has come yet.", "none")
    found = of({"email_sent": 5})
    assert found.insight == "5 events so far and no criterion that can be judged."


def test_alert_alone_is_enough() -> None:
    alert = told(BOUNCES, "bounce_rate", message="exp: bounce_rate 24 % is above the threshold of 10 %. It is met.")
    found = analyse(gather(Material("exp", None, {}), now=NOW, alert=alert))
    assert (found.status, found.insight) == ("failing", "bounce_rate 24 % is above the threshold of 10 %.")
