"""`redis-agent alerts`: the history of alerts."""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, limit_option, redis_url_option
from redis_agent.cli.output import Cell, Table, print_json, say, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session

_PEOPLE_SEE = 20
_STYLES = {
    "success_threshold": "green",
    "failure_threshold": "red",
    "error": "bold red",
    "anomaly": "yellow",
}
_DELIVERED = {True: Cell("yes"), False: Cell("no", "yellow"), None: Cell("?", "yellow")}


@click.command(cls=Command)
@limit_option(f"Show so many (people: {_PEOPLE_SEE}).")
@click.option("--experiment", metavar="ID", help="Only the alerts of this experiment.")
@json_option
@redis_url_option
def alerts(*, limit: int | None, experiment: str | None, as_json: bool, redis_url: str | None) -> None:
    """Show the alerts, newest first, and whether somebody received them.

    With --json each has the analysis that it was, or will be, delivered with.
    Where that cannot be read, it is shown as null (or "?"), and a warning on stderr says why.

    Examples:
        redis-agent alerts --limit 5
        redis-agent alerts --experiment exp_test --json | jq '.[] | select(.delivered | not)'
    """
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> list[dict[str, Any]]:
        return await read_alerts(session, limit or (None if as_json else _PEOPLE_SEE), experiment)

    found = with_redis(redis_url, work)
    if as_json:
        print_json(found)
    else:
        _show(found)


async def read_alerts(session: "Session", limit: int | None, experiment: str | None) -> list[dict[str, Any]]:
    """The list that `--json` prints; what cannot be read beside the alerts is said on stderr, and costs only itself."""
    from redis_agent.cli.entries import placed
    from redis_agent.overview import Parts
    from redis_agent.store.inspection import Inspection, OutboxAlert
    from redis_agent.store.partitions import Partition
    from redis_agent.store.union import merged

    partitions, parts = session.partitions, Parts()
    given_up = {
        partition: await parts.read(f"undelivered {partition.number}", Inspection(partition.client).given_up())
        for partition in partitions.all
    }
    for problem in parts.problems.values():
        click.echo(f"Warning: it is not known which alerts were given up: {problem}", err=True)

    def history(partition: Partition) -> AsyncIterator[OutboxAlert]:
        return Inspection(partition.client).alerts(given_up[partition])

    found: list[dict[str, Any]] = []
    async for partition, alert in merged(partitions.all, history, newest_first=True):
        document = _document(alert.data)
        if experiment is not None and document.get("experiment_id") != experiment:
            continue
        analysis = {"analysis": _document(alert.analysis)} if alert.analysis else {}
        found.append(placed(partitions, partition.number, {**document, **analysis, "delivered": alert.delivered}))
        if len(found) == limit:
            break
    return found


def _document(data: str) -> dict[str, Any]:
    """The alert's own JSON; what is not ours is shown as it stands."""
    try:
        document = json.loads(data, parse_constant=str)
    except (ValueError, RecursionError):
        return {"unreadable": data}
    return document if isinstance(document, dict) else {"unreadable": data}


def _show(found: list[dict[str, Any]]) -> None:
    if not found:
        say("no alerts")
        return
    table = Table(["at", "type", "severity", "delivered", "message"])
    for alert in found:
        kind = str(alert.get("type", "?"))
        table.add(
            str(alert.get("timestamp", "?")),
            Cell(kind, _STYLES.get(kind, "")),
            str(alert.get("severity", "?")),
            _DELIVERED[alert["delivered"]],
            str(alert.get("message", alert.get("unreadable", ""))),
        )
    show(table)
