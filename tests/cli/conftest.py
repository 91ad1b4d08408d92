"""The program as people start it, and the agent beside it."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import redis.asyncio

from redis_agent import app, log
from redis_agent.config import load_settings
from redis_agent.store import keys
from tests.waiting import eventually

ESCAPE = "\x1b"


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout: more, or anything else, would not parse."""
        return json.loads(self.out)


Cli = Callable[..., Awaitable[Finished]]


async def run_cli(*args: str, stdin: bytes = b"", **environment: str) -> Finished:
    """Run `redis-agent` as a process of its own, off a terminal."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "redis_agent",
        *args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode is not None
    finished = Finished(process.returncode, out.decode(), err.decode())
    # Whatever a command comes to: no traceback, and no colours off a terminal.
    assert "Traceback" not in finished.err
    assert ESCAPE not in finished.out
    return finished


@pytest.fixture
def cli(redis_url: str) -> Cli:
    """`await cli("status", "--json")` against the shared server, emptied for this test."""

    async def call(*args: str, stdin: bytes = b"", **environment: str) -> Finished:
        return await run_cli(*args, stdin=stdin, **{"REDIS_URL": redis_url, **environment})

    return call


@contextlib.asynccontextmanager
async def agent(redis_url: str, *roles: str, **settings: str) -> AsyncIterator[None]:
    """Roles of the agent in this process, for as long as the block lasts."""
    log.configure(level="error", form="json")
    stop = asyncio.Event()
    environment = {"REDIS_URL": redis_url, "REDIS_AGENT_HTTP_PORT": "0", **settings}
    running = asyncio.create_task(app.run(load_settings(environment), roles=frozenset(roles or app.ROLES), stop=stop))
    try:
        if not roles or "bridge" in roles:
            await until_bridged(redis_url, running)
        yield
    finally:
        stop.set()
        assert await asyncio.wait_for(running, 30) == 0


async def until_bridged(redis_url: str, running: asyncio.Task[int]) -> None:
    """Wait until what is published is kept."""
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True, protocol=2) as client:

        async def leads() -> bool:
            assert not running.done()
            return await client.hget(keys.BRIDGE, "at") is not None

        await eventually(leads, what="the bridge leads")


async def add(client: redis.asyncio.Redis, *events: dict[str, Any] | bytes) -> list[str]:
    """Put events straight into the stream, as the bridge does."""
    ids = []
    for event in events:
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        ids.append(await client.xadd(keys.STREAM, {"data": data}))
    return ids


async def until_applied(client: redis.asyncio.Redis) -> None:
    """Wait until the group has read everything and acked it."""

    async def idle() -> bool:
        groups = await client.xinfo_groups(keys.STREAM)
        return any(g["name"] == keys.GROUP and g["pending"] == 0 and g["lag"] == 0 for g in groups)

    await eventually(idle, what="everything is read and acked")
