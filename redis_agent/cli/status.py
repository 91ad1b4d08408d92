"""`redis-agent status`: the state of everything on one page."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from redis_agent.cli.options import Command, json_option, redis_url_option
from redis_agent.cli.output import Cell, age, counted, print_json, say

if TYPE_CHECKING:
    from redis.exceptions import ResponseError

    from redis_agent.cli.session import Session

_T = TypeVar("_T")


@click.command(cls=Command)
@json_option
@redis_url_option
def status(*, as_json: bool, redis_url: str | None) -> None:
    """Show the server, the stream, who leads, which replicas run, and the alerts.

    What cannot be read, because a key has the wrong type or the user may not, is said in its place,
    and the rest is shown.

    Examples:
        redis-agent status
        redis-agent status --json | jq .stream.lag
    """
    from redis_agent.cli.session import with_redis

    document = with_redis(redis_url, read_status)
    if as_json:
        print_json(document)
    else:
        _show(document)


class Parts:
    """Reads one part after the other; a part that the server refuses costs only itself.

    Attributes:
        problems: name of a part -> what the server said.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self._read = 0
        self._refused: ResponseError | None = None

    async def read(self, name: str, reading: Awaitable[_T]) -> _T | None:
        """The part; None where the server refuses it."""
        from redis.exceptions import ResponseError

        try:
            found = await reading
        except ResponseError as error:
            self.problems[name] = " ".join(str(error).split())[:200]
            self._refused = error
            return None
        self._read += 1
        return found

    def check(self) -> None:
        """Refuse to show a page on which nothing could be read.

        Raises:
            ResponseError: as the server said it last.
        """
        if self._refused is not None and not self._read:
            raise self._refused


async def read_status(session: "Session") -> dict[str, Any]:
    """The document that `--json` prints; what could not be read is null, and `problems` says why."""
    from redis_agent.store import keys
    from redis_agent.store.dead_letters import DeadLetters
    from redis_agent.store.inspection import Inspection

    inspection, parts = Inspection(session.client), Parts()
    now_ms = await inspection.now_ms()
    info = await parts.read("redis", inspection.server())
    group = await parts.read("stream", inspection.group())
    dead_letters = await parts.read("dead letters", DeadLetters(session.client).total())
    leaders = {
        role: await parts.read(role, inspection.leader(lease))
        for role, lease in (
            ("bridge", keys.LEASE_BRIDGE),
            ("scheduler", keys.LEASE_SCHEDULER),
            ("dispatcher", keys.LEASE_DISPATCHER),
        )
    }
    replicas = await parts.read("replicas", inspection.replicas(now_ms))
    in_step = await parts.read("in step", inspection.bridges_in_step(now_ms))
    bridge = await parts.read("gaps", inspection.bridge())
    experiments = await parts.read("experiments", inspection.experiment_count())
    alerts = await parts.read("alerts", inspection.alert_counts())
    undelivered = await parts.read("undelivered", inspection.undelivered())
    parts.check()
    return {
        "redis": {"url": session.settings.address_shown, **_server_facts(info or {})},
        "stream": {
            "length": group and group.length,
            "group_exists": group and group.exists,
            "lag": group and group.lag,
            "pending": group and group.pending,
            "oldest_pending_seconds": group.oldest_pending_ms(now_ms) / 1000 if group and group.pending else None,
            "oldest_unread_seconds": group.oldest_unread_ms(now_ms) / 1000 if group and group.oldest_unread else None,
            "dead_letters": dead_letters,
        },
        "bridge": {
            "leader": leaders["bridge"],
            "replicas": None if replicas is None else [r.name for r in replicas if "bridge" in r.roles],
            "in_step": None if in_step is None else len(in_step),
            "gaps": bridge and bridge.gaps,
            "gap_seconds": bridge and bridge.gap_ms / 1000,
            "given_up": bridge and bridge.given_up,
            "written": bridge and bridge.written,
        },
        "scheduler": {"leader": leaders["scheduler"]},
        "dispatcher": {"leader": leaders["dispatcher"]},
        "replicas": None
        if replicas is None
        else [
            {
                "name": r.name,
                "roles": r.roles,
                **({"in_step": in_step is not None and r.name in in_step} if "bridge" in r.roles else {}),
            }
            for r in replicas
        ],
        "experiments": experiments,
        "alerts": {
            "total": alerts and alerts.total,
            "delivered": None
            if alerts is None or undelivered is None
            else max(0, alerts.total - alerts.waiting - undelivered),
            "waiting": alerts and alerts.waiting,
            "undelivered": undelivered,
        },
        "problems": parts.problems,
    }


def _server_facts(info: dict[str, Any]) -> dict[str, Any]:
    name = str(info.get("server_name", "redis"))
    return {
        "name": name,
        "version": str(info.get(f"{name}_version", info.get("redis_version", "?"))),
        "role": info.get("role"),
        "used_memory_human": info.get("used_memory_human"),
        "maxmemory_human": info.get("maxmemory_human"),
        "uptime_seconds": info.get("uptime_in_seconds"),
        "connected_clients": info.get("connected_clients"),
        "aof_enabled": bool(info["aof_enabled"]) if "aof_enabled" in info else None,
    }


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
    for label, value in lines:
        cell = value if isinstance(value, Cell) else Cell(value)
        say(f"{label:<13} {cell.text}", cell.style)


def _server(redis: dict[str, Any]) -> list[str]:
    memory = redis["used_memory_human"]
    if redis["maxmemory_human"] not in (None, "0B"):
        memory = f"{memory} of {redis['maxmemory_human']}"
    kept = "append-only file" if redis["aof_enabled"] else "NO append-only file"
    return [
        f"{redis['name']} {redis['version']} ({redis['role']}) at {redis['url']}",
        f"{memory} used, up {age(redis['uptime_seconds'] or 0)}, {kept}",
    ]


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
