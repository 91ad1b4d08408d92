"""`redis-agent status`: the state of everything on one page."""

from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, redis_url_option
from redis_agent.cli.output import Cell, age, print_json, say

if TYPE_CHECKING:
    from redis_agent.cli.session import Session


@click.command(cls=Command)
@json_option
@redis_url_option
def status(*, as_json: bool, redis_url: str | None) -> None:
    """Show the server, the stream, who leads, which replicas run, and the alerts.

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


async def read_status(session: "Session") -> dict[str, Any]:
    """The document that `--json` prints."""
    from redis_agent.config import redacted_url
    from redis_agent.store.dead_letters import DeadLetters
    from redis_agent.store.inspection import Inspection

    inspection = Inspection(session.client)
    info = await inspection.server()
    now_ms = await inspection.now_ms()
    group = await inspection.group()
    leaders = await inspection.leaders()
    replicas = await inspection.replicas(now_ms)
    bridge = await inspection.bridge()
    alerts = await inspection.alert_counts()
    return {
        "redis": {
            "url": redacted_url(session.settings.redis_url),
            **_server_facts(info),
        },
        "stream": {
            "length": group.length,
            "lag": group.lag,
            "pending": group.pending,
            "oldest_pending_seconds": group.oldest_pending_ms(now_ms) / 1000 if group.pending else None,
            "dead_letters": await DeadLetters(session.client).total(),
        },
        "bridge": {
            "leader": leaders.bridge,
            "replicas": [r.name for r in replicas if "bridge" in r.roles],
            "gaps": bridge["gaps"],
            "gap_seconds": bridge["gap_ms"] / 1000,
            "written": bridge["written"],
        },
        "scheduler": {"leader": leaders.scheduler},
        "dispatcher": {"leader": leaders.dispatcher},
        "replicas": [{"name": r.name, "roles": r.roles} for r in replicas],
        "experiments": await inspection.experiment_count(),
        "alerts": {
            "total": alerts.total,
            "delivered": max(0, alerts.total - alerts.waiting - alerts.undelivered),
            "waiting": alerts.waiting,
            "undelivered": alerts.undelivered,
        },
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
        "aof_enabled": bool(info.get("aof_enabled")),
    }


def _show(document: dict[str, Any]) -> None:
    redis, stream, bridge = document["redis"], document["stream"], document["bridge"]
    alerts, replicas = document["alerts"], document["replicas"]
    memory = redis["used_memory_human"]
    if redis["maxmemory_human"] not in (None, "0B"):
        memory = f"{memory} of {redis['maxmemory_human']}"
    kept = "append-only file" if redis["aof_enabled"] else "NO append-only file"
    lines: list[tuple[str, str | Cell]] = [
        ("redis", f"{redis['name']} {redis['version']} ({redis['role']}) at {redis['url']}"),
        ("", f"{memory} used, up {age(redis['uptime_seconds'] or 0)}, {kept}"),
        ("stream", f"{stream['length']:,} entries"),
        ("lag", _lag(stream["lag"])),
        ("pending", _pending(stream)),
        ("dead letters", _alarming(stream["dead_letters"])),
        ("bridge", _leader(bridge["leader"])),
        ("gaps", _gaps(bridge)),
        ("scheduler", _leader(document["scheduler"]["leader"])),
        ("dispatcher", _leader(document["dispatcher"]["leader"])),
        ("experiments", f"{document['experiments']:,}"),
        ("alerts", f"{alerts['total']:,} in the history, {alerts['delivered']:,} delivered"),
        ("", _waiting(alerts)),
    ]
    for n, replica in enumerate(replicas):
        roles = ", ".join(replica["roles"])
        lines.append(("" if n else "replicas", f"{replica['name']}  ({roles})"))
    if not replicas:
        lines.append(("replicas", Cell("none: start `redis-agent run`", "red")))
    for label, value in lines:
        cell = value if isinstance(value, Cell) else Cell(value)
        say(f"{label:<13} {cell.text}", cell.style)


def _lag(lag: int | None) -> Cell:
    if lag is None:
        return Cell("unknown: the server cannot say how many entries are unread", "yellow")
    return Cell(f"{lag:,} entries not read yet")


def _pending(stream: dict[str, Any]) -> str:
    if not stream["pending"]:
        return "0"
    return f"{stream['pending']:,}, the oldest for {age(stream['oldest_pending_seconds'] or 0)}"


def _alarming(count: int) -> Cell:
    return Cell(f"{count:,}", "yellow" if count else "")


def _leader(name: str | None) -> Cell:
    return Cell(f"led by {name}") if name else Cell("nobody leads", "red")


def _gaps(bridge: dict[str, Any]) -> Cell:
    if not bridge["gaps"]:
        return Cell("none")
    return Cell(f"{bridge['gaps']}, {age(bridge['gap_seconds'])} in all", "yellow")


def _waiting(alerts: dict[str, Any]) -> Cell:
    waiting = f"{alerts['waiting']:,} waiting for a subscriber"
    given_up = f", {alerts['undelivered']:,} given up" if alerts["undelivered"] else ""
    return Cell(waiting + given_up, "yellow" if alerts["waiting"] or given_up else "")
