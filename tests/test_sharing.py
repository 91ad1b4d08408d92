"""Who reads which partition: everybody agrees, each has one reader, and only what must changes hands."""

import asyncio
from collections import Counter

import pytest

from redis_agent.sharing import Alongside, share_of

NAMES = ["a", "b", "c", "d"]


def shares(names: list[str], partitions: int) -> dict[str, frozenset[int]]:
    return {name: share_of(name, [other for other in names if other != name], partitions) for name in names}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_partition_is_somebodys_and_nobody_elses(count: int) -> None:
    readers = Counter(n for share in shares(NAMES[:count], 32).values() for n in share)
    assert readers == Counter(range(32))


def test_of_one_that_goes_only_its_own_partitions_change_hands() -> None:
    before, after = shares(NAMES, 64), shares(NAMES[1:], 64)
    assert all(before[name] <= after[name] for name in NAMES[1:])


def test_partitions_are_divided_about_evenly() -> None:
    sizes = [len(share) for share in shares([f"agent-{n}" for n in range(4)], 256).values()]
    assert 40 < min(sizes) <= max(sizes) < 90


async def test_roles_end_together_when_one_fails() -> None:
    ended: list[str] = []

    class Good:
        async def run(self, stop: asyncio.Event) -> None:
            await stop.wait()
            ended.append("good")

        def hindrances(self) -> list[str]:
            return ["slow"]

    class Bad:
        async def run(self, _stop: asyncio.Event) -> None:
            raise RuntimeError("bad")

    roles = Alongside({0: Good(), 7: Bad()})
    assert roles.hindrances() == ["partition 0: slow"]
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(5):
            await roles.run(asyncio.Event())
