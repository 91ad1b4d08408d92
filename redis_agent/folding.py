"""Folding: entries that were read become one batch for the gate; what cannot be applied is in it as a dead letter."""

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from redis_agent.aggregate import ExperimentChange, fold
from redis_agent.alerts import Alert, error_alert
from redis_agent.clock import Clock
from redis_agent.events import MetricEvent, Reason, Unreadable, read
from redis_agent.holding import Chunk
from redis_agent.store import keys
from redis_agent.store.partitions import partition_of
from redis_agent.store.stream import (
    Batch,
    Conflict,
    DeadLetter,
    ErrorAlert,
    ExperimentUpdate,
    StreamEntry,
    WindowUpdate,
)
from redis_agent.tracing import OFF, UNTRACED, Span, Step, Tracing
from redis_agent.windows import NO_WINDOWS, Retention


@dataclass(slots=True)
class Folded:
    """A batch between folding and applying.

    Attributes:
        entries: the entries it stands for, in the order of `batch.ids`.
        batch: what the gate is given.
        alerts: the error alerts in `batch.alerts`, in order.
        repeats: error alerts held back because the same one is in the batch already.
        dead: how many dead letters for each reason.
        erring: which entries are error events, by their position.
        alone: whether its only entry is tried alone.
        ends: the chunk that is finished when this is applied.
        spans: of the entries that are traced, by their position.
        raising: a span for each of `alerts`, in order.
        traces: the context of each experiment's newest event that is traced.
    """

    entries: list[StreamEntry]
    batch: Batch
    alerts: list[Alert] = field(default_factory=list)
    repeats: list[Alert] = field(default_factory=list)
    dead: Counter[str] = field(default_factory=Counter)
    erring: list[int] = field(default_factory=list)
    alone: bool = False
    ends: Chunk | None = None
    spans: dict[int, Span] = field(default_factory=dict)
    raising: list[Span] = field(default_factory=list)
    traces: dict[str, str] = field(default_factory=dict)

    def without(self, what: Literal["dead", "erring"]) -> list[StreamEntry]:
        """The entries but for those that become dead letters, or are error events."""
        left_out = set(self.erring) if what == "erring" else {letter.position for letter in self.batch.dead}
        return [entry for position, entry in enumerate(self.entries) if position not in left_out]


