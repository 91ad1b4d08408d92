"""The bridges' hand-over in every order that a few thousand random worlds come upon (docs/adr/0005)."""

import random
from collections.abc import Callable

import pytest

from redis_agent.lockstep import Announcement, Claim, Lockstep
from tests.bridges.explorer import ViolationError, explore

# New ones with every run, so that the tests go on searching; a failure names its seed.
FIRST = random.randrange(10**9)
WORLDS = 600


@pytest.mark.parametrize("replicas", [2, 3])
async def test_one_sound_bridge_is_enough_that_nothing_is_lost_doubled_or_counted_as_a_gap(replicas: int) -> None:
    await explore(range(FIRST, FIRST + WORLDS), replicas=replicas, sound=1)


async def test_what_is_missing_after_every_bridge_was_cut_off_is_counted_and_nothing_is_twice() -> None:
    await explore(range(FIRST, FIRST + WORLDS), sound=0)


@pytest.mark.parametrize("sound", [0, 1])
async def test_server_that_forgets_gets_nothing_twice_and_loses_nothing_uncounted(sound: int) -> None:
    await explore(range(FIRST, FIRST + WORLDS), sound=sound, server_fails=True)


@pytest.mark.fault
@pytest.mark.parametrize("sound", [0, 1])
@pytest.mark.parametrize("server_fails", [False, True])
async def test_many_more_worlds(sound: int, server_fails: bool) -> None:
    await explore(range(FIRST, FIRST + 10_000), sound=sound, server_fails=server_fails)


# The explorer finds what it is for: each of these is a mistake that somebody could make ---------------------------


class ReleasesWhatIsOnItsWay(Lockstep):
    def confirmed(self, position: int) -> None:
        super().confirmed(position + 1)


class NeverLetsGo(Lockstep):
    def control(self, message: bytes) -> Announcement | None:
        if message.startswith(b"written") and not self._leads and self._attached:
            return None
        return super().control(message)

    def begin(self, claim: Claim) -> Announcement | None:
        self._release = lambda _position: None
        try:
            return super().begin(claim)
        finally:
            del self._release


class LeadsBeforeItIsComplete(Lockstep):
    @property
    def epoch(self) -> str:
        return self._epoch if self._attached else ""


class OverlooksABreak(Lockstep):
    def broke(self) -> None:
        self._listening = False
        self._marks.clear()


class WritesWhatAnotherMayHaveWritten(Lockstep):
    def begin(self, claim: Claim) -> Announcement | None:
        self._marks = [(mark, epoch, 0) for mark, epoch, _ in self._marks]
        return super().begin(claim)


class CountsOneTooMany(Lockstep):
    def _met(self, epoch: str, mark: str) -> Announcement | None:
        met = super()._met(epoch, mark)
        return Announcement(met.epoch, met.mark, met.position + 1) if met else None


@pytest.mark.parametrize(
    ("faulty", "sound"),
    [
        (ReleasesWhatIsOnItsWay, 1),
        (NeverLetsGo, 1),
        (OverlooksABreak, 1),
        (CountsOneTooMany, 1),
        (WritesWhatAnotherMayHaveWritten, 0),
        # About one world in ten thousand.
        pytest.param(LeadsBeforeItIsComplete, 0, marks=pytest.mark.fault),
    ],
)
async def test_planted_fault_is_found(faulty: Callable[[int], Lockstep], sound: int) -> None:
    with pytest.raises(ViolationError):
        await explore(range(60_000), sound=sound, lockstep=faulty)
