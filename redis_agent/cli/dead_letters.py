"""`redis-agent dead-letters`: what could not be applied, and what to do about it."""

import base64
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.entries import Named, label, located, named, placed
from redis_agent.cli.fates import STYLES, follow, in_words, wait_option
from redis_agent.cli.options import Command, Group, json_option, limit_option, redis_url_option, yes_option
from redis_agent.cli.output import Cell, Table, age, print_json, say, shortened, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.store.dead_letters import BuriedEvent
    from redis_agent.store.partitions import Partition

_PEOPLE_SEE = 50
_DATA_SHOWN = 100
_WHAT = "a dead letter"


@click.group(name="dead-letters", cls=Group)
def dead_letters() -> None:
    """Show, replay or drop events that could not be applied.

    Of several partitions an ID may name one, as in 3:1769940000000-0; it must where two have that letter.

    Examples:
        redis-agent dead-letters list
        redis-agent dead-letters show 1769940000000-0
        redis-agent dead-letters replay --all
    """


@dead_letters.command(name="list", cls=Command)
@limit_option(f"Show so many, the newest (people: {_PEOPLE_SEE}).")
@json_option
@redis_url_option
def list_(*, limit: int | None, as_json: bool, redis_url: str | None) -> None:
    """List the dead letters, newest first.

    Examples:
        redis-agent dead-letters list
        redis-agent dead-letters list --json | jq -r '.entries[].reason'
    """
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> dict[str, Any]:
        from redis_agent.store.union import AllInspection

        inspection = AllInspection(session.partitions.all)
        wanted = limit or (None if as_json else _PEOPLE_SEE)
        entries: list[dict[str, Any]] = []
        async for partition, letter in inspection.newest_dead_letters():
            entries.append(placed(session.partitions, partition.number, _document(letter)))
            if len(entries) == wanted:
                break
        return {"total": await inspection.dead_letters(), "entries": entries}

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
        return
    if not document["entries"]:
        say("no dead letters")
        return
    table = Table(["id", ">age", ">deliveries", "reason", "data"])
    for entry in document["entries"]:
        table.add(
            label(entry),
            age(time.time() - entry["at"] / 1000),
            str(entry["deliveries"]),
            Cell(entry["reason"], "yellow"),
            shortened(entry["data"], _DATA_SHOWN),
        )
    show(table)
    left = document["total"] - len(document["entries"])
    if left > 0:
        say(f"and {left:,} more; --limit shows more of them")


@dead_letters.command(name="show", cls=Command)
@click.argument("entry_id", metavar="ID")
@json_option
@redis_url_option
def show_(*, entry_id: str, as_json: bool, redis_url: str | None) -> None:
    """Show one dead letter whole.

    Example:
        redis-agent dead-letters show 1769940000000-0
    """
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> dict[str, Any]:
        from redis_agent.store.dead_letters import DeadLetters

        (name,) = _named(session, [entry_id])
        where = (await _located(session, [name]))[name]
        letter = None if where is None else await DeadLetters(where.client).get(name.id)
        if where is None or letter is None:
            raise click.ClickException(f"there is no dead letter {entry_id}")
        return placed(session.partitions, where.number, _document(letter))

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
        return
    for name in ("id", "reason", "source_id", "deliveries"):
        say(f"{name:<10}  {label(document) if name == 'id' else document[name]}")
    say(f"{'at':<10}  {document['at']} ({age(time.time() - document['at'] / 1000)} ago)")
    if "data_base64" in document:
        say(f"{'base64':<10}  {document['data_base64']}")
    say(f"{'data':<10}  {document['data']}")


@dead_letters.command(cls=Command)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All that there are now.")
@wait_option
@json_option
@redis_url_option
def replay(*, ids: tuple[str, ...], all_: bool, wait_seconds: float, as_json: bool, redis_url: str | None) -> None:
    """Put dead letters through the front door again, and say what became of them.

    Each enters the stream of events anew and leaves the dead letters in one step; what was
    published for the wrong partition enters the right one's. Exits with 1 when one of them is
    missing or became a dead letter again.

    Examples:
        redis-agent dead-letters replay 1769940000000-0
        redis-agent dead-letters replay --all --wait 30
    """
    _ids_or_all(ids, all_)
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> list[dict[str, Any]]:
        return await _replay(session, _named(session, ids), wait_seconds)

    outcomes = with_redis(redis_url, work)
    if as_json:
        print_json({"replayed": sum(1 for o in outcomes if o["new_id"]), "entries": outcomes})
    else:
        _show_outcomes(outcomes, wait_seconds)
    if any(outcome["outcome"] in ("missing", "dead_letter", "failed") for outcome in outcomes):
        raise SystemExit(1)


