"""Events that used to come and do not are told, quiet days and nights are not."""

from __future__ import annotations

import random

import pytest

from redis_agent.anomaly import CountSeries
from tests.anomaly.simulated import DAY_MS, MONDAY_MS, WEEK, WINDOW_MS, office, poisson, seasoned, told, watch


@pytest.mark.parametrize(("mean", "within"), [(50.0, 6), (10.0, 6), (3.0, 12), (1.0, 36), (0.1, 400)])
def test_silence_is_told_once_and_the_sooner_the_more_used_to_come(mean: float, within: int) -> None:
    series, at_ms, _ = seasoned(mean, days=14)
    found = told(watch(series, [0] * (5 * 144), at_ms))
    assert len(found) == 1
    assert found[0][0] - at_ms <= within * WINDOW_MS
    assert found[0][1].episode is not None
    assert found[0][1].episode.kind in ("silence", "shift_down")


def test_one_event_a_day_and_a_quiet_day_or_four_is_no_silence() -> None:
    rng, series, at_ms = random.Random(1), CountSeries(), MONDAY_MS
    for _ in range(30):
        counts = [0] * 144
        counts[rng.randrange(144)] = 1
        assert not told(watch(series, counts, at_ms))
        at_ms += DAY_MS
    assert not told(watch(series, [0] * (4 * 144), at_ms))


def test_a_night_is_no_silence_nor_is_the_first_weekend() -> None:
    rng = random.Random(2)
    counts = [poisson(rng, office(MONDAY_MS + index * WINDOW_MS, 12.0)) for index in range(3 * WEEK)]
    assert not told(watch(CountSeries(), counts))


@pytest.mark.parametrize("ahead_hours", [-7, 8, 12])
def test_the_weekends_of_an_office_anywhere_on_earth_are_not_told(ahead_hours: int) -> None:
    rng = random.Random(ahead_hours)
    starts = [MONDAY_MS + index * WINDOW_MS for index in range(4 * WEEK)]
    counts = [poisson(rng, office(at_ms + ahead_hours * 3_600_000, 15.0)) for at_ms in starts]
    assert not told(watch(CountSeries(), counts))


@pytest.mark.parametrize("change_ms", [-3_600_000, 3_600_000])
@pytest.mark.parametrize("peak", [6.0, 60.0])
def test_the_change_of_clocks_is_not_told(change_ms: int, peak: float) -> None:
    rng, changes_ms = random.Random(6), MONDAY_MS + 21 * DAY_MS - 86_400_000
    starts = [MONDAY_MS + index * WINDOW_MS for index in range(5 * WEEK)]
    means = [office(at_ms + (change_ms if at_ms >= changes_ms else 0), peak) for at_ms in starts]
    assert not told(watch(CountSeries(), [poisson(rng, mean) for mean in means]))


def test_silence_in_office_hours_is_told_on_the_same_day() -> None:
    rng, series, at_ms = random.Random(3), CountSeries(), MONDAY_MS
    for _ in range(2 * WEEK + 60):
        series.examine(at_ms, 600, poisson(rng, office(at_ms, 12.0)))
        at_ms += WINDOW_MS
    found = told(watch(series, [0] * 48, at_ms))
    assert len(found) == 1
    assert found[0][1].episode is not None
    assert found[0][1].episode.kind == "silence"
    assert at_ms - 3_600_000 <= found[0][1].episode.began_ms <= at_ms


def test_a_campaign_that_fades_out_is_not_told() -> None:
    rng = random.Random(4)
    mean = [8.0] * (10 * 144) + [8.0 * 0.5 ** (index / 216) for index in range(14 * 144)] + [0.0] * (7 * 144)
    assert not told(watch(CountSeries(), [poisson(rng, rate) for rate in mean]))


def test_silence_that_lasts_is_the_end_and_the_next_campaign_warms_up_anew() -> None:
    series, at_ms, rng = seasoned(10.0)
    assert len(told(watch(series, [0] * WEEK, at_ms))) == 1
    assert not told(watch(series, [poisson(rng, 40.0) for _ in range(3 * 144)], at_ms + WEEK * WINDOW_MS))


def test_many_empty_windows_can_be_caught_up_with_in_longer_ones() -> None:
    series, at_ms, _ = seasoned(1.0)
    verdicts = [series.examine(at_ms + index * 3_600_000, 3600, 0) for index in range(48)]
    assert [verdict.phase for verdict in verdicts].count("opened") == 1
