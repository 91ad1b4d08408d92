"""What the tests of clusters share."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from redis_agent.store.address import Address, host_ports
from redis_agent.store.client import follow_master
from redis_agent.store.partitions import Partitions
from tests.cluster import Cluster


@pytest.fixture
async def partitions(cluster: Cluster) -> AsyncIterator[Partitions]:
    """Eight partitions of the cluster, with clients that follow their slots."""
    found = Partitions(Address("redis://ignored", cluster=host_ports(cluster.seeds)), 8, name="test")
    stop = asyncio.Event()
    watching = [asyncio.create_task(follow_master(client, stop)) for client in found.clients]
    yield found
    stop.set()
    await asyncio.gather(*watching)
    await found.aclose()
