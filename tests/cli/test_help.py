"""The program introduces itself at once, and tells what each command is for."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from redis_agent import __version__
from redis_agent.cli import main

HEAVY = ("redis", "pydantic", "google", "rich", "structlog", "aiohttp", "asyncio", "yaml", "prometheus_client")
NAMES = [
    "run",
    "demo",
    "publish",
    "status",
    "experiments",
    "alerts",
    "pending",
    "dead-letters",
    "check",
    "analyze",
    "summary",
    "silence",
    "replay",
    "repartition",
    "health",
]


def every_command(group: click.Group = main, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += every_command(command, (*path, name))
    return found


def test_the_commands_are_those_of_the_design_and_a_health_check() -> None:
    assert list(main.commands) == NAMES


@pytest.mark.parametrize("path", [(), *every_command()], ids=" ".join)
def test_help_loads_nothing_heavy(path: tuple[str, ...]) -> None:
    program = (
        "import sys\n"
        "from redis_agent.cli import main\n"
        f"main({[*path, '--help']!r}, standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout.startswith("Usage: ")


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_says_what_it_is_for_with_an_example_that_names_it(path: tuple[str, ...]) -> None:
    text = CliRunner().invoke(main, [*path, "--help"], terminal_width=100).output
    assert any(heading in text for heading in ("Example:\n", "Examples:\n"))
    assert f"redis-agent {' '.join(path)}" in text


def test_the_module_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "redis_agent", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"redis-agent, version {__version__}\n"


def test_an_unknown_command_is_named() -> None:
    result = CliRunner().invoke(main, ["statsu"])
    assert result.exit_code == 2
    assert "statsu" in result.output
