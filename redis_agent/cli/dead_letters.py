"""`redis-agent dead-letters`: what could not be applied, and what to do about it."""

import base64
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, Group, json_option, limit_option, redis_url_option
from redis_agent.cli.output import Cell, Table, age, print_json, say, shortened, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.store.dead_letters import BuriedEvent, DeadLetters
    from redis_agent.store.inspection import Inspection

_PEOPLE_SEE = 50
_DATA_SHOWN = 100
_POLL_SECONDS = 0.1
_STYLES = {"applied": "green", "dead_letter": "red", "missing": "red", "waiting": "yellow"}


@click.group(name="dead-letters", cls=Group)
def dead_letters() -> None:
    """Show, replay or drop events that could not be applied.

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
        from redis_agent.store.dead_letters import DeadLetters

        letters = DeadLetters(session.client)
        wanted = limit or (None if as_json else _PEOPLE_SEE)
        entries: list[dict[str, Any]] = []
        async for letter in letters.newest():
            entries.append(_document(letter))
            if len(entries) == wanted:
                break
        return {"total": await letters.total(), "entries": entries}

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
            entry["id"],
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

        letter = await DeadLetters(session.client).get(_checked(entry_id))
        if letter is None:
            raise click.ClickException(f"there is no dead letter {entry_id}")
        return _document(letter)

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
        return
    for name in ("id", "reason", "source_id", "deliveries"):
        say(f"{name:<10}  {document[name]}")
    say(f"{'at':<10}  {document['at']} ({age(time.time() - document['at'] / 1000)} ago)")
    if "data_base64" in document:
        say(f"{'base64':<10}  {document['data_base64']}")
    say(f"{'data':<10}  {document['data']}")


@dead_letters.command(cls=Command)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All that there are now.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for what becomes of them; 0 does not wait.",
)
@json_option
@redis_url_option
def replay(*, ids: tuple[str, ...], all_: bool, wait_seconds: float, as_json: bool, redis_url: str | None) -> None:
    """Put dead letters through the front door again, and say what became of them.

    Each enters the stream of events anew and leaves the dead letters in one step. Exits with 1
    when one of them is missing or became a dead letter again.

    Examples:
        redis-agent dead-letters replay 1769940000000-0
        redis-agent dead-letters replay --all --wait 30
    """
    _ids_or_all(ids, all_)
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> list[dict[str, Any]]:
        from redis_agent.store.dead_letters import DeadLetters
        from redis_agent.store.inspection import Inspection

        letters = DeadLetters(session.client)
        chosen = [_checked(i) for i in ids] or [letter.id async for letter in letters.all()]
        outcomes = []
        for entry_id in chosen:
            now_ms = time.time_ns() // 1_000_000
            new_id = await letters.replay(entry_id, now_ms=now_ms)
            outcomes.append({"id": entry_id, "new_id": new_id, "outcome": "waiting" if new_id else "missing"})
        await _wait_for(outcomes, letters, Inspection(session.client), wait_seconds)
        return outcomes

    outcomes = with_redis(redis_url, work)
    if as_json:
        print_json({"replayed": sum(1 for o in outcomes if o["new_id"]), "entries": outcomes})
    else:
        _show_outcomes(outcomes, wait_seconds)
    if any(outcome["outcome"] in ("missing", "dead_letter") for outcome in outcomes):
        raise SystemExit(1)


async def _wait_for(
    outcomes: list[dict[str, Any]],
    letters: "DeadLetters",
    inspection: "Inspection",
    wait_seconds: float,
) -> None:
    """Fill in what became of each, as long as the time lasts."""
    import asyncio

    from redis_agent.clock import stream_id

    deadline = time.monotonic() + wait_seconds
    waiting = [outcome for outcome in outcomes if outcome["new_id"]]
    while waiting and wait_seconds:
        group = await inspection.group()
        still = []
        for outcome in waiting:
            new_id = outcome["new_id"]
            # Given to the group, and then acked: in the same step it was applied or buried again.
            given = stream_id(new_id) <= stream_id(group.last_delivered)
            if not group.exists or not given or await inspection.is_pending(new_id):
                still.append(outcome)
                continue
            again = await letters.buried_again(new_id)
            outcome["outcome"] = "applied" if again is None else "dead_letter"
            if again is not None:
                outcome |= {"reason": again.reason, "dead_letter_id": again.id}
        waiting = still
        if time.monotonic() >= deadline:
            return
        if waiting:
            await asyncio.sleep(_POLL_SECONDS)


def _show_outcomes(outcomes: list[dict[str, Any]], wait_seconds: float) -> None:
    if not outcomes:
        say("no dead letters")
        return
    words = {
        "applied": "applied",
        "missing": "there is no such dead letter",
        "waiting": "in the stream again; not waited for"
        if not wait_seconds
        else f"in the stream again, but not read within {wait_seconds:g} s: is a worker running?",
    }
    table = Table(["dead letter", "new entry", "outcome"])
    for outcome in outcomes:
        kind = outcome["outcome"]
        said = words.get(kind) or f"dead letter again: {outcome['reason']}"
        table.add(outcome["id"], outcome["new_id"] or "-", Cell(said, _STYLES[kind]))
    show(table)


@dead_letters.command(cls=Command)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All that there are now.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@redis_url_option
def drop(*, ids: tuple[str, ...], all_: bool, yes: bool, as_json: bool, redis_url: str | None) -> None:
    """Delete dead letters for good.

    Examples:
        redis-agent dead-letters drop 1769940000000-0
        redis-agent dead-letters drop --all --yes
    """
    _ids_or_all(ids, all_)
    chosen = [_checked(i) for i in ids]
    if not yes and sys.stdin.isatty():
        what = "all dead letters" if all_ else f"{len(ids)} dead letter{'s'[: len(ids) > 1]}"
        click.confirm(f"Delete {what} for good?", abort=True, err=True)

    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> int:
        from redis_agent.store.dead_letters import DeadLetters

        letters = DeadLetters(session.client)
        return await (letters.drop_all() if all_ else letters.drop(chosen))

    dropped = with_redis(redis_url, work)
    missing = max(0, len(set(chosen)) - dropped)
    if as_json:
        print_json({"dropped": dropped, "missing": missing})
    else:
        say(f"{dropped} dropped")
    if missing:
        raise click.ClickException(f"{missing} of the ids named no dead letter")


def _ids_or_all(ids: tuple[str, ...], all_: bool) -> None:
    if bool(ids) == all_:
        raise click.UsageError("name dead letters by their ids, or say --all")


def _checked(entry_id: str) -> str:
    ms, separator, seq = entry_id.partition("-")
    if not ms.isdecimal() or not (seq.isdecimal() if separator else True):
        raise click.BadParameter(f"{entry_id!r} is no id of a dead letter (such as 1769940000000-0)")
    return f"{ms}-{seq or 0}"


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
