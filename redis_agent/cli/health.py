"""`redis-agent health`: whether the process beside it lives, for a container's health check."""

import click

from redis_agent.cli.options import Command

# What an endpoint that listens everywhere is asked at.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104 - read, not listened on
_SHOWN_CHARACTERS = 500


@click.command(cls=Command)
@click.option("--ready", is_flag=True, help="Ask /readyz: whether it does its work, and not only lives.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the answer may take.",
)
def health(*, ready: bool, timeout_seconds: float) -> None:
    """Ask the agent on this machine whether it lives; exit 1 when it does not.

    It is asked at its own endpoint, REDIS_AGENT_HTTP_HOST and REDIS_AGENT_HTTP_PORT. Redis is not
    needed for the answer: a new process would not bring it back.

    Examples:
        redis-agent health
        redis-agent health --ready
    """
    import http.client

    from redis_agent.config import load_settings
    from redis_agent.errors import AgentError

    try:
        settings = load_settings()
    except AgentError as error:
        raise click.ClickException(str(error)) from None
    if settings.http_port == 0:
        raise click.ClickException("there is no endpoint to ask: REDIS_AGENT_HTTP_PORT is 0")
    host = _EVERYWHERE.get(settings.http_host, settings.http_host)
    path = "/readyz" if ready else "/healthz"
    connection = http.client.HTTPConnection(host, settings.http_port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = " ".join(answer.read(_SHOWN_CHARACTERS).decode(errors="replace").split())
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise click.ClickException(f"no answer from {host}:{settings.http_port}{path}: {reason}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise click.ClickException(f"{host}:{settings.http_port}{path} answers {answer.status}: {said}")
    click.echo(said)
