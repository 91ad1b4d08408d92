"""Bursts of counts are told, noise is not, and a series goes on exactly where its state says."""

from __future__ import annotations

import json
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_agent.anomaly import ALERT_THRESHOLD, PRIOR, CountSeries, score_of
from redis_agent.anomaly.tails import count_range, count_tail
from tests.anomaly.simulated import (
    DAY_MS,
    MONDAY_MS,
    WEEK,
    WINDOW,
    WINDOW_MS,
    office,
    poisson,
    seasoned,
    told,
    watch,
)


def masses(mean: float, variance: float, most: int) -> list[float]:
    r = mean * mean / (variance - mean) if variance > mean else math.inf
    if r == math.inf:
        return [math.exp(x * math.log(mean) - mean - math.lgamma(x + 1)) for x in range(most)]
    return [
        math.exp(
            math.lgamma(x + r) - math.lgamma(r) - math.lgamma(x + 1)
            + r * math.log(r / (r + mean)) + x * math.log(mean / (r + mean))
        )
        for x in range(most)
    ]  # fmt: skip


@pytest.mark.parametrize(("mean", "variance"), [(0.1, 0.1), (0.3, 2.0), (3.0, 3.0), (3.0, 60.0), (40.0, 90.0)])
def test_a_count_tail_is_the_sum_of_its_masses(mean: float, variance: float) -> None:
    mass = masses(mean, variance, 4000)
    for count in range(math.ceil(mean) + 1, 150, 7):
        exact = math.fsum(mass[count:])
        if exact > 1e-250:
            assert count_tail(count, mean, variance) == pytest.approx(exact, rel=0.01)
            assert count_tail(count, mean, variance) >= exact * (1 - 1e-5)


def test_a_huge_count_tail_is_bounded_from_above() -> None:
    for deviations in (2.0, 4.0, 6.0):
        normal = 0.5 * math.erfc(deviations / math.sqrt(2.0))
        assert normal <= count_tail(1e6 + deviations * 1e3, 1e6, 1e6) <= 1.3 * normal


@pytest.mark.parametrize(("mean", "variance"), [(0.1, 0.1), (2.0, 2.0), (5.0, 40.0), (30.0, 30.0), (200.0, 900.0)])
def test_the_range_holds_the_central_95_percent(mean: float, variance: float) -> None:
    low, high = count_range(mean, variance)
    mass = masses(mean, variance, 4000)
    assert math.fsum(mass[: int(low)]) <= 0.03
    assert 0.97 <= math.fsum(mass[: int(high) + 1]) <= 1.0


