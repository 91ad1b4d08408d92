"""A server that may throw the agent's keys away is said to be one, also where its settings may not be asked for."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.conftest import OwnServerFactory
from tests.processes import Agents


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_policy_that_evicts_is_said_at_the_start(
    own_server: OwnServerFactory, tmp_path: Path, policy: str
) -> None:
    server = own_server(maxmemory_policy=policy)
    admin: Redis = Redis.from_url(server.url, protocol=2)
    agents = Agents(server.url, tmp_path)
    try:
        await admin.execute_command("ACL", "SETUSER", "weak", "on", ">secret", "~*", "&*", "+@all", "-config")
        agent = agents.start("worker", url=server.url.replace("redis://", "redis://weak:secret@"))
        await agent.ready()
        said = [line["maxmemory_policy"] for line in agent.log() if line["event"] == "keys_may_be_evicted"]
        assert said == ([] if policy == "noeviction" else [policy])
    finally:
        agents.end()
        await admin.aclose()
