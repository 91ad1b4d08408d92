"""Looks at what is in Redis, for people and for the programs that operate the agent.

Nothing is changed from here, and nothing of it belongs to the way of an event.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.clock import stream_id
from redis_agent.store import keys, scripts
from redis_agent.store.analyses import KeptAnalyses
from redis_agent.store.failures import is_wrong_type
from redis_agent.store.flow import Flow, flow, is_missing, outbox_flow
from redis_agent.store.namespace import namespace_of
from redis_agent.store.stream import StreamEntry, received_ms, text, text_map, whole

_PAGE = 1_000
# A replica says every second that it lives.
REPLICA_EXPIRY_MS = 15_000
FIRST_ID = "-"
LAST_ID = "+"


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that runs the agent, with the roles it runs."""

    name: str
    roles: list[str]


@dataclass(frozen=True, slots=True)
class BridgeState:
    """What the bridges have written down.

    Attributes:
        written: positions of the numbering used up so far.
        given_up: of these, events dropped because they could not be written for too long.
        gaps, gap_ms: times in which no bridge was in step, and their length in all.
        at_ms: the last sign of life of a leader that was in step.
    """

    written: int
    given_up: int
    gaps: int
    gap_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class OutboxAlert:
    """An alert of the history.

    Attributes:
        id: of its entry.
        data: its JSON.
        delivered: whether somebody received it; None where that is not known.
        analysis: the JSON of its analysis; "" for none.
    """

    id: str
    data: str
    delivered: bool | None
    analysis: str = ""


@dataclass(frozen=True, slots=True)
class AlertCounts:
    """The alerts of the history: all, and those that still wait for a subscriber."""

    total: int
    waiting: int


@dataclass(frozen=True, slots=True)
class ExperimentSnapshot:
    """An experiment's aggregate at a moment; `problem` says why it could not be read, or is ""."""

    aggregate: dict[str, str]
    fold_state: dict[str, str]
    problem: str = ""

    @property
    def refused(self) -> frozenset[str]:
        """Names for which the aggregate had no room."""
        prefix = "refused:"
        return frozenset(n[len(prefix) :] for n in self.fold_state if n.startswith(prefix))


@dataclass(slots=True)
class Snapshot:
    """Some experiments at one moment (see `lua/replay_snapshot.lua`)."""

    delivered: str
    pending: frozenset[str]
    unapplied: frozenset[str]
    experiments: dict[str, ExperimentSnapshot] = field(default_factory=dict)


