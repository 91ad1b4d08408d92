"""Every form of the contract's table of events, and what is refused."""

import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_agent.events import MAX_COUNT, MetricEvent, Reason, Unreadable, read
from tests.integration.hostile import payloads

LIMIT = 262_144


def event(data: bytes | dict[str, Any]) -> MetricEvent:
    found = read(data if isinstance(data, bytes) else json.dumps(data).encode(), max_bytes=LIMIT)
    assert isinstance(found, MetricEvent), found
    return found


@pytest.mark.parametrize(
    ("data", "name", "times", "gauges"),
    [
        ('{"experiment_id":"e","event":"email_sent","count":1}', "email_sent", 1, {}),
        ('{"experiment_id":"e","event":"email_sent"}', "email_sent", 1, {}),
        ('{"experiment_id":"e","event":"email_sent","count":null}', "email_sent", 1, {}),
        ('{"experiment_id":"e","event":"email_sent","count":25}', "email_sent", 25, {}),
        ('{"experiment_id":"e","event":"email_sent","count":25.0}', "email_sent", 25, {}),
        ('{"experiment_id":"e","event":"email_sent","count":0}', "email_sent", 0, {}),
        (f'{{"experiment_id":"e","event":"x","count":{MAX_COUNT}}}', "x", MAX_COUNT, {}),
        ('{"experiment_id":"e","response_rate":0.15}', None, 0, {"response_rate": 0.15}),
        ('{"experiment_id":"e","a":1,"b":-2.5,"note":"x"}', None, 0, {"a": 1, "b": -2.5}),
        ('{"experiment_id":"e","event":"batch","count":1,"bounce_rate":0.04}', "batch", 1, {"bounce_rate": 0.04}),
        ('{"experiment_id":"e","event":"error","message":"Test error"}', "error", 1, {}),
        ('{"experiment_id":"e","event":"error","run_id":"r","timestamp":1.5,"retry_attempts":3}', "error", 1, {}),
        ('{"experiment_id":"e","event":"error","error_type":"T","timeout_seconds":30}', "error", 1, {}),
        ('{"event":"run_started","run_id":"e:1","timestamp":1705320123.4,"experiment_id":"e"}', "run_started", 1, {}),
        ('{"event":"run_done","run_id":"e:1","timestamp":1705320123456,"experiment_id":"e"}', "run_done", 1, {}),
        ('{"event":"processed","count":7,"timestamp":"2026-02-01T10:00:00Z","experiment_id":"e"}', "processed", 7, {}),
        ('{"experiment_id":"e","metric":"sent","value":20,"timestamp":"2026-02-01T10:00:00"}', None, 0, {"sent": 20}),
        ("{'experiment_id': 'e', 'metric': 'emails_sent', 'value': 20}", None, 0, {"emails_sent": 20}),
        ("{'experiment_id': 'e', 'event': 'x', 'ok': True, 'why': None}", "x", 1, {"ok": 1}),
        ('{"experiment_id":"e","account_restricted":true}', None, 0, {"account_restricted": 1}),
        ('{"experiment_id":"e","account_restricted":false}', None, 0, {"account_restricted": 0}),
        ('{"experiment_id":"e","count":5}', None, 0, {"count": 5}),
        ('{"experiment_id":"e","value":5}', None, 0, {"value": 5}),
        ('{"experiment_id":"e","x":1e15,"y":-1e15}', None, 0, {"x": 1e15, "y": -1e15}),
    ],
)  # fmt: skip
def test_form_of_the_contract_is_read(data: str, name: str | None, times: int, gauges: dict[str, float]) -> None:
    found = event(data.encode())
    assert (found.experiment_id, found.name, found.times, dict(found.gauges)) == ("e", name, times, gauges)
    assert all(type(value) in (int, float) for _, value in found.gauges)


def test_json_is_kept_as_published_and_a_repr_becomes_json() -> None:
    published = b'  {"experiment_id": "e",\t"event":"x" }\n'
    assert event(published).raw == published
    assert json.loads(event(b"{'experiment_id': 'e', 'x': 1, 'n': None}").raw) == {
        "experiment_id": "e",
        "x": 1,
        "n": None,
    }


def test_error_carries_its_texts() -> None:
    found = event({"experiment_id": "e", "event": "error", "message": "m", "run_id": "r", "error_type": 5})
    assert found.is_error
    assert (found.text("message"), found.text("run_id"), found.text("error_type"), found.text("no")) == (
        "m",
        "r",
        None,
        None,
    )


def test_only_error_events_are_errors() -> None:
    assert not event({"experiment_id": "e", "event": "errors"}).is_error
    assert not event({"experiment_id": "e", "error": 1}).is_error


def test_every_hostile_payload_is_refused_with_its_reason_and_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data, reason in payloads():
            found = read(data, max_bytes=LIMIT)
            assert isinstance(found, Unreadable), data[:100]
            assert found.reason in (reason or found.reason), data[:100]
            assert str(found).startswith(f"{found.reason.value}: ")
            assert len(found.detail) < 300
            str(found).encode()  # no half of a surrogate pair


@pytest.mark.parametrize("field", ["timestamp", "nested", "in an error"])
def test_nan_anywhere_is_no_json(field: str) -> None:
    bodies = {
        "timestamp": '"event":"x","timestamp":NaN',
        "nested": '"event":"x","more":{"deep":[-Infinity]}',
        "in an error": '"event":"error","timeout_seconds":Infinity',
    }
    found = read(('{"experiment_id":"e",' + bodies[field] + "}").encode(), max_bytes=LIMIT)
    assert isinstance(found, Unreadable)
    assert found.reason == Reason.NOT_JSON


def test_texts_that_speak_of_nan_are_fine() -> None:
    assert event({"experiment_id": "e", "event": "error", "message": "NaN or -Infinity"}).is_error


def test_entry_without_data_and_one_too_large_are_refused_unread() -> None:
    missing, large = read(None, max_bytes=10), read(b"x" * 11, max_bytes=10)
    assert isinstance(missing, Unreadable)
    assert isinstance(large, Unreadable)
    assert (missing.reason, large.reason) == (Reason.NO_DATA, Reason.TOO_LARGE)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_reading_never_raises(data: bytes) -> None:
    assert isinstance(read(data, max_bytes=LIMIT), (MetricEvent, Unreadable))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
NAMES = st.one_of(st.sampled_from(["event", "count", "metric", "value", "timestamp", "x"]), st.text(max_size=6))


@given(st.dictionaries(NAMES, JSON, max_size=6), st.booleans())
def test_whatever_is_read_has_sound_numbers(fields: dict[str, Any], as_repr: bool) -> None:
    document = {"experiment_id": "e", **fields}
    data = (repr(document) if as_repr else json.dumps(document)).encode("utf-8", "surrogatepass")
    found = read(data, max_bytes=LIMIT)
    if isinstance(found, MetricEvent):
        assert 0 <= found.times <= MAX_COUNT
        assert all(type(v) in (int, float) and abs(v) <= 1e15 for _, v in found.gauges)
        assert all(name.isprintable() and 0 < len(name) <= 100 for name, _ in found.gauges)
        assert found.name is None or found.name.isprintable()
