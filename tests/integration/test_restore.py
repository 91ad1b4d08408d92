"""Backup and restore as docs/runbook.md says, step by step."""

import asyncio
import json
import shutil
from pathlib import Path

import redis.asyncio

from tests.conftest import OwnServerFactory
from tests.integration.flow import GROUP, METRICS, STREAM, mirror, settled, ticks
from tests.ledger import replay
from tests.processes import Agents
from tests.waiting import eventually


async def test_agent_continues_where_the_backup_was(own_server: OwnServerFactory, tmp_path: Path) -> None:
    """With events applied, read and not acked, and unread; what came after the backup is gone, and nothing else."""
    server = own_server(dbfilename="backup.rdb")
    agents = Agents(server.url, tmp_path)
    client = redis.asyncio.Redis.from_url(server.url, decode_responses=True, protocol=2)
    try:
        before = await agents.start("bridge", "worker", "dispatcher", "scheduler").ready()
        await mirror(client, 100)
        await settled(client, 100)
        assert await before.terminate() == 0
        await mirror(client, 20, first=100)
        await client.xreadgroup(GROUP, "somebody", {STREAM: ">"}, count=5)
        await client.bgsave()

        async def saved() -> bool:
            return bool((await client.info("persistence"))["rdb_bgsave_in_progress"] == 0)

        await eventually(saved, what="the backup is written")
        backup = tmp_path / "backup.rdb"
        shutil.copy(server.directory / "backup.rdb", backup)
        await mirror(client, 50, first=120)
        await client.aclose()
        server.stop()

        place = tmp_path / "restored"
        place.mkdir()
        shutil.copy(backup, place / "dump.rdb")
        restored = own_server(dir=str(place), dbfilename="dump.rdb", appendonly="no")
        client = redis.asyncio.Redis.from_url(restored.url, decode_responses=True, protocol=2)
        await client.config_set("appendonly", "yes")

        async def rewritten() -> bool:
            found = await client.info("persistence")
            return found["aof_rewrite_in_progress"] == 0 and found["aof_rewrite_scheduled"] == 0

        await eventually(rewritten, what="the append-only file is there")
        assert (place / "appendonlydir").exists()
        assert await client.xlen(STREAM) == 120
        assert (await asyncio.to_thread(replay, restored.url))[1]["agree"]
        assert await ticks(client) == 100

        agents = Agents(restored.url, tmp_path)
        await agents.start("bridge", "worker", "dispatcher", "scheduler").ready()
        assert await client.publish(METRICS, json.dumps({"experiment_id": "exp", "event": "tick", "n": "120"})) >= 1
        await settled(client, 121)
        assert await ticks(client) == 121
        assert (await asyncio.to_thread(replay, restored.url))[1]["agree"]
    finally:
        agents.end()
        await client.aclose()