async def _replay(session: "Session", names: list[Named], wait_seconds: float) -> list[dict[str, Any]]:
    """Replay these, or all, each into the partition it belongs to; what became of each."""
    from redis.exceptions import ResponseError

    from redis_agent.events import Reason
    from redis_agent.routing import router
    from redis_agent.store.dead_letters import DeadLetters
    from redis_agent.store.fates import Fates
    from redis_agent.store.inspection import Inspection

    partitions = session.partitions
    route = router(len(partitions.all), max_event_bytes=session.settings.max_event_bytes)
    fates = {partition: await Fates.watch(partition.client) for partition in partitions.all}
    chosen: dict[Named, Partition | None] = await _located(session, names) if names else await _everything(session)
    outcomes: list[dict[str, Any]] = []
    followed: dict[Partition, dict[str, dict[str, Any]]] = {partition: {} for partition in partitions.all}
    for name, where in chosen.items():
        number = name.partition if where is None else where.number
        outcome = placed(partitions, number, {"id": name.id, "new_id": None, "outcome": "missing"})
        outcomes.append(outcome)
        if where is None:
            continue
        try:
            now_ms = await Inspection(where.client).now_ms()
            letters = DeadLetters(where.client)
            letter, home = await letters.get(name.id), where
            if letter is not None and letter.reason.startswith(Reason.WRONG_PARTITION):
                home = partitions.all[route(letter.data)]
            if letter is not None and home is not where:
                moved = await letters.move(letter, number=where.number, to=home.client, now_ms=now_ms)
                outcome |= {"new_id": moved, "new_partition": home.number}
            else:
                outcome["new_id"] = await letters.replay(name.id, now_ms=now_ms)
        except ResponseError as error:  # nothing was done, the letter is where it was
            outcome |= {"outcome": "failed", "reason": str(error)[:200]}
        if outcome["new_id"]:
            outcome["outcome"] = "waiting"
            followed[home][outcome["new_id"]] = outcome
    await follow([(fates[partition], some) for partition, some in followed.items()], wait_seconds)
    return outcomes


async def _everything(session: "Session") -> "dict[Named, Partition | None]":
    """All there are now, oldest first, and where."""
    from redis_agent.store.dead_letters import DeadLetters
    from redis_agent.store.union import merged

    partitions = session.partitions
    oldest_first = merged(partitions.all, lambda p: DeadLetters(p.client).all(), newest_first=False)
    return {Named(letter.id, partition.number): partition async for partition, letter in oldest_first}


def _show_outcomes(outcomes: list[dict[str, Any]], wait_seconds: float) -> None:
    if not outcomes:
        say("no dead letters")
        return
    table = Table(["dead letter", "new entry", "outcome"])
    for outcome in outcomes:
        kind = outcome["outcome"]
        if kind == "missing":
            said = "there is no such dead letter"
        elif kind == "failed":
            said = f"failed, and is still a dead letter: {outcome['reason']}"
        elif kind == "dead_letter":
            said = f"dead letter again: {outcome['reason']}"
        else:
            said = in_words(outcome, wait_seconds)
        placed_anew = {**outcome, "partition": outcome.get("new_partition", outcome.get("partition"))}
        new = label(placed_anew, "new_id") if outcome["new_id"] else "-"
        table.add(label(outcome), new, Cell(said, STYLES.get(kind, "red")))
    show(table)


@dead_letters.command(cls=Command)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All that there are now.")
@yes_option
@json_option
@redis_url_option
def drop(*, ids: tuple[str, ...], all_: bool, yes: bool, as_json: bool, redis_url: str | None) -> None:
    """Delete dead letters for good.

    Examples:
        redis-agent dead-letters drop 1769940000000-0
        redis-agent dead-letters drop --all --yes
    """
    _ids_or_all(ids, all_)
    from redis_agent.cli.session import settings_of, with_redis

    chosen = named(ids, _WHAT, partitions=settings_of(redis_url).partitions)
    if not yes and sys.stdin.isatty():
        what = "all dead letters" if all_ else f"{len(ids)} dead letter{'s'[: len(ids) > 1]}"
        click.confirm(f"Delete {what} for good?", abort=True, err=True)

    async def work(session: "Session") -> int:
        from redis_agent.store.dead_letters import DeadLetters

        places = await _located(session, chosen)
        dropped = 0
        for partition in session.partitions.all:
            letters = DeadLetters(partition.client)
            wanted = [name.id for name, where in places.items() if where is partition]
            if all_:
                dropped += await letters.drop_all()
            elif wanted:
                dropped += await letters.drop(wanted)
        return dropped

    dropped = with_redis(redis_url, work)
    missing = max(0, len(chosen) - dropped)
    if as_json:
        print_json({"dropped": dropped, "missing": missing})
    else:
        say(f"{dropped} dropped")
    if missing:
        raise click.ClickException(f"{missing} of the ids named no dead letter")


def _ids_or_all(ids: tuple[str, ...], all_: bool) -> None:
    if bool(ids) == all_:
        raise click.UsageError("name dead letters by their ids, or say --all")


def _named(session: "Session", ids: Sequence[str]) -> list[Named]:
    return named(ids, _WHAT, partitions=len(session.partitions.all))


async def _located(session: "Session", names: Sequence[Named]) -> "dict[Named, Partition | None]":
    from redis_agent.store.dead_letters import DeadLetters

    return await located(session, names, lambda partition, entry_id: DeadLetters(partition.client).get(entry_id))


def _document(letter: "BuriedEvent") -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": letter.id,
        "reason": letter.reason,
        "source_id": letter.source_id,
        "deliveries": letter.deliveries,
        "at": letter.at_ms,
        "data": letter.data.decode("utf-8", "replace"),
    }
    try:
        letter.data.decode("utf-8")
    except UnicodeDecodeError:
        document["data_base64"] = base64.b64encode(letter.data).decode("ascii")
    return document
