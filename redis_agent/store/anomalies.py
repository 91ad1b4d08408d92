"""Where what is known of the series is kept, and up to when all that was published is in the windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis

from redis_agent.store import keys, scripts
from redis_agent.store.failures import is_wrong_type
from redis_agent.store.flow import flow
from redis_agent.store.outbox import NOTED, OVERTAKEN, SILENCED
from redis_agent.store.stream import text, whole

__all__ = ["NOTED", "OVERTAKEN", "SILENCED", "WRONG_TYPE", "Anomalies", "Examined", "Standing", "Tell"]

# What writing can come to, beside the outbox's codes.
WRONG_TYPE = -6
# An event that is pending for longer is in the way of itself alone: workers go on with the others.
_STUCK_MS = 120_000


@dataclass(frozen=True, slots=True)
class Standing:
    """How complete the windows are.

    Attributes:
        complete_ms: every event that a bridge received before this moment is in them.
        losses: a count that changes whenever events were missed, dropped or deleted.
        mark: what the last leader has noted, as JSON; "" for none.
    """

    complete_ms: int
    losses: int
    mark: str


@dataclass(frozen=True, slots=True)
class Tell:
    """An alert to raise with what was found.

    Attributes:
        alert_type, fingerprint: name the cooldown.
        cooldown_seconds: for which the same is not told again.
        alert_id: the alert's own id.
        data: its JSON.
        told: the field `told` when it is raised.
    """

    alert_type: str
    fingerprint: str
    cooldown_seconds: int
    alert_id: str
    data: str
    told: str


@dataclass(frozen=True, slots=True)
class Examined:
    """What examining one experiment came to.

    Attributes:
        experiment_id: which.
        expected: the field `upto` as it was read; "" for none.
        upto: end of the last window that was examined, in seconds.
        set: fields to set.
        remove: fields to remove.
        tell: an alert, if there is something to tell.
    """

    experiment_id: str
    expected: str
    upto: int
    set: Mapping[str, str] = field(default_factory=dict)
    remove: Sequence[str] = ()
    tell: Tell | None = None


class Anomalies:
    """What is known of the series of all experiments.

    Args:
        client: of the server.
        ttl_seconds: how long an experiment's series are kept when it is examined no more.
    """

    def __init__(self, client: Redis, *, ttl_seconds: int) -> None:
        self._client = client
        self._ttl_seconds = ttl_seconds

    async def standing(self, now_ms: int) -> Standing:
        """Up to when the windows are complete, and whether something was lost."""
        bridge = await self._client.hmget(keys.BRIDGE, ["at", "gaps", "given_up"])
        lost = whole(await self._client.hget(keys.ACCOUNT, "lost"))
        dropped, mark = await self._client.hmget(keys.SCHEDULER, ["stream_dropped_unread", "anomalies"])
        events = await flow(self._client)
        # While no bridge is at work nothing is heard; without one that ever was, somebody else writes the stream.
        moments = [now_ms, *([whole(bridge[0])] if bridge[0] else [])]
        if events.oldest_unread is not None:
            moments.append(_ms(events.oldest_unread))
        if events.oldest_pending is not None and now_ms - _ms(events.oldest_pending) < _STUCK_MS:
            moments.append(_ms(events.oldest_pending))
        losses = lost + whole(dropped) + sum(whole(value) for value in bridge[1:])
        return Standing(min(moments), losses, text(mark or b""))

    async def examined_upto(self, experiment_ids: Sequence[str]) -> list[str]:
        """How far each experiment is examined: seconds as text, "" for none."""
        async with self._client.pipeline(transaction=False) as pipe:
            for experiment_id in experiment_ids:
                pipe.hget(keys.anomalies(experiment_id), "upto")
            replies = await pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not is_wrong_type(reply):
                raise reply
        return [text(reply) if isinstance(reply, bytes) else "" for reply in replies]

    async def read(self, experiment_ids: Sequence[str]) -> list[dict[str, str]]:
        """What is known of each experiment's series; empty for none, and where the key has another type."""
        async with self._client.pipeline(transaction=False) as pipe:
            for experiment_id in experiment_ids:
                pipe.hgetall(keys.anomalies(experiment_id))
            replies = await pipe.execute(raise_on_error=False)
        found = []
        for reply in replies:
            if isinstance(reply, Exception) and not is_wrong_type(reply):
                raise reply
            fields = reply if isinstance(reply, dict) else {}
            found.append({text(name): text(value) for name, value in fields.items()})
        return found

    async def write(self, lease_value: str, examined: Sequence[Examined], *, mark: str = "") -> list[int] | None:
        """Keep what was found and raise the alerts, in one step (see `lua/examine.lua`).

        Args:
            lease_value: of the scheduler's lease.
            examined: one for each experiment.
            mark: for the next leader's `standing`; "" keeps the one there is.

        Returns:
            For each 0 (told), the ms of a running cooldown, or a negative code; None when the lease is somebody else's.
        """
        names = [keys.LEASE_SCHEDULER, keys.OUTBOX, keys.OUTBOX_ACCOUNT, keys.SCHEDULER]
        args: list[str | int] = [lease_value, self._ttl_seconds, mark]
        for one in examined:
            tell = one.tell or Tell("anomaly", "", 1, "", "", "")
            names += [keys.anomalies(one.experiment_id)]
            names += [keys.cooldown(one.experiment_id, tell.alert_type, tell.fingerprint)]
            names += [keys.silence(one.experiment_id, kind) for kind in (None, tell.alert_type)]
            args += [one.expected, one.upto, tell.alert_id, tell.cooldown_seconds, tell.data, tell.told, len(one.set)]
            args += [part for pair in one.set.items() for part in pair]
            args += [len(one.remove), *one.remove]
        reply = await scripts.run(self._client, "examine", names, args)
        return None if reply[:1] == [b"fenced"] else [int(outcome) for outcome in reply]


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])
