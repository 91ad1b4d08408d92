"""What the tests of clusters share."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from redis_agent.store.address import Address, host_ports
from redis_agent.store.client import follow_master
from redis_agent.store.partitions import Partitions
from tests.cluster import Cluster
from tests.processes import Agents


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


@pytest.fixture
def agents(cluster: Cluster, tmp_path: Path) -> Iterator[Agents]:
    """Starts agents for the cluster, whose nodes they are told; their logs are shown when the test fails."""
    started = Agents("redis://ignored", tmp_path)
    yield started
    started.end()
    for log in started.logs():
        print(log)
