"""`redis-agent pending`: what was read and not acked."""

from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, limit_option, redis_url_option
from redis_agent.cli.output import Table, age, print_json, say, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session

_PEOPLE_SEE = 20
_PROGRAMS_SEE = 1_000


@click.command(cls=Command)
@limit_option(f"Show so many entries, the oldest first (people: {_PEOPLE_SEE}, --json: 1000).")
@json_option
@redis_url_option
def pending(*, limit: int | None, as_json: bool, redis_url: str | None) -> None:
    """Show the consumers, and the entries that they have read and not acked.

    Examples:
        redis-agent pending
        redis-agent pending --json | jq '.entries[] | select(.deliveries > 1)'
    """
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> dict[str, Any]:
        return await read_pending(session, limit or (_PROGRAMS_SEE if as_json else _PEOPLE_SEE))

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
    else:
        _show(document)


async def read_pending(session: "Session", limit: int) -> dict[str, Any]:
    """The document that `--json` prints."""
    from redis_agent.events import MetricEvent, read
    from redis_agent.store import keys
    from redis_agent.store.inspection import Inspection

    def experiment_of(data: bytes | None) -> str | None:
        event = read(data, max_bytes=session.settings.max_event_bytes)
        return event.experiment_id if isinstance(event, MetricEvent) else None

    inspection = Inspection(session.client)
    group = await inspection.group()
    return {
        "stream": keys.STREAM,
        "group": keys.GROUP,
        "pending": group.pending,
        "lag": group.lag,
        "consumers": [
            {"name": c.name, "pending": c.pending, "idle_ms": c.idle_ms} for c in await inspection.consumers()
        ],
        "entries": [
            {
                "id": e.id,
                "consumer": e.consumer,
                "idle_ms": e.idle_ms,
                "deliveries": e.deliveries,
                "experiment_id": experiment_of(e.data),
            }
            for e in await inspection.pending(limit)
        ],
    }


def _show(document: dict[str, Any]) -> None:
    lag = "unknown" if document["lag"] is None else f"{document['lag']:,}"
    say(f"{document['pending']:,} pending, {lag} not read yet")
    if document["consumers"]:
        say()
        table = Table(["consumer", ">pending", ">last seen"])
        for consumer in document["consumers"]:
            seen = f"{age(consumer['idle_ms'] / 1000)} ago"
            table.add(consumer["name"], f"{consumer['pending']:,}", seen)
        show(table)
    if not document["entries"]:
        return
    say()
    table = Table(["entry", "consumer", ">idle", ">deliveries", "experiment"])
    for entry in document["entries"]:
        table.add(
            entry["id"],
            entry["consumer"],
            age(entry["idle_ms"] / 1000),
            str(entry["deliveries"]),
            entry["experiment_id"] or "unreadable",
        )
    show(table)
    left = document["pending"] - len(document["entries"])
    if left > 0:
        say(f"and {left:,} more; --limit shows more of them")
