"""The command line: thin commands over the modules that do the work.

What is heavy (redis, pydantic, rich, structlog, aiohttp, asyncio) is imported when a command runs, never with the
commands: `redis-agent --help` and `redis-agent COMMAND --help` answer at once.
"""

import click

from redis_agent import __version__
from redis_agent.cli.alerts import alerts
from redis_agent.cli.check import check
from redis_agent.cli.dead_letters import dead_letters
from redis_agent.cli.demo import demo
from redis_agent.cli.experiments import experiments
from redis_agent.cli.options import Group, redis_url_option
from redis_agent.cli.pending import pending
from redis_agent.cli.publish import publish
from redis_agent.cli.replay import replay
from redis_agent.cli.run import run
from redis_agent.cli.status import status

_COMMANDS = (
    run, demo, publish, status, experiments, alerts, pending, dead_letters, check, replay,
)  # fmt: skip


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="redis-agent")
@redis_url_option
@click.pass_context
def main(ctx: click.Context, redis_url: str | None) -> None:
    """Turn metric events of experiments into exact aggregates and alerts, on Redis.

    Settings come from the environment (REDIS_URL and others, see docs/configuration.md).

    Start with:
        redis-agent demo        everything at once, on a private server
        redis-agent run         the agent, on the server that REDIS_URL names
    """
    ctx.obj = redis_url


for _command in _COMMANDS:
    main.add_command(_command)
