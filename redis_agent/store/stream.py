"""The stream of events and the gate that applies it: reading, reclaiming, renewing, applying."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis.asyncio import Redis

from redis_agent.store import keys, scripts
from redis_agent.store.group import EVENTS, Created, ensure
from redis_agent.store.namespace import namespace_of
from redis_agent.windows import Window

# An entry that was handed out more often is tried alone, and only then counts as handed out once more.
TOGETHER = 2


class StreamEntry(NamedTuple):
    """One event as it stands in the stream. A tuple, because one is made for every event.

    Attributes:
        id: the entry's id, "ms-seq".
        data: the event's bytes as published; None when the entry has no such field.
        at_ms: when the bridge received it.
        deliveries: how often it was handed out, this time included.
        later: whether its data is still to be had, when it is tried alone.
        trace: its context where it is traced (see `tracing.py`), else "".
    """

    id: str
    data: bytes | None
    at_ms: int
    deliveries: int = 1
    later: bool = False
    trace: str = ""


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """What a batch adds to one window of an experiment.

    Attributes:
        window: which.
        keep_seconds: how long it is kept.
        part: events, counters and gauges of it, as `apply_batch.lua` reads them; None when it is all that the batch
            adds to the experiment.
    """

    window: Window
    keep_seconds: int
    part: list[Any] | None


@dataclass(slots=True)
class ExperimentUpdate:
    """What a batch adds to one experiment.

    Attributes:
        experiment_id: whose.
        plan: the change as `apply_batch.lua` reads it.
        raw: the events for `metrics:{id}`, in order.
        windows: that it is added to as well.
        asked: whether the aggregate is wanted in return.
    """

    experiment_id: str
    plan: dict[str, Any]
    raw: list[bytes]
    windows: list[WindowUpdate] = field(default_factory=list)
    asked: bool = True


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that cannot be applied, and why.

    Attributes:
        position: the entry's index in the batch.
        reason: "label: detail"; the label is one of a fixed set.
        data: the original bytes.
        at_ms: when the bridge received it.
        readable: True when a replay of the stream would read it as an event.
        deliveries: how often it was delivered, where that is known.
    """

    position: int
    reason: str
    data: bytes
    at_ms: int
    readable: bool = False
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class ErrorAlert:
    """An alert that is raised in the script that acks the event.

    Attributes:
        cooldown_key: starts with the alert.
        cooldown_seconds: how long it runs.
        alert_id: the cooldown's value.
        data: the alert's JSON.
        at_ms: when the bridge received the event.
        burst_key: counts the alerts of the experiment within one cooldown; "" counts none.
        burst_limit: how many there may be.
        trace: the context that its delivery follows from; "" where it is not traced.
    """

    cooldown_key: str
    cooldown_seconds: int
    alert_id: str
    data: str
    at_ms: int
    burst_key: str = ""
    burst_limit: int = 0
    trace: str = ""


@dataclass(slots=True)
class Batch:
    """Everything that one call of the gate applies.

    Attributes:
        ids: the entries, ascending.
        updates: one for each experiment.
        dead: what cannot be applied.
        alerts: of error events.
        contiguous: whether the stream has no other entry between the first and the last id.
    """

    ids: list[str]
    updates: list[ExperimentUpdate] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    alerts: list[ErrorAlert] = field(default_factory=list)
    contiguous: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """The batch was applied.

    Attributes:
        aggregates: experiment -> its aggregate hash after the batch, of those that were asked for.
        refused: (experiment, name) beyond the limit of names.
        raised: for each error alert whether it was raised (else its cooldown was running).
        unwritten: windows that could not be added to, and why: the aggregate is worth more than its history.
        seconds: CPU time that it took the server, which does nothing else meanwhile; None where it does not say.
    """

    aggregates: dict[str, dict[str, str]]
    refused: list[tuple[str, str]]
    raised: list[bool]
    unwritten: list[tuple[str, str]] = field(default_factory=list)
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing was changed: only these entries are still this consumer's, the others are somebody else's work."""

    pending: frozenset[str]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was changed: one experiment's key has a form that cannot take the sums."""

    experiment_id: str
    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing was changed: the batch has something to write to a shared key that has another type.

    Attributes:
        key: the dead letters (or their ids), or the outbox.
        problem: what the server says.
    """

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """One step of the scan for entries that others have held for too long.

    Attributes:
        more: whether the scan is not complete yet.
        entries: what is ours now.
        deleted: ids that were pending but are gone from the stream; they are pending no more.
        problem: why the scan's place cannot be kept; "" when it is.
    """

    more: bool
    entries: list[StreamEntry]
    deleted: list[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Own:
    """Some of what this consumer was given and has not acked.

    Attributes:
        looked_to: the last id that was looked at, where the next look begins; "" when there was none.
        entries: what can be applied.
        deleted: ids that are gone from the stream; they are pending no more.
    """

    looked_to: str
    entries: list[StreamEntry]
    deleted: list[str]


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of entries in hand: held anew, and gone from the stream (pending no more)."""

    held: int
    deleted: int


