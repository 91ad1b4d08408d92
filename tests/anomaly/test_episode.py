"""One anomaly is one episode: with a beginning, a peak and an end."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from redis_agent.anomaly import ALERT_THRESHOLD, CountSeries, GaugeSeries
from tests.anomaly.simulated import DAY_MS, MONDAY_MS, WINDOW, WINDOW_MS, poisson, seasoned, told, watch


def test_a_burst_of_an_hour_is_one_episode_with_its_peak_and_its_end() -> None:
    series, at_ms, rng = seasoned(3.0)
    burst = [30, 45, 80, 60, 25, 28]
    verdicts = watch(series, burst + [poisson(rng, 3.0) for _ in range(12)], at_ms)
    assert [verdict.phase for _, verdict in verdicts[:6]] == ["opened", *["goes_on"] * 5]
    ended = [verdict.episode for _, verdict in verdicts if verdict.phase == "ended"]
    assert len(told(verdicts)) == len(ended) == 1
    episode = ended[0]
    assert episode is not None
    assert (episode.kind, episode.began_ms, episode.peak_value) == ("high", at_ms, 80)
    assert episode.peak_ms == at_ms + 2 * WINDOW_MS
    assert episode.ended_ms == at_ms + 6 * WINDOW_MS
    assert verdicts[-1][1].phase == "none"


def test_bursts_within_the_merge_time_are_one_and_bursts_apart_are_two() -> None:
    near, at_ms, _ = seasoned(3.0)
    far = CountSeries.restore(near.state())
    calm = [3, 2, 4, 3, 1, 3, 5, 2, 3, 4, 2, 3] * 4
    assert len(told(watch(near, [60, 3, 50, *calm], at_ms))) == 1
    assert len(told(watch(far, [60, *calm[:24], 60, *calm], at_ms))) == 2


def test_the_first_window_that_deviated_is_the_beginning() -> None:
    series, at_ms, _ = seasoned(3.0)
    verdicts = watch(series, [12, 13, 14, 16], at_ms)
    found = told(verdicts)
    assert len(found) == 1
    assert found[0][0] > at_ms
    assert found[0][1].episode is not None
    assert found[0][1].episode.began_ms == at_ms


def test_the_score_stays_up_until_the_end() -> None:
    series, at_ms, rng = seasoned(10.0)
    verdicts = watch(series, [0] * 20 + [poisson(rng, 10.0) for _ in range(12)], at_ms)
    opened = next(index for index, (_, verdict) in enumerate(verdicts) if verdict.phase == "opened")
    ended = next(index for index, (_, verdict) in enumerate(verdicts) if verdict.phase == "ended")
    assert all(verdict.score >= ALERT_THRESHOLD for _, verdict in verdicts[opened:20])
    assert verdicts[ended][1].score < 0.1


def test_what_lasts_for_hours_is_a_shift_by_then() -> None:
    series, at_ms, rng = seasoned(10.0)
    verdicts = watch(series, [poisson(rng, 40.0) for _ in range(60)], at_ms)
    kinds = [verdict.episode.kind for _, verdict in verdicts if verdict.episode is not None]
    assert (kinds[0], kinds[-1]) == ("high", "shift_up")


def test_a_burst_that_stays_is_told_once_and_its_end_is_no_drop() -> None:
    series, at_ms, rng = seasoned(10.0)
    mean = [60.0] * 20 + [10.0] * 144
    assert len(told(watch(series, [poisson(rng, rate) for rate in mean], at_ms))) == 1


def test_a_backlog_after_an_outage_is_no_second_alert() -> None:
    series, at_ms, rng = seasoned(10.0)
    counts = [0] * 12 + [120] + [poisson(rng, 10.0) for _ in range(144)]
    assert len(told(watch(series, counts, at_ms))) == 1


def test_an_episode_ends_where_watching_stopped() -> None:
    series, at_ms, _ = seasoned(3.0)
    assert series.examine(at_ms, WINDOW, 60).phase == "opened"
    verdict = series.examine(at_ms + DAY_MS, WINDOW, 3)
    assert verdict.phase == "ended"
    assert verdict.episode is not None
    assert verdict.episode.ended_ms == at_ms + WINDOW_MS


class Steps:
    """A detector that is surprised by whatever is above its limit."""

    def __init__(self, limit: float = 10.0) -> None:
        self.limit = limit

    def update(self, timestamp: datetime, value: float) -> float:
        assert timestamp.tzinfo is not None
        return 0.9 if value > self.limit else 0.001

    def state(self) -> Any:
        return {"limit": self.limit}

    def restore(self, state: Any) -> None:
        self.limit = state["limit"]


def test_a_gauge_is_told_by_its_detector_once_an_episode() -> None:
    series = GaugeSeries(Steps())
    means = [5.0 + index % 3 for index in range(200)] + [30.0, 40.0, 20.0] + [5.0 + index % 3 for index in range(20)]
    verdicts = []
    for index, mean in enumerate(means):
        series = GaugeSeries.restore(json.loads(json.dumps(series.state())), Steps(0.0))
        verdicts.append(series.examine(MONDAY_MS + index * WINDOW_MS, WINDOW, mean, mean - 1, mean + 1, 5))
    assert [index for index, verdict in enumerate(verdicts) if verdict.phase == "opened"] == [200]
    ended = [verdict.episode for verdict in verdicts if verdict.phase == "ended"]
    assert len(ended) == 1
    assert ended[0] is not None
    assert (ended[0].kind, ended[0].peak_value, ended[0].ended_ms) == ("high", 41.0, MONDAY_MS + 203 * WINDOW_MS)


def test_a_gauge_without_samples_or_in_its_warm_up_says_nothing() -> None:
    series = GaugeSeries(Steps())
    assert series.examine(MONDAY_MS, WINDOW, 99.0, 99.0, 99.0, 3).score < ALERT_THRESHOLD
    verdict = series.examine(MONDAY_MS + WINDOW_MS, WINDOW, float("nan"), 0.0, 0.0, 0)
    assert (verdict.value, verdict.phase) == (None, "none")
