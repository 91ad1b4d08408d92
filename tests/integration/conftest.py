"""Agents as real processes against the server of the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Agents


@pytest.fixture
def agents(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Agents]:
    """Starts agents against the shared server; their logs are shown when the test fails."""
    started = Agents(redis_url, tmp_path)
    yield started
    started.end()
    for log in started.logs():
        print(log)
