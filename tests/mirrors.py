"""Mirrors for tests of the scripts: what the server has executed counts as written."""

from redis.asyncio import Redis

from redis_agent.store.durability import Durability
from redis_agent.store.mirror import Mirror
from redis_agent.telemetry import Telemetry


def mirror_of(client: Redis, *, owner: str, ttl_ms: int, sharded: bool = False) -> Mirror:
    durability = Durability(client, level="memory", replicas=1, telemetry=Telemetry())
    return Mirror(client, durability=durability, owner=owner, ttl_ms=ttl_ms, sharded=sharded)
