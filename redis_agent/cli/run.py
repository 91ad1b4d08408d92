"""`redis-agent run`: the agent itself."""

import click

from redis_agent.cli.options import Command, redis_url_option

ROLES = ("bridge", "worker", "dispatcher", "scheduler")


def parse_roles(values: tuple[str, ...]) -> frozenset[str]:
    """Roles given repeatedly or comma-separated; all when none is given.

    Raises:
        click.BadParameter: one of them is no role.
    """
    named = [role.strip().lower() for value in values for role in value.split(",")]
    roles = [role for role in named if role]
    for role in roles:
        if role not in ROLES:
            raise click.BadParameter(f"{role!r} is no role; there are {', '.join(ROLES)}", param_hint="--roles")
    if values and not roles:
        raise click.BadParameter(f"name at least one of {', '.join(ROLES)}", param_hint="--roles")
    return frozenset(roles or ROLES)


@click.command(cls=Command)
@click.option(
    "--roles",
    multiple=True,
    metavar="ROLE[,ROLE...]",
    help=f"Run only these of {', '.join(ROLES)}; repeatable or comma-separated.",
)
@click.option(
    "--embedded",
    is_flag=True,
    help="Bring a private server along, gone when the agent ends; its address is printed.",
)
@redis_url_option
def run(*, roles: tuple[str, ...], embedded: bool, redis_url: str | None) -> None:
    """Run the agent, all roles in one process.

    Any number of processes may run, each with all roles or some. SIGTERM and Ctrl-C drain: what
    was read is finished and acked. Logs go to stderr.

    Examples:
        redis-agent run
        redis-agent run --embedded
        redis-agent run --roles worker
        redis-agent run --roles bridge,scheduler --roles dispatcher
    """
    chosen = parse_roles(roles)

    if embedded and redis_url:
        raise click.UsageError("--embedded brings its own server; --redis-url names another")

    from contextlib import nullcontext

    from redis_agent.embedded import EmbeddedServer
    from redis_agent.errors import AgentError

    try:
        with EmbeddedServer() if embedded else nullcontext() as server:
            if server is not None:
                click.echo(f"REDIS_URL={server.url}", err=True)
            raise SystemExit(_run(chosen, redis_url if server is None else server.url))
    except AgentError as error:
        raise click.ClickException(str(error)) from None


def _run(roles: frozenset[str], redis_url: str | None) -> int:
    import asyncio

    from redis_agent import app, log
    from redis_agent.cli.session import settings_of
    from redis_agent.config import unknown_variables

    settings = settings_of(redis_url)
    log.configure(level=settings.log_level, form=settings.log_format)
    for unknown in unknown_variables():
        log.get("config").warning("unknown_variable", what=str(unknown))
    if not settings.asks_gemini and roles & {"dispatcher", "scheduler"}:
        log.get("config").info("plain_words", what="GOOGLE_API_KEY is not set: templates word alerts and summaries")
    return asyncio.run(app.run(settings, roles=roles))
