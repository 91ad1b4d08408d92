"""Bytes from the channel become a metric event, or a reason why not.

The forms are those of the contract: counter events, gauges, both at once, errors, run events, named values, and
the Python repr of a dict, which some publishers send instead of JSON. A repr is accepted: it is read as a literal
(`ast.literal_eval`, never `eval`), up to 16 kB.
"""

import ast
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import from_json

# Longest experiment id and metric name that is kept; longer ones are mistakes, and names become key parts.
MAX_EXPERIMENT_ID = 200
MAX_NAME = 100
# One event may say at most so many occurrences; sums of a century of such events stay exact.
MAX_COUNT = 1_000_000_000
# Largest gauge; sums are kept exactly to 12 decimals.
MAX_GAUGE = 1e15
# A repr is read by Python's own parser, whose cost and depth are bounded by this length in bytes.
MAX_REPR_BYTES = 16_384
# More gauges than this in one event is not a measurement.
MAX_GAUGES = 200

ERROR_EVENT = "error"
# The events that end an experiment, and a run of it.
COMPLETED_EVENT = "experiment_completed"
RUN_COMPLETED_EVENT = "run_completed"
# Numbers under these names describe the event; count and value have rules of their own.
_NOT_GAUGES = frozenset({"timestamp", "count", "value"})
# An event with a name and nothing but these, where `run_id` is a text, carries no gauge: most do not.
_NO_GAUGES = frozenset({"experiment_id", "event", "count", "timestamp", "run_id"})
# A timestamp below the first is in seconds (until the year 5138), above in milliseconds (since 1973), up to the last.
_FIRST_MS = 1e11
_LAST_MS = 1e14
# Longest text that is read as a moment.
_MAX_MOMENT = 40
# bool is an int to isinstance, and must not count as a number here.
_NUMBERS = frozenset({int, float})
_MEASURES = _NUMBERS | {bool}  # a flag is measured, too


