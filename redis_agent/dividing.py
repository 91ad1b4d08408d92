"""Prepares what each partition has of its own for another number of partitions: which entry and count goes where.

What can be divided by experiment is. What is counted for all of a partition goes to the home partition, but for breaks
of the subscription, which are the same in each.
"""

import json
import uuid
from collections.abc import Mapping, Sequence

from redis_agent.alerts import AlertType
from redis_agent.belongings import HOME
from redis_agent.examiner import Mark
from redis_agent.routing import router
from redis_agent.store import division, keys
from redis_agent.store.division import Divided, Division, Fields, summed
from redis_agent.store.partitions import Partition, partition_of, partition_of_bytes
from redis_agent.store.stream import text, whole

_Hash = Mapping[str, bytes]
_Values = dict[str, str | Mapping[str, str | bytes | int]]


async def prepare(
    sources: Sequence[Partition], targets: Sequence[Partition], *, max_event_bytes: int
) -> dict[str, Divided]:
    """Prepare it in the targets; what became of each stream.

    Args:
        sources: as many as there are.
        targets: as many as there will be.
        max_event_bytes: longest event that is read.

    Raises:
        RedisError, OSError: as the server or the connection reports it.
    """
    count = len(targets)
    route = router(count, max_event_bytes=max_event_bytes)
    bridges = await division.hashes(sources, keys.BRIDGE)
    from_ms = await _known_from_ms(sources, bridges)

    def by_event(fields: Fields) -> int:
        return route(fields.get(b"data", b""))

    def by_alert(fields: Fields) -> int:
        return _of_alert(fields.get(b"data", b""), count)

    own, dispatchers = frozenset({keys.GROUP}), frozenset({keys.DISPATCHER_GROUP})
    events = Division(keys.STREAM, by_event, own, keys.ACCOUNT, members=[keys.UNAPPLIED])
    letters = Division(keys.DEAD_LETTERS, by_event)
    alerts = Division(
        keys.OUTBOX, by_alert, dispatchers, keys.OUTBOX_ACCOUNT, members=[keys.UNDELIVERED], notes=[keys.ANALYSES]
    )
    divided = {
        keys.STREAM: await division.divide_stream(sources, targets, events, from_ms=from_ms),
        keys.DEAD_LETTERS: await division.divide_stream(sources, targets, letters),
        keys.OUTBOX: await division.divide_stream(sources, targets, alerts),
    }
    copies = bool(targets[HOME].namespace)
    await division.divide_indexes(sources, targets, lambda one: partition_of_bytes(one, count), copies=copies)
    await _prepare_counts(sources, targets, divided, bridges)
    return divided


async def _known_from_ms(sources: Sequence[Partition], bridges: Sequence[_Hash]) -> int:
    """From when on every partition's stream holds all its events; 0 when all hold all there ever were.

    What one partition has from before would say of another one's experiments that they had no events then.
    """
    known = 0
    for source, bridge in zip(sources, bridges, strict=True):
        stream = await division.state_of(source.client, keys.STREAM, keys.ACCOUNT)
        complete = stream.length >= stream.added >= whole(bridge.get("written"))
        if not complete and await source.client.zcard(keys.EXPERIMENTS):
            known = max(known, stream.last[0] + 1 if stream.first_ms is None else stream.first_ms)
    return known


async def _prepare_counts(
    sources: Sequence[Partition],
    targets: Sequence[Partition],
    divided: Mapping[str, Divided],
    bridges: Sequence[_Hash],
) -> None:
    accounts = {
        keys.STREAM: (keys.FLOOR, keys.ACCOUNT, await division.hashes(sources, keys.ACCOUNT)),
        keys.OUTBOX: (keys.OUTBOX_FLOOR, keys.OUTBOX_ACCOUNT, await division.hashes(sources, keys.OUTBOX_ACCOUNT)),
    }
    schedulers = await division.hashes(sources, keys.SCHEDULER)
    for target in targets:
        home = target.number == HOME
        values: _Values = {}
        for stream, (floor, account, before) in accounts.items():
            if divided[stream].last != (0, 0):
                last_id = "{}-{}".format(*divided[stream].last)
                lost, unsaid = (summed(before, name) if home else 0 for name in ("lost", "unsaid"))
                values[floor] = last_id
                values[account] = {"last_id": last_id, "owed": 0, "lost": lost, "unsaid": unsaid}
        bridge = _bridge(bridges, written=divided[keys.STREAM].lengths[target.number], home=home)
        dropped = summed(schedulers, "stream_dropped_unread") if home else 0
        lost = summed(accounts[keys.STREAM][2], "lost") if home else 0
        losses = lost + dropped + int(bridge.get("gaps", 0)) + int(bridge.get("given_up", 0))
        scheduler: dict[str, str | bytes | int] = {}
        if home:
            buried = summed(schedulers, "buried")
            scheduler = {**schedulers[HOME], "stream_dropped_unread": dropped, **({"buried": buried} if buried else {})}
        values[keys.BRIDGE] = bridge
        values[keys.SCHEDULER] = {**scheduler, **_mark(schedulers, losses)}
        await division.prepare(target, values)


def _bridge(bridges: Sequence[_Hash], *, written: int, home: bool) -> dict[str, str | bytes | int]:
    """What a partition's bridges go on from; empty where there never was one."""
    last = max(bridges, key=lambda bridge: whole(bridge.get("at")))
    if not last:
        return {}
    # A break of the subscription was a gap in each partition.
    gaps, gap_ms = (max(whole(bridge.get(name)) for bridge in bridges) for name in ("gaps", "gap_ms"))
    return {
        "written": written,
        # Nobody is in step with an epoch of this name: whoever leads first counts the time until then as a gap.
        "epoch": uuid.uuid4().hex[:8],
        "leader": last.get("leader", b""),
        "at": whole(last.get("at")),
        "gaps": gaps,
        "gap_ms": gap_ms,
        "given_up": summed(bridges, "given_up") if home else 0,
    }


def _mark(schedulers: Sequence[_Hash], losses: int) -> dict[str, str]:
    """When events may have been lost, in whichever partition; empty where nobody has looked yet."""
    marks = [mark for one in schedulers if (mark := Mark.loads(text(one.get("anomalies", b"")))) is not None]
    if not marks:
        return {}
    spells = sorted({spell for mark in marks for spell in mark.blind}, key=lambda spell: spell[::-1])
    return {"anomalies": Mark(losses, min(mark.sound_ms for mark in marks), tuple(spells)).dumps()}


def _of_alert(data: bytes, partitions: int) -> int:
    """The partition of an alert: its experiment's; of summaries, and of what cannot be read, the home partition."""
    try:
        alert = json.loads(data)
    except (ValueError, RecursionError):
        return HOME
    experiment = alert.get("experiment_id") if isinstance(alert, dict) else None
    if not isinstance(experiment, str) or alert.get("type") == AlertType.SUMMARY.value:
        return HOME
    return partition_of(experiment, partitions)
