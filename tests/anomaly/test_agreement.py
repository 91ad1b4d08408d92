"""A gauge alerts when its values and their logarithms agree that something is new."""

import json
import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_agent.anomaly import ALERT_THRESHOLD, Detector
from redis_agent.anomaly.agreement import Agreement

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = 1_008


def alerts(detector: Agreement | Detector, values: list[float]) -> list[int]:
    return [
        n
        for n, value in enumerate(values)
        if detector.update(BEGIN + timedelta(minutes=10 * n), value) >= ALERT_THRESHOLD
    ]


def drawn(draw: Callable[[random.Random], float], number: int = 2 * WEEK, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [draw(rng) for _ in range(number)]


DURATIONS: list[Callable[[random.Random], float]] = [
    lambda rng: rng.lognormvariate(0.0, 0.5),
    lambda rng: rng.lognormvariate(3.0, 1.0),
    lambda rng: rng.expovariate(0.1),
]


@pytest.mark.parametrize("draw", DURATIONS)
def test_long_tails_are_no_anomalies_although_the_values_alone_would_alert(
    draw: Callable[[random.Random], float],
) -> None:
    weeks = [drawn(draw, seed=seed) for seed in range(8)]
    assert sum(len(alerts(Detector(), week)) for week in weeks) >= 4
    assert sum(len(alerts(Agreement(), week)) for week in weeks) == 0


@pytest.mark.parametrize("factor", [0.3, 1.6, 3.0, 100.0, -1.0])
def test_what_leaves_the_noise_around_a_level_is_found(factor: float) -> None:
    values = drawn(lambda rng: rng.gauss(5.0, 0.4))
    found = alerts(Agreement(), [*values, *(factor * value for value in values[:6])])
    assert len(found) == 1
    assert len(values) <= found[0] <= len(values) + 3


def test_duration_far_beyond_its_tail_is_found() -> None:
    values = drawn(lambda rng: rng.lognormvariate(0.0, 0.5))
    (found,) = alerts(Agreement(), [*values, 200.0, 200.0, 200.0])
    assert found >= len(values)


def test_gauge_that_was_zero_for_long_says_nothing_until_its_scale_is_known() -> None:
    assert alerts(Agreement(), [0.0] * WEEK + drawn(lambda rng: rng.gauss(5.0, 0.4), 40)) == []


def test_values_that_are_no_numbers_change_nothing() -> None:
    values = drawn(lambda rng: rng.gauss(5.0, 0.4), 300)
    one, other = Agreement(), Agreement()
    for n, value in enumerate(values):
        at = BEGIN + timedelta(minutes=10 * n)
        assert one.update(at, math.nan) < ALERT_THRESHOLD
        assert one.update(at, math.inf) < ALERT_THRESHOLD
        assert one.update(at, value) == other.update(at, value)
    assert one.state() == other.state()


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(-1e15, 1e15) | st.sampled_from([0.0, 1.0, 5.0, 1e-300]), max_size=250),
    cut=st.integers(0, 250),
)
def test_a_run_that_is_interrupted_goes_on_exactly(values: list[float], cut: int) -> None:
    whole, halves = Agreement(), Agreement()
    for n, value in enumerate(values):
        if n == cut:
            halves = Agreement.restore(json.loads(json.dumps(halves.state())))
        at = BEGIN + timedelta(minutes=10 * n)
        score = whole.update(at, value)
        assert 0.0 <= score <= 1.0
        assert halves.update(at, value) == score


@pytest.mark.parametrize("broken", [None, [], [1, 2, 3, 4, 5], {}, "abcde"])
def test_what_is_no_state_is_refused(broken: object) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        Agreement.restore(broken)  # type: ignore[arg-type]