class Reason(StrEnum):
    """Why an entry is a dead letter: the label of `dead_letters_total` and the start of `reason`."""

    NO_DATA = "no_data"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    NO_EXPERIMENT = "no_experiment_id"
    BAD_EXPERIMENT = "invalid_experiment_id"
    BAD_EVENT = "invalid_event"
    BAD_COUNT = "invalid_count"
    BAD_VALUE = "invalid_value"
    NOTHING = "nothing_to_measure"
    WRONG_TYPE = "wrong_type"
    WRONG_PARTITION = "wrong_partition"
    MAX_DELIVERIES = "max_deliveries"
    NOT_APPLIED = "not_applied"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What could not be read as an event: a reason from the fixed set, and what exactly is wrong."""

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class MetricEvent(NamedTuple):
    """A readable event with its numbers checked. A tuple, because one is made for every event.

    Attributes:
        experiment_id: the experiment it belongs to.
        name: of the thing that happened; None when it only carries gauges.
        times: how many times it happened; 0 without a name.
        gauges: (name, value) in the order given; flags are 1 and 0.
        raw: the event as JSON bytes: as published, or the JSON of a repr.
        document: all that was published.
    """

    experiment_id: str
    name: str | None
    times: int
    gauges: Sequence[tuple[str, int | float]]
    raw: bytes
    document: dict[str, Any]

    @property
    def is_error(self) -> bool:
        """Whether this event reports an error; its numbers describe the error."""
        return self.name == ERROR_EVENT

    def text(self, name: str) -> str | None:
        """A text that the event carries beside its numbers, such as `message` or `run_id`."""
        value = self.document.get(name)
        return value if isinstance(value, str) else None

    @property
    def own_ms(self) -> int | None:
        """When it happened by its own `timestamp`, in ms since the epoch; None where it says nothing that can be read.

        Epoch seconds, epoch milliseconds, or ISO 8601; without a zone that is UTC.
        """
        value = self.document.get("timestamp")
        if type(value) is float and 0 <= value < _FIRST_MS:
            return int(value * 1000)
        return None if value is None else _moment_ms(value)


# Makes the tuple without the Python frame of a NamedTuple's own constructor, for each event.
_event = partial(tuple.__new__, MetricEvent)


def _moment_ms(value: object) -> int | None:
    """A moment as publishers write it; a number says by its size whether it counts seconds or milliseconds."""
    if type(value) is str and len(value) <= _MAX_MOMENT:
        try:
            moment = datetime.fromisoformat(value.strip())
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            return int(aware.timestamp() * 1000)
        except (ValueError, OverflowError):
            return None
    if type(value) not in _NUMBERS:
        return None
    number: float = value  # type: ignore[assignment]
    if not 0 <= number < _LAST_MS:
        return None
    return int(number * 1000) if number < _FIRST_MS else int(number)


def read(data: bytes | None, *, max_bytes: int) -> MetricEvent | Unreadable:
    """Read one event; never raises, whatever the bytes are.

    Args:
        data: the bytes as published.
        max_bytes: longest event that is looked at.
    """
    if data is None:
        return Unreadable(Reason.NO_DATA, "the stream entry has no field `data`")
    if len(data) > max_bytes:
        return Unreadable(Reason.TOO_LARGE, f"{len(data)} bytes, at most {max_bytes} are read")
    try:
        document = from_json(data, allow_inf_nan=False)
    except ValueError as problem:
        document = _literal(data)
        if document is None:
            return Unreadable(Reason.NOT_JSON, str(problem))
        try:
            data = json.dumps(document, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as wrong:
            return Unreadable(Reason.NOT_JSON, f"a Python literal that JSON cannot hold: {wrong}")
    if type(document) is not dict:
        return Unreadable(Reason.NOT_OBJECT, f"an object is expected, this is {_kind_of(document)}")
    return _checked(document, data)


def _literal(data: bytes) -> dict[Any, Any] | None:
    """The dict whose Python repr this is, or None."""
    if len(data) > MAX_REPR_BYTES or not data.lstrip().startswith(b"{"):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # the parser warns past the log, thousands of times an event
            document = ast.literal_eval(data.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        return None
    return document


def _kind_of(document: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(document), "a number")


def _checked(document: dict[str, Any], raw: bytes) -> MetricEvent | Unreadable:
    """The event with its names and numbers, or what is wrong with one of them."""
    experiment_id, name = document.get("experiment_id"), document.get("event")
    if (problem := _misnamed(experiment_id, name, document.get("metric"))) is not None:
        return problem
    if name is None:
        gauges = _gauges(document)
        if isinstance(gauges, Unreadable):
            return gauges
        if not gauges:
            return Unreadable(Reason.NOTHING, "neither an event nor a number under a name")
        return _event((experiment_id, None, 0, gauges, raw, document))
    count = document.get("count", 1)
    if type(count) is not int or not 0 <= count <= MAX_COUNT:
        if count is None:
            count = 1
        elif type(count) is float and count.is_integer() and 0 <= count <= MAX_COUNT:
            count = int(count)
        else:
            return Unreadable(Reason.BAD_COUNT, f"count must be a whole number from 0 to {MAX_COUNT}: {count!r:.60}")
    if name == ERROR_EVENT or (document.keys() <= _NO_GAUGES and type(document.get("run_id", "")) is str):
        return _event((experiment_id, name, count, (), raw, document))
    gauges = _gauges(document)
    if isinstance(gauges, Unreadable):
        return gauges
    return _event((experiment_id, name, count, gauges, raw, document))


def _misnamed(experiment_id: object, name: object, metric: object) -> Unreadable | None:
    """What is wrong with the texts that say whose event it is, and what it measures."""
    if experiment_id is None:
        return Unreadable(Reason.NO_EXPERIMENT, "there is no experiment_id")
    if type(experiment_id) is not str or not 0 < len(experiment_id) <= MAX_EXPERIMENT_ID:
        return Unreadable(Reason.BAD_EXPERIMENT, f"experiment_id: {_no_text(experiment_id, MAX_EXPERIMENT_ID)}")
    if name is not None and (type(name) is not str or not 0 < len(name) <= MAX_NAME):
        return Unreadable(Reason.BAD_EVENT, f"event: {_no_text(name, MAX_NAME)}")
    if metric is not None and (type(metric) is not str or not 0 < len(metric) <= MAX_NAME):
        return Unreadable(Reason.BAD_EVENT, f"metric: {_no_text(metric, MAX_NAME)}")
    if not experiment_id.isprintable():
        return Unreadable(Reason.BAD_EXPERIMENT, "experiment_id has unprintable characters")
    if name is not None and not name.isprintable():
        return Unreadable(Reason.BAD_EVENT, "event has unprintable characters")
    return None


def _no_text(value: object, longest: int) -> str:
    """Why a value is no text of 1 to so many characters."""
    if type(value) is not str:
        return "Input should be a valid string"
    return f"String should have at most {longest} characters" if value else "String should have at least 1 character"


def _gauges(document: dict[str, Any]) -> Sequence[tuple[str, int | float]] | Unreadable:
    gauges: list[tuple[str, int | float]] = [
        (name, value) for name, value in document.items() if type(value) in _MEASURES and name not in _NOT_GAUGES
    ]
    metric = document.get("metric")
    if metric is not None:
        named: Any = document.get("value")
        if type(named) not in _NUMBERS:
            return Unreadable(Reason.BAD_VALUE, f"the value of {metric} must be a number: {named!r:.60}")
        gauges.append((metric, named))
    else:
        # Without a metric's name `value` is a gauge of that name, and so is `count` without an event.
        if type(document.get("value")) in _NUMBERS:
            gauges.append(("value", document["value"]))
        count = document.get("count")
        if count is not None and document.get("event") is None:
            if type(count) not in _NUMBERS:
                return Unreadable(Reason.BAD_VALUE, f"count must be a number: {count!r:.60}")
            gauges.append(("count", count))
    return _sound(gauges) if gauges else gauges


def _sound(gauges: list[tuple[str, int | float]]) -> list[tuple[str, int | float]] | Unreadable:
    """The gauges, if every one has a name and a number that can be kept."""
    if len(gauges) > MAX_GAUGES:
        return Unreadable(Reason.BAD_VALUE, f"{len(gauges)} numbers in one event, at most {MAX_GAUGES}")
    for name, value in gauges:
        if type(value) not in _MEASURES or not abs(value) <= MAX_GAUGE:  # NaN is not <= anything
            return Unreadable(
                Reason.BAD_VALUE, f"{name:.60} must be a finite number of at most {MAX_GAUGE:.0e}: {value!r:.60}"
            )
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            return Unreadable(Reason.BAD_VALUE, f"{name!r:.60} is no name for a metric")
    return [(name, int(value) if type(value) is bool else value) for name, value in gauges]
