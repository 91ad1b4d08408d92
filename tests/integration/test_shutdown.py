"""However a worker is made to end, what it had in hand is applied once by the next."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.conftest import OwnServerFactory
from tests.integration.flow import STREAM, mirror, settled, ticks
from tests.integration.test_holding import applied_again, held, nothing_is_applied
from tests.processes import ALL_ROLES, AgentProcess, Agents
from tests.waiting import eventually


class Scene:
    """A worker with 100 entries in hand, and a server that has stopped answering."""

    def __init__(self, agents: Agents, client: Redis, server_pid: int) -> None:
        self.agents = agents
        self.client = client
        self.server_pid = server_pid

    async def worker_in_trouble(self, *roles: str, **env: object) -> AgentProcess:
        worker = await self.agents.start(*roles, REDIS_AGENT_CONSUMER="me", **env).ready()
        await nothing_is_applied(self.client)
        await mirror(self.client, 100)
        await held(self.client, 100, "me")
        os.kill(self.server_pid, signal.SIGSTOP)
        return worker

    async def all_is_applied_once_by_another(self) -> None:
        os.kill(self.server_pid, signal.SIGCONT)
        await applied_again(self.client)
        await self.agents.start("worker", REDIS_AGENT_CONSUMER="other").ready()
        await settled(self.client, await self.client.xlen(STREAM))
        assert await ticks(self.client) == 100


@pytest.fixture
async def scene(own_server: OwnServerFactory, tmp_path: Path) -> AsyncIterator[Scene]:
    server = own_server()
    agents = Agents(server.url, tmp_path)
    async with Redis.from_url(server.url, decode_responses=True, protocol=2) as client:
        yield Scene(agents, client, server.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGCONT)
        for log in agents.logs():
            print(log)
        agents.end()


async def test_second_signal_ends_a_drain_that_cannot_finish_and_loses_nothing(scene: Scene) -> None:
    worker = await scene.worker_in_trouble("worker", REDIS_AGENT_SHUTDOWN_SECONDS=600)
    worker.signal(signal.SIGTERM)
    await worker.logged("stopping")
    assert await worker.terminate() == 128 + signal.SIGTERM
    await scene.all_is_applied_once_by_another()


@pytest.mark.parametrize("roles", [("worker",), ALL_ROLES], ids=["worker", "all roles"])
async def test_deadline_ends_a_drain_though_the_server_does_not_answer_and_loses_nothing(
    scene: Scene, roles: tuple[str, ...]
) -> None:
    worker = await scene.worker_in_trouble(*roles, REDIS_AGENT_SHUTDOWN_SECONDS=1)
    assert await worker.terminate(timeout=8) == 1
    assert [line for line in worker.log() if line["event"] == "drain_too_long"]
    await scene.all_is_applied_once_by_another()


async def test_deadline_ends_a_process_that_is_still_waiting_for_the_server_at_its_start(scene: Scene) -> None:
    os.kill(scene.server_pid, signal.SIGSTOP)
    agent = scene.agents.start(REDIS_AGENT_SHUTDOWN_SECONDS=1)
    await eventually(lambda: connecting(agent), what="it has begun")
    await agent.terminate(timeout=8)


def connecting(agent: AgentProcess) -> bool:
    """Its signal handlers stand: Linux says which signals a process catches."""
    caught = next(line for line in Path(f"/proc/{agent.pid}/status").read_text().splitlines() if "SigCgt" in line)
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_drain_while_the_server_refuses_to_write_ends_in_order_and_loses_nothing(
    agents: Agents, client: Redis
) -> None:
    worker = await agents.start("worker", REDIS_AGENT_CONSUMER="me").ready()
    await nothing_is_applied(client)
    await mirror(client, 100)
    await held(client, 100, "me")

    assert await worker.terminate() == 0
    assert await ticks(client) == 0

    await applied_again(client)
    await agents.start("worker", REDIS_AGENT_CONSUMER="other").ready()
    await settled(client, 100)
    assert await ticks(client) == 100
