"""The test of rates keeps its level at every look, is quick to see what is there, and is cheap."""

from __future__ import annotations

import math
import random
import statistics
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redis_agent.criteria.evidence import _incomplete_beta, rate_evidence


def boundary(threshold: float, operator: str, trials: int) -> list[int]:
    """For each number of trials the successes at which the test confirms."""
    above = operator == ">"
    bounds = [0 if above else -1]
    limit = 0 if above else -1
    for n in range(1, trials + 1):
        if above:
            while limit <= n and not confirmed(limit, n, threshold, operator):
                limit += 1
        else:
            while confirmed(limit + 1, n, threshold, operator):
                limit += 1
        bounds.append(limit)
    return bounds


def confirmed(successes: int, trials: int, threshold: float, operator: str) -> bool:
    if successes > trials:
        return False
    return rate_evidence(successes, trials, threshold, operator).state == "confirmed"


def first_confirmation(rng: random.Random, rate: float, bounds: list[int], above: bool) -> int:
    successes = 0
    for n in range(1, len(bounds)):
        successes += rng.random() < rate
        if (successes >= bounds[n]) if above else (successes <= bounds[n]):
            return n
    return 0


@pytest.mark.parametrize(("threshold", "operator"), [(0.1, ">"), (0.1, "<"), (0.02, "<"), (0.5, ">")])
def test_on_the_threshold_at_most_alpha_are_ever_confirmed(threshold: float, operator: str) -> None:
    rng = random.Random(20_260_201)
    runs, trials = 300, 2_000
    bounds = boundary(threshold, operator, trials)
    alarms = sum(first_confirmation(rng, threshold, bounds, operator == ">") > 0 for _ in range(runs))
    assert alarms / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_twice_the_threshold_is_confirmed_within_75_trials_in_the_median() -> None:
    rng = random.Random(7)
    bounds = boundary(0.1, ">", 1_000)
    stops = [first_confirmation(rng, 0.2, bounds, True) for _ in range(1_001)]
    assert 0 not in stops
    assert statistics.median(stops) <= 75


def test_the_interval_covers_the_rate_at_all_looks() -> None:
    rng = random.Random(11)
    missed = 0
    for _ in range(100):
        successes = 0
        for n in range(1, 301):
            successes += rng.random() < 0.1
            low, high = rate_evidence(successes, n, 0.1, ">").interval or (1.0, 0.0)
            if not low <= 0.1 <= high:
                missed += 1
                break
    assert missed <= 5


def test_the_interval_says_something() -> None:
    low, high = rate_evidence(28, 250, 0.08, ">").interval or (0.0, 1.0)
    assert 0.05 < low < 28 / 250 < high < 0.2
    assert rate_evidence(0, 0, 0.1, ">").interval == (0.0, 1.0)
    assert (rate_evidence(0, 50, 0.1, ">").interval or (1, 1))[0] == 0.0
    assert (rate_evidence(50, 50, 0.1, ">").interval or (0, 0))[1] == 1.0


def test_states_go_from_none_to_early_to_confirmed() -> None:
    assert rate_evidence(2, 12, 0.1, ">").state == "none"
    assert rate_evidence(3, 25, 0.1, ">").state == "early"
    assert rate_evidence(50, 250, 0.1, ">").state == "confirmed"
    assert rate_evidence(10, 250, 0.1, ">").state == "none"
    assert rate_evidence(2, 12, 0.1, ">", min_samples=10).state == "early"


def test_little_but_overwhelming_data_confirms_below_the_minimum() -> None:
    assert rate_evidence(9, 10, 0.1, ">").state == "confirmed"


def test_a_stricter_level_confirms_later() -> None:
    assert rate_evidence(20, 75, 0.1, ">", alpha=0.05).state == "confirmed"
    assert rate_evidence(20, 75, 0.1, ">", alpha=1e-6).state == "early"


def test_a_rate_exactly_on_the_threshold_is_not_above_it() -> None:
    assert rate_evidence(28, 350, 0.08, ">").state == "none"
    assert rate_evidence(28, 350, 0.08, ">=").state == "early"


