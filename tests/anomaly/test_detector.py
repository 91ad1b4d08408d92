"""What the general detector promises."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import util
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_agent.anomaly import ALERT_THRESHOLD, Detector
from redis_agent.anomaly.detector import REST, VIEWS
from redis_agent.anomaly.novelty import WARM_UP, Novelty
from redis_agent.anomaly.score import PRIOR, score_of

BEGIN = datetime(2024, 3, 4)  # noqa: DTZ001 the detector takes naive timestamps too
TEN_MINUTES = timedelta(minutes=10)
WEEK = 1008
DAY = 144

Series = list[tuple[datetime, float]]


def timed(values: Iterable[float], step: timedelta = TEN_MINUTES) -> Series:
    return [(BEGIN + i * step, value) for i, value in enumerate(values)]


def scores(series: Series, detector: Detector | None = None) -> list[float]:
    detector = detector or Detector()
    return [detector.update(*point) for point in series]


def alerts(series: Series) -> list[int]:
    return [i for i, score in enumerate(scores(series)) if score >= ALERT_THRESHOLD]


def daily(length: int, seed: int = 1) -> list[float]:
    noise = random.Random(seed)
    return [100 + 30 * math.sin(2 * math.pi * i / DAY) + noise.gauss(0, 3) for i in range(length)]


def mixed(length: int, seed: int) -> list[float]:
    """Noise, a cycle, spikes, steps, runs of the same value, and now and then no number."""
    noise = random.Random(seed)
    level, values = 10.0, []
    for value in daily(length, seed):
        kind = noise.random()
        if kind < 0.01:
            level += noise.gauss(0, 50)
        values.append(
            math.nan
            if kind > 0.99
            else value + level + (1000 if kind > 0.985 else 0)
            if kind > 0.2
            else (values[-1] if values else 0.0)
        )
    return values


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_a_spike_is_found_at_once() -> None:
    values = daily(WEEK)
    values[800] += 120
    assert alerts(timed(values)) == [800]


def test_a_level_shift_is_found_once() -> None:
    values = [value + (70 if i >= 1300 else 0) for i, value in enumerate(daily(2 * WEEK))]
    found = alerts(timed(values))
    assert len(found) == 1
    assert 1300 <= found[0] <= 1312


def test_a_small_lasting_shift_in_noise_is_found_by_the_running_views() -> None:
    noise = random.Random(5)
    values = [noise.gauss(100, 10) + (25 if i >= 700 else 0) for i in range(WEEK)]
    found = alerts(timed(values))
    assert found
    assert 700 <= found[0] <= 724


def test_a_flat_line_in_a_daily_cycle_is_found() -> None:
    values = daily(2 * WEEK)
    values[1300 : 1300 + DAY] = [values[1300]] * DAY
    found = alerts(timed(values))
    assert len(found) == 1
    assert 1300 <= found[0] < 1300 + DAY


def test_a_gauge_that_is_stuck_in_its_noise_is_found() -> None:
    noise = random.Random(15)
    values = [noise.gauss(100, 10) for _ in range(WEEK)]
    values[600:700] = [100.0] * 100
    found = alerts(timed(values))
    assert len(found) == 1
    assert 600 <= found[0] <= 630


def test_a_day_without_its_peak_is_found() -> None:
    noise = random.Random(2)
    busy = range(54, 108)
    values = [(80.0 if i % DAY in busy and i // DAY != 9 else 20.0) + noise.gauss(0, 2) for i in range(12 * DAY)]
    found = alerts(timed(values))
    assert len(found) == 1
    assert 9 * DAY + 54 <= found[0] <= 9 * DAY + 60


def working_week(seed: int) -> list[float]:
    noise = random.Random(seed)
    busy = [day < 5 and 8 <= hour < 18 for day in range(7) for hour in range(24)]
    return [float(round(max(0.0, noise.gauss(30, 5)))) if busy[i // 6 % 168] else 0.0 for i in range(4 * WEEK)]


def test_work_on_a_weekend_that_never_had_any_is_found_and_the_weekends_themselves_are_not() -> None:
    values = working_week(16)
    assert alerts(timed(values)) == []
    saturday = 3 * WEEK + 5 * DAY + 66
    values[saturday : saturday + 12] = [30.0] * 12
    found = alerts(timed(values))
    assert found
    assert saturday <= found[0] < saturday + 12


def test_a_burst_of_counts_is_found_and_a_record_of_few_is_not() -> None:
    noise = random.Random(3)
    values = [float(noise.random() < 0.2) for _ in range(WEEK)]
    values[600] = 4.0
    assert alerts(timed(values)) == []
    values[700] = 60.0
    assert alerts(timed(values)) == [700]


def test_a_rounded_gauge_is_not_held_to_the_spread_of_counts() -> None:
    noise = random.Random(14)
    values = [float(round(noise.gauss(70, 1.2))) for _ in range(WEEK)]
    values[700] = 82.0
    assert alerts(timed(values)) == [700]


def test_the_finding_says_why() -> None:
    values = daily(WEEK)
    values[800] += 120
    detector = Detector()
    scores(timed(values)[:800], detector)
    assert detector.finding is None
    detector.update(*timed(values)[800])
    finding = detector.finding
    assert finding is not None
    assert finding.view in VIEWS
    assert finding.observed > finding.high
    assert finding.tail_probability < 3e-6
    detector.update(*timed(values)[801])
    assert detector.finding is None


# --- what it leaves alone ---------------------------------------------------------------------------------------------


def white(noise: random.Random) -> list[float]:
    return [noise.gauss(100, 10) for _ in range(WEEK)]


def autoregressive(noise: random.Random) -> list[float]:
    values = [0.0]
    for _ in range(WEEK - 1):
        values.append(0.9 * values[-1] + noise.gauss(0, 1))
    return values


def wandering(noise: random.Random) -> list[float]:
    values = [0.0]
    for _ in range(WEEK - 1):
        values.append(values[-1] + noise.gauss(0, 1))
    return values


def cyclic(noise: random.Random) -> list[float]:
    return daily(WEEK, noise.randrange(10**6))


def counted(noise: random.Random) -> list[float]:
    return [float(sum(noise.random() < 0.05 for _ in range(20))) for _ in range(WEEK)]


def rarely_moving(noise: random.Random) -> list[float]:
    values = [10.0]
    for _ in range(WEEK - 1):
        values.append(10.0 + noise.choice([-1, 0, 1]) if noise.random() < 0.01 else values[-1])
    return values


@pytest.mark.parametrize("kind", [white, autoregressive, wandering, cyclic, counted, rarely_moving])
def test_clean_series_stay_silent(kind: Callable[[random.Random], list[float]]) -> None:
    assert [alerts(timed(kind(random.Random(seed)))) for seed in range(12)] == [[]] * 12


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e300, -1e300, 1e-300, 0.1 + 0.2])
def test_a_constant_series_never_fires(value: float) -> None:
    assert alerts(timed([value] * WEEK)) == []


def test_rounding_errors_around_a_constant_are_no_anomaly() -> None:
    noise = random.Random(4)
    values = [1e6 * (1 + 1e-15 * noise.gauss(0, 1)) for _ in range(WEEK)]
    values[900] = 1e6 * (1 + 1e-9)
    assert alerts(timed(values)) == []


def test_warming_up_does_not_fire() -> None:
    noise = random.Random(6)
    for seed in range(20):
        values = [noise.gauss(0, 10**seed) if i % 7 else 10.0 ** (seed + i % 40) for i in range(WARM_UP)]
        assert alerts(timed(values)) == []


def test_one_event_fires_once() -> None:
    values = daily(WEEK)
    for i in range(800, 800 + REST):
        values[i] += 200 + 10 * (i - 800)
    assert alerts(timed(values)) == [800]


# --- how it behaves ---------------------------------------------------------------------------------------------------


def test_scores_are_causal() -> None:
    series = timed(mixed(WEEK, 7))
    assert scores(series)[:600] == scores(series[:600])


def test_two_runs_give_equal_scores() -> None:
    series = timed(mixed(WEEK, 8))
    assert scores(series) == scores(series)


@pytest.mark.parametrize("where", [0, 1, 6, 23, 24, 150, WARM_UP, 433, 700, 999])
def test_a_run_interrupted_by_json_gives_equal_scores(where: int) -> None:
    series = timed(mixed(WEEK, 9))
    detector = Detector()
    before = scores(series[:where], detector)
    restored = Detector.restore(json.loads(json.dumps(detector.state(), allow_nan=False)))
    assert restored.state() == detector.state()
    assert before + scores(series[where:], restored) == scores(series)


def test_a_run_moved_through_json_at_every_value_gives_equal_scores() -> None:
    series = timed(mixed(600, 10))
    detector, moved = Detector(), []
    for point in series:
        detector = Detector.restore(json.loads(json.dumps(detector.state())))
        moved.append(detector.update(*point))
    assert moved == scores(series)


def test_it_can_be_pickled_and_copied() -> None:
    series = timed(mixed(WEEK, 11))
    detector = Detector()
    scores(series[:500], detector)
    expected = scores(series[500:], copy.deepcopy(detector))
    assert scores(series[500:], pickle.loads(pickle.dumps(detector))) == expected


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        Detector.restore({"version": 2})


def test_the_state_stays_small() -> None:
    detector = Detector()
    scores(timed(mixed(3 * WEEK, 12)), detector)
    assert len(json.dumps(detector.state())) < 4096


def test_values_that_are_no_numbers_change_nothing() -> None:
    series = timed(daily(WEEK))
    detector = Detector()
    scores(series[:500], detector)
    before = detector.state()
    for value in (math.nan, math.inf, -math.inf):
        assert detector.update(series[500][0], value) == score_of(1.0)
    assert detector.state() == before


def test_timestamps_may_be_aware_repeat_and_step_back() -> None:
    values = daily(WEEK)
    aware = [(at.replace(tzinfo=UTC), value) for at, value in timed(values)]
    assert scores(aware) == scores(timed(values))
    shuffled = [(at - (i % 3) * timedelta(hours=5), value) for i, (at, value) in enumerate(aware)]
    assert all(0 <= score <= 1 for score in scores(shuffled))
    stopped = [(aware[0][0], value) for _, value in aware]
    assert all(score < ALERT_THRESHOLD for score in scores(stopped))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.floats(), min_size=1, max_size=40),
    st.integers(0, 2**32),
    st.sampled_from([timedelta(seconds=1), TEN_MINUTES, timedelta(hours=7), timedelta(days=1)]),
)
def test_scores_are_numbers_from_0_to_1_whatever_comes(pool: Sequence[float], seed: int, step: timedelta) -> None:
    noise = random.Random(seed)
    detector = Detector()
    for at, value in timed([noise.choice(pool) for _ in range(WARM_UP + 200)], step):
        score = detector.update(at, value)
        assert 0.0 <= score <= 1.0
    json.dumps(detector.state(), allow_nan=False)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_tail_probability_never_scores_lower(a: float, b: float) -> None:
    assert (score_of(a) >= score_of(b)) if a <= b else (score_of(a) <= score_of(b))


def test_the_score_is_the_prior_when_nothing_speaks_for_an_anomaly() -> None:
    assert score_of(1.0) == pytest.approx(PRIOR)
    assert score_of(0.0) == pytest.approx(1.0)


def test_novelty_forgets_a_range_after_two_memories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_agent.anomaly.novelty.MEMORY", 300)
    novelty = Novelty()
    novelty.learn(1000.0)
    noise = random.Random(13)
    for _ in range(299):
        novelty.learn(noise.random())
    assert novelty.range[1] == 1000.0
    for _ in range(300):
        novelty.learn(noise.random())
    assert novelty.range[1] == 1000.0
    novelty.learn(0.5)
    assert novelty.range[1] < 1.0


# --- a benchmark ------------------------------------------------------------------------------------------------------

NAB = Path(__file__).resolve().parents[3] / "shared" / "nab"


@pytest.fixture(scope="module")
def nab_scores() -> dict[str, float]:
    path = NAB / "score.py"
    if not path.is_file():
        pytest.skip("the Numenta Anomaly Benchmark is not beside the project, at ../shared/nab")
    spec = util.spec_from_file_location("nab_score", path)
    assert spec is not None
    assert spec.loader is not None
    scorer = util.module_from_spec(spec)
    sys.modules["nab_score"] = scorer
    spec.loader.exec_module(scorer)
    corpus, _ = scorer.load_corpus(NAB / "data", NAB / "labels" / "windows.json")
    results, _ = scorer.run_detector(Detector, {}, corpus)
    report = scorer.evaluate("detector", corpus, results, ALERT_THRESHOLD)
    return {name: scorer.nab_score(report.fixed, profile, report.windows) for name, profile in scorer.PROFILES.items()}


@pytest.mark.parametrize(("profile", "floor"), [("standard", 69.0), ("reward_low_FP", 67.0), ("reward_low_FN", 71.0)])
def test_the_score_on_nab_holds_at_the_fixed_threshold(
    nab_scores: dict[str, float], profile: str, floor: float
) -> None:
    assert nab_scores[profile] >= floor
