"""`redis-agent status`: the state of everything on one page."""

from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, redis_url_option
from redis_agent.cli.output import Cell, age, counted, print_json, say

if TYPE_CHECKING:
    from redis_agent.cli.session import Session


@click.command(cls=Command)
@json_option
@redis_url_option
def status(*, as_json: bool, redis_url: str | None) -> None:
    """Show the server, the stream, who leads, which replicas run, and the alerts.

    Of several partitions it shows what they come to together, and a line for each.
    What cannot be read, because a key has the wrong type or the user may not, is said in its place,
    and the rest is shown.

    Examples:
        redis-agent status
        redis-agent status --json | jq .stream.lag
    """
    from redis_agent.cli.session import with_redis

    document = with_redis(redis_url, read)
    if as_json:
        print_json(document)
    else:
        _show(document)


async def read(session: "Session") -> dict[str, Any]:
    """The document that `--json` prints."""
    from redis_agent.overview import read_status

    return await read_status(session.partitions, session.settings.address_shown)


def _show(document: dict[str, Any]) -> None:
    stream, bridge, problems = document["stream"], document["bridge"], document["problems"]
    lines: list[tuple[str, str | Cell]] = []

    def add(label: str, part: str, *cells: str | Cell) -> None:
        """A part's lines, or why it could not be read."""
        if part in problems:
            cells = (Cell(f"unreadable: {problems[part]}", "red"),)
        lines.extend((label if n == 0 else "", cell) for n, cell in enumerate(cells))

    add("redis", "redis", *_server(document["redis"]))
    add("stream", "stream", *_stream(stream))
    add("dead letters", "dead letters", _alarming(stream["dead_letters"]))
    add("bridge", "bridge", _leader(bridge["leader"]))
    add("in step", "in step", _in_step(bridge))
    add("gaps", "gaps", _gaps(bridge))
    for role in ("scheduler", "dispatcher"):
        add(role, role, _leader(document[role]["leader"]))
    add("experiments", "experiments", f"{document['experiments'] or 0:,}")
    add("alerts", "alerts", *_alerts(document["alerts"]))
    if document["alerts"]["undelivered"] != 0:
        add("undelivered", "undelivered", Cell(f"{document['alerts']['undelivered']} given up or superseded", "yellow"))
    add("replicas", "replicas", *_replicas(document["replicas"] or []))
    if "partitions" in document:
        add("partitions", "stream", *map(_partition, document["partitions"]))
        silent = {name: said for name, said in problems.items() if name.startswith("partition ")}
        lines.extend(("", Cell(f"{name} does not answer: {said}", "red")) for name, said in silent.items())
    for label, value in lines:
        cell = value if isinstance(value, Cell) else Cell(value)
        say(f"{label:<13} {cell.text}", cell.style)


def _server(redis: dict[str, Any]) -> list[str | Cell]:
    memory = redis["used_memory_human"]
    if redis["maxmemory_human"] not in (None, "0B"):
        memory = f"{memory} of {redis['maxmemory_human']}"
    kept = "append-only file" if redis["aof_enabled"] else "NO append-only file"
    lines: list[str | Cell] = [f"{redis['name']} {redis['version']} ({redis['role']}) at {redis['url']}"]
    nodes = redis.get("nodes")
    if nodes:
        primaries, replicas = counted(nodes["primaries"], "primary"), counted(nodes["replicas"], "replica")
        failed = f", {nodes['failed']} failed" if nodes["failed"] else ""
        lines.append(Cell(f"{primaries}, {replicas}{failed}", "yellow" if failed else ""))
    one = " by one of the primaries" if nodes else ""
    lines.append(f"{memory} used{one}, up {age(redis['uptime_seconds'] or 0)}, {kept}")
    return lines


def _partition(partition: dict[str, Any]) -> Cell:
    stream = partition["stream"]
    lag = "lag unknown" if stream["lag"] is None else f"lag {stream['lag']:,}"
    leaders = [(role, partition[role]["leader"]) for role in ("bridge", "scheduler", "dispatcher")]
    led = ", ".join(f"{role} {leader}" if leader else f"NO {role}" for role, leader in leaders)
    flow = f"{counted(stream['length'], 'entry')}, {lag}, {stream['pending']:,} pending"
    return Cell(f"{partition['partition']}: {flow}; {led}", "" if all(leader for _, leader in leaders) else "red")


def _stream(stream: dict[str, Any]) -> list[str | Cell]:
    if not stream["group_exists"]:
        if not stream["length"]:
            return ["nothing there yet: no event has come, and no worker has run"]
        waiting = f"{counted(stream['length'], 'entry')}, and no consumer group: no worker has run yet, or it was lost"
        return [Cell(waiting, "yellow")]
    return [counted(stream["length"], "entry"), _lag(stream), _pending(stream)]


def _lag(stream: dict[str, Any]) -> Cell:
    since = stream["oldest_unread_seconds"]
    waiting = "" if since is None else f", the oldest for {age(since)}"
    if stream["lag"] is None:
        return Cell(f"lag unknown: the server cannot say how many entries are not read yet{waiting}", "yellow")
    return Cell(f"lag {stream['lag']:,}: entries not read yet{waiting}")


def _pending(stream: dict[str, Any]) -> str:
    if not stream["pending"]:
        return "none pending"
    return f"{stream['pending']:,} pending, the oldest for {age(stream['oldest_pending_seconds'] or 0)}"


def _alarming(count: int | None) -> Cell:
    return Cell(f"{count or 0:,}", "yellow" if count else "")


def _leader(name: str | None) -> Cell:
    return Cell(f"led by {name}") if name else Cell("nobody leads", "red")


def _in_step(bridge: dict[str, Any]) -> Cell:
    replicas = len(bridge["replicas"] or [])
    enough = replicas == 0 or bridge["in_step"] == replicas
    return Cell(f"{bridge['in_step']} of {counted(replicas, 'bridge')}", "" if enough else "yellow")


def _gaps(bridge: dict[str, Any]) -> Cell:
    said = []
    if bridge["gaps"]:
        said.append(f"{bridge['gaps']}, {age(bridge['gap_seconds'])} in all")
    if bridge["given_up"]:
        said.append(f"{counted(bridge['given_up'], 'event')} given up unwritten")
    return Cell("; ".join(said), "yellow") if said else Cell("none")


def _alerts(alerts: dict[str, Any]) -> list[Cell]:
    delivered = "" if alerts["delivered"] is None else f", {alerts['delivered']:,} delivered"
    waiting = alerts["waiting"] or 0
    return [
        Cell(f"{alerts['total'] or 0:,} in the history{delivered}"),
        Cell(f"{waiting:,} waiting for a subscriber", "yellow" if waiting else ""),
    ]


def _replicas(replicas: list[dict[str, Any]]) -> list[str | Cell]:
    if not replicas:
        return [Cell("none: start `redis-agent run`", "red")]
    lines: list[str | Cell] = []
    for replica in replicas:
        behind = ", bridge not in step" if replica.get("in_step") is False else ""
        lines.append(Cell(f"{replica['name']}  ({', '.join(replica['roles'])}{behind})", "yellow" if behind else ""))
    return lines
