"""`redis-agent pending`: what was read and not acked, and what to do about it."""

import sys
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.entries import Named, label, named, only, placed
from redis_agent.cli.fates import STYLES, follow, in_words, wait_option
from redis_agent.cli.options import (
    Command,
    json_option,
    limit_option,
    redis_url_option,
    yes_option,
)
from redis_agent.cli.output import Cell, Table, age, print_json, say, shortened, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.store.partitions import Partition, Partitions
    from redis_agent.store.pending import PendingEntry

    Placed = tuple[Partition, PendingEntry]

_PEOPLE_SEE = 20
_PROGRAMS_SEE = 1_000
_EXCERPT = 100
_FAILED = ("missing", "deleted", "failed", "not_chosen")


@click.command(cls=Command)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--idle",
    "idle_seconds",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Only entries that nobody has touched for so long "
    "(0; with --claim and no ID, REDIS_AGENT_RECLAIM_IDLE_SECONDS).",
)
@click.option("--consumer", metavar="NAME", help="Only entries that this consumer holds.")
@limit_option(f"So many entries at most, the oldest first (people: {_PEOPLE_SEE}, --json: 1000, --claim: all).")
@click.option("--claim", is_flag=True, help="Take the entries from their holders: the next worker gets them at once.")
@click.option("--dead-letter", is_flag=True, help="Give the named entries up: they go to the dead letters.")
@wait_option
@yes_option
@json_option
@redis_url_option
def pending(
    *,
    ids: tuple[str, ...],
    idle_seconds: float | None,
    consumer: str | None,
    limit: int | None,
    claim: bool,
    dead_letter: bool,
    wait_seconds: float,
    yes: bool,
    as_json: bool,
    redis_url: str | None,
) -> None:
    """Show the consumers, and the entries that they have read and not acked.

    --claim hands the named entries, or all that are stuck, to whichever worker looks next, and says
    what became of each. --dead-letter gives the named ones up; `dead-letters replay` brings them back.
    Neither can make an entry count twice. Exits with 1 when one of the named entries is not pending, was not
    chosen, or became a dead letter when it was claimed. Of several partitions an ID may name one, as in
    3:1769940000000-0; it must where two have that entry.

    Examples:
        redis-agent pending --idle 30
        redis-agent pending --json | jq '.entries[] | select(.deliveries > 1)'
        redis-agent pending --claim --consumer worker-3
        redis-agent pending --dead-letter 1769940000000-0
    """
    if claim and dead_letter:
        raise click.UsageError("--claim and --dead-letter exclude each other")
    if dead_letter and not ids:
        raise click.UsageError("--dead-letter needs the ids of the entries to give up")
    from redis_agent.cli.session import settings_of, with_redis

    names = named(ids, "an entry", partitions=settings_of(redis_url).partitions)
    if dead_letter and not yes and sys.stdin.isatty():
        what = "this entry" if len(names) == 1 else f"these {len(names)} entries"
        click.confirm(f"Give up {what} and move to the dead letters?", abort=True, err=True)

    async def work(session: "Session") -> dict[str, Any]:
        idle = idle_seconds
        if idle is None:
            idle = session.settings.reclaim_idle_seconds if claim and not names else 0.0
        chosen = Chosen(names, int(idle * 1000), consumer, limit)
        if claim:
            return await _claim(session, chosen, wait_seconds)
        if dead_letter:
            return await _bury(session, chosen)
        if not names:
            chosen.limit = limit or (_PROGRAMS_SEE if as_json else _PEOPLE_SEE)
        return await read_pending(session, chosen)

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
    elif claim or dead_letter:
        _show_outcomes(document, wait_seconds)
    else:
        _show(document)
    outcomes = [entry.get("outcome") for entry in document["entries"]]
    failed = any(outcome in _FAILED for outcome in outcomes) or (claim and "dead_letter" in outcomes)
    if failed or document.get("missing"):
        raise SystemExit(1)