class EventStream:
    """The stream as one consumer of the group sees it.

    Args:
        reader: client for blocking reads; its socket timeout must exceed every block.
        client: client for everything else.
        consumer: this consumer's name.
        max_fields: names an experiment's aggregate may hold.
        max_raw: length of `metrics:{id}`; 0 writes none.
        max_dead: length of the dead-letter stream.
        together: entries that were handed out more often are tried alone.
    """

    def __init__(
        self,
        *,
        reader: Redis,
        client: Redis,
        consumer: str,
        max_fields: int,
        max_raw: int,
        max_dead: int,
        together: int = TOGETHER,
    ) -> None:
        self._reader = reader
        self._client = client
        self._consumer = consumer
        self._together = together
        self._limits = {"max_fields": max_fields, "max_raw": max_raw, "max_dead": max_dead}
        # In a partition the gate notes what is to be copied.
        self._touched = [keys.TOUCHED] if namespace_of(client) else []

    async def ensure_group(self) -> Created | None:
        """Create stream and group where missing (see `lua/group_ensure.lua`); None when they are there."""
        return await ensure(self._client, EVENTS)

    async def read_new(self, *, count: int, block_ms: int) -> list[StreamEntry]:
        """Entries nobody in the group has been given yet; empty when the block ends without any."""
        reply = await self._reader.execute_command(
            "XREADGROUP", "GROUP", keys.GROUP, self._consumer,
            "COUNT", count, "BLOCK", block_ms, "STREAMS", keys.STREAM, ">",
        )  # fmt: skip
        return _entries(reply[0][1]) if reply else []

    async def read_own(self, *, after: str, count: int) -> Own:
        """This consumer's own pending entries after an id: what was read but not acked."""
        rows: list[dict[str, Any]] = await self._client.xpending_range(
            keys.STREAM, keys.GROUP, min=f"({after}", max="+", count=count, consumername=self._consumer
        )
        ids = [text(row["message_id"]) for row in rows]
        return Own(ids[-1] if ids else "", *await self._take(ids))

    async def _take(self, ids: Sequence[str]) -> tuple[list[StreamEntry], list[str]]:
        """Entries that are this consumer's now, and which of the ids are gone from the stream."""
        if not ids:
            return [], []
        rows, deliveries, deleted = await scripts.run(
            self._client, "take", [keys.STREAM, keys.RECLAIM], [keys.GROUP, self._consumer, self._together, *ids]
        )
        entries = [
            entry._replace(deliveries=int(times), later=not fields)
            for entry, times, (_, fields) in zip(_entries(rows), deliveries, rows, strict=True)
        ]
        return entries, [text(entry_id) for entry_id in deleted]

    async def reclaim(self, *, idle_ms: int, every_ms: int, count: int) -> Reclaimed:
        """Take over entries that consumers have held for too long: one step of a scan that all workers share.

        Args:
            idle_ms: what counts as too long.
            every_ms: a complete scan is not begun again before that.
            count: entries, at most.
        """
        more, ids, deleted, problem = await scripts.run(
            self._client,
            "reclaim",
            [keys.STREAM, keys.RECLAIM],
            [keys.GROUP, self._consumer, idle_ms, every_ms, count],
        )
        entries, gone = await self._take([text(entry_id) for entry_id in ids])
        return Reclaimed(bool(more), entries, [text(entry_id) for entry_id in deleted] + gone, text(problem))

    async def renew(self, ids: Sequence[str]) -> Renewed:
        """Keep entries that are in hand for long from being taken over, as far as they are still ours."""
        held, deleted = await scripts.run(self._client, "renew", [keys.STREAM], [keys.GROUP, self._consumer, *ids])
        return Renewed(int(held), int(deleted))

    async def apply(self, batch: Batch) -> Applied | Stale | Conflict | Blocked:
        """Apply a batch in one atomic step, once (see `lua/apply_batch.lua`)."""
        experiment_keys: list[str] = []
        window_keys: list[str] = []
        blobs: list[bytes | str] = []
        rows: list[dict[str, Any]] = []
        # Most say the same of their windows.
        usual: list[list[Any]] = []
        for update in batch.updates:
            experiment_id = update.experiment_id
            experiment_keys += (
                keys.aggregate(experiment_id),
                keys.raw_events(experiment_id),
                keys.fold_state(experiment_id),
            )
            raw = update.raw[-self._limits["max_raw"] :] if self._limits["max_raw"] else []
            row = {**update.plan, "raw": len(raw)}
            if update.asked:
                row["asked"] = 1
            windows = [[w.keep_seconds, *(w.part or ())] for w in update.windows]
            usual = usual or windows
            if windows != usual:
                row["windows"] = windows
            rows.append(row)
            window_keys += [keys.window(experiment_id, w.window.kind, w.window.start_s) for w in update.windows]
            blobs += raw
        blobs += [letter.data for letter in batch.dead]
        blobs += [alert.data for alert in batch.alerts]
        plan = {
            "experiments": rows,
            "windows": usual,
            "dead": [[d.position + 1, d.reason, d.deliveries, d.at_ms, int(d.readable)] for d in batch.dead],
            "contiguous": batch.contiguous,
            "alerts": [
                [a.alert_id, a.cooldown_seconds, a.at_ms, a.burst_limit if a.burst_key else 0, a.trace]
                for a in batch.alerts
            ],
            **({"touched": True} if self._touched else {}),
            **self._limits,
        }
        reply = await scripts.run(
            self._client,
            "apply_batch",
            [
                keys.STREAM,
                keys.DEAD_LETTERS,
                keys.OUTBOX,
                keys.EXPERIMENTS,
                keys.FLOOR,
                keys.ABOVE,
                keys.UNAPPLIED,
                keys.ACCOUNT,
                keys.OUTBOX_ACCOUNT,
                *experiment_keys,
                *[name for a in batch.alerts for name in (a.cooldown_key, a.burst_key or a.cooldown_key)],
                *window_keys,
                *self._touched,
            ],
            [
                keys.GROUP,
                self._consumer,
                len(batch.ids),
                " ".join(batch.ids),
                json.dumps(plan, separators=(",", ":")),
                *blobs,
            ],
        )
        return _applied(batch, reply)

    async def take_alone(self, entry: StreamEntry, *, counts: bool = True) -> StreamEntry | None:
        """An entry with its data, to be tried alone; None if it is not ours any more, or gone from the stream.

        Args:
            entry: as it was taken up.
            counts: whether this is a delivery: not when it is given up without a look.
        """
        args = [keys.GROUP, self._consumer, entry.id, entry.deliveries if counts else entry.deliveries - 1]
        found = _entries(await scripts.run(self._client, "take_alone", [keys.STREAM], args))
        return found[0]._replace(deliveries=entry.deliveries) if found else None

    async def forgive(self, entry_id: str) -> None:
        """This process has lived through the entry: if it is pending still, it counts as handed out once."""
        await scripts.run(self._client, "forgive", [keys.STREAM], [keys.GROUP, self._consumer, entry_id])


