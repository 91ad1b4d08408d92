"""The test of rates keeps its level at every look, is quick to see what is there, and says what its interval says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from redis_agent.criteria.evidence import _log_evidence, rate_evidence

DIRECTED = (">", ">=", "<", "<=")
OPERATORS = (*DIRECTED, "==", "!=")
Stop = Callable[[int, int], bool]


def confirmed(successes: int, trials: int, threshold: float, operator: str) -> bool:
    return rate_evidence(successes, trials, threshold, operator).state == "confirmed"


def interval_of(successes: int, trials: int, operator: str = ">", alpha: float = 0.05) -> tuple[float, float]:
    interval = rate_evidence(successes, trials, 0.5, operator, alpha=alpha).interval
    assert interval is not None
    return interval


def chances_of_stopping(rate: float, stops: Stop, trials: int) -> list[float]:
    """For each number of trials the exact chance that the watcher has stopped by then."""
    going = {0: 1.0}
    stopped = [0.0]
    for n in range(1, trials + 1):
        following: dict[int, float] = {}
        for successes, chance in going.items():
            following[successes] = following.get(successes, 0.0) + chance * (1.0 - rate)
            following[successes + 1] = following.get(successes + 1, 0.0) + chance * rate
        going = {s: chance for s, chance in following.items() if chance > 1e-12 and not stops(s, n)}
        stopped.append(stopped[-1] + sum(c for s, c in following.items() if c > 1e-12 and s not in going))
    return stopped


def median_of(stopped: list[float]) -> int:
    return next(n for n, chance in enumerate(stopped) if chance >= 0.5)


@pytest.mark.parametrize("operator", [">", "<"])
@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.3, 0.5, 0.9])
def test_on_the_threshold_at_most_alpha_are_ever_confirmed(threshold: float, operator: str) -> None:
    stopped = chances_of_stopping(threshold, lambda s, n: confirmed(s, n, threshold, operator), 250)
    assert stopped[-1] <= 0.05
    inside = threshold * 0.8 if operator == ">" else 1.0 - (1.0 - threshold) * 0.8
    assert chances_of_stopping(inside, lambda s, n: confirmed(s, n, threshold, operator), 250)[-1] <= stopped[-1]


def test_the_literal_rule_would_be_wrong_nearly_always() -> None:
    assert chances_of_stopping(0.1, lambda s, n: n >= 20 and s / n > 0.1, 1_000)[-1] > 0.85


@pytest.mark.parametrize(
    ("rate", "threshold", "operator", "trials"),
    [(0.2, 0.1, ">", 75), (0.4, 0.1, ">", 15), (0.6, 0.3, ">", 20), (0.02, 0.1, "<", 65), (0.0, 0.1, "<", 40)],
)
def test_what_is_there_is_soon_confirmed(rate: float, threshold: float, operator: str, trials: int) -> None:
    stopped = chances_of_stopping(rate, lambda s, n: confirmed(s, n, threshold, operator), trials + 10)
    assert median_of(stopped) <= trials


def test_ten_thousand_trials_in_simulated_experiments_keep_the_level_and_the_coverage() -> None:
    rng = random.Random(20_260_201)
    runs, trials, rate = 200, 10_000, 0.05
    alarms = missed = 0
    for _ in range(runs):
        successes = 0
        alarm = miss = False
        for n in range(1, trials + 1):
            hit = rng.random() < rate
            successes += hit
            # Evidence for more comes with a success, the rest of the looks are sampled.
            if hit or n % 100 == 0:
                evidence = rate_evidence(successes, n, rate, ">")
                alarm = alarm or evidence.state == "confirmed"
                if evidence.state == "confirmed" or n % 1_000 == 0:
                    low, high = evidence.interval or (1.0, 0.0)
                    miss = miss or not low <= rate <= high
        alarms += alarm
        missed += miss
    assert alarms / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("operator", [">", "<", "=="])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_the_interval_covers_the_rate_at_all_looks(rate: float, operator: str) -> None:
    def excludes(successes: int, trials: int) -> bool:
        low, high = interval_of(successes, trials, operator)
        return not low <= rate <= high

    assert chances_of_stopping(rate, excludes, 120)[-1] <= 0.05


def integrated(hits: int, misses: int, rate: float) -> float:
    """e, with the average over the cut prior taken by the midpoint rule."""
    odds = 2.0 * (1.0 + rate) * rate / (1.0 - rate)
    a, b = (2.0, 2.0 / odds) if odds <= 1.0 else (2.0 * odds, 2.0)
    steps = 20_000
    width = (1.0 - rate) / steps
    above = mass = 0.0
    for step in range(steps):
        p = rate + (step + 0.5) * width
        density = p ** (a - 1.0) * (1.0 - p) ** (b - 1.0)
        mass += density
        above += density * (p / rate) ** hits * ((1.0 - p) / (1.0 - rate)) ** misses
    return above / mass


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("hits", "misses"), [(3, 2), (4, 30), (10, 40), (30, 0), (40, 20), (60, 4)])
def test_evidence_is_the_average_likelihood_ratio_and_never_more(hits: int, misses: int, rate: float) -> None:
    exact = integrated(hits, misses, rate)
    found = math.exp(_log_evidence(hits, misses, rate, 1.0 - rate))
    assert found <= exact * (1.0 + 1e-5)
    if exact >= 20.0:
        assert found >= 0.97 * exact


@pytest.mark.parametrize("trials", [1, 2, 3, 7, 15, 40])
@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8])
def test_evidence_is_at_most_one_on_average_wherever_in_the_null(threshold: float, trials: int) -> None:
    for rate in (threshold, threshold / 2.0, threshold / 10.0):
        mean = sum(
            math.comb(trials, s)
            * rate**s
            * (1.0 - rate) ** (trials - s)
            * math.exp(_log_evidence(s, trials - s, threshold, 1.0 - threshold))
            for s in range(trials + 1)
        )
        assert mean <= 1.0


@pytest.mark.parametrize(
    "hits_of", [(1, 1), (3, 3), (3, 20), (9, 10), (30, 100), (99, 100), (50, 2_000), (10**6, 10**7)]
)
def test_evidence_falls_as_the_threshold_rises_towards_the_rate(hits_of: tuple[int, int]) -> None:
    hits, trials = hits_of
    logits = [step / 20.0 for step in range(-400, 401)]
    before = math.inf
    for logit in logits:
        rate, complement = 1.0 / (1.0 + math.exp(-logit)), 1.0 / (1.0 + math.exp(logit))
        if rate >= hits / trials:
            break
        now = _log_evidence(hits, trials - hits, rate, complement)
        assert now <= before + 1e-4  # what lgamma rounds away at thresholds near 0 and 1
        before = now


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.001, 0.999))
def test_a_success_more_speaks_for_more_and_a_failure_more_against(trials: int, share: float, threshold: float) -> None:
    successes = round((trials - 1) * share)
    if confirmed(successes, trials, threshold, ">"):
        assert confirmed(successes + 1, trials, threshold, ">")
        assert confirmed(successes + 1, trials + 1, threshold, ">")
    if confirmed(successes, trials + 1, threshold, ">"):
        assert confirmed(successes, trials, threshold, ">")


def test_a_criterion_is_confirmed_when_its_interval_lies_beyond_the_threshold_and_only_then() -> None:
    for operator in DIRECTED:
        for threshold in (0.02, 0.1, 0.5, 0.75):
            for trials in (1, 5, 20, 60, 400):
                for successes in range(0, trials + 1, 1 if trials < 100 else 3):
                    evidence = rate_evidence(successes, trials, threshold, operator)
                    low, high = evidence.interval or (1.0, 0.0)
                    beyond = low >= threshold if operator[0] == ">" else high <= threshold
                    literally = successes / trials != threshold
                    assert (evidence.state == "confirmed") == (beyond and literally)


def test_the_interval_says_something() -> None:
    low, high = interval_of(28, 250)
    assert 0.05 < low < 28 / 250 < high < 0.2
    assert interval_of(0, 0) == (0.0, 1.0)
    assert interval_of(0, 50)[0] == 0.0
    assert interval_of(0, 50)[1] < 0.15
    assert interval_of(50, 50)[1] == 1.0
    assert interval_of(50, 50)[0] > 0.85


def test_the_interval_narrows_like_the_root_of_the_trials() -> None:
    widths = [high - low for low, high in (interval_of(n // 10, n) for n in (100, 10_000, 1_000_000))]
    assert widths[0] / widths[1] > 7.0
    assert widths[1] / widths[2] > 7.0
    assert widths[2] < 0.003


def test_states_go_from_none_to_early_to_confirmed() -> None:
    assert rate_evidence(2, 12, 0.1, ">").state == "none"
    assert rate_evidence(3, 25, 0.1, ">").state == "early"
    assert rate_evidence(50, 250, 0.1, ">").state == "confirmed"
    assert rate_evidence(10, 250, 0.1, ">").state == "none"
    assert rate_evidence(2, 12, 0.1, ">", min_samples=10).state == "early"


def test_little_but_overwhelming_data_confirms_below_the_minimum() -> None:
    assert rate_evidence(9, 10, 0.1, ">").state == "confirmed"


@pytest.mark.parametrize("threshold", [1e-12, 1e-9, 1e-6, 0.001, 0.01])
def test_two_successes_are_never_enough_above_a_threshold_that_is_not_zero(threshold: float) -> None:
    assert rate_evidence(2, 40, threshold, ">").state == "early"
    assert rate_evidence(5, 40, threshold, ">").state == "confirmed"


def test_a_stricter_level_confirms_later() -> None:
    assert rate_evidence(20, 75, 0.1, ">", alpha=0.05).state == "confirmed"
    assert rate_evidence(20, 75, 0.1, ">", alpha=1e-6).state == "early"
    assert interval_of(20, 75, alpha=1e-6)[0] < interval_of(20, 75)[0]
    assert interval_of(20, 75, alpha=1e-6)[1] > interval_of(20, 75)[1]


def test_a_rate_exactly_on_the_threshold_is_not_above_it() -> None:
    assert rate_evidence(28, 350, 0.08, ">").state == "none"
    assert rate_evidence(28, 350, 0.08, ">=").state == "early"


@pytest.mark.parametrize(
    ("successes", "trials", "threshold", "operator", "state"),
    [
        (0, 0, 0.1, "<", "none"),
        (3, 0, 0.1, ">", "none"),
        (1, 5, 0.0, ">", "confirmed"),
        (0, 50, 0.0, ">", "none"),
        (0, 50, 0.0, "<=", "early"),
        (0, 50, 0.0, "<", "none"),
        (49, 50, 1.0, "<", "confirmed"),
        (50, 50, 1.0, "<", "none"),
        (50, 50, 1.0, ">=", "early"),
        (30, 20, 0.5, ">", "early"),
        (3, 2, 0.5, ">", "none"),
        (3, 40, 5.0, "<", "early"),
        (3, 40, -1.0, ">", "early"),
        (0, 40, 0.0, "==", "early"),
        (4, 40, 0.5, "!=", "early"),
        (1, 40, 1e-300, ">", "early"),
    ],
)
def test_edges_are_shy(successes: int, trials: int, threshold: float, operator: str, state: str) -> None:
    assert rate_evidence(successes, trials, threshold, operator).state == state


def test_more_successes_than_trials_have_no_interval() -> None:
    evidence = rate_evidence(30, 20, 0.5, ">")
    assert evidence.interval is None
    assert evidence.reason == "the counts are not successes among trials"


@pytest.mark.parametrize("successes", [-1, 2.0, True, math.nan, "3", None])
def test_counts_that_are_none_are_refused_by_name(successes: object) -> None:
    with pytest.raises((TypeError, ValueError), match="successes must"):
        rate_evidence(successes, 20, 0.5, ">")  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError), match="trials must"):
        rate_evidence(0, successes, 0.5, ">")  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError), match="min_samples must"):
        rate_evidence(0, 1, 0.5, ">", min_samples=successes)  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf, True, "0.1"])
def test_thresholds_that_are_none_are_refused_by_name(threshold: object) -> None:
    with pytest.raises((TypeError, ValueError), match="threshold must"):
        rate_evidence(1, 2, threshold, ">")  # type: ignore[arg-type]


def test_levels_and_operators_that_are_none_are_refused() -> None:
    for alpha in (0.0, 1.0, -0.1, math.nan, True):
        with pytest.raises((TypeError, ValueError), match="alpha must"):
            rate_evidence(1, 2, 0.5, ">", alpha=alpha)
    with pytest.raises(ValueError, match="unknown operator '~'"):
        rate_evidence(1, 2, 0.5, "~")


@pytest.mark.parametrize("trials", [10**6, 10**9, 10**12, 10**18])
def test_huge_counts_are_judged_as_finely_as_floats_can(trials: int) -> None:
    successes = trials // 10
    assert rate_evidence(successes, trials, 0.09, ">").state == "confirmed"
    assert rate_evidence(successes, trials, 0.11, "<").state == "confirmed"
    assert rate_evidence(successes, trials, 0.1 - 1e-8, ">").state == "early"
    low, high = interval_of(successes, trials)
    assert 0.1 - 0.002 < low < 0.1 < high < 0.1 + 0.002
    assert interval_of(0, trials)[1] < 1e-4
    assert interval_of(trials, trials)[0] > 1.0 - 1e-4


@settings(max_examples=300, deadline=None)
@example(2_573_485_501_354_569, 2_573_485_501_354_570, 0.0, "<", 0.05)
@given(
    st.integers(0, 10**18),
    st.integers(0, 10**18),
    st.one_of(st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False)),
    st.sampled_from(OPERATORS),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_no_counts_break_it(successes: int, trials: int, threshold: float, operator: str, alpha: float) -> None:
    evidence = rate_evidence(successes, trials, threshold, operator, alpha=alpha)
    interval = evidence.interval
    assert (interval is None) == (successes > trials)
    if interval is not None:
        low, high = interval
        assert 0.0 <= low <= high <= 1.0
        if trials:
            assert low <= successes / trials <= high
        if evidence.state == "confirmed":
            assert low >= threshold if operator[0] == ">" else high <= threshold


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5_000), st.floats(0, 1), st.floats(0.001, 0.999), st.booleans())
def test_above_a_rate_and_below_its_complement_are_the_same_question(
    trials: int, share: float, threshold: float, inclusive: bool
) -> None:
    successes = round(trials * share)
    assume(not math.isclose(successes / trials, threshold, rel_tol=1e-9))
    complement = 1.0 - threshold
    above = rate_evidence(successes, trials, 1.0 - complement, ">=" if inclusive else ">")
    below = rate_evidence(trials - successes, trials, complement, "<=" if inclusive else "<")
    assert above.state == below.state
    low, high = above.interval or (1.0, 0.0)
    assert (1.0 - high, 1.0 - low) == pytest.approx(below.interval, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5_000), st.floats(0, 1), st.floats(0, 1))
def test_the_same_counts_are_never_confirmed_both_above_and_below(trials: int, share: float, threshold: float) -> None:
    successes = round(trials * share)
    states = [rate_evidence(successes, trials, threshold, operator).state for operator in (">", "<")]
    assert "none" in states
