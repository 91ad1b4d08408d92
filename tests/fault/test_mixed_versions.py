"""Two versions side by side: replicas are replaced one after the other under load, and back again."""

import asyncio
import contextlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import redis.asyncio

from tests.conftest import OwnServerFactory
from tests.integration.flow import GROUP, METRICS, STREAM
from tests.ledger import replay
from tests.processes import ROOT, Agents
from tests.waiting import eventually

# The release before, 0.1.0. Not its tag, which a clone need not have.
RELEASE = "a1d2431c981b7030dd10f85259fa5b83680a093f"
# Another revision of this repository in its place.
PREVIOUS = "REDIS_AGENT_TEST_PREVIOUS"
EXPERIMENTS = 5


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """A directory with the package of the release before."""
    revision = os.environ.get(PREVIOUS) or RELEASE
    with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
        with tarfile.open(fileobj=io.BytesIO(_git("archive", revision, "redis_agent"))) as archive:
            archive.extractall(tmp_path / "previous", filter="data")
        return tmp_path / "previous"
    pytest.skip(f"this copy of the project has no history with {revision} in it")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True).stdout


async def test_replicas_of_two_versions_replace_each_other_without_loss(
    own_server: OwnServerFactory, previous: Path, tmp_path: Path
) -> None:
    """From two old replicas to two new ones, and back: no event lost, none twice, no gap, no error logged."""
    server = own_server()
    client = redis.asyncio.Redis.from_url(server.url, decode_responses=True, protocol=2)
    agents = Agents(server.url, tmp_path)
    published, over = 0, asyncio.Event()

    async def publish() -> None:
        nonlocal published
        while not over.is_set():
            for _ in range(5):
                event = {
                    "experiment_id": f"e{published % EXPERIMENTS}",
                    "event": "tick",
                    "n": str(published),
                    "rate": 1,
                }
                assert await client.publish(METRICS, json.dumps(event)) >= 1
                published += 1
            await asyncio.sleep(0.01)

    async def in_step(bridges: int) -> None:
        async def are() -> bool:
            return bool(await client.zcard("redis_agent:bridge:ready") >= bridges)

        await eventually(are, 20, what=f"{bridges} bridges are in step")

    async def flows(more: int) -> None:
        wanted = published + more
        await eventually(lambda: published >= wanted, 20, what="events flow")

    try:
        running = [await agents.start(PYTHONPATH=previous).ready() for _ in range(2)]
        await in_step(2)
        publishing = asyncio.create_task(publish())
        for version in (ROOT, ROOT, previous, previous):
            running.append(await agents.start(PYTHONPATH=version).ready())
            await in_step(3)
            await flows(500)
            assert await running.pop(0).terminate() == 0
            await flows(500)
        over.set()
        await publishing

        async def settled() -> bool:
            (group,) = await client.xinfo_groups(STREAM)
            assert group["name"] == GROUP
            return (await client.xlen(STREAM), group["pending"], group["lag"]) == (published, 0, 0)

        await eventually(settled, 30, what="all is applied")
        counts = [int(await client.hget(f"metrics_aggregated:e{n}", "tick_count")) for n in range(EXPERIMENTS)]
        assert sum(counts) == published
        assert not await client.hget("redis_agent:bridge", "gaps")
        assert (await asyncio.to_thread(replay, server.url))[1]["agree"]
        assert [line for agent in agents._started for line in agent.log() if line["level"] == "error"] == []
    finally:
        over.set()
        agents.end()
        for log in agents.logs():
            print(log)
        await client.aclose()
