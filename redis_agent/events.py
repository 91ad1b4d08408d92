"""Bytes from the channel become a metric event, or a reason why not.

The forms are those of the contract: counter events, gauges, both at once, errors, run events, named values, and
the Python repr of a dict, which some publishers send instead of JSON. A repr is accepted: it is read as a literal
(`ast.literal_eval`, never `eval`), up to 16 kB.
"""

import ast
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
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
# Numbers under these names describe the event and are not measured values.
_NOT_GAUGES = frozenset({"timestamp"})


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
    MAX_DELIVERIES = "max_deliveries"
    NOT_APPLIED = "not_applied"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What could not be read as an event: a reason from the fixed set, and what exactly is wrong."""

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class MetricEvent(BaseModel):
    """One event as published. What is not named here is in `model_extra`; its numbers are gauges.

    Attributes:
        experiment_id: the experiment it belongs to.
        event: name of the thing that happened, if one did.
        count: how many times it happened.
        gauges: latest values by name, flags as True or False; filled by `read`.
    """

    model_config = ConfigDict(extra="allow")

    experiment_id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_EXPERIMENT_ID)]
    event: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_NAME)] | None = None
    count: Any = None
    metric: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_NAME)] | None = None
    value: Any = None

    @property
    def is_error(self) -> bool:
        """Whether this event reports an error; its numbers describe the error."""
        return self.event == ERROR_EVENT

    def text(self, name: str) -> str | None:
        """A text that the event carries beside its numbers, such as `message` or `run_id`."""
        value = (self.model_extra or {}).get(name)
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Reading:
    """A readable event with its numbers checked.

    Attributes:
        event: the event.
        count: how many times it happened, 0 when `event.event` is None.
        gauges: (name, value) in the order given; flags are 1 and 0.
        raw: the event as JSON bytes: as published, or the JSON of a repr.
    """

    event: MetricEvent
    count: int
    gauges: list[tuple[str, int | float]]
    raw: bytes


_parse = MetricEvent.__pydantic_validator__.validate_json
_validate = MetricEvent.__pydantic_validator__.validate_python


def read(data: bytes | None, *, max_bytes: int) -> Reading | Unreadable:
    """Read one event; never raises, whatever the bytes are.

    Args:
        data: the bytes as published.
        max_bytes: longest event that is looked at.
    """
    if data is None:
        return Unreadable(Reason.NO_DATA, "the stream entry has no field `data`")
    if len(data) > max_bytes:
        return Unreadable(Reason.TOO_LARGE, f"{len(data)} bytes, at most {max_bytes} are read")
    raw = data
    try:
        event = _parse(data)
    except ValidationError as error:
        other = _second_look(data, error)
        if isinstance(other, Unreadable):
            return other
        event, raw = other
    return _checked(event, raw)


def _second_look(data: bytes, error: ValidationError) -> tuple[MetricEvent, bytes] | Unreadable:
    """Find out what exactly is wrong, and whether it is the repr of a dict."""
    try:
        document = from_json(data, allow_inf_nan=False)
    except ValueError as problem:
        document = _literal(data)
        if document is None:
            return Unreadable(Reason.NOT_JSON, str(problem))
        try:
            raw = json.dumps(document, allow_nan=False).encode()
            return _validate(document), raw
        except ValidationError as wrong:
            error = wrong
        except (TypeError, ValueError, RecursionError) as wrong:
            return Unreadable(Reason.NOT_JSON, f"a Python literal that JSON cannot hold: {wrong}")
    if not isinstance(document, dict):
        return Unreadable(Reason.NOT_OBJECT, f"an object is expected, this is {_kind_of(document)}")
    if document.get("experiment_id") is None:
        return Unreadable(Reason.NO_EXPERIMENT, "there is no experiment_id")
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    reason = {"experiment_id": Reason.BAD_EXPERIMENT}.get(field, Reason.BAD_EVENT)
    return Unreadable(reason, f"{field or 'event'}: {first['msg']}")


def _literal(data: bytes) -> dict[Any, Any] | None:
    """The dict whose Python repr this is, or None."""
    if len(data) > MAX_REPR_BYTES or not data.lstrip().startswith(b"{"):
        return None
    try:
        document = ast.literal_eval(data.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        return None
    return document


def _kind_of(document: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(document), "a number")


def _checked(event: MetricEvent, raw: bytes) -> Reading | Unreadable:
    """The numbers of an event, or what is wrong with one of them."""
    if not event.experiment_id.isprintable():
        return Unreadable(Reason.BAD_EXPERIMENT, "experiment_id has unprintable characters")
    name = event.event
    count = 0
    if name is not None:
        if not name.isprintable():
            return Unreadable(Reason.BAD_EVENT, "event has unprintable characters")
        given = event.count
        if given is None:
            count = 1
        elif type(given) is int and 0 <= given <= MAX_COUNT:
            count = given
        elif type(given) is float and given.is_integer() and 0 <= given <= MAX_COUNT:
            count = int(given)
        else:
            return Unreadable(Reason.BAD_COUNT, f"count must be a whole number from 0 to {MAX_COUNT}: {given!r:.60}")
    if name == ERROR_EVENT:
        return Reading(event, count, [], raw)
    gauges = _gauges(event)
    if isinstance(gauges, Unreadable):
        return gauges
    if name is None and not gauges:
        return Unreadable(Reason.NOTHING, "neither an event nor a number under a name")
    return Reading(event, count, gauges, raw)


def _gauges(event: MetricEvent) -> list[tuple[str, int | float]] | Unreadable:
    gauges: list[tuple[str, int | float]] = []
    named = event.metric is not None
    if named or (event.value is not None and _is_number(event.value)):
        name = event.metric or "value"
        if not _is_number(event.value):
            return Unreadable(Reason.BAD_VALUE, f"the value of {name} must be a number: {event.value!r:.60}")
        gauges.append((name, event.value))
    if event.event is None and event.count is not None and not named:
        gauges.append(("count", event.count))
    for name, value in (event.model_extra or {}).items():
        if type(value) is bool:
            gauges.append((name, int(value)))
        elif _is_number(value) and name not in _NOT_GAUGES:
            gauges.append((name, value))
    if len(gauges) > MAX_GAUGES:
        return Unreadable(Reason.BAD_VALUE, f"{len(gauges)} numbers in one event, at most {MAX_GAUGES}")
    for name, value in gauges:
        if not _is_number(value) or not abs(value) <= MAX_GAUGE:  # NaN is not <= anything
            return Unreadable(
                Reason.BAD_VALUE,
                f"{name:.60} must be a finite number of at most {MAX_GAUGE:.0e}: {value!r:.60}",
            )
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            return Unreadable(Reason.BAD_VALUE, f"{name!r:.60} is no name for a metric")
    return gauges


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