def _entries(rows: list[Any]) -> list[StreamEntry]:
    entries = []
    last_at: bytes | None = b""
    last_at_ms = 0
    for entry_id, fields in rows:
        text_id = entry_id.decode()
        if len(fields) == 4 and fields[0] == b"data" and fields[2] == b"at":  # as the bridge writes them
            data, at, trace = fields[1], fields[3], ""
        else:
            named = dict(zip(fields[::2], fields[1::2], strict=False))
            data, at = named.get(b"data"), named.get(b"at")
            trace = text(named.get(b"trace", b""))
        if at is None or at != last_at:  # a mirrored batch shares its time of receipt
            at_ms = _received_ms(at)
            last_at, last_at_ms = (None, int(text_id.partition("-")[0])) if at_ms is None else (at, at_ms)
        entries.append(StreamEntry(text_id, data, last_at_ms, 1, False, trace))  # noqa: FBT003
    return entries


def received_ms(at: bytes | None, entry_id: str) -> int:
    """The bridge's time of receipt; where others wrote the entry, the time in its id."""
    at_ms = _received_ms(at)
    return int(entry_id.partition("-")[0]) if at_ms is None else at_ms


def _received_ms(at: bytes | None) -> int | None:
    """The bridge's time of receipt; None where others wrote the entry, and the time in its id must do."""
    return int(at) if at is not None and at.isdigit() and len(at) <= 14 else None


def _applied(batch: Batch, reply: list[Any]) -> Applied | Stale | Conflict | Blocked:
    outcome = reply[0]
    if outcome == b"stale":
        return Stale(frozenset(entry_id.decode() for entry_id in reply[1:]))
    if outcome == b"blocked":
        return Blocked(text(reply[1]), text(reply[2]))
    if outcome == b"conflict":
        experiment_id = batch.updates[int(reply[1]) - 1].experiment_id
        return Conflict(experiment_id, text(reply[2]), text(reply[3]))
    asked = [update.experiment_id for update in batch.updates if update.asked]
    return Applied(
        aggregates={experiment_id: text_map(flat) for experiment_id, flat in zip(asked, reply[1], strict=True)},
        refused=[(batch.updates[int(n) - 1].experiment_id, text(name)) for n, name in reply[2]],
        raised=[bool(outcome) for outcome in reply[3]],
        unwritten=[(text(key), text(problem)) for key, problem in reply[4]],
        seconds=int(reply[5]) / 1e6 if int(reply[5]) >= 0 else None,
    )


def text(value: Any) -> str:
    """Text of a reply; what is not UTF-8 is shown, not refused.

    redis-py types every reply as text or bytes; the clients here are made to answer bytes.
    """
    raw: bytes = value
    return raw.decode("utf-8", "replace")


def whole(value: Any) -> int:
    """A whole number that the agent once wrote; 0 for none, and for what somebody else made of it."""
    raw: bytes = value or b""
    return int(raw) if raw.isdigit() and len(raw) < 20 else 0


def text_map(flat: list[bytes]) -> dict[str, str]:
    """A flat field, value, ... reply as a dict of texts."""
    try:
        decoded = [value.decode() for value in flat]
    except UnicodeDecodeError:
        decoded = [text(value) for value in flat]
    return dict(zip(decoded[::2], decoded[1::2], strict=True))
