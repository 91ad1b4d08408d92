"""A client as the product makes them, on the emptied server of the test."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from redis_agent.store.address import Address
from redis_agent.store.client import connect


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    """Answers in bytes, retries nothing."""
    client = connect(Address(redis_url), name="test-store")
    yield client
    await client.aclose()
