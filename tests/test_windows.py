"""Which windows an event counts in."""

import json

import pytest

from redis_agent.aggregate import fold
from redis_agent.events import MetricEvent, read
from redis_agent.windows import Retention, Window

NOW_MS = 1_769_940_000_000  # 2026-02-01 10:00 UTC
TWO_DAYS, NINETY_DAYS = 172_800, 7_776_000
KEPT = Retention(TWO_DAYS, NINETY_DAYS)


def event(**fields: object) -> MetricEvent:
    found = read(json.dumps({"experiment_id": "e", "event": "x", **fields}).encode(), max_bytes=10_000)
    assert isinstance(found, MetricEvent)
    return found


@pytest.mark.parametrize(
    ("timestamp", "own_ms"),
    [
        (1769940000, NOW_MS),
        (1769940000.25, NOW_MS + 250),
        (1769940000250, NOW_MS + 250),
        ("2026-02-01T10:00:00", NOW_MS),
        ("2026-02-01 10:00:00", NOW_MS),
        ("2026-02-01T10:00:00Z", NOW_MS),
        ("2026-02-01T11:00:00+01:00", NOW_MS),
        ("2026-02-01T10:00:00.250Z", NOW_MS + 250),
        (None, None),
        (True, None),
        (-5, None),
        (1e300, None),
        ("yesterday", None),
        ("2026-02-01T10:00:00" * 100, None),
        ({"a": 1}, None),
        ([1769940000], None),
    ],
)
def test_time_of_an_event_is_read_in_every_form_that_publishers_use(timestamp: object, own_ms: int | None) -> None:
    assert event(timestamp=timestamp).own_ms == own_ms


def test_event_without_a_time_has_none() -> None:
    assert event().own_ms is None


@pytest.mark.parametrize(
    ("own_ms", "moment_ms"),
    [
        (None, NOW_MS),
        (NOW_MS - 5_000, NOW_MS - 5_000),
        (NOW_MS + 60_000, NOW_MS + 60_000),
        (NOW_MS + 60_001, NOW_MS),
        (NOW_MS - 1000 * NINETY_DAYS + 1, NOW_MS - 1000 * NINETY_DAYS + 1),
        (NOW_MS - 1000 * NINETY_DAYS, NOW_MS),
        (0, NOW_MS),
        (-62135679600000, NOW_MS),
    ],
)
def test_own_time_counts_within_reason_else_that_of_arrival(own_ms: int | None, moment_ms: int) -> None:
    assert KEPT.moment_ms(own_ms, NOW_MS) == moment_ms


def test_late_event_lands_in_its_own_windows_and_old_ones_in_their_hour_alone() -> None:
    late = [
        event(timestamp=1769940000),
        event(timestamp=1769940000 - 61, count=3),
        event(timestamp=1769940000 - 3 * 86_400, rate=0.5),
    ]
    (change,) = fold([(f"{n}-0", NOW_MS + n, e) for n, e in enumerate(late)], KEPT).values()
    windows = {window: sums for window, sums in change.windows(KEPT) if sums is not None}
    assert {window: (sums.events, sums.counters) for window, sums in windows.items()} == {
        Window("minute", 1769940000): (1, {"x": 1}),
        Window("minute", 1769940000 - 120): (1, {"x": 3}),
        Window("hour", 1769940000): (1, {"x": 1}),
        Window("hour", 1769940000 - 3_600): (1, {"x": 3}),
        Window("hour", 1769940000 - 3 * 86_400): (1, {"x": 1}),
    }
    assert windows[Window("hour", 1769940000 - 3 * 86_400)].gauges["rate"].samples == 1
    assert change.counters == {"x": 5}


def test_batch_within_one_minute_is_written_once_and_windows_refer_to_it() -> None:
    (change,) = fold([(f"{n}-0", NOW_MS + n, event()) for n in range(50)], KEPT).values()
    assert change.windows(KEPT) == [(Window("minute", 1769940000), None), (Window("hour", 1769940000), None)]
    assert change.windows(Retention(TWO_DAYS, 0)) == [(Window("minute", 1769940000), None)]
    assert change.windows(Retention(0, 0)) == []
