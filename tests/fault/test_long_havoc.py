"""What `test_exactly_once.py` shows in seconds holds for minutes."""

import random
from pathlib import Path

import pytest

from tests.conftest import OwnServerFactory
from tests.integration.test_exactly_once import prove

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", random.sample(range(10**9), 2), ids=["first seed", "second seed"])
async def test_aggregates_equal_the_truth_after_a_minute_of_kills_stops_and_cuts(
    own_server: OwnServerFactory, tmp_path: Path, seed: int
) -> None:
    await prove(own_server().url, tmp_path, seed=seed, seconds=60)
