"""What goes wrong is said in one clear line on stderr, with an exit code, and without secrets."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
import redis.asyncio

from redis_agent.store import keys
from tests.cli.conftest import Cli, run_cli
from tests.conftest import OwnServerFactory

NEED_REDIS = [
    ("status",),
    ("experiments",),
    ("experiments", "exp"),
    ("alerts", "--json"),
    ("pending",),
    ("dead-letters", "list"),
    ("dead-letters", "replay", "--all"),
    ("check", "exp"),
    ("replay", "--json"),
    ("publish", "--experiment", "e", "--event", "x"),
]


@pytest.mark.parametrize("args", NEED_REDIS, ids=" ".join)
async def test_a_server_that_is_away_is_one_line_without_its_password(args: tuple[str, ...]) -> None:
    done = await run_cli(*args, REDIS_URL="redis://user:hunter2@127.0.0.1:1/0")
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("Error: Redis at redis://user:***@127.0.0.1:1/0 cannot be reached: ")
    assert done.err.count("\n") == 1
    assert "hunter2" not in done.err


async def test_a_wrong_password_is_one_line_without_it(own_server: OwnServerFactory) -> None:
    server = own_server(requirepass='"right"')
    url = server.url.replace("right", "hunter2")
    done = await run_cli("status", REDIS_URL=url)
    assert done.code == 1
    assert "refuses the login" in done.err
    assert done.err.count("\n") == 1
    assert "hunter2" not in done.err


async def test_a_missing_password_is_one_line(own_server: OwnServerFactory) -> None:
    server = own_server(requirepass='"right"')
    done = await run_cli("status", REDIS_URL=f"redis://127.0.0.1:{server.port}")
    assert done.code == 1
    assert "refuses the login" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("args", [("run",), ("status",), ("replay",), ("check", "exp")], ids=" ".join)
async def test_a_wrong_setting_is_one_line_that_names_it(cli: Cli, args: tuple[str, ...]) -> None:
    done = await cli(*args, ALERT_COOLDOWN_SECONDS="soon")
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("Error: ALERT_COOLDOWN_SECONDS='soon': must be ")
    assert done.err.count("\n") == 1


async def test_an_url_that_is_none_is_refused_without_being_repeated(cli: Cli) -> None:
    done = await cli("status", "--redis-url", "http://hunter2")
    assert done.code == 1
    assert "REDIS_URL" in done.err
    assert "hunter2" not in done.err


@pytest.mark.parametrize("position", ["before", "after"])
async def test_redis_url_may_stand_before_or_after_the_command(redis_url: str, position: str) -> None:
    option = ["--redis-url", redis_url]
    args = [*option, "status"] if position == "before" else ["status", *option]
    done = await run_cli(*args, REDIS_URL="redis://127.0.0.1:1")
    assert done.code == 0, done.err


@pytest.mark.parametrize("args", [("pending",), ("pending", "--claim"), ("replay",)], ids=" ".join)
async def test_a_key_of_the_wrong_type_is_said(cli: Cli, client: redis.asyncio.Redis, args: tuple[str, ...]) -> None:
    await client.set(keys.STREAM, "not a stream")
    done = await cli(*args)
    assert done.code == 1
    assert "wrong type" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("roles", ["foo", "worker,foo", ",", ""])
async def test_an_unknown_role_is_refused_with_those_there_are(cli: Cli, roles: str) -> None:
    done = await cli("run", "--roles", roles)
    assert done.code == 2
    assert "bridge, worker, dispatcher, scheduler" in done.err


@pytest.mark.parametrize("command", ["check", "experiments"])
async def test_an_unknown_experiment_is_one_line(cli: Cli, command: str) -> None:
    done = await cli(command, "nope", "--json")
    assert done.code == 1
    assert done.out == ""
    assert done.err == "Error: nope is unknown: it has neither an event nor a definition\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    "args",
    [
        *[args for args in NEED_REDIS if args[0] not in ("publish", "check") and "exp" not in args],
        *[(*args, "--json") for args in (("status",), ("experiments",), ("pending",), ("dead-letters", "list"))],
        ("pending", "--claim", "--json"),
        ("dead-letters", "drop", "--all", "--yes", "--json"),
        ("publish", "--experiment", "e", "--event", "x", "--json"),
        ("replay",),
        ("--version",),
        ("--help",),
    ],
    ids=" ".join,
)
async def test_output_that_cannot_be_written_is_one_line(redis_url: str, args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "redis_agent", *args),
            stdout=full,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "REDIS_URL": redis_url},
        )
        _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert err.decode() == "Error: the output cannot be written: No space left on device\n"
