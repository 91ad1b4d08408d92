"""Compares aggregates with a replay of the stream: the proof that each event changed them once. Pure.

An aggregate is compared as of one moment, which its snapshot describes: how far the group had been given entries,
and which of these were not applied yet. So the comparison is exact also while the system runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from redis_agent.aggregate import ExperimentChange, as_aggregate
from redis_agent.clock import stream_id
from redis_agent.criteria import is_base_field
from redis_agent.events import MetricEvent

# The gate keeps at least so many refused names; where there are that many, further ones may be unrecorded.
_REFUSED_KEPT = 100
# A replayed experiment is rid of names that were refused when it has grown to so many.
_PRUNE_NAMES = 5_000
_ALWAYS_KEPT = frozenset({"events_total", "first_event_at", "last_updated"})

StreamId = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """What had been applied when aggregates were read.

    Attributes:
        delivered: the last entry that the group had been given.
        pending: entries given but not acked.
    """

    delivered: StreamId
    pending: frozenset[str]

    def had_finished(self, entry_id: str) -> bool:
        """Whether the entry had been applied, or had become a dead letter."""
        return stream_id(entry_id) <= self.delivered and entry_id not in self.pending


@dataclass(frozen=True, slots=True)
class Difference:
    """A field whose value is not what the stream makes of it; None stands for a missing field."""

    experiment_id: str
    field: str
    aggregate: str | None
    replayed: str | None


@dataclass(slots=True)
class _Subject:
    """One experiment: what Redis says, and what the replay has come to."""

    moment: Moment
    aggregate: Mapping[str, str]
    refused: frozenset[str]
    change: ExperimentChange


@dataclass(slots=True)
class Outcome:
    """What the comparison came to.

    Attributes:
        experiments: how many were compared.
        not_comparable: experiments that began before the oldest entry that is left.
        differences: none, if all is well.
    """

    experiments: int = 0
    not_comparable: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def agree(self) -> bool:
        """Whether every aggregate that could be compared equals its replay."""
        return not self.differences


class Replay:
    """Folds the stream once more, beside the aggregates.

    Memory is bounded by the number of experiments and their names, not by the length of the stream.

    Attributes:
        entries: how many have been folded.
    """

    def __init__(self) -> None:
        self._subjects: dict[str, _Subject] = {}
        self._unapplied: frozenset[str] = frozenset()
        self._latest: Moment | None = None
        self._unexpected: set[str] = set()
        self.entries = 0

    def expect(
        self,
        experiment_id: str,
        *,
        moment: Moment,
        aggregate: Mapping[str, str],
        refused: frozenset[str],
    ) -> None:
        """Compare this experiment.

        Args:
            experiment_id: which.
            moment: when its aggregate was read.
            aggregate: as it was then; empty if there was none.
            refused: names that the aggregate had no room for.
        """
        change = ExperimentChange(experiment_id=experiment_id)
        self._subjects[experiment_id] = _Subject(moment, aggregate, refused, change)

    def as_of(self, moment: Moment) -> None:
        """What was finished at this moment, the last, is what unexpected experiments consist of."""
        self._latest = moment

    def leave_out(self, unapplied: frozenset[str]) -> None:
        """These entries never changed an aggregate, though they can be read."""
        self._unapplied = unapplied

    @property
    def unexpected(self) -> frozenset[str]:
        """Experiments that have applied entries and were not expected."""
        return frozenset(self._unexpected)

    def take(self, entry_id: str, at_ms: int, event: MetricEvent) -> None:
        """Fold one entry of the stream, in the stream's order, if it counts."""
        experiment_id = event.experiment_id
        subject = self._subjects.get(experiment_id)
        moment = self._latest if subject is None else subject.moment
        if moment is None or not moment.had_finished(entry_id) or entry_id in self._unapplied:
            return
        if subject is None:
            self._unexpected.add(experiment_id)
            return
        self.entries += 1
        change = subject.change
        change.add(event, entry_id, at_ms, at_ms)
        change.raw.clear()
        if len(change.counters) + len(change.gauges) > _PRUNE_NAMES:
            _prune(subject)

    def outcome(self, complete_after_ms: int | None) -> Outcome:
        """Compare everything.

        Args:
            complete_after_ms: the stream holds every event received after this; None when it
                holds every event there ever was.
        """
        outcome = Outcome()
        for experiment_id, subject in sorted(self._subjects.items()):
            differences = _differences(experiment_id, subject)
            if differences and complete_after_ms is not None:
                began_ms = _epoch_ms(subject.aggregate.get("first_event_at"))
                if began_ms is not None and began_ms <= complete_after_ms:
                    outcome.not_comparable.append(experiment_id)
                    continue
            if subject.aggregate or subject.change.events:
                outcome.experiments += 1
            outcome.differences += differences
        return outcome


def _differences(experiment_id: str, subject: _Subject) -> list[Difference]:
    replayed = as_aggregate(subject.change) if subject.change.events else {}
    found = []
    for name in sorted(replayed.keys() | {n for n in subject.aggregate if is_base_field(n)}):
        has, should = subject.aggregate.get(name), replayed.get(name)
        if has != should and not _excused(name, has, subject):
            found.append(Difference(experiment_id, name, has, should))
    return found


def _excused(name: str, has: str | None, subject: _Subject) -> bool:
    """Whether the field may differ because the aggregate had no room for its name for a time."""
    if not subject.refused or name in _ALWAYS_KEPT:
        return False
    base, _, _ = name.rpartition("_")
    return base in subject.refused or (has is None and len(subject.refused) >= _REFUSED_KEPT)


def _prune(subject: _Subject) -> None:
    """Drop names that were refused: there is nothing to compare them with."""

    def compared(field_name: str) -> bool:
        return not _excused(field_name, subject.aggregate.get(field_name), subject)

    change = subject.change
    change.counters = {n: c for n, c in change.counters.items() if compared(f"{n}_count")}
    change.gauges = {n: g for n, g in change.gauges.items() if compared(f"{n}_samples")}


def _epoch_ms(iso: str | None) -> int | None:
    try:
        return round(datetime.fromisoformat(iso or "").timestamp() * 1000)
    except ValueError:
        return None
