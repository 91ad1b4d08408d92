"""A lease that is claimed between subscriptions on two nodes: no lasting silence, and a gap of its whole length."""

import asyncio

import structlog
from redis.asyncio import Redis

from redis_agent.bridge_terms import BridgeTenure, Terms
from redis_agent.lockstep import Lockstep, node_of
from redis_agent.store import keys
from redis_agent.store.durability import Durability
from redis_agent.store.lease import Leadership
from redis_agent.store.mirror import Mirror
from redis_agent.telemetry import Telemetry


def bridge(client: Redis, owner: str) -> tuple[Terms, BridgeTenure, Lockstep]:
    telemetry = Telemetry()
    durability = Durability(client, level="memory", replicas=1, telemetry=telemetry)
    mirror = Mirror(client, durability=durability, owner=owner, ttl_ms=60_000, elsewhere=True)
    lockstep = Lockstep(1_000_000)
    tenure = BridgeTenure(mirror, lockstep)
    leadership = Leadership(
        lease=tenure, ttl_seconds=60, log=structlog.get_logger(), telemetry=telemetry, gauge=telemetry.bridge_leader
    )
    terms = Terms(
        mirror=mirror,
        lockstep=lockstep,
        tenure=tenure,
        leadership=leadership,
        telemetry=telemetry,
        batch_size=100,
    )
    return terms, tenure, lockstep


async def test_leader_begins_another_epoch_whose_gap_counts_from_the_break(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        before, tenure_before, lockstep_before = bridge(client, "before")
        lockstep_before.subscribed("first")
        lease = await tenure_before.acquire()
        assert lease is not None
        await before.round(lease)
        await tenure_before.release(lease)

        terms, tenure, lockstep = bridge(client, "after")
        lockstep.subscribed("first")
        terms.broke(asyncio.get_running_loop().time() - 30)
        lease = await tenure.acquire()
        assert lease is not None
        lockstep.subscribed("second")
        await terms.round(lease)

        epoch, gaps, gap_ms = await client.hmget(keys.BRIDGE, ["epoch", "gaps", "gap_ms"])
        assert node_of(epoch.decode()) == "second"
        assert epoch.decode() == lockstep.numbering
        assert int(gaps) == 2
        assert int(gap_ms) >= 30_000
