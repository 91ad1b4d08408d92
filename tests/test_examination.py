"""What of an experiment's windows is a series, what is told of them, and what is kept in between."""

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_agent.anomaly_alerts import anomaly_alert
from redis_agent.criteria import MetricSpec, parse_formula
from redis_agent.examination import TOLD, Examination, Found
from redis_agent.lifecycle import Policy
from redis_agent.windows import GaugeSums, WindowSums

BEGIN = 1_767_571_200  # Monday, 2026-01-05
WINDOW = 600
POLICY = Policy(cooldown_ms=300_000, backoff=2.0, early=True)
SPECS = {
    "bounce_rate": MetricSpec("bounce_rate", "percentage", parse_formula("bounces / emails_sent * 100")),
    "cost": MetricSpec("cost", "gauge", parse_formula("spent * 2")),
}


def sums(counts: Mapping[str, int], **gauges: float) -> WindowSums:
    found = {name: GaugeSums(value, 1, value, value) for name, value in gauges.items()}
    return WindowSums(sum(counts.values()), dict(counts), found)


class Watched:
    """An experiment whose windows are examined one by one, through what is kept in between."""

    def __init__(self, *, max_series: int = 100) -> None:
        self.kept: dict[str, str] = {}
        self.now_s = BEGIN
        self.max_series = max_series

    def examination(self) -> Examination:
        return Examination(dict(self.kept), SPECS, self.max_series)

    def take(self, window: WindowSums, *, tell: bool = True) -> list[Found]:
        examination = self.examination()
        found = examination.examine(self.now_s, WINDOW, window)
        self.now_s += WINDOW
        news = examination.news(found, 1000 * self.now_s, POLICY)
        set_to, gone = examination.changes(1000 * self.now_s)
        if news and tell:
            set_to[TOLD] = examination.with_told(news, 1000 * self.now_s)
        self.kept |= set_to
        for name in gone:
            self.kept.pop(name, None)
        return news


def calm(rng: random.Random) -> WindowSums:
    sent = rng.randrange(40, 60)
    return sums(
        {"email_sent": sent, "bounce": sum(rng.random() < 0.02 for _ in range(sent))}, latency=rng.gauss(1, 0.1)
    )


def after_days(days: float) -> tuple[Watched, random.Random]:
    watched, rng = Watched(), random.Random(5)
    for _ in range(int(days * 144)):
        assert watched.take(calm(rng)) == []
    return watched, rng


def test_counts_gauges_and_rates_are_series_and_errors_are_not() -> None:
    watched = Watched()
    watched.take(sums({"email_sent": 50, "bounce": 1, "error": 9}, latency=1.0))
    assert set(watched.kept) == {"count:email_sent", "count:bounce", "gauge:latency", "rate:bounce_rate"}
    assert all(json.loads(text) for text in watched.kept.values())


def test_burst_is_told_once_with_what_was_expected_and_since_when() -> None:
    watched, rng = after_days(2)
    began = watched.now_s
    told = []
    for _ in range(4):
        told += watched.take(sums({"email_sent": 50, "bounce": 20}, latency=rng.gauss(1, 0.1)))
    assert [one.key for one in told] == ["rate:bounce_rate", "count:bounce"]
    (alert,) = [anomaly_alert(told, experiment_id="exp", alert_id="id", now=_at(began + WINDOW), window_seconds=WINDOW)]
    found = alert.as_json()
    assert (found["type"], found["severity"], found["priority"]) == ("anomaly", "medium", "medium")
    assert found["message"].startswith("exp: bounce_rate: 40 % (20 of 50) in the last 10 minutes, 0 to ")
    assert found["message"].endswith(" expected, since 00:00 UTC.")
    assert "; bounce: 20 in the last 10 minutes, 0 to " in found["message"]
    assert (found["metric"], found["value"], found["operator"]) == ("bounce_rate", 40.0, ">")
    assert found["expected"][0] <= found["expected"][1] == found["threshold"] < 40
    assert found["since"] == "2026-01-07T00:00:00.000Z"
    assert [one["metric"] for one in found["also"]] == ["bounce"]
    json.loads(alert.dumps())


