"""Folding: exact, and the same whatever the batches and their order."""

import json
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_agent.aggregate import as_aggregate, fold, later_id, number_text, sum_units, units_text
from redis_agent.events import MetricEvent, read

VALUES = st.one_of(
    st.sampled_from([0, -0.0, 0.1, 0.2, -0.3, 1e-7, 5e-13, 1.5e-12, 1e15, -1e15, 0.1 + 0.2, 1e-300, True]),
    st.integers(-(10**15), 10**15),
    st.floats(-1e15, 1e15),
    st.integers(-(2 * 10**15), 2 * 10**15).map(lambda n: n * 5e-13),  # halves of the last place, and near them
)
EVENTS = st.one_of(
    st.fixed_dictionaries({"event": st.sampled_from(["a", "b"]), "count": st.integers(0, 10**9)}),
    st.dictionaries(st.sampled_from(["x", "y"]), VALUES, min_size=1),
)


def event(**fields: Any) -> MetricEvent:
    found = read(json.dumps({"experiment_id": "e", **fields}).encode(), max_bytes=10_000)
    assert isinstance(found, MetricEvent), found
    return found


def merged(parts: list[dict[str, str]], latest: dict[str, tuple[tuple[int, int], str]]) -> dict[str, str]:
    """Aggregates of several batches added up as the gate does, by other means."""
    total: dict[str, str] = {}
    for part in parts:
        for name, value in part.items():
            known = total.get(name)
            if known is None or name.endswith("_latest"):
                total[name] = value
            elif name in ("first_event_at", "last_updated"):
                total[name] = min(known, value) if name == "first_event_at" else max(known, value)
            elif name.endswith(("_min", "_max")):
                total[name] = (min if name.endswith("_min") else max)(known, value, key=float)
            else:
                with localcontext() as context:
                    context.prec = 60
                    total[name] = units_text(int((Decimal(known) + Decimal(value)).scaleb(12)))
    return total | {name: text for name, (_, text) in latest.items()}


@given(events=st.lists(EVENTS, min_size=1, max_size=25), data=st.data())
def test_any_partition_and_order_of_batches_comes_to_the_same(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    entries = [(f"{n // 3}-{n % 3}", 1000 + n * 7 % 11, event(**fields)) for n, fields in enumerate(events)]
    whole = as_aggregate(fold(entries)["e"])

    shuffled = data.draw(st.permutations(entries))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(entries)))) | {len(entries)})
    parts = []
    latest: dict[str, tuple[tuple[int, int], str]] = {}
    for first, last in zip([0, *cuts], cuts, strict=False):
        if first == last:
            continue
        change = fold(shuffled[first:last])["e"]
        parts.append(as_aggregate(change))
        for name, gauge in change.gauges.items():
            ms, _, seq = gauge.latest_id.partition("-")
            candidate = ((int(ms), int(seq)), number_text(gauge.latest))
            latest[f"{name}_latest"] = max(latest.get(f"{name}_latest", candidate), candidate)

    assert merged(parts, latest) == whole
    assert as_aggregate(fold(shuffled)["e"]) == whole


@given(st.lists(VALUES, max_size=50))
def test_sums_are_those_of_decimals(values: list[Any]) -> None:
    values = [int(v) if v is True else v for v in values]
    with localcontext() as context:
        context.prec = 60
        rounded = [Decimal(repr(v)).quantize(Decimal("1e-12"), ROUND_HALF_EVEN) for v in values]
        assert Decimal(units_text(sum(map(sum_units, values)))) == sum(rounded, Decimal(0))


@pytest.mark.parametrize(
    ("units", "text"),
    [(0, "0"), (1, "0.000000000001"), (-1, "-0.000000000001"), (10**12, "1"), (-(10**12), "-1"), (15 * 10**11, "1.5"),
     (-(5 * 10**11), "-0.5"), (10**27, "1000000000000000"), (10**12 + 1, "1.000000000001"), (10**13, "10")],
)  # fmt: skip
def test_units_are_written_without_exponent_or_trailing_zeros(units: int, text: str) -> None:
    assert units_text(units) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.0, "1"), (-0.0, "0"), (0.1, "0.1"), (1e15, "1000000000000000"), (1e-7, "1e-07"),
     (0.1 + 0.2, "0.30000000000000004")],
)  # fmt: skip
def test_number_has_one_text(value: float, text: str) -> None:
    assert number_text(value) == text


def test_ids_compare_as_numbers() -> None:
    assert later_id("10-0", "9-99")
    assert later_id("5-10", "5-9")
    assert not later_id("5-9", "5-9")
    assert not later_id("5-9", "5-10")


def test_latest_is_the_latest_in_the_stream_not_in_the_batch() -> None:
    entries = [("5-10", 1, event(x=1)), ("5-9", 2, event(x=2)), ("4-99", 3, event(x=3))]
    assert as_aggregate(fold(entries)["e"])["x_latest"] == "1"


def test_same_gauge_twice_in_one_event_is_two_samples() -> None:
    fields = as_aggregate(fold([("1-1", 1, event(metric="x", value=1, x=2))])["e"])
    assert (fields["x_samples"], fields["x_sum"]) == ("2", "3")


def test_aggregate_names_what_the_contract_names() -> None:
    entries = [
        ("1-1", 1_700_000_000_000, event(event="reply", count=2, rate=0.5)),
        ("1-2", 1_700_000_000_001, event(rate=True)),
    ]
    assert as_aggregate(fold(entries)["e"]) == {
        "events_total": "2", "first_event_at": "2023-11-14T22:13:20.000Z", "last_updated": "2023-11-14T22:13:20.001Z",
        "reply_count": "2", "rate_samples": "2", "rate_sum": "1.5", "rate_min": "0.5", "rate_max": "1",
        "rate_latest": "1",
    }  # fmt: skip


def test_each_experiment_has_its_own_change() -> None:
    other = read(b'{"experiment_id":"f","event":"x"}', max_bytes=100)
    assert isinstance(other, MetricEvent)
    changes = fold([("1-1", 1, event(event="x")), ("1-2", 1, other), ("1-3", 1, event(event="x"))])
    assert {name: change.events for name, change in changes.items()} == {"e": 2, "f": 1}
    assert len(changes["e"].raw) == 2
