"""A criterion is met, not met or unknown, and says why and how surely."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_agent.criteria import Evaluation, Metrics, MetricSpec, evaluate, parse, parse_formula

START = datetime(2026, 2, 1, 10, tzinfo=UTC)
SPECS = (
    MetricSpec("reply_rate", "percentage", parse_formula("replies / emails_sent")),
    MetricSpec("reply_percent", "percentage", parse_formula("(replies / emails_sent) * 100")),
)


def judged(text: str, days: float = 1.0, **options: Any) -> Evaluation:
    fields = {
        "restricted_latest": "1",
        "happy_latest": "0",
        "gauge_latest": "0.15",
        "open_rate": "0.3",
        "reply_count": "28",
        "email_sent_count": "250",
        "few_count": "3",
        "trial_count": "12",
        "events_total": "300",
        "broken_latest": "nan",
        **options.pop("fields", {}),
    }
    started_at = options.pop("started_at", START)
    return evaluate(
        parse(text),
        Metrics.from_hash(fields, SPECS),
        now=START + timedelta(days=days),
        started_at=started_at,
        **options,
    )


def mature(emails: int) -> Metrics:
    """The counts of emails that are old enough; of the replies to them, fewer than there are."""
    fields = {"reply_count": "1", "email_sent_count": str(emails), "events_total": "300", "gauge_latest": "0.15"}
    return Metrics.from_hash(fields, SPECS)


@pytest.mark.parametrize(
    ("text", "old", "state", "samples"),
    [
        ("reply_rate < 0.5", 250, "met", 250),
        ("reply_rate < 0.5", 100, "met", 100),
        ("reply_rate < 0.2", 100, "not_met", 100),  # 28 replies of the 100 that had their time, not of 250
        ("reply_rate <= 28%", 100, "met", 100),
        ("reply_percent < 20", 100, "not_met", 100),
        ("replies / emails_sent < 0.2", 100, "not_met", 100),
        ("reply_rate < 0.5", 10, "not_met", 10),  # more replies than old emails: all of these had one
        ("reply_rate < 0.5", 0, "unknown", None),
        ("reply_rate < 0.5 after 100 sends", 0, "unknown", None),
        ("reply_rate < 0.5 or replies < 30", 0, "met", None),
        ("not reply_rate >= 0.2", 100, "not_met", 100),
        ("reply_rate < 0.5 within 1 hours", 0, "met", 250),  # the deadline is over
        ("reply_rate > 0.1", 0, "met", 250),  # only what is asked to be low waits
        ("gauge < 0.2", 0, "met", None),
        ("replies < 30", 0, "met", None),
    ],
)
def test_trials_too_young_to_succeed_do_not_speak_for_a_low_rate(
    text: str, old: int, state: str, samples: int | None
) -> None:
    found = judged(text, mature=mature(old))
    assert (found.state, found.samples) == (state, samples), found.reason
    assert judged(text, mature=mature(old), final=True) == judged(text, final=True)


def test_a_rate_without_its_young_trials_says_how_many_it_leaves_out() -> None:
    found = judged("reply_rate < 0.5", mature=mature(100))
    assert found.value == 0.28
    assert "(28 of 100)" in found.reason
    assert "150 trials too young to count" in found.reason
    assert "none of the 250 trials" in judged("reply_rate < 0.5", mature=mature(0)).reason


@pytest.mark.parametrize(
    ("text", "state", "evidence"),
    [
        ("gauge > 0.1", "met", "fact"),
        ("gauge > 0.15", "not_met", None),
        ("gauge >= 0.15", "met", "fact"),
        ("gauge > 10%", "met", "fact"),
        ("gauge == 15%", "met", "fact"),
        ("gauge != 0.15", "not_met", None),
        ("0.1 < gauge <= 0.15", "met", "fact"),
        ("0.15 < gauge < 0.2", "not_met", None),
        ("replies >= 28", "met", "fact"),
        ("0 < replies", "met", "fact"),
        ("replies * 2 > emails_sent", "not_met", None),
        ("emails_sent - replies == 222", "met", "fact"),
        ("restricted: true", "met", "fact"),
        ("restricted", "met", "fact"),
        ("restricted: false", "not_met", None),
        ("happy: false", "met", "fact"),
        ("not happy", "met", "fact"),
        ("not restricted or not happy", "met", "fact"),
        ("missing > 1", "unknown", None),
        ("not missing > 1", "unknown", None),
        ("broken > 1", "unknown", None),
        ("missing: true", "unknown", None),
        ("missing > 1 and happy", "not_met", None),
        ("missing > 1 and restricted", "unknown", None),
        ("missing > 1 or restricted", "met", "fact"),
        ("missing > 1 or happy", "unknown", None),
        ("not (missing > 1 and restricted)", "unknown", None),
        ("not (0.15 < gauge < 0.2)", "met", "fact"),
        ("reply_rate > 0.05", "met", "confirmed"),
        ("reply_rate > 5%", "met", "confirmed"),
        ("reply_rate > 0.1", "met", "early"),
        ("reply_rate > 0.2", "not_met", None),
        ("reply_percent > 5", "met", "confirmed"),
        ("reply_percent > 5%", "met", "confirmed"),
        ("not reply_percent <= 5%", "met", "confirmed"),
        ("0.05 < reply_rate < 0.3", "met", "confirmed"),
        ("0.1 < reply_rate < 0.3", "met", "early"),
        ("reply_rate > 0.05 and gauge > 0.1", "met", "confirmed"),
        ("reply_rate > 0.1 or gauge > 0.1", "met", "fact"),
        ("reply_rate == 0.112", "met", "early"),
        ("reply_rate - 0.01 > 0.01", "met", "early"),
        ("reply_rate > gauge", "not_met", None),
        ("reply_rate < gauge", "met", "early"),
        ("few / trials > 0.1", "not_met", None),
        ("not few / trials > 0.1", "not_met", None),
        ("few / trials > 0.1 after 10 trials", "met", "fact"),
        ("few / nothing > 0.1", "unknown", None),
    ],
)
def test_a_criterion_is_judged(text: str, state: str, evidence: str | None) -> None:
    result = judged(text)
    assert (result.state, result.evidence) == (state, evidence), result.reason
    assert result.reason


def test_a_rate_on_too_little_data_says_so() -> None:
    result = judged("few / trials > 0.1")
    assert "met literally on 3 of 12, fewer than 20 samples" in result.reason
    assert (result.samples, result.value) == (12, 0.25)
    assert judged("few / trials > 0.1", min_samples=12).evidence == "early"


def test_numbers_are_on_the_metrics_own_scale() -> None:
    result = judged("reply_percent >= 8%")
    assert (result.metric, result.operator, result.threshold) == ("reply_percent", ">=", 8.0)
    assert result.value == pytest.approx(11.2)
    assert result.samples == 250
    low, high = result.interval or (0.0, 0.0)
    assert 5 < low < 11.2 < high < 20
    assert result.reason.startswith("reply_percent is 11.2 (28 of 250), at least 8")


def test_equal_up_to_floating_point_is_equal() -> None:
    fields = {"reply_count": "7", "email_sent_count": "100"}
    assert judged("reply_percent > 7", fields=fields).state == "not_met"
    assert judged("reply_percent >= 7%", fields=fields).state == "met"
    assert judged("gauge * 3 > 0.3", fields={"gauge_latest": "0.1"}).state == "not_met"


def test_before_its_count_a_criterion_waits_and_then_is_literal() -> None:
    waiting = judged("reply_rate < 0.2 after 300 sends")
    assert (waiting.state, waiting.reason) == ("not_met", "waits for 300 sends: 250 so far")
    assert (waiting.metric, waiting.threshold, waiting.value) == ("emails_sent", 300.0, 250.0)
    reached = judged("reply_rate < 0.112001 after 250 sends")
    assert (reached.state, reached.evidence) == ("met", "fact")
    assert "taken literally" in reached.reason
    assert judged("reply_rate > 0.05 after 5 parcels").state == "unknown"


def test_before_its_time_a_criterion_waits() -> None:
    waiting = judged("replies > 3 after 7 days")
    assert (waiting.state, waiting.reason) == ("not_met", "waits until 2026-02-08 10:00 UTC")
    assert judged("replies > 3 after 7 days", days=7).state == "met"
    unknown = judged("replies > 3 after 7 days", started_at=None)
    assert (unknown.state, "started" in unknown.reason) == ("unknown", True)


def test_waiting_is_never_turned_into_met_by_not() -> None:
    assert judged("not (replies > 3 after 7 days)").state == "not_met"
    assert judged("not (reply_rate > 0.5 after 300 sends)").state == "not_met"
    assert judged("not (replies > 300 after 7 days)", days=8).state == "met"


def test_after_a_time_a_rate_still_needs_evidence() -> None:
    assert judged("reply_rate > 0.1 after 7 days", days=8).evidence == "early"
    assert judged("few / trials > 0.1 after 7 days", days=8).state == "not_met"


def test_past_its_deadline_a_criterion_is_literal() -> None:
    assert judged("reply_rate > 0.1 within 2 days").evidence == "early"
    passed = judged("reply_rate > 0.1 within 2 days", days=3)
    assert (passed.state, passed.evidence) == ("met", "fact")
    assert "the deadline 2026-02-03 10:00 UTC has passed" in passed.reason
    assert "deadline" in judged("replies > 30 within 2 days", days=3).reason
    assert judged("replies > 3 within 2 days", started_at=None).state == "unknown"


def test_final_values_are_literal() -> None:
    result = judged("few / trials > 0.1", final=True)
    assert (result.state, result.evidence) == ("met", "fact")
    assert judged("reply_rate > 0.05 after 300 sends", final=True).state == "not_met"


def test_alternatives_share_the_level() -> None:
    one = judged("reply_rate > 0.06")
    many = judged(" or ".join(["reply_rate > 0.06", *["few > 100"] * 60]))
    assert (one.evidence, many.evidence) == ("confirmed", "early")


def test_of_a_compound_the_deciding_comparison_is_shown() -> None:
    assert judged("gauge > 0.1 and replies > 100").metric == "replies"
    assert judged("gauge > 0.1 and missing > 3").metric == "missing"
    assert judged("gauge > 0.1 and reply_rate > 0.1").metric == "reply_rate"
    assert judged("reply_rate > 0.1 or gauge > 0.1").metric == "gauge"


def test_times_without_a_zone_are_utc() -> None:
    result = evaluate(
        parse("x > 1 after 1 day"),
        Metrics.from_hash({"x_count": "2"}),
        now=datetime(2026, 2, 2, 10, 0, 1),  # noqa: DTZ001
        started_at=START,
    )
    assert result.state == "met"


@pytest.mark.parametrize("text", ["gauge > 0.1", "gauge >= 16%", "email_sent != 250", "replies > 100", "few <= 3"])
def test_a_comparison_judged_alone_comes_to_the_same_as_inside_others(text: str) -> None:
    alone, both = judged(text), judged(f"{text} and {text}")
    if alone.state == "met":
        assert both.reason == f"{alone.reason} and {alone.reason}"
    else:
        assert both.reason == alone.reason
    assert both._replace(said=None) == alone


texts = st.sampled_from(
    [
        "a > 1",
        "not a / b * 100 >= 8% after 10 sends",
        "rate > 10% or nested < 3 within 2 days",
        "1e300 * a * b > c - rate after 3 days",
        "a: true and not b",
        "-1e-300 < a / c / c / c < 5%",
        "a * 1e-300 * 1e-300 / b > 5",
    ]
)
values = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(repr),
    st.text(max_size=8),
    st.none(),
    st.booleans(),
    st.just("9" * 5_000),
)
events = ["a", "b", "c", "a_count", "b_count", "c_count", "a_latest", "send_count", "bs_count"]
others = ["rate", "events_total", "nested", "_count", "_latest", "first_event_at"]
keys = st.sampled_from([*events, *others])
hostile_specs = [
    MetricSpec("rate", "percentage", parse_formula("a / b * 100")),
    MetricSpec("nested", "", parse_formula("rate * rate / rates - a")),
    MetricSpec("a", "counter"),
    MetricSpec("rates", "", parse_formula("nested + 1")),
]
moments = st.datetimes(timezones=st.one_of(st.none(), st.just(UTC)))


def test_what_came_after_the_deadline_does_not_make_a_criterion_met() -> None:
    in_time = {"last_updated": "2026-02-03T09:59:00.000Z"}
    late = {"last_updated": "2026-02-03T10:00:01.000Z"}
    assert judged("replies > 3 within 2 days", days=3, fields=in_time).state == "met"
    said = judged("replies > 3 within 2 days", days=3, fields=late)
    assert said.state == "unknown"
    assert "after the deadline" in said.reason
    # What is not reached even with them was not reached in time.
    assert judged("replies > 300 within 2 days", days=3, fields=late).state == "not_met"


@settings(max_examples=400, deadline=None)
@given(texts, st.dictionaries(keys, values), moments, st.one_of(st.none(), moments), st.booleans())
def test_no_metrics_and_no_times_break_it(
    text: str,
    fields: dict[str, Any],
    now: datetime,
    started_at: datetime | None,
    final: bool,
) -> None:
    metrics = Metrics.from_hash(fields, hostile_specs)
    result = evaluate(parse(text), metrics, now=now, started_at=started_at, final=final)
    assert result.state in ("met", "not_met", "unknown")
    assert result.reason
    assert (result.evidence is not None) == (result.state == "met")
    interval = result.interval
    assert interval is None or interval[0] <= interval[1]
