"""A crossing is told when it rises, again ever more rarely, and flapping once: whatever the metric does."""

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_agent.alerts import Crossing, threshold_alert
from redis_agent.lifecycle import (
    CALM_MS,
    DAY_MS,
    SETTLED_MS,
    CriterionState,
    Level,
    Policy,
    Reason,
    decide,
    inhibits_anomalies,
)

MINUTE = 60_000
HOUR = 60 * MINUTE
START = 1_769_940_000_000
POLICY = Policy(cooldown_ms=5 * MINUTE, backoff=2.0, early=True)


class Criterion:
    """A criterion that is judged now and then, with a clock of its own."""

    def __init__(self, policy: Policy = POLICY, *, tell_cleared: bool = False) -> None:
        self.policy = policy
        self.tell_cleared = tell_cleared
        self.state = CriterionState()
        self.now_ms = START
        self.events = 0
        self.told: list[tuple[int, Reason]] = []

    def see(self, level: Level, *, after: int = 0, events: int = 1) -> Reason:
        """Judge after so many ms and so many events; the state is kept as Redis keeps it."""
        self.now_ms += after
        self.events += events
        decision = decide(
            self.state,
            level,
            now_ms=self.now_ms,
            events=self.events,
            policy=self.policy,
            tell_cleared=self.tell_cleared,
        )
        if decision.tell:
            self.told.append(((self.now_ms - START) // MINUTE, decision.reason))
        kept = decision.told if decision.tell else decision.held
        self.state = CriterionState.loads(kept.dumps())
        assert self.state == kept
        return decision.reason


TOLD = frozenset({Reason.ROSE, Reason.LASTS, Reason.FLAPS, Reason.SETTLED})
MET, EARLY, OFF = Level.CONFIRMED, Level.EARLY, Level.INACTIVE


def test_crossing_is_told_when_it_rises_and_again_after_waits_that_double() -> None:
    criterion = Criterion()
    for _ in range(24 * 60):
        criterion.see(MET, after=MINUTE)
    assert criterion.told == [(1, Reason.ROSE)] + [(1 + m, Reason.LASTS) for m in (5, 15, 35, 75, 155, 315, 635, 1275)]


def test_wait_grows_to_a_day_and_no_further() -> None:
    assert [POLICY.wait_ms(told) for told in (0, 1, 2, 3)] == [5 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE]
    assert POLICY.wait_ms(1000) == DAY_MS
    assert Policy(2 * DAY_MS, 2.0, True).wait_ms(9) == 2 * DAY_MS, "a longer cooldown is the author's wish"
    assert Policy(MINUTE, 1.0, True).wait_ms(1000) == MINUTE
    assert Policy(MINUTE, 100.0, True).wait_ms(10**9) == DAY_MS


def test_what_lasts_is_not_told_again_without_news() -> None:
    criterion = Criterion()
    criterion.see(MET)
    assert criterion.see(MET, after=HOUR, events=0) is Reason.NO_NEWS
    assert criterion.see(MET, after=HOUR, events=1) is Reason.LASTS
    assert criterion.see(MET, after=HOUR, events=-1) is Reason.LASTS, "the aggregate was deleted and begins anew"


def test_early_sign_is_told_once_and_its_confirmation_at_once() -> None:
    criterion = Criterion()
    reasons = [criterion.see(level, after=MINUTE) for level in (EARLY, EARLY, OFF, EARLY, MET, EARLY, MET)]
    assert reasons == [
        Reason.ROSE, Reason.TOLD_AS_EARLY, Reason.OVER, Reason.TOLD_AS_EARLY, Reason.ROSE, Reason.WEAKER,
        Reason.WAITS,
    ]  # fmt: skip
    assert criterion.see(EARLY, after=DAY_MS) is Reason.WEAKER, "what was confirmed is not told as early"


def test_early_sign_is_silent_where_only_what_is_confirmed_counts() -> None:
    criterion = Criterion(replace(POLICY, early=False))
    assert criterion.see(EARLY) is Reason.EARLY_IS_SILENT
    assert criterion.state.level is Level.EARLY
    assert criterion.see(MET) is Reason.ROSE


def test_crossing_that_comes_back_waits_as_long_as_if_it_had_lasted() -> None:
    criterion = Criterion()
    criterion.see(MET)
    criterion.see(OFF, after=MINUTE)
    assert criterion.see(MET, after=MINUTE) is Reason.WAITS
    assert criterion.see(MET, after=3 * MINUTE, events=0) is Reason.ROSE, "it rose since, which is news enough"
    criterion.see(OFF, after=MINUTE)
    assert criterion.policy.wait_ms(criterion.state.told) == 10 * MINUTE


def test_clear_that_lasts_a_day_is_forgotten_and_one_that_does_not_is_not() -> None:
    for wait, told in ((CALM_MS - 1, 2), (CALM_MS, 1)):
        criterion = Criterion()
        criterion.see(MET)
        criterion.see(OFF)
        assert criterion.see(MET, after=wait) is Reason.ROSE
        assert criterion.state.told == told
    criterion = Criterion()
    criterion.see(MET)
    assert criterion.see(OFF) is Reason.OVER
    assert criterion.see(OFF, after=CALM_MS) is Reason.FORGOTTEN
    assert criterion.state.dumps() == ""


def test_cleared_is_told_once_for_each_time_that_the_crossing_was_told() -> None:
    criterion = Criterion(tell_cleared=True)
    reasons = [criterion.see(level, after=MINUTE) for level in (OFF, MET, OFF, OFF, MET, OFF)]
    assert reasons == [
        Reason.UNCHANGED, Reason.ROSE, Reason.CLEARED, Reason.UNCHANGED, Reason.WAITS, Reason.OVER,
    ]  # fmt: skip
    criterion.see(MET, after=10 * MINUTE)
    assert criterion.state.flapping
    assert criterion.see(OFF, after=MINUTE) is Reason.OVER, "what flaps is cleared all the time"


def test_flapping_is_told_once_until_the_criterion_has_settled() -> None:
    criterion = Criterion()
    for _ in range(12 * 60):
        criterion.see(MET, after=MINUTE // 2)
        criterion.see(OFF, after=MINUTE // 2)
    assert criterion.told == [(0, Reason.ROSE), (5, Reason.FLAPS)]
    criterion.see(MET, after=MINUTE)
    assert criterion.see(MET, after=SETTLED_MS - 1) is Reason.FLAPPING
    assert criterion.see(MET, after=1) is Reason.SETTLED
    assert not criterion.state.flapping


def flapping_day() -> tuple[int, list[str]]:
    """A gauge around 5 % that is judged every ten seconds: a slow swing, a fast one, and something like noise.

    Returns:
        how often it rose, and the messages that were told, each with its time.
    """
    criterion = Criterion()
    rises, messages = 0, []
    for second in range(0, 86_400, 10):
        swing = 0.6 * math.sin(second / 2_900) + 0.8 * math.sin(second / 210) + 0.9 * math.sin(second * second / 7_919)
        value = round(0.05 + swing / 100, 4)
        level = MET if value > 0.05 else OFF
        rises += level is MET and not criterion.state.active
        reason = criterion.see(level, after=10_000)
        if reason in TOLD:
            now, since = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (criterion.now_ms, criterion.state.since_ms))
            crossing = Crossing(
                kind="failure", criterion="bounce_rate > 0.05", fingerprint="f", metric="bounce_rate", operator=">",
                threshold=0.05, value=value, samples=None, interval=None, evidence="fact",
                reason=f"bounce_rate is {value}, above 0.05",
            )  # fmt: skip
            alert = threshold_alert(crossing, experiment_id="exp", alert_id="x", now=now, why=reason, since=since)
            messages.append(f"{now:%H:%M} {alert.message}")
    return rises, messages


def test_metric_that_flaps_around_its_threshold_all_day_is_a_handful_of_messages() -> None:
    rises, messages = flapping_day()
    assert rises > 1_000
    assert len(messages) <= 5
    assert ["coming and going" in message for message in messages].count(True) == 1
    page = (Path(__file__).parents[1] / "docs" / "alerts.md").read_text(encoding="utf-8")
    for message in messages:
        assert message in page, "docs/alerts.md lists them"


@pytest.mark.parametrize("period_seconds", [20, 60, 300, 600, 1_200, 3_600, 7_200, 21_600, 43_200])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_day_of_whatever_period_is_few_messages(period_seconds: int, share: float) -> None:
    criterion = Criterion()
    for second in range(0, 86_400, 10):
        criterion.see(MET if second % period_seconds < share * period_seconds else OFF, after=10_000)
    reasons = [reason for _, reason in criterion.told]
    assert reasons.count(Reason.FLAPS) <= 1
    assert len(reasons) <= 9, "no more than if it had lasted"
    assert Reason.FLAPS not in reasons or len(reasons) <= (6 if period_seconds <= 3_600 else 8)


def test_failure_that_was_told_mutes_anomalies_as_long_as_it_holds() -> None:
    criterion = Criterion()
    assert not inhibits_anomalies([])
    assert not inhibits_anomalies([criterion.state])
    criterion.see(MET)
    assert inhibits_anomalies([CriterionState(), criterion.state])
    criterion.see(OFF)
    assert not inhibits_anomalies([criterion.state])
    silent = Criterion(replace(POLICY, early=False))
    silent.see(EARLY)
    assert not inhibits_anomalies([silent.state]), "what nobody was told of explains nothing"


def test_aggregate_older_than_the_one_that_was_judged_decides_nothing() -> None:
    criterion = Criterion()
    criterion.see(MET, events=10)
    assert criterion.see(OFF, events=-1) is Reason.OLDER
    assert criterion.see(OFF, after=MINUTE, events=-1) is Reason.OVER, "but a new start with fewer events does"


def test_clock_that_was_set_back_holds_nothing_back_for_good() -> None:
    criterion = Criterion()
    criterion.see(MET)
    assert criterion.see(MET, after=-HOUR) is Reason.LASTS, "the cooldown in Redis decides"


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"junk",
        b"[]",
        b"null",
        b'{"level":"no"}',
        b'{"rises":5}',
        b'{"told":"x"}',
        b'{"told":1e999}',
        b"[" * 9999,
        b'{"since":"2026-02-01T10:00:00.000Z","alert_id":"x","type":"success_threshold"}',
    ],
)
def test_state_that_cannot_be_read_counts_as_none(kept: bytes) -> None:
    state = CriterionState.loads(kept)
    assert state.level is Level.INACTIVE
    assert decide(state, MET, now_ms=START, events=1, policy=POLICY).tell


steps = st.lists(
    st.tuples(st.sampled_from([OFF, EARLY, MET]), st.integers(0, 3 * HOUR), st.integers(0, 3)), min_size=1, max_size=80
)


@given(steps)
def test_whatever_happens_alerts_are_never_closer_than_their_waits(course: list[tuple[Any, int, int]]) -> None:
    criterion = Criterion()
    sure: list[int] = []
    for level, after, events in course:
        before = criterion.state
        told = criterion.see(level, after=after, events=events) in TOLD
        assert not told or criterion.state.active
        if told and level is MET:
            sure.append(criterion.now_ms)
        assert criterion.state.told >= before.told or before.level is Level.CLEARED
    assert all(later - earlier >= POLICY.cooldown_ms for earlier, later in itertools.pairwise(sure))
    assert len(criterion.state.rises) <= 3
