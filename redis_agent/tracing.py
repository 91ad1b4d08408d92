"""Tracing: the way of some events, from their receipt to the delivery of what is told about them.

Roles begin and end spans, and hand the *context* of one on as a text (W3C `traceparent`): in the field `trace` of a
stream entry and of an alert in the outbox. The classes here trace nothing: contexts are "", and spans keep nothing.
Those that do are in `otel.py`, which is imported only where OpenTelemetry's variables ask for it (docs/tracing.md).
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

Attribute = str | int


class Step(StrEnum):
    """What is done on an event's way, each a span."""

    MIRROR = "mirror"
    APPLY = "apply"
    JUDGE = "judge"
    RAISE = "raise"
    ANALYSE = "analyse"
    DELIVER = "deliver"


class Span:
    """A step of one event. One that is never ended is never exported: it did not come about.

    Attributes:
        context: for whatever follows from it; "" where nothing is traced.
    """

    context = ""

    def note(self, **attributes: Attribute) -> None:
        """Add to what is known of it (the names are in `otel.py`)."""

    def end(self, problem: str = "", **attributes: Attribute) -> None:
        """It is over; `problem` says what went wrong, one of a fixed set."""


UNTRACED = Span()


class Tracing:
    """Begins spans."""

    def received(self, events: Sequence[tuple[int, bytes]]) -> Mapping[int, Span]:
        """Begin traces of some events that are about to be written: number of the event to span.

        Args:
            events: when each was received (ms), and its bytes.
        """
        del events
        return {}

    def begin(self, step: Step, parent: str, **attributes: Attribute) -> Span:
        """Begin a step that follows from another.

        Args:
            step: which.
            parent: the context of the other; where it is "" or says nothing, nothing is traced.
            attributes: what is known of it.
        """
        del step, parent, attributes
        return UNTRACED

    async def close(self, within_seconds: float) -> None:
        """Export what is ended, as far as that is done within this time."""


OFF = Tracing()


class Receipts:
    """The traces of events on their way into the stream.

    Whether an event is traced is decided once: a batch that is sent again after a lost reply has the same contexts,
    because the server may have written it.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._epoch = ""
        self._decided_to = 0
        self._spans: dict[int, Span] = {}

    def contexts(self, epoch: str, first: int, events: Sequence[tuple[int, bytes]]) -> dict[int, str]:
        """The contexts of the traced ones among events that are about to be written, by position.

        Args:
            epoch: the numbering of the positions.
            first: the position of the first event.
            events: when each was received (ms), and its bytes.
        """
        if self._tracing is OFF:
            return {}
        if epoch != self._epoch:
            self._epoch, self._decided_to = epoch, 0
            self._spans.clear()
        new_from = max(first, self._decided_to + 1)
        last = first + len(events) - 1
        if new_from <= last:
            spans = self._tracing.received(events[new_from - first :])
            self._spans.update((new_from + n, span) for n, span in spans.items())
            self._decided_to = last
        return {position: span.context for position, span in self._spans.items() if first <= position <= last}

    def written(self, position: int) -> None:
        """Everything up to this position is in the stream."""
        for known in [known for known in self._spans if known <= position]:
            self._spans.pop(known).end()

    def forget(self) -> None:
        """Somebody else writes what is not written."""
        self._spans.clear()