def test_what_could_not_be_told_is_told_while_it_goes_on() -> None:
    watched, _ = after_days(2)
    burst = sums({"email_sent": 50, "bounce": 20}, latency=1.0)
    assert watched.take(burst, tell=False)
    assert watched.take(burst, tell=False)
    assert watched.take(burst)
    assert watched.take(burst) == []


def test_counts_that_fall_with_another_are_not_told_again() -> None:
    watched, rng = after_days(3)
    told = [one for _ in range(30) for one in watched.take(sums({}, latency=rng.gauss(1, 0.1)))]
    assert [(one.name, one.episode.kind) for one in told] == [("email_sent", "silence")]


def test_series_that_comes_and_goes_is_told_less_and_less() -> None:
    watched, rng = after_days(2)
    told = 0
    for _ in range(12):
        for _ in range(3):
            told += len(watched.take(sums({"email_sent": 50, "bounce": 30}, latency=1.0))) > 0
        for _ in range(9):
            told += len(watched.take(calm(rng))) > 0
    assert 1 <= told <= 5


BROKEN = ["", "null", "[]", "{}", "[1, [9]]", "[1,[1,2,3]]", "x" * 50, '["a", "b"]', "[1e999, []]"]


@pytest.mark.parametrize("broken", BROKEN)
def test_series_that_somebody_else_wrote_to_begins_anew_and_costs_no_other(broken: str) -> None:
    watched, _ = after_days(1)
    before = len(watched.kept["count:email_sent"])
    watched.kept |= {"count:bounce": broken, "count:open": broken, "gauge:latency": broken}
    watched.kept |= {TOLD: broken, "rate:": broken, "odd": broken}
    watched.take(sums({"email_sent": 50, "bounce": 1}, latency=1.0))
    assert json.loads(watched.kept["count:bounce"])
    assert json.loads(watched.kept["gauge:latency"])
    assert "count:open" not in watched.kept
    assert len(watched.kept["count:email_sent"]) >= before / 2


def test_no_more_series_are_watched_than_allowed() -> None:
    watched = Watched(max_series=3)
    watched.take(sums({f"event_{n}": 1 for n in range(10)}))
    assert len(watched.kept) == 3
    examination = watched.examination()
    examination.examine(watched.now_s, WINDOW, sums({f"event_{n}": 1 for n in range(10)}))
    assert examination.left_out == 7


def test_series_without_a_value_for_four_weeks_is_forgotten() -> None:
    watched = Watched()
    watched.take(sums({"once": 1, "email_sent": 5}))
    for _ in range(29):
        watched.take(sums({"email_sent": 5}))
        watched.now_s += 86_400
    assert set(watched.kept) == {"count:email_sent"}


@settings(max_examples=40, deadline=None)
@given(
    windows=st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["a", "b", "bounce", "email_sent"]), st.integers(0, 10**9), max_size=4),
            st.dictionaries(st.sampled_from(["g", "h"]), st.floats(-1e15, 1e15), max_size=2),
            st.integers(0, 5),
        ),
        max_size=40,
    )
)
def test_whatever_windows_hold_a_run_that_is_interrupted_everywhere_equals_one_that_is_not(
    windows: list[tuple[dict[str, int], dict[str, float], int]],
) -> None:
    interrupted, at = Watched(), BEGIN
    whole = Examination({}, SPECS, 100)
    for counts, gauges, skipped in windows:
        at += skipped * WINDOW
        interrupted.now_s = at
        window = sums(counts, **gauges)
        expected = whole.examine(at, WINDOW, window)
        found = interrupted.examination().examine(at, WINDOW, window)
        assert _plain(found) == _plain(expected)
        interrupted.take(window)
        at += WINDOW
    assert interrupted.kept.keys() - {TOLD} == whole.changes(1000 * at)[0].keys() - {TOLD}


def _plain(found: list[Found]) -> list[Any]:
    return [(one.key, one.verdict) for one in found]


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
