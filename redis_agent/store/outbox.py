"""The outbox: alerts enter it together with their cooldown, and leave it when somebody received them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from redis_agent.store import keys, scripts
from redis_agent.store.audience import Audience
from redis_agent.store.failures import is_wrong_type
from redis_agent.store.group import ALERTS, Created, ensure
from redis_agent.store.stream import text


@dataclass(frozen=True, slots=True)
class StateChange:
    """How the state of a criterion, or of an experiment, changes with an alert, or without one.

    Attributes:
        key: the hash of states.
        name: the state's field in it; for a criterion its fingerprint.
        expected: the state that was decided on, as it was read; empty for none.
        told: the state to keep when the alert is raised; empty keeps none.
        held: the state to keep when it is not.
    """

    key: str
    name: str
    expected: bytes
    told: str
    held: str


@dataclass(frozen=True, slots=True)
class Raise:
    """An alert to raise, or only a state to change.

    Attributes:
        experiment_id, alert_type, fingerprint: name the cooldown.
        cooldown_seconds: for which the same is not raised again.
        alert_id: the alert's own id, kept as the cooldown's value.
        data: the alert's JSON; "" when there is nothing to tell.
        at_ms: when the bridge received the event that caused it; 0 when no event did.
        state: what becomes of the criterion's state; None where there is none.
        replaces: whether older ones that nobody has received yet need no delivery any more: a summary.
        trace: the context that its delivery follows from; "" where it is not traced.
    """

    experiment_id: str
    alert_type: str
    fingerprint: str
    cooldown_seconds: int
    alert_id: str
    data: str
    at_ms: int
    state: StateChange | None = None
    replaces: bool = False
    trace: str = ""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An alert in the outbox: its entry id, its JSON, when its cause was received (ms, 0 if none), and its trace."""

    id: str
    data: str
    at_ms: int
    trace: str = ""


# What raising can come to, where it is not 0 (raised) or the ms of a cooldown.
NOTED = -1  # the state was changed, and there was nothing to tell
OVERTAKEN = -2  # the state was another than expected: nothing was done
SILENCED = -5  # somebody muted it: also what delivering can come to

# What delivering can come to, where it is not a number of receivers.
NOT_PENDING = -1
FENCED = -2
GIVEN_UP = -3
SUPERSEDED = -4


