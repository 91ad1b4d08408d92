"""`redis-agent demo`: everything at once, on a private server."""

import sys
from typing import TYPE_CHECKING

import click

from redis_agent.cli.options import Command, redis_url_option

if TYPE_CHECKING:
    from redis_agent.cli.demonstration.interrupts import Interrupts


@click.command(cls=Command)
@click.option(
    "--speed",
    type=click.FloatRange(min=0.1, max=1_000),
    default=1.0,
    show_default=True,
    metavar="N",
    help="So many times as fast.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="End by itself; without it Ctrl-C does.",
)
@click.option("--seed", type=int, default=1, show_default=True, metavar="N", help="Another one, another story.")
@click.option("--plain", is_flag=True, help="Lines instead of the live view.")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65_535),
    default=0,
    envvar="REDIS_AGENT_HTTP_PORT",
    metavar="PORT",
    help="Serve the status page and /metrics there; 0, the default, does not.",
)
@click.option(
    "--partitions",
    type=click.IntRange(1, 256),
    default=1,
    envvar="REDIS_AGENT_PARTITIONS",
    metavar="N",
    help="Divide the events into so many streams, as in a cluster.",
)
@click.option("--publish", is_flag=True, help="Only publish, on the server that REDIS_URL names, to the agent there.")
@redis_url_option
def demo(
    *,
    speed: float,
    seconds: float | None,
    seed: int,
    plain: bool,
    http_port: int,
    partitions: int,
    publish: bool,
    redis_url: str | None,
) -> None:
    """Watch it work: a private server, all roles, and four simulated experiments.

    One wins, one loses, one breaks, one falls silent. Their events are really published, the alerts
    really delivered; everything is gone when the demo ends. Off a terminal it prints lines.

    With --publish there is no server and no agent of its own: the experiments are defined, and their
    events published, where REDIS_URL says, for an agent that runs there. They stay when it ends.

    Examples:
        redis-agent demo
        redis-agent demo --publish --speed 10
        redis-agent demo --speed 20
        redis-agent demo --plain --seconds 30 | grep alert
    """
    from redis_agent.cli.demonstration.interrupts import Interrupts

    if redis_url and not publish:
        raise click.UsageError("the demo brings its own server; --redis-url belongs to --publish")
    interrupts = Interrupts()
    try:
        from redis_agent.cli.demonstration.stage import Plan, perform
        from redis_agent.errors import AgentError

        if publish:
            click.echo(f"demo: {_publish(speed, seconds, seed, redis_url, interrupts)}")
            return
        live = sys.stdout.isatty() and not plain
        plan = Plan(speed=speed, seconds=seconds, seed=seed, http_port=http_port, partitions=partitions, live=live)
        try:
            closing = perform(plan, interrupts)
        except AgentError as error:
            raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        closing = "ended before it began"
    click.echo(f"demo: {closing}")


def _publish(speed: float, seconds: float | None, seed: int, redis_url: str | None, interrupts: "Interrupts") -> str:
    from redis_agent.cli.demonstration.publisher import publish_story
    from redis_agent.cli.session import with_redis

    return with_redis(
        redis_url,
        lambda session: publish_story(session, speed=speed, seconds=seconds, seed=seed, interrupts=interrupts),
        looks=False,
    )
