"""The oldest server that is promised to do runs every script, and counts each event once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_agent.embedded import EmbeddedServer
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from tests.integration.test_exactly_once import prove
from tests.oldest import WHERE, oldest_server
from tests.seeds import SEED
from tests.store.test_scripts import run_every_wrapper

SECONDS = 4.0


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    binary = oldest_server(tmp_path)
    if binary is None:
        pytest.skip(WHERE)
    with EmbeddedServer(binary=binary) as server:
        yield server.url


async def test_every_script_runs(url: str) -> None:
    client = connect(Address(url), name="test")
    try:
        await run_every_wrapper(client)
    finally:
        await client.aclose()


@pytest.mark.timeout(60)
async def test_aggregates_equal_the_truth_after_a_kill_every_second(url: str, tmp_path: Path) -> None:
    await prove(url, tmp_path, seed=SEED, seconds=SECONDS)
