"""Traces through OpenTelemetry: its SDK records them, and exports them as OTLP over HTTP.

Imported only where they are asked for (docs/tracing.md). The SDK reads the rest of its variables itself: where to
export to, headers, certificates, the sampler, the limits of its queue. It exports in a thread of its own; what its
queue has no room for is dropped, and no role ever waits for it.
"""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span as Recording
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from redis_agent import __version__, log
from redis_agent.log import Throttle
from redis_agent.store import keys
from redis_agent.tracing import UNTRACED, Attribute, Span, Step, Tracing

_FIELD: Final = "traceparent"
_EXPORTER: Final = OTLPSpanExporter.__module__
_SHOWN_CHARACTERS: Final = 200

# The attributes' names: OpenTelemetry's where its conventions have one.
_NAMES: Final = {
    "entry_id": "messaging.message.id",
    "size_bytes": "messaging.message.body.size",
    "batch": "messaging.batch.message_count",
    "deliveries": "redis_agent.deliveries",
    "experiment_id": "redis_agent.experiment.id",
    "alert_id": "redis_agent.alert.id",
    "alert_type": "redis_agent.alert.type",
    "severity": "redis_agent.alert.severity",
    "receivers": "redis_agent.receivers",
    "outcome": "redis_agent.outcome",
}


class _Form(NamedTuple):
    """How spans of one step look: their name, their kind, and what all of them say."""

    name: str
    kind: SpanKind
    attributes: dict[str, str]


class OpenTelemetry(Tracing):
    """Records and exports.

    Args:
        instance: this process's name among the replicas.
        channel: where alerts are delivered.
        per_second: traces begun in a second at most; None where the SDK's sampler decides alone.

    Raises:
        ValueError, OSError: of the SDK, about its variables.
    """

    def __init__(self, *, instance: str, channel: str, per_second: float | None) -> None:
        _say_what_the_sdk_logs()
        self._forms = _forms(channel)
        self._budget = None if per_second is None else Budget(per_second)
        self._propagator = TraceContextTextMapPropagator()
        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        own = {"service.name": "redis-agent", "service.version": __version__, "service.instance.id": instance}
        provider = TracerProvider(
            # The SDK takes a variable that is empty for a sampler that it does not know.
            sampler=None if per_second is None else ParentBased(ALWAYS_ON),
            resource=Resource.create({**own, **OTELResourceDetector().detect().attributes}),
            # The SDK would wait for its exporter when the process ends, for however long.
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("redis_agent", __version__)

    def received(self, events: Sequence[tuple[int, bytes]]) -> Mapping[int, Span]:
        """Begin traces of those that the sampler, or the budget, lets through."""
        chosen = range(len(events)) if self._budget is None else self._budget.choose(len(events), time.monotonic())
        name, kind, attributes = self._forms[Step.MIRROR]
        spans: dict[int, Span] = {}
        for n in chosen:
            at_ms, event = events[n]
            recording = self._tracer.start_span(name, Context(), kind, attributes, start_time=at_ms * 1_000_000)
            if recording.get_span_context().trace_flags.sampled:
                spans[n] = span = _Recorded(recording)
                span.note(size_bytes=len(event))
        return spans

    def begin(self, step: Step, parent: str, **attributes: Attribute) -> Span:
        """Begin a step that follows from another, which another process may have recorded."""
        if not parent:
            return UNTRACED
        context = self._propagator.extract({_FIELD: parent}, Context())
        if not get_current_span(context).get_span_context().is_valid:
            return UNTRACED
        name, kind, given = self._forms[step]
        recording = self._tracer.start_span(name, context, kind, {**given, **_named(attributes)})
        return _Recorded(recording) if recording.is_recording() else UNTRACED

    async def close(self, within_seconds: float) -> None:
        """Export what is ended, as far as that is done within this time."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def close() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(closed.set)

        # Not a thread that the loop would wait for: a collector that does not answer must not hold up the end.
        threading.Thread(target=close, name="traces", daemon=True).start()
        try:
            async with asyncio.timeout(within_seconds):
                await closed.wait()
        except TimeoutError:
            log.get("tracing").warning("traces_left_behind", seconds=round(within_seconds, 3))


class Budget:
    """How many traces may begin: so many in a second, and at most as many at once.

    Args:
        per_second: how many.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second) if per_second else 0.0
        self._left = self._most
        self._at = 0.0

    def choose(self, count: int, now: float) -> Iterable[int]:
        """Which of so many events are traced, at random: each of them is as likely as the others."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        chosen = min(count, int(self._left))
        self._left -= chosen
        return random.sample(range(count), chosen)  # nothing is to be kept secret by it


class _Recorded(Span):
    """A span that the SDK records."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        of = recording.get_span_context()
        self.context = f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"

    def note(self, **attributes: Attribute) -> None:
        self._recording.set_attributes(_named(attributes))

    def end(self, problem: str = "", **attributes: Attribute) -> None:
        self.note(**attributes)
        if problem:
            self._recording.set_attribute("error.type", problem)
            self._recording.set_status(Status(StatusCode.ERROR))
        self._recording.end()


def _named(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {_NAMES[name]: value for name, value in attributes.items()}


def _forms(channel: str) -> dict[Step, _Form]:
    def messaging(step: Step, kind: SpanKind, operation: str, destination: str, **more: str) -> _Form:
        attributes = {
            "messaging.system": "redis",
            "messaging.operation.name": step.value,
            "messaging.operation.type": operation,
            "messaging.destination.name": destination,
        }
        return _Form(f"{step} {destination}", kind, attributes | more)

    group = {"messaging.consumer.group.name": keys.GROUP}
    return {
        Step.MIRROR: messaging(Step.MIRROR, SpanKind.PRODUCER, "send", keys.STREAM),
        Step.APPLY: messaging(Step.APPLY, SpanKind.CONSUMER, "process", keys.STREAM, **group),
        Step.JUDGE: _Form(Step.JUDGE.value, SpanKind.INTERNAL, {}),
        Step.RAISE: messaging(Step.RAISE, SpanKind.PRODUCER, "send", keys.OUTBOX),
        Step.ANALYSE: _Form(Step.ANALYSE.value, SpanKind.INTERNAL, {}),
        Step.DELIVER: messaging(Step.DELIVER, SpanKind.PRODUCER, "send", channel),
    }


class _Said(logging.Handler):
    """What the SDK logs becomes lines of ours, of each of its loggers one a minute: a collector may be down for long.

    Only the exporter's messages are said with what they are about, errors by their names: all else may quote variables,
    and headers hold secrets.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._throttle = Throttle()
        self._log = log.get("tracing")

    def emit(self, record: logging.LogRecord) -> None:
        if not self._throttle.due(record.name, time.monotonic()):
            return
        said = str(record.msg)
        if record.name == _EXPORTER and isinstance(record.args, tuple):
            said %= tuple(type(arg).__name__ if isinstance(arg, Exception) else arg for arg in record.args)
        event = "traces_not_exported" if record.name == _EXPORTER else "tracing_problem"
        self._log.warning(event, problem=said[:_SHOWN_CHARACTERS])


def _say_what_the_sdk_logs() -> None:
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    if not any(isinstance(handler, _Said) for handler in logger.handlers):
        logger.addHandler(_Said())