class Folding:
    """Decodes and folds.

    Args:
        clock: the time of error alerts.
        max_event_bytes: longest event that is read.
        cooldown_seconds: between two alerts about the same error.
        max_error_alerts: alerts about different errors of one experiment within one cooldown.
        retention: of the windows that events are added to.
        partition: which one this is; what belongs to another must have been published on the wrong channel.
        partitions: how many there are.
        tracing: of the entries that carry a trace.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        max_event_bytes: int,
        cooldown_seconds: int,
        max_error_alerts: int,
        retention: Retention = NO_WINDOWS,
        partition: int = 0,
        partitions: int = 1,
        tracing: Tracing = OFF,
    ) -> None:
        self._clock = clock
        self._max_event_bytes = max_event_bytes
        self._cooldown_seconds = cooldown_seconds
        self._max_error_alerts = max_error_alerts
        self._retention = retention
        self._partition = partition
        self._partitions = partitions
        self._tracing = tracing

    def fold(self, entries: list[StreamEntry], refused: dict[str, Conflict], *, poisonous: bool = False) -> Folded:
        """Decode and fold; what cannot be applied becomes a dead letter of the same batch."""
        folded = Folded(entries, Batch([entry.id for entry in entries]))
        good: list[tuple[str, int, MetricEvent]] = []
        errors: list[tuple[MetricEvent, int, Span]] = []
        homes: dict[str, int] = {}
        for position, entry in enumerate(entries):
            if entry.trace:
                folded.spans[position] = self._span(entry, len(entries))
            if poisonous:  # not even decoded
                detail = f"handed out {entry.deliveries} times, and never applied"
                why = Unreadable(Reason.MAX_DELIVERIES, detail)
                self._bury(folded, position, entry, why, readable=True)
                continue
            event = read(entry.data, max_bytes=self._max_event_bytes)
            if isinstance(event, Unreadable):
                self._bury(folded, position, entry, event, readable=False)
                continue
            if self._partitions > 1:
                home = homes.get(event.experiment_id)
                if home is None:
                    home = homes[event.experiment_id] = partition_of(event.experiment_id, self._partitions)
                if home != self._partition:
                    detail = f"its experiment belongs to partition {home}, and this is partition {self._partition}"
                    self._bury(folded, position, entry, Unreadable(Reason.WRONG_PARTITION, detail), readable=True)
                    continue
            if event.is_error:  # told even if the experiment's aggregate cannot take it
                errors.append((event, entry.at_ms, folded.spans.get(position, UNTRACED)))
                folded.erring.append(position)
            conflict = refused.get(event.experiment_id) if refused else None
            if conflict is not None:
                reason = Unreadable(Reason.WRONG_TYPE, f"{conflict.key}: {conflict.problem}")
                self._bury(folded, position, entry, reason, readable=True)
                continue
            good.append((entry.id, entry.at_ms, event))
            if position in folded.spans:
                folded.spans[position].note(experiment_id=event.experiment_id)
                folded.traces[event.experiment_id] = folded.spans[position].context
        folded.batch.updates = [
            experiment_update(change, self._retention) for change in fold(good, self._retention).values()
        ]
        self._add_error_alerts(folded, errors)
        return folded

    def _span(self, entry: StreamEntry, batch: int) -> Span:
        return self._tracing.begin(Step.APPLY, entry.trace, entry_id=entry.id, deliveries=entry.deliveries, batch=batch)

    def _bury(self, folded: Folded, position: int, entry: StreamEntry, why: Unreadable, *, readable: bool) -> None:
        data = entry.data or b""
        letter = DeadLetter(
            position=position,
            reason=str(why),
            data=data,
            at_ms=entry.at_ms,
            readable=readable,
            deliveries=entry.deliveries,
        )
        folded.batch.dead.append(letter)
        folded.dead[why.reason.value] += 1

    def _add_error_alerts(self, folded: Folded, errors: list[tuple[MetricEvent, int, Span]]) -> None:
        seen: set[str] = set()
        now = self._clock.now()
        for event, at_ms, cause in errors:
            alert = error_alert(
                experiment_id=event.experiment_id,
                alert_id=str(uuid.uuid4()),
                now=now,
                message=event.text("message") or event.text("error"),
                error_type=event.text("error_type"),
                run_id=event.text("run_id"),
            )
            cooldown = keys.cooldown(alert.experiment_id, alert.type.value, alert.fingerprint)
            if cooldown in seen:
                folded.repeats.append(alert)
                continue
            seen.add(cooldown)
            span = self._tracing.begin(
                Step.RAISE, cause.context, alert_id=alert.alert_id, alert_type=alert.type, severity=alert.severity
            )
            folded.alerts.append(alert)
            folded.raising.append(span)
            folded.batch.alerts.append(
                ErrorAlert(
                    cooldown_key=cooldown,
                    cooldown_seconds=self._cooldown_seconds,
                    alert_id=alert.alert_id,
                    data=alert.dumps(),
                    at_ms=at_ms,
                    burst_key=keys.error_burst(alert.experiment_id),
                    burst_limit=self._max_error_alerts,
                    trace=span.context,
                )
            )


def experiment_update(change: ExperimentChange, retention: Retention) -> ExperimentUpdate:
    """A change as the gate is given it, with the windows that it falls into."""
    windows = [
        WindowUpdate(window, retention.seconds(window.kind), None if sums is None else change.window_plan(sums))
        for window, sums in change.windows(retention)
    ]
    return ExperimentUpdate(change.experiment_id, change.plan(), change.raw, windows)
