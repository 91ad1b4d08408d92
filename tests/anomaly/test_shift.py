"""A level that changes and stays is told once, soon, and then is what is usual."""

from __future__ import annotations

import random

import pytest

from redis_agent.anomaly import CountSeries
from redis_agent.anomaly.shift import UP, Excursion
from redis_agent.anomaly.window import Window
from tests.anomaly.simulated import MONDAY_MS, WEEK, WINDOW_MS, office, poisson, seasoned, told, watch


@pytest.mark.parametrize(
    ("mean", "factor", "within"),
    [(50.0, 0.5, 6), (10.0, 0.5, 24), (3.0, 0.5, 72), (50.0, 2.0, 6), (10.0, 2.0, 24), (3.0, 2.0, 72), (1.0, 3.0, 72)],
)
def test_half_and_double_are_told_once(mean: float, factor: float, within: int) -> None:
    series, at_ms, rng = seasoned(mean)
    verdicts = watch(series, [poisson(rng, factor * mean) for _ in range(3 * 144)], at_ms)
    found = told(verdicts)
    assert len(found) == 1
    assert found[0][0] - at_ms <= within * WINDOW_MS
    episode = found[0][1].episode
    assert episode is not None
    assert episode.kind in (("high", "shift_up") if factor > 1 else ("low", "shift_down"))
    assert abs(episode.began_ms - at_ms) <= within * WINDOW_MS


def test_the_new_level_becomes_the_usual_one_within_a_day() -> None:
    series, at_ms, rng = seasoned(10.0)
    verdicts = watch(series, [poisson(rng, 30.0) for _ in range(5 * 144)], at_ms)
    assert len(told(verdicts)) == 1
    assert sum(verdict.phase == "ended" for _, verdict in verdicts) == 1
    low, high = verdicts[-1][1].expected
    assert 15 < low < 30 < high < 45


def test_the_return_to_a_level_that_is_known_is_not_told() -> None:
    series, at_ms, rng = seasoned(10.0)
    mean = [30.0] * (3 * 144) + [10.0] * (3 * 144) + [30.0] * (3 * 144)
    assert len(told(watch(series, [poisson(rng, rate) for rate in mean], at_ms))) == 1


def test_a_shift_of_office_hours_is_told() -> None:
    rng, series, at_ms = random.Random(1), CountSeries(), MONDAY_MS
    for _ in range(14 * 144):
        series.examine(at_ms, 600, poisson(rng, office(at_ms, 20.0)))
        at_ms += WINDOW_MS
    counts = [poisson(rng, 3.0 * office(at_ms + index * WINDOW_MS, 20.0)) for index in range(2 * 144)]
    assert len(told(watch(series, counts, at_ms))) == 1


def test_the_run_length_without_a_change_is_as_long_as_promised() -> None:
    rng = random.Random(2)
    windows, reached, excursion = 60_000, 0, Excursion(UP)
    for index in range(windows):
        excursion.update(Window(index, index + 1, 1.0, 0.0), float(poisson(rng, 2.0)), 2.0, 1.0, 1.0)
        if excursion.surprise >= 5.0:
            reached += 1
            excursion.reset()
    assert reached <= windows / 2.718281828**5.0


def test_events_that_bring_others_are_hardly_ever_a_change_of_level() -> None:
    alerts = 0
    for seed in range(5):
        rng, brought, counts = random.Random(seed), 0.0, []
        for _ in range(4 * WEEK):
            counts.append(poisson(rng, 0.3 + brought))
            brought = 0.8 * brought + 0.16 * counts[-1]
        alerts += len(told(watch(CountSeries(), counts)))
    assert alerts <= 1


def test_one_window_alone_is_no_change_of_level() -> None:
    excursion = Excursion(UP)
    excursion.update(Window(0, 1, 1.0, 0.0), 1e9, 1.0, 1.0, 1.0)
    assert excursion.surprise <= 6.0