class Outbox:
    """Raises alerts, and keeps their history within its length."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def raise_(self, alerts: Sequence[Raise]) -> list[int]:
        """Raise alerts in one step; for each 0, the ms for which its cooldown still runs, or a negative code."""
        names = [keys.OUTBOX, keys.NEWEST_SUMMARY, keys.OUTBOX_ACCOUNT]
        args: list[str | bytes | int] = []
        for alert in alerts:
            state = alert.state or StateChange(keys.alert_state(alert.experiment_id), "", b"", "", "")
            names += [keys.cooldown(alert.experiment_id, alert.alert_type, alert.fingerprint), state.key]
            names += [keys.silence(alert.experiment_id, kind) for kind in (None, alert.alert_type)]
            args += [alert.alert_id, alert.cooldown_seconds, alert.data, alert.at_ms]
            args += [state.name, state.expected, state.told, state.held, int(alert.replaces), alert.trace]
        reply = await scripts.run(self._client, "raise_alerts", names, args)
        return [int(outcome) for outcome in reply]

    async def states(self, experiment_ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """The alert state of each experiment: fingerprint -> JSON. Empty where there is none to be read."""
        async with self._client.pipeline(transaction=False) as pipe:
            for experiment_id in experiment_ids:
                pipe.hgetall(keys.alert_state(experiment_id))
            replies = await pipe.execute(raise_on_error=False)
        states: dict[str, dict[str, bytes]] = {}
        for experiment_id, reply in zip(experiment_ids, replies, strict=True):
            if isinstance(reply, Exception) and not is_wrong_type(reply):
                raise reply
            # A key of another type costs its own experiment only.
            state = reply if isinstance(reply, dict) else {}
            states[experiment_id] = {text(field): value for field, value in state.items()}
        return states

    async def trim(self, max_length: int) -> tuple[list[str], int]:
        """One step towards a history of this length, the oldest first.

        Returns:
            the JSON of alerts that went although nobody had received them, and entries that are still too many.
        """
        over, *dropped = await scripts.run(
            self._client,
            "trim_alerts",
            [keys.OUTBOX, keys.UNDELIVERED, keys.OUTBOX_ACCOUNT, keys.ANALYSES],
            [keys.DISPATCHER_GROUP, max_length],
        )
        return [text(data) for data in dropped], int(over)


class Delivery:
    """The dispatcher's side of the outbox, as the holder of its lease.

    Args:
        reader: for blocking reads.
        client: for everything else.
        consumer: this consumer's name.
        channel: the Orchestrator's.
        audience: who listens to it in a cluster; None on one server, where the reply of PUBLISH says it.
    """

    def __init__(
        self, *, reader: Redis, client: Redis, consumer: str, channel: str, audience: Audience | None = None
    ) -> None:
        self._reader = reader
        self._client = client
        self._consumer = consumer
        self._channel = channel
        self._audience = audience

    async def ensure_group(self) -> Created | None:
        """Create outbox and group where they are missing, at the floor: what was delivered is not delivered again."""
        return await ensure(self._client, ALERTS)

    async def take_over(self, count: int) -> list[OutboxEntry]:
        """The oldest that are pending, in order, whoever read them: the lease makes them ours."""
        cursor = b"0-0"
        while True:
            reply = await self._client.execute_command(
                "XAUTOCLAIM", keys.OUTBOX, keys.DISPATCHER_GROUP, self._consumer, 0, cursor,
                "COUNT", count,
            )  # fmt: skip
            cursor, alerts = reply[0], _alerts(reply[1])
            # A page may hold nothing but entries that are gone from the stream; the server forgets these.
            if alerts or cursor == b"0-0":
                return alerts

    async def read(self, *, count: int, block_ms: int) -> list[OutboxEntry]:
        """Take what nobody has read yet, and return the oldest that are pending then, as `take_over` does.

        Empty when the block ends without any.
        """
        async with self._reader.pipeline(transaction=False) as pipe:
            pipe.execute_command(
                "XREADGROUP", "GROUP", keys.DISPATCHER_GROUP, self._consumer,
                "COUNT", count, "BLOCK", block_ms, "STREAMS", keys.OUTBOX, ">",
            )  # fmt: skip
            pipe.execute_command(
                "XAUTOCLAIM", keys.OUTBOX, keys.DISPATCHER_GROUP, self._consumer, 0, "0-0",
                "COUNT", count,
            )  # fmt: skip
            _, (cursor, rows, *_) = await pipe.execute()
        # Where the first page held nothing but entries that are gone, the others are looked through, too.
        return _alerts(rows) or (await self.take_over(count) if cursor != b"0-0" else [])

    async def ahead(self, after: str, count: int) -> list[OutboxEntry]:
        """Alerts behind this one, oldest first, whether somebody has read them or not: nothing is changed by it."""
        rows: list[Any] = await self._client.xrange(keys.OUTBOX, min="(" + after, count=count) or []
        return [_entry(entry_id, fields) for entry_id, fields in rows]

    async def deliver(
        self,
        lease_value: str,
        entry: OutboxEntry,
        *,
        ttl_ms: int,
        replaceable: bool,
        experiment_id: str = "",
        alert_type: str = "",
    ) -> int:
        """Publish and ack in one step; the receivers, 0 for none (nothing changed), or a negative code.

        Args:
            lease_value: of the dispatcher's lease.
            entry: the oldest alert that is pending.
            ttl_ms: older than this and without a receiver, it is given up. By the server's clock.
            replaceable: whether a newer summary in the outbox makes this one needless.
            experiment_id: whose alert it is, which may be muted.
            alert_type: of which type, which may be muted.
        """
        # Asked anew for each alert: one that nobody hears must not be acked.
        heard_by = "" if self._audience is None else await self._audience.size(self._client)
        args = [lease_value, keys.DISPATCHER_GROUP, entry.id, self._channel, entry.data, ttl_ms, int(replaceable)]
        args.append(heard_by)
        names = [keys.LEASE_DISPATCHER, keys.OUTBOX, keys.OUTBOX_FLOOR, keys.UNDELIVERED, keys.NEWEST_SUMMARY]
        names += [keys.OUTBOX_ACCOUNT, keys.silence(experiment_id, None), keys.silence(experiment_id, alert_type)]
        return int(await scripts.run(self._client, "deliver_alert", names, args))


def _alerts(rows: list[Any]) -> list[OutboxEntry]:
    alerts = []
    for row in rows:
        if row is None or row[1] is None:
            continue
        alerts.append(_entry(row[0], dict(zip(row[1][::2], row[1][1::2], strict=False))))
    return alerts


def _entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> OutboxEntry:
    at = fields.get(b"at", b"0")
    data, trace = text(fields.get(b"data", b"")), text(fields.get(b"trace", b""))
    return OutboxEntry(entry_id.decode(), data, int(at) if at.isdigit() else 0, trace)
