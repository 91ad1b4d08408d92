"""`redis-agent publish`: events by hand."""

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, redis_url_option
from redis_agent.cli.output import counted, print_json

if TYPE_CHECKING:
    from redis_agent.cli.session import Session

_PAGE = 500


@click.command(cls=Command)
@click.argument("event_json", metavar="[JSON]", required=False)
@click.option("--experiment", metavar="ID", help="The experiment that the event belongs to.")
@click.option("--event", metavar="NAME", help="What happened, such as email_sent.")
@click.option("--count", type=click.IntRange(min=0), metavar="N", help="How many times it did.")
@click.option(
    "--gauge",
    "gauges",
    multiple=True,
    metavar="NAME=VALUE",
    help="A measured value, or true or false; repeatable.",
)
@click.option("--message", metavar="TEXT", help="What an error says.")
@json_option
@redis_url_option
def publish(
    *,
    event_json: str | None,
    experiment: str | None,
    event: str | None,
    count: int | None,
    gauges: tuple[str, ...],
    message: str | None,
    as_json: bool,
    redis_url: str | None,
) -> None:
    """Publish events, as the services do.

    The event is given by options, or as it stands in JSON (whatever it is: nothing is checked), or
    `-` reads one event a line from stdin. Exits with 1 when nobody received it.

    Examples:
        redis-agent publish --experiment exp_test --event email_sent --count 25
        redis-agent publish --experiment exp_test --gauge response_rate=0.15
        redis-agent publish '{"experiment_id":"exp_test","event":"error","message":"Test error"}'
        redis-agent publish - < events.jsonl
    """
    by_options = any(value is not None for value in (experiment, event, count, message)) or gauges
    if (event_json is None) != bool(by_options):
        raise click.UsageError("give an event either as JSON (or -) or by --experiment and others")
    if event_json is None:
        events = iter([_event(experiment, event, count, gauges, message)])
    elif event_json == "-":
        events = (line for line in map(bytes.strip, sys.stdin.buffer) if line)
    else:
        events = iter([event_json.encode("utf-8", "surrogateescape")])

    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> tuple[str, int, int, int]:
        publishing = session.publishing()
        await publishing.check()
        published = unheard = receivers = 0
        while page := [e for _, e in zip(range(_PAGE), events, strict=False)]:
            replies = await publishing.publish(page)
            published += len(replies)
            unheard += sum(1 for reply in replies if not reply)
            receivers = max(receivers, *replies)
        return publishing.where, published, unheard, receivers

    channel, published, unheard, receivers = with_redis(redis_url, work, looks=False)
    if as_json:
        print_json({"published": published, "receivers": receivers, "unheard": unheard})
    elif not unheard:
        what, who = counted(published, "event"), counted(receivers, "subscriber")
        click.echo(f"{what} published on {channel}: received by {who}")
    if unheard:
        lost = "the event" if published == 1 else f"{unheard} of {published} events"
        raise click.ClickException(
            f"nobody received {lost}: no bridge listens on {channel} (start `redis-agent run`, "
            "and publish again: pub/sub keeps nothing)"
        )


def _event(
    experiment: str | None,
    event: str | None,
    count: int | None,
    gauges: tuple[str, ...],
    message: str | None,
) -> bytes:
    if not experiment:
        raise click.UsageError("--experiment is missing")
    if event is None and not gauges:
        raise click.UsageError("name what happened (--event) or what was measured (--gauge)")
    if event is None and (count is not None or message is not None):
        raise click.UsageError("--count and --message belong to an --event")
    document: dict[str, Any] = {"experiment_id": experiment}
    if event is not None:
        document["event"] = event
        if count is not None:
            document["count"] = count
        if message is not None:
            document["message"] = message
    for gauge in gauges:
        name, separator, value = gauge.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{gauge!r} is not NAME=VALUE", param_hint="--gauge")
        document[name] = _value(name, value)
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _value(name: str, text: str) -> bool | int | float:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    raise click.BadParameter(f"the value of {name} is no number: {text!r}", param_hint="--gauge")