@pytest.mark.parametrize(
    ("successes", "trials", "threshold", "operator", "state"),
    [
        (0, 0, 0.1, "<", "none"),
        (3, -5, 0.1, "<", "none"),
        (1, 5, 0.0, ">", "confirmed"),
        (0, 50, 0.0, ">", "none"),
        (0, 50, 0.0, "<=", "early"),
        (0, 50, 0.0, "<", "none"),
        (49, 50, 1.0, "<", "confirmed"),
        (50, 50, 1.0, "<", "none"),
        (50, 50, 1.0, ">=", "early"),
        (30, 20, 0.5, ">", "early"),
        (3, 2, 0.5, ">", "none"),
        (-3, 40, 0.5, "<", "early"),
        (3, 40, 5.0, "<", "early"),
        (3, 40, -1.0, ">", "early"),
        (0, 40, 0.0, "==", "early"),
        (4, 40, 0.5, "!=", "early"),
        (1, 40, 1e-300, ">", "early"),
    ],
)
def test_edges_are_shy(successes: int, trials: int, threshold: float, operator: str, state: str) -> None:
    assert rate_evidence(successes, trials, threshold, operator).state == state


def test_counts_that_are_no_successes_among_trials_have_no_interval() -> None:
    assert rate_evidence(30, 20, 0.5, ">").interval is None
    assert rate_evidence(-1, 20, 0.5, "<").interval is None


@pytest.mark.parametrize("arguments", [(1, 2, 0.5, "~"), (1, 2, math.nan, ">")])
def test_nonsense_is_refused(arguments: tuple[int, int, float, str]) -> None:
    with pytest.raises(ValueError):
        rate_evidence(*arguments)
    with pytest.raises(ValueError):
        rate_evidence(1, 2, 0.5, ">", alpha=0.0)


@settings(max_examples=300, deadline=None)
@example(2_573_485_501_354_569, 2_573_485_501_354_570, 0.0, "<")
@given(
    st.integers(-10, 10**18),
    st.integers(-10, 10**18),
    st.one_of(st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False)),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
)
def test_no_counts_break_it(successes: int, trials: int, threshold: float, operator: str) -> None:
    evidence = rate_evidence(successes, trials, threshold, operator)
    interval = evidence.interval
    if interval is not None:
        low, high = interval
        assert 0.0 <= low <= high <= 1.0
    if 0 <= successes <= trials and trials:
        assert low <= successes / trials <= high


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5_000), st.floats(0, 1), st.floats(0.001, 0.999))
def test_above_a_rate_and_below_its_complement_are_the_same_question(
    trials: int, share: float, threshold: float
) -> None:
    successes = round(trials * share)
    complement = 1.0 - threshold
    above = rate_evidence(successes, trials, 1.0 - complement, ">").state
    below = rate_evidence(trials - successes, trials, complement, "<").state
    assert above == below or math.isclose(successes / trials, threshold, rel_tol=1e-9)


def test_the_incomplete_beta_agrees_with_the_binomial_sum() -> None:
    for a, b, x in ((3, 5, 0.3), (2, 18, 0.1), (40, 160, 0.25), (1, 1, 0.7)):
        n = a + b - 1
        exact = sum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1))
        assert _incomplete_beta(x, 1 - x, a, b) == pytest.approx(exact, rel=1e-9)


def test_it_costs_microseconds() -> None:
    calls = [(28, 250), (50, 250), (180, 1_500), (240, 1_900), (130_000, 10**6), (2 * 10**8, 10**9)]
    best_state = best_interval = math.inf
    for _ in range(5):
        started = time.perf_counter()
        found = [rate_evidence(s, n, 0.1, ">") for s, n in calls for _ in range(20)]
        best_state = min(best_state, (time.perf_counter() - started) / len(found))
        started = time.perf_counter()
        for evidence in found[:40]:
            assert evidence.interval is not None
        best_interval = min(best_interval, (time.perf_counter() - started) / 40)
    assert best_state < 100e-6
    assert best_interval < 1e-3
