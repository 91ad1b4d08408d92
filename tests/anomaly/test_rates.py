"""Rates are judged by their trials, and few trials by little."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_agent.anomaly import PRIOR, RateSeries
from redis_agent.anomaly.tails import success_range, success_tail
from tests.anomaly.simulated import DAY_MS, MONDAY_MS, WEEK, WINDOW, WINDOW_MS, binomial, seasoned_rate


def masses(trials: int, a: float, b: float) -> list[float]:
    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return [
        math.comb(trials, s) * math.exp(log_beta(s + a, trials - s + b) - log_beta(a, b)) for s in range(trials + 1)
    ]


@pytest.mark.parametrize(("trials", "a", "b"), [(1, 0.5, 0.5), (20, 8.0, 92.0), (60, 2.0, 40.0), (300, 30.0, 900.0)])
def test_a_tail_of_successes_is_the_sum_of_its_masses(trials: int, a: float, b: float) -> None:
    mass = masses(trials, a, b)
    for successes in range(trials + 1):
        if successes > trials * a / (a + b):
            assert success_tail(successes, trials, a, b) == pytest.approx(math.fsum(mass[successes:]), rel=1e-3)
    assert success_tail(trials + 1, trials, a, b) == 0.0
    assert success_tail(0, trials, a, b) == 1.0


@pytest.mark.parametrize(("trials", "a", "b"), [(1, 0.5, 0.5), (20, 8.0, 92.0), (300, 30.0, 900.0), (900, 95.0, 5.0)])
def test_the_range_of_successes_holds_the_central_95_percent(trials: int, a: float, b: float) -> None:
    low, high = success_range(trials, a, b)
    mass = masses(trials, a, b)
    assert math.fsum(mass[: int(low)]) <= 0.03
    assert math.fsum(mass[: int(high) + 1]) >= 0.97


@pytest.mark.parametrize(("rate", "most"), [(0.08, 20), (0.02, 60), (0.97, 20)])
def test_rates_of_few_trials_are_never_told(rate: float, most: int) -> None:
    rng, series = random.Random(most), RateSeries()
    for index in range(2 * WEEK):
        trials = rng.randint(0, most)
        assert (
            series.examine(MONDAY_MS + index * WINDOW_MS, WINDOW, binomial(rng, trials, rate), trials).phase == "none"
        )


def test_replies_that_come_hours_after_their_emails_are_never_told() -> None:
    rng, series = random.Random(8), RateSeries()
    for index in range(2 * WEEK):
        morning = index % 144 in (54, 60)
        verdict = series.examine(MONDAY_MS + index * WINDOW_MS, WINDOW, binomial(rng, 3, 0.05), 100 if morning else 0)
        assert verdict.phase == "none"


def test_a_rate_that_quadruples_is_told_within_hours() -> None:
    series, at_ms, rng = seasoned_rate(0.02, 20)
    phases = [series.examine(at_ms + i * WINDOW_MS, WINDOW, binomial(rng, 20, 0.08), 20).phase for i in range(72)]
    assert phases.count("opened") == 1


def test_a_window_in_which_everything_bounces_is_told_at_once() -> None:
    series, at_ms, _ = seasoned_rate(0.02, 20)
    verdict = series.examine(at_ms, WINDOW, 15, 20)
    assert verdict.phase == "opened"
    assert verdict.value == 0.75
    episode = verdict.episode
    assert episode is not None
    assert (episode.kind, episode.began_ms) == ("high", at_ms)
    assert (episode.expected_low, episode.expected_high) == (0.0, 0.1)


def test_a_rate_that_collapses_is_told_as_low() -> None:
    series, at_ms, _ = seasoned_rate(0.97, 20)
    verdict = series.examine(at_ms, WINDOW, 3, 20)
    assert verdict.episode is not None
    assert verdict.episode.kind == "low"


def test_windows_without_trials_say_nothing() -> None:
    series, at_ms, _ = seasoned_rate(0.3, 10)
    for index in range(144):
        verdict = series.examine(at_ms + index * WINDOW_MS, WINDOW, 0, 0)
        assert (verdict.phase, verdict.value) == ("none", None)


def test_windows_without_trials_may_be_left_out() -> None:
    series, at_ms, rng = seasoned_rate(0.02, 20)
    shown = RateSeries.restore(series.state())
    alerts = [0, 0]
    for index in range(4 * 144):
        trials = 20 if index % 6 == 0 else 0
        successes = binomial(rng, trials, 0.1)
        alerts[0] += series.examine(at_ms + index * WINDOW_MS, WINDOW, successes, trials).phase == "opened"
        if trials:
            alerts[1] += shown.examine(at_ms + index * WINDOW_MS, WINDOW, successes, trials).phase == "opened"
    assert alerts == [1, 1]


def test_nothing_is_told_on_the_first_day() -> None:
    series = RateSeries()
    for index in range(144):
        assert series.examine(MONDAY_MS + index * WINDOW_MS, WINDOW, 20 * (index % 72 == 60), 20).phase == "none"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-WINDOW_MS, 2 * DAY_MS),
            st.sampled_from([600.0, 60.0, 0.0, math.nan]),
            st.one_of(st.integers(-1, 30), st.integers(0, 10**12), st.just(10**40)),
            st.one_of(st.integers(-1, 30), st.integers(0, 10**12), st.just(10**40)),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_odd_input_breaks_nothing_and_the_text_keeps_everything(
    windows: list[tuple[int, float, int, int]], old: bool
) -> None:
    alone, at_ms, _ = seasoned_rate(0.1, 10, days=2) if old else (RateSeries(), MONDAY_MS, None)
    kept = RateSeries.restore(json.loads(json.dumps(alone.state())))
    for step, seconds, successes, trials in windows:
        at_ms += step
        verdict = alone.examine(at_ms, seconds, successes, trials)
        assert verdict == kept.examine(at_ms, seconds, successes, trials)
        assert PRIOR <= verdict.score <= 1.0
        assert 0.0 <= verdict.expected[0] <= verdict.expected[1] <= 1.0
        kept = RateSeries.restore(json.loads(json.dumps(kept.state(), allow_nan=False)))
