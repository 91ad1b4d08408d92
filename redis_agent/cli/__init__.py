"""The command line: thin commands over the modules that do the work.

What is heavy (redis, pydantic, rich, structlog, aiohttp, asyncio) is imported when a command runs, never with the
commands: `redis-agent --help` and `redis-agent COMMAND --help` answer at once.
"""

import contextlib
import errno
import os
import sys
from typing import Any

import click

from redis_agent import __version__
from redis_agent.cli.alerts import alerts
from redis_agent.cli.analyze import analyze
from redis_agent.cli.check import check
from redis_agent.cli.dead_letters import dead_letters
from redis_agent.cli.demo import demo
from redis_agent.cli.experiments import experiments
from redis_agent.cli.health import health
from redis_agent.cli.options import Group, redis_url_option
from redis_agent.cli.pending import pending
from redis_agent.cli.publish import publish
from redis_agent.cli.repartition import repartition
from redis_agent.cli.replay import replay
from redis_agent.cli.run import run
from redis_agent.cli.silence import silence
from redis_agent.cli.status import status
from redis_agent.cli.summary import summary

_COMMANDS = (
    run, demo, publish, status, experiments, alerts, pending, dead_letters, check, analyze, summary, silence,
    replay, repartition, health,
)  # fmt: skip


# What writing to a full disk, a device that is gone or a closed file comes to; a broken pipe is click's business.
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


class Program(Group):
    """The root of all commands: output that cannot be written is one line on stderr, and exit code 1."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the program; see `click.BaseCommand.main`."""
        try:
            return super().main(*args, **extra)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            # What is left in the buffer would fail once more when the interpreter flushes it, and change the exit code.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"Error: the output cannot be written: {error.strerror}", err=True)
            sys.exit(1)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
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