class Chosen:
    """Which entries a command is about: the named ones, or else all that match.

    Args:
        names: named entries, or none.
        idle_ms: only such as were not touched for so long.
        consumer: only such as this one holds; None for everybody's.
        limit: so many at most; None for all.
    """

    def __init__(self, names: list[Named], idle_ms: int, consumer: str | None, limit: int | None) -> None:
        self.names = names
        self.idle_ms = idle_ms
        self.consumer = consumer
        self.limit = limit
        # Where the named ones are pending, chosen or not.
        self.known: dict[Named, list[Placed]] = {}

    def left_out(self, name: Named) -> str:
        """What to say of a named entry that is not among those chosen."""
        return "not_chosen" if name in self.known else "missing"

    async def entries(self, partitions: "Partitions") -> "list[Placed]":
        """They, each with its partition: in the order given, or oldest first."""
        from redis_agent.store.union import AllInspection

        if self.names:
            await self._look(partitions)
            found = [
                (partition, entry)
                for name in self.names
                for partition, entry in self.known.get(name, ())
                if entry.idle_ms >= self.idle_ms and self.consumer in (None, entry.consumer)
            ]
            return found[: self.limit]
        found = []
        async for placed_entry in AllInspection(partitions.all).pending(idle_ms=self.idle_ms, consumer=self.consumer):
            found.append(placed_entry)
            if len(found) == self.limit:
                break
        return found

    async def one_of_each(self, partitions: "Partitions") -> "list[Placed]":
        """They, for who is about to change them.

        Raises:
            click.ClickException: a name is that of entries of two partitions.
        """
        found = await self.entries(partitions)
        for name, having in self.known.items():
            only(name, [partition for partition, _ in having], partitions)
        return found

    def named(self, found: "list[Placed]") -> "list[tuple[Named, Placed | None]]":
        """What there is to report on: each named entry, or None where it was not chosen; or else all found."""
        if not self.names:
            return [(Named(entry.id), (partition, entry)) for partition, entry in found]
        return [
            (name, next(((p, entry) for p, entry in found if entry.id == name.id and name.within(p)), None))
            for name in self.names
        ]

    async def _look(self, partitions: "Partitions") -> None:
        from redis_agent.store.pending import PendingEntries

        for partition in partitions.all:
            names = [name for name in self.names if name.within(partition)]
            if names:
                pending = await PendingEntries(partition.client).named([name.id for name in names])
                for name in names:
                    if name.id in pending:
                        self.known.setdefault(name, []).append((partition, pending[name.id]))


async def read_pending(session: "Session", chosen: Chosen) -> dict[str, Any]:
    """The document that `--json` prints without an action."""
    from redis_agent.store import keys
    from redis_agent.store.union import AllInspection

    partitions = session.partitions
    inspection = AllInspection(partitions.all)
    group = await inspection.group()
    entries = await chosen.entries(partitions)
    return {
        "stream": keys.STREAM,
        "group": keys.GROUP,
        "exists": group.exists,
        "length": group.length,
        "pending": group.pending,
        "lag": group.lag,
        "consumers": [
            {"name": c.name, "pending": c.pending, "idle_ms": c.idle_ms} for c in await inspection.consumers()
        ],
        "entries": [
            placed(partitions, partition.number, _document(entry, session.settings.max_event_bytes))
            for partition, entry in entries
        ],
        "missing": [str(name) for name in chosen.names if name not in chosen.known],
    }


def _about(partitions: "Partitions", name: Named, found: "Placed | None") -> dict[str, Any]:
    """The beginning of what is said of a chosen entry."""
    number = name.partition if found is None else found[0].number
    return placed(partitions, number, {"id": name.id, "consumer": found[1].consumer if found else None})


def _document(entry: "PendingEntry", max_bytes: int) -> dict[str, Any]:
    from redis_agent.events import MetricEvent, read

    event = read(entry.data, max_bytes=max_bytes)
    readable = isinstance(event, MetricEvent)
    problem = "gone from the stream" if entry.deleted else None if readable else str(event)
    return {
        "id": entry.id,
        "consumer": entry.consumer,
        "idle_ms": entry.idle_ms,
        "deliveries": entry.deliveries,
        "experiment_id": event.experiment_id if isinstance(event, MetricEvent) else None,
        "event": event.name if isinstance(event, MetricEvent) else None,
        "problem": problem,
        "bytes": len(entry.data or b""),
        "excerpt": shortened((entry.data or b"")[: 4 * _EXCERPT].decode("utf-8", "replace"), _EXCERPT),
    }


async def _claim(session: "Session", chosen: Chosen, wait_seconds: float) -> dict[str, Any]:
    from redis_agent.store.fates import Fates
    from redis_agent.store.pending import PendingEntries

    partitions = session.partitions
    fates = {partition: await Fates.watch(partition.client) for partition in partitions.all}
    entries = await chosen.one_of_each(partitions)
    released: dict[Partition, set[str]] = {}
    for partition in partitions.all:
        ids = [entry.id for where, entry in entries if where is partition and not entry.deleted]
        released[partition] = set(await PendingEntries(partition.client).release(ids, idle_ms=chosen.idle_ms))
    documents = []
    followed: dict[Partition, dict[str, dict[str, Any]]] = {partition: {} for partition in partitions.all}
    for name, found in chosen.named(entries):
        where, entry = found or (None, None)
        document = _about(partitions, name, found)
        documents.append(document)
        if where is None or entry is None:
            document["outcome"] = chosen.left_out(name)
        elif entry.deleted:
            document["outcome"] = "deleted"
        elif entry.id in released[where]:
            document["outcome"] = "waiting"
            followed[where][entry.id] = document
        else:
            document["outcome"] = "missing"
    await follow([(fates[partition], some) for partition, some in followed.items()], wait_seconds)
    return {"claimed": sum(map(len, released.values())), "entries": documents}


