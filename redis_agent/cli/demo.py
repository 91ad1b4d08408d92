"""`redis-agent demo`: everything at once, on a private server."""

import sys

import click

from redis_agent.cli.options import Command


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
def demo(*, speed: float, seconds: float | None, seed: int, plain: bool, http_port: int) -> None:
    """Watch it work: a private server, all roles, and four simulated experiments.

    One wins, one loses, one breaks, one falls silent. Their events are really published, the alerts
    really delivered; everything is gone when the demo ends. Off a terminal it prints lines.

    Examples:
        redis-agent demo
        redis-agent demo --speed 20
        redis-agent demo --plain --seconds 30 | grep alert
    """
    from redis_agent.cli.demonstration.interrupts import Interrupts

    interrupts = Interrupts()
    try:
        from redis_agent.cli.demonstration.stage import Plan, perform
        from redis_agent.errors import AgentError

        live = sys.stdout.isatty() and not plain
        plan = Plan(speed=speed, seconds=seconds, seed=seed, http_port=http_port, live=live)
        try:
            closing = perform(plan, interrupts)
        except AgentError as error:
            raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        closing = "ended before it began"
    click.echo(f"demo: {closing}")
