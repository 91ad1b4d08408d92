"""A client as the product makes them, on the emptied server of the test."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from redis.asyncio import Redis

from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.namespace import NamespacedClient

# Modules whose promises are shown for a partition's keys as well as for the names as they are.
IN_A_PARTITION_TOO = {"test_outbox", "test_reclaim", "test_scripts"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "namespace" in metafunc.fixturenames:
        both = metafunc.module.__name__.rpartition(".")[2] in IN_A_PARTITION_TOO
        metafunc.parametrize("namespace", ["", keys.namespace(3)] if both else [""], ids=str, indirect=True)


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """What stands in front of every key."""
    found: str = request.param
    return found


@pytest.fixture
async def raw(redis_url: str, namespace: str) -> AsyncIterator[Redis]:
    """Answers in bytes, retries nothing."""
    client = connect(Address(redis_url), name="test-store", namespace=namespace)
    yield client
    await client.aclose()


@pytest.fixture
async def client(redis_url: str, namespace: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the shared server, emptied for this test; it answers in text."""
    connection = NamespacedClient.from_url(redis_url, decode_responses=True, protocol=2)
    connection.namespace = namespace
    yield connection
    await connection.aclose()
