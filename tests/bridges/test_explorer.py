"""The bridges' hand-over in every order that a few thousand random worlds come upon (docs/adr/0005)."""

from collections.abc import Callable, Sequence

import pytest

from redis_agent.lockstep import Announcement, Claim, Lockstep
from tests.bridges.explorer import ViolationError, explore
from tests.bridges.server_model import ClusterModel, ServerModel
from tests.seeds import SEED

WORLDS = 600


@pytest.mark.parametrize("replicas", [2, 3])
async def test_one_sound_bridge_is_enough_that_nothing_is_lost_doubled_or_counted_as_a_gap(replicas: int) -> None:
    await explore(range(SEED, SEED + WORLDS), replicas=replicas, sound=1)


async def test_what_is_missing_after_every_bridge_was_cut_off_is_counted_and_nothing_is_twice() -> None:
    await explore(range(SEED, SEED + WORLDS), sound=0)


@pytest.mark.parametrize("sound", [0, 1])
async def test_server_that_forgets_gets_nothing_twice_and_loses_nothing_uncounted(sound: int) -> None:
    await explore(range(SEED, SEED + WORLDS), sound=sound, server_fails=True)


@pytest.mark.parametrize("replicas", [1, 2, 3])
async def test_what_bridges_hold_until_it_is_durable_survives_a_failover(replicas: int) -> None:
    await explore(range(SEED, SEED + WORLDS // 2), sound=replicas, replicas=replicas, waits=True)


async def test_failovers_among_other_mishaps_leave_nothing_twice() -> None:
    await explore(range(SEED, SEED + WORLDS), sound=0, waits=True)


@pytest.mark.parametrize(("replicas", "sound"), [(1, 1), (2, 2), (3, 3), (3, 0)])
async def test_in_a_cluster_subscriptions_survive_failovers_and_the_old_primary_may_be_heard_once_more(
    replicas: int, sound: int
) -> None:
    await explore(range(SEED, SEED + WORLDS // 4), replicas=replicas, sound=sound, waits=True, server=ClusterModel)


@pytest.mark.fault
@pytest.mark.parametrize(("replicas", "sound"), [(1, 1), (2, 2), (3, 3), (3, 0)])
async def test_many_more_failovers(replicas: int, sound: int) -> None:
    await explore(range(SEED, SEED + 5_000), replicas=replicas, sound=sound, waits=True)


@pytest.mark.fault
@pytest.mark.parametrize(("replicas", "sound"), [(1, 1), (2, 2), (3, 3), (3, 0)])
async def test_many_more_failovers_in_a_cluster(replicas: int, sound: int) -> None:
    await explore(range(SEED, SEED + 5_000), replicas=replicas, sound=sound, waits=True, server=ClusterModel)


@pytest.mark.fault
@pytest.mark.parametrize("sound", [0, 1])
@pytest.mark.parametrize("server_fails", [False, True])
async def test_many_more_worlds(sound: int, server_fails: bool) -> None:
    await explore(range(SEED, SEED + 10_000), sound=sound, server_fails=server_fails)


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


class ForgetsWhoWasSilentInAnOutage(ServerModel):
    def silent(self) -> list[str]:
        return []


class CallsAndDoesNotWait(ServerModel):
    def _waits_for(self, silent: Sequence[str]) -> bool:
        super()._waits_for(silent)
        return False


class DoesNotWriteAgain(Lockstep):
    def begin(self, claim: Claim) -> Announcement | None:
        self._release(self._end)
        return super().begin(claim)


async def test_what_is_not_written_again_after_a_failover_is_found() -> None:
    with pytest.raises(ViolationError):
        await explore(range(60_000), sound=1, replicas=1, waits=True, lockstep=DoesNotWriteAgain)


@pytest.mark.parametrize("faulty", [ForgetsWhoWasSilentInAnOutage, CallsAndDoesNotWait])
async def test_one_in_step_passed_over_after_an_outage_is_found(faulty: Callable[..., ServerModel]) -> None:
    with pytest.raises(ViolationError):
        await explore(range(60_000), sound=1, server=faulty)


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