async def _bury(session: "Session", chosen: Chosen) -> dict[str, Any]:
    from redis.exceptions import ResponseError

    from redis_agent.events import MetricEvent, Reason, read
    from redis_agent.store.fates import Fates
    from redis_agent.store.pending import PendingEntries

    settings, partitions = session.settings, session.partitions
    fates = {partition: await Fates.watch(partition.client) for partition in partitions.all}
    documents: list[dict[str, Any]] = []
    buried: dict[Partition, dict[str, dict[str, Any]]] = {partition: {} for partition in partitions.all}
    for name, found in chosen.named(await chosen.one_of_each(partitions)):
        where, entry = found or (None, None)
        document = _about(partitions, name, found)
        documents.append(document)
        if where is None or entry is None or entry.deleted:
            document["outcome"] = chosen.left_out(name) if entry is None else "deleted"
            continue
        try:
            done = await PendingEntries(where.client).bury(
                entry,
                Reason.OPERATOR.value,
                readable=isinstance(read(entry.data, max_bytes=settings.max_event_bytes), MetricEvent),
                max_dead=settings.dead_letters_max_length,
            )
        except ResponseError as error:
            document |= {"outcome": "failed", "reason": str(error)[:200]}
            continue
        document["outcome"] = "dead_letter" if done else "missing"
        if done:
            buried[where][entry.id] = document
    for where, some in buried.items():
        for entry_id, fate in (await fates[where].of(list(some)) if some else {}).items():
            some[entry_id] |= {"reason": Reason.OPERATOR.value, "dead_letter_id": fate.dead_letter_id}
    return {"buried": sum(map(len, buried.values())), "entries": documents}


def _show(document: dict[str, Any]) -> None:
    say(_head(document))
    if document["consumers"]:
        say()
        table = Table(["consumer", ">pending", ">last seen"])
        for consumer in document["consumers"]:
            seen = f"{age(consumer['idle_ms'] / 1000)} ago"
            table.add(consumer["name"], f"{consumer['pending']:,}", seen)
        show(table)
    if document["entries"]:
        say()
        table = Table(["entry", "consumer", ">idle", ">deliveries", "experiment", "event", "data"])
        for entry in document["entries"]:
            table.add(
                label(entry),
                entry["consumer"],
                age(entry["idle_ms"] / 1000),
                str(entry["deliveries"]),
                entry["experiment_id"] or Cell("unreadable", "yellow"),
                entry["event"] or "-",
                entry["excerpt"] if entry["experiment_id"] else f"{entry['problem']}: {entry['excerpt']}",
            )
        show(table)
    for entry_id in document["missing"]:
        say(f"{entry_id} is not pending", "red")
    left = document["pending"] - len(document["entries"])
    if left > 0:
        say(f"and {left:,} more pending; --limit, --idle and --consumer choose")


def _head(document: dict[str, Any]) -> str:
    if not document["exists"] and not document["pending"]:
        if not document["length"]:
            return "nothing is pending: there is no stream of events yet"
        return f"nothing is pending: no worker has made the consumer group yet; {document['length']:,} entries wait"
    lag = "an unknown number" if document["lag"] is None else f"{document['lag']:,}"
    return f"{document['pending']:,} pending, {lag} not read yet"


def _show_outcomes(document: dict[str, Any], wait_seconds: float) -> None:
    if not document["entries"]:
        say("nothing is stuck")
        return
    words = {
        "missing": "it is not pending: finished, taken up again, or never there",
        "not_chosen": "it is pending, but --idle, --consumer or --limit leaves it out",
        "deleted": "gone from the stream: nothing is left of it, and the next worker forgets it",
    }
    table = Table(["entry", "outcome"])
    for entry in document["entries"]:
        outcome = entry["outcome"]
        if outcome == "failed":
            said = f"failed: {entry['reason']}"
        elif outcome == "dead_letter" and entry.get("dead_letter_id"):
            said = f"dead letter {label(entry, 'dead_letter_id')}: {entry['reason']}"
        else:
            said = words.get(outcome) or in_words(entry, wait_seconds)
        table.add(label(entry), Cell(said, STYLES.get(outcome, "red")))
    show(table)