class Inspection:
    """Reads the state of the agent."""

    def __init__(self, client: Redis) -> None:
        # Typed for both kinds of client, redis-py's stubs say less than what is known here.
        self._client: Any = client

    async def server(self) -> dict[str, Any]:
        """The server's INFO."""
        info: dict[str, Any] = await self._client.info()
        return info

    async def now_ms(self) -> int:
        """The server's clock."""
        seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def group(self) -> Flow:
        """The stream of events and its group."""
        return await flow(self._client)

    async def outbox(self) -> Flow:
        """The outbox and the dispatchers' group."""
        return await outbox_flow(self._client)

    async def entries_added(self) -> int:
        """Entries that were ever added to the stream of events; 0 without a stream."""
        try:
            info = await self._client.xinfo_stream(keys.STREAM)
        except ResponseError as error:
            if is_missing(error):
                return 0
            raise
        return int(info.get("entries-added", info["length"]))

    async def leader(self, lease: str) -> str | None:
        """Who holds a lease; None when nobody does."""
        value = await self._client.get(lease)
        return text(value).partition(":")[2] if value else None

    async def replicas(self, now_ms: int, *, within_ms: int = REPLICA_EXPIRY_MS) -> list[Replica]:
        """The processes that gave a sign of life lately."""
        members = await self._client.zrangebyscore(keys.REPLICAS, now_ms - within_ms, "+inf")
        replicas = []
        for member in members:
            # A name may hold the separator, roles do not.
            name, _, roles = text(member).rpartition("|")
            replicas.append(Replica(name, [role for role in roles.split(",") if role]))
        return sorted(replicas, key=lambda replica: replica.name)

    async def bridges_in_step(self, now_ms: int) -> list[str]:
        """The names of processes whose bridge gave a sign of life lately and was in step with the leader."""
        owners = await self._client.zrangebyscore(
            keys.BRIDGE_READY, now_ms - REPLICA_EXPIRY_MS, now_ms + REPLICA_EXPIRY_MS
        )
        return sorted(text(owner).rpartition("-")[0] for owner in owners)

    async def bridge(self) -> BridgeState:
        """What the bridges have written down; zeros before the first."""
        names = ["written", "given_up", "gaps", "gap_ms", "at"]
        return BridgeState(*(whole(value) for value in await self._client.hmget(keys.BRIDGE, names)))

    async def experiment_count(self) -> int:
        """Experiments that ever had an event."""
        return int(await self._client.zcard(keys.EXPERIMENTS))

    async def aggregate_problem(self, experiment_id: str) -> str:
        """Why the experiment's aggregate cannot be read, or ""."""
        key = keys.aggregate(experiment_id)
        kind = text(await self._client.type(key))
        return "" if kind in ("none", "hash") else f"the key {namespace_of(self._client)}{key} is a {kind}, not a hash"

    # Alerts ------------------------------------------------------------------------------------------------

    async def given_up(self) -> set[str]:
        """The ids of alerts that were given up, or superseded by a newer summary."""
        return {text(member) for member in await self._client.smembers(keys.UNDELIVERED)}

    async def alerts(self, given_up: set[str] | None) -> AsyncIterator[OutboxAlert]:
        """The alerts of the history, newest first, each with whether somebody received it.

        Args:
            given_up: see `given_up`; None when that cannot be read.
        """
        group = await self.outbox()
        last = LAST_ID
        while True:
            rows = await self._client.xrevrange(keys.OUTBOX, max=last, count=_PAGE)
            if not rows:
                return
            for alert in await self._received(group, rows, given_up):
                yield alert
            last = "(" + text(rows[-1][0])

    async def recent_alerts(self, count: int) -> list[OutboxAlert]:
        """The newest alerts of the history, the very newest first; what it costs depends on the count alone."""
        group = await self.outbox()
        rows = await self._client.xrevrange(keys.OUTBOX, count=count)
        if not rows:
            return []
        ids = [text(row[0]) for row in rows]
        given_up: set[str] | None = None
        with contextlib.suppress(ResponseError):
            flags = await self._client.smismember(keys.UNDELIVERED, ids)
            given_up = {entry_id for entry_id, flag in zip(ids, flags, strict=True) if flag}
        return await self._received(group, rows, given_up)

    async def _received(self, group: Flow, rows: list[Any], given_up: set[str] | None) -> list[OutboxAlert]:
        """Entries of the outbox, newest first, each with whether somebody received it."""
        ids = [text(row[0]) for row in rows]
        waiting: set[str] = set()
        if group.pending:
            held = await self._client.xpending_range(
                keys.OUTBOX, keys.DISPATCHER_GROUP, min=ids[-1], max=ids[0], count=len(ids)
            )
            waiting = {text(row["message_id"]) for row in held}
        analyses = await KeptAnalyses(self._client).of(ids)
        delivered_to = stream_id(group.last_delivered)
        alerts = []
        for entry_id, (_, fields) in zip(ids, rows, strict=True):
            done = stream_id(entry_id) <= delivered_to and entry_id not in waiting
            received = None if done and given_up is None else done and entry_id not in (given_up or ())
            data = text(fields.get(b"data", b""))
            alerts.append(OutboxAlert(entry_id, data, received, analyses.get(entry_id, "")))
        return alerts

    async def newest_alerts(self, count: int, *, since_ms: int = 0) -> list[tuple[str, str]]:
        """Entry id and JSON of the newest alerts, newest first, not older than that."""
        try:
            rows = await self._client.xrevrange(keys.OUTBOX, min=since_ms, count=count)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            return []
        return [(text(entry_id), text(fields.get(b"data", b""))) for entry_id, fields in rows]

    async def alert_counts(self) -> AlertCounts:
        """How many alerts there are, and how many nobody has received yet."""
        group = await self.outbox()
        unread = group.lag
        if unread is None:
            unread = await self._count_after(keys.OUTBOX, group.last_delivered)
        return AlertCounts(total=group.length, waiting=unread + group.pending)

    async def undelivered(self) -> int:
        """Alerts that were given up, or superseded by a newer summary."""
        return int(await self._client.scard(keys.UNDELIVERED))

    async def _count_after(self, stream: str, entry_id: str) -> int:
        count, first = 0, "(" + entry_id
        while rows := await self._client.xrange(stream, min=first, count=_PAGE):
            count += len(rows)
            first = "(" + text(rows[-1][0])
        return count

    # Replay ------------------------------------------------------------------------------------------------

    async def snapshot(self, experiment_ids: Sequence[str], *, with_unapplied: bool) -> Snapshot:
        """These experiments and what their aggregates are made of, at one moment."""
        names = [keys.STREAM, keys.FLOOR, keys.UNAPPLIED]
        for experiment_id in experiment_ids:
            names += [keys.aggregate(experiment_id), keys.fold_state(experiment_id)]
        reply = await scripts.run(self._client, "replay_snapshot", names, [keys.GROUP, int(with_unapplied)])
        return Snapshot(
            delivered=text(reply[0]),
            pending=frozenset(map(text, reply[1])),
            unapplied=frozenset(map(text, reply[2])),
            experiments={
                experiment_id: _experiment_snapshot(*hashes)
                for experiment_id, hashes in zip(experiment_ids, reply[3], strict=True)
            },
        )

    async def entries(self, page: int = _PAGE) -> AsyncIterator[list[StreamEntry]]:
        """The stream of events from its beginning, in pages."""
        first = FIRST_ID
        while True:
            rows: list[Any] = await self._client.xrange(keys.STREAM, min=first, count=page)
            if not rows:
                return
            yield [
                StreamEntry(text(entry_id), fields.get(b"data"), received_ms(fields.get(b"at"), text(entry_id)))
                for entry_id, fields in rows
            ]
            first = "(" + text(rows[-1][0])

    async def first_entry(self) -> StreamEntry | None:
        """The oldest entry of the stream of events that is left."""
        async for page in self.entries(page=1):
            return page[0]
        return None


def _experiment_snapshot(aggregate: Any, fold_state: Any) -> ExperimentSnapshot:
    problem = text(aggregate) if isinstance(aggregate, bytes) else ""
    return ExperimentSnapshot(
        aggregate={} if problem else text_map(aggregate),
        fold_state={} if isinstance(fold_state, bytes) else text_map(fold_state),
        problem=problem,
    )