def test_the_threshold_is_a_p_value_of_three_in_a_million() -> None:
    assert score_of(1.0) == score_of(0.5) == score_of(math.nan) == PRIOR
    assert score_of(3.0e-6) < ALERT_THRESHOLD < score_of(2.8e-6)
    assert 0.999 < score_of(0.0) <= 1.0
    scores = [score_of(10.0**-exponent) for exponent in range(1, 300)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("mean", [0.1, 1.0, 10.0])
def test_poisson_counts_are_never_told(mean: float) -> None:
    rng = random.Random(mean)
    assert not told(watch(CountSeries(), [poisson(rng, mean) for _ in range(3 * WEEK)]))


def test_batches_are_never_told_as_bursts() -> None:
    rng = random.Random(5)
    assert not told(watch(CountSeries(), [25 * poisson(rng, 0.1) for _ in range(4 * WEEK)]))


@pytest.mark.parametrize("seed", range(3))
def test_office_hours_are_never_told(seed: int) -> None:
    rng = random.Random(seed)
    begin_ms = MONDAY_MS + rng.randrange(7) * DAY_MS
    counts = [poisson(rng, office(begin_ms + index * WINDOW_MS, 15.0)) for index in range(3 * WEEK)]
    assert not told(watch(CountSeries(), counts, begin_ms))


def test_a_burst_says_what_since_when_and_how_far_from_expected() -> None:
    series, at_ms, _ = seasoned(3.0)
    verdict = series.examine(at_ms, WINDOW, 41)
    assert verdict.phase == "opened"
    assert verdict.score > ALERT_THRESHOLD
    episode = verdict.episode
    assert episode is not None
    assert (episode.kind, episode.began_ms, episode.peak_ms, episode.peak_value) == ("high", at_ms, at_ms, 41)
    assert (episode.expected_low, episode.expected_high) == verdict.expected == (0, 7)


def test_a_burst_at_night_is_judged_by_the_night_and_the_busiest_hour() -> None:
    rng, series = random.Random(2), CountSeries()
    at_ms = MONDAY_MS
    for _ in range(10 * 144):
        series.examine(at_ms, WINDOW, poisson(rng, office(at_ms, 20.0)))
        at_ms += WINDOW_MS
    as_by_day, beyond = CountSeries.restore(series.state()), CountSeries.restore(series.state())
    night_ms = at_ms + 3 * 3_600_000
    assert as_by_day.examine(night_ms, WINDOW, 22).phase == "none"
    assert beyond.examine(night_ms, WINDOW, 120).phase == "opened"


def test_nothing_is_told_on_the_first_day() -> None:
    rng = random.Random(3)
    counts = [poisson(rng, 3.0) for _ in range(144)]
    counts[6], counts[60], counts[100] = 300, 200, 500
    counts[120:] = [0] * 24
    assert not told(watch(CountSeries(), counts))


def test_the_first_events_of_a_name_are_new_and_no_anomaly() -> None:
    assert not told(watch(CountSeries(), [0] * (2 * WEEK) + [500] * 100))


def test_a_launch_after_an_hour_of_tests_and_days_of_nothing_is_not_told() -> None:
    rng = random.Random(4)
    counts = [1, 2, 0, 1, 3, 1] + [0] * (3 * 144) + [poisson(rng, 80.0) for _ in range(144)]
    assert not told(watch(CountSeries(), counts))


def test_a_campaign_that_resumes_is_not_told() -> None:
    rng = random.Random(5)
    mean = [10.0] * (10 * 144) + [0.0] * (12 * 144) + [10.0] * (4 * 144)
    ups = told(watch(CountSeries(), [poisson(rng, rate) for rate in mean]))
    assert [verdict.episode.kind for _, verdict in ups if verdict.episode] == ["silence"]


def test_a_slow_drift_is_not_told() -> None:
    rng = random.Random(6)
    assert not told(watch(CountSeries(), [poisson(rng, 5.0 * 1.1 ** (index / 144)) for index in range(3 * WEEK)]))


def test_time_that_was_not_watched_is_neither_zero_nor_silence() -> None:
    series, at_ms, rng = seasoned(10.0)
    assert not told(watch(series, [poisson(rng, 10.0) for _ in range(144)], at_ms + 2 * DAY_MS))


def test_the_window_may_change_its_length() -> None:
    series, at_ms, rng = seasoned(10.0)
    for index in range(7 * 24):
        assert series.examine(at_ms + index * 3_600_000, 3600, poisson(rng, 60.0)).phase == "none"
    at_ms += 7 * DAY_MS
    for index in range(1440):
        assert series.examine(at_ms + index * 60_000, 60, poisson(rng, 1.0)).phase == "none"
    assert series.examine(at_ms + DAY_MS, 60, 30).phase == "opened"


def test_a_window_costs_microseconds_and_a_state_a_kilobyte() -> None:
    series, at_ms, rng = seasoned(3.0)
    counts = [poisson(rng, 3.0) for _ in range(2000)]
    begin = time.process_time()
    watch(series, counts, at_ms)
    assert (time.process_time() - begin) / len(counts) < 250e-6  # ten times what it takes, for slow machines
    assert len(json.dumps(series.state(), separators=(",", ":"))) < 1200


ODD = st.tuples(
    st.integers(-2 * WINDOW_MS, 10 * WINDOW_MS),
    st.sampled_from([600.0, 60.0, 3600.0, 0.0, -5.0, 1e-9, math.nan, math.inf]),
    st.one_of(
        st.integers(0, 40), st.sampled_from([10**15, 10**30, -1, 0.5, math.nan, math.inf]), st.integers(0, 10**15)
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ODD, max_size=60), st.booleans())
def test_odd_input_breaks_nothing(windows: list[tuple[int, float, float]], old: bool) -> None:
    series, at_ms, _ = seasoned(2.0, days=3) if old else (CountSeries(), MONDAY_MS, None)
    for step, seconds, count in windows:
        at_ms += step
        verdict = series.examine(at_ms, seconds, count)
        assert PRIOR <= verdict.score <= 1.0
        assert 0.0 <= verdict.expected[0] <= verdict.expected[1]
        assert (verdict.phase == "none") == (verdict.episode is None)
        series = CountSeries.restore(json.loads(json.dumps(series.state(), allow_nan=False)))


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.1, 1.0, 8.0, 70.0]),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0, 8.0])), min_size=5, max_size=30),
)
def test_a_series_goes_on_exactly_where_its_text_says(seed: int, mean: float, script: list[tuple[int, float]]) -> None:
    rng = random.Random(seed)
    alone, kept = CountSeries(warm_up_seconds=3600, warm_up_hours=2), CountSeries(warm_up_seconds=3600, warm_up_hours=2)
    at_ms = MONDAY_MS
    for gap, factor in script:
        at_ms += gap * WINDOW_MS
        for _ in range(12):
            count = poisson(rng, mean * factor)
            assert alone.examine(at_ms, WINDOW, count) == kept.examine(at_ms, WINDOW, count)
            at_ms += WINDOW_MS
        text = json.dumps(kept.state())
        kept = CountSeries.restore(json.loads(text), warm_up_seconds=3600, warm_up_hours=2)
        assert json.loads(json.dumps(alone.state())) == json.loads(text)


@pytest.mark.parametrize("state", [[], [0, 1, 2], [1], [1, 2, 3, [], [], [], [], [], []], [1, *[None] * 8]])
def test_what_is_no_state_of_this_version_is_refused(state: list[object]) -> None:
    with pytest.raises(ValueError):
        CountSeries.restore(state)
