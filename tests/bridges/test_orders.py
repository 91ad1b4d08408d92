"""Orders of events that random worlds come upon too seldom, moved by hand (docs/adr/0005)."""

from collections.abc import Callable
from copy import copy

from tests.bridges.explorer import Replica, World


def leader_alone() -> tuple[World, Replica]:
    """A world in which one bridge leads."""
    world = World(0, replicas=1)
    world.settle()
    (leader,) = world.bridges
    until(leader._lease_step, lambda: not leader.works() or leader.works() == [leader.write_work])
    return world, leader


def until(step: Callable[[], None], reached: Callable[[], bool]) -> None:
    """One step after another, in which no answer is lost."""
    for _ in range(50):
        if reached():
            return
        step()
    raise AssertionError("it does not come to what it was to do")


def receive_all(bridge: Replica) -> None:
    while bridge.inbox:
        bridge._receive()


def publish(world: World, receiver: Replica, events: int = 1) -> None:
    for _ in range(events):
        world._publish()
    receive_all(receiver)


def break_off(world: World, bridge: Replica) -> None:
    """The bridge's subscription is cut, and it subscribes again."""
    world.server.cut([bridge.name])
    receive_all(bridge)
    bridge._subscribe()


def lead_no_more(leader: Replica) -> None:
    leader.leadership.lose("")
    until(leader._write_step, lambda: not leader.lockstep.leads)


def begin_epoch_and_lose_the_answer(world: World, leader: Replica) -> str:
    """The leader's next epoch begins on the server, and it does not hear of it; the epoch."""
    before = world.server.hash.epoch
    until(leader._write_step, lambda: world.server.hash.epoch != before)
    assert leader.write_work is not None
    leader.write_work.cut()
    return world.server.hash.epoch


async def test_leader_that_lost_its_lease_only_locally_keeps_what_it_holds_when_it_meets_its_own_new_mark() -> None:
    world, leader = leader_alone()
    break_off(world, leader)
    publish(world, leader, 3)
    begin_epoch_and_lose_the_answer(world, leader)

    lead_no_more(leader)
    receive_all(leader)
    world.settle()

    assert world.server.stream == [b"0", b"1", b"2"]
    assert world.server.hash.gaps == 1


async def test_epoch_whose_answer_was_lost_is_not_begun_a_second_time_in_a_later_term() -> None:
    world, leader = leader_alone()
    break_off(world, leader)
    # It joins now, and its messages are late: it meets the marks when all this is over.
    late = world._bridge()
    late._subscribe()
    publish(world, leader)
    begin_epoch_and_lose_the_answer(world, leader)
    world.server.lease = ""
    lead_no_more(leader)
    publish(world, leader)

    until(leader._lease_step, lambda: leader.leadership.value is not None)
    until(leader._write_step, lambda: leader.lockstep.leads and not leader.works())
    break_off(world, leader)
    publish(world, leader)
    until(leader._write_step, lambda: world.server.stream == [b"2"])
    receive_all(leader)
    publish(world, leader)
    until(leader._write_step, lambda: world.server.stream == [b"2", b"3"])

    receive_all(late)
    assert late.lockstep.epoch == world.server.hash.epoch
    world.server.inboxes.pop(leader.name)
    world.bridges = [late]
    world._publish()
    world.settle()  # what the late one writes follows what is written

    assert world.server.stream == [b"2", b"3", b"4"]
    assert world.server.hash.gaps == 3


async def test_leader_that_waits_for_its_mark_and_numbers_anew_does_not_write_what_another_has_written() -> None:
    world, before = leader_alone()
    leader = world._bridge()
    leader._subscribe()
    publish(world, leader, 3)
    receive_all(before)
    until(before._write_step, lambda: world.server.stream == [b"0", b"1", b"2"])
    # Its subscription is on another node when it leads: it meets no mark, and the crash of this server does not cut it.
    world.server.inboxes.clear()
    world.server.ready.clear()
    world.server.lease = ""
    world.bridges = [leader]
    until(leader._lease_step, lambda: leader.leadership.value is not None)
    until(leader._write_step, lambda: leader.lockstep.leads)

    world.server.crash(1)
    until(leader._lease_step, lambda: leader.tenure.regressed)
    world.settle()
    world._publish()
    world.settle()

    assert world.server.stream == [b"0", b"1", b"3"]


def snapshot(world: World) -> Callable[[], None]:
    """What makes the server what it is now once more: another takes over that lacks what comes after this."""
    server = world.server
    found, lease, stream, fence = copy(server.hash), server.lease, list(server.stream), server.fence

    def go_back() -> None:
        server.hash, server.lease, server.stream, server.fence = copy(found), lease, list(stream), fence
        server.ready.clear()
        server.cut(list(server.inboxes))

    return go_back


async def test_term_that_is_given_again_to_a_bridge_that_has_forgotten_it_has_no_hole_in_it() -> None:
    world, leader = leader_alone()
    publish(world, leader)
    until(leader._write_step, lambda: world.server.stream == [b"0"])
    go_back = snapshot(world)
    publish(world, leader)
    # Another leads, and numbers anew.
    world.server.lease = ""
    world.server.ready.clear()
    lead_no_more(leader)
    other = world._bridge()
    other._subscribe()
    until(other._lease_step, lambda: other.leadership.value is not None)
    receive_all(leader)
    assert not leader.lockstep.numbering

    go_back()
    world.bridges.append(other)
    world.settle()  # the other one can be in step only when the leader has nothing left to write
    world._publish()
    world.settle()

    assert world.server.stream == [b"0", b"2"]


async def test_lease_that_a_server_gives_again_after_it_forgot_the_last_one_has_another_value() -> None:
    world, leader = leader_alone()
    world.server.lease = ""
    lead_no_more(leader)
    go_back = snapshot(world)
    until(leader._lease_step, lambda: leader.leadership.value is not None)
    forgotten = leader.leadership.value
    until(leader._write_step, lambda: leader.lockstep.leads)
    publish(world, leader)
    leader._write_step()  # its write is on its way to the server

    go_back()
    leader.leadership.lose("")
    until(leader._lease_step, lambda: not leader.works() or leader.works() == [leader.write_work])
    receive_all(leader)
    leader._subscribe()
    until(leader._lease_step, lambda: leader.leadership.value is not None)
    world.settle()

    assert leader.leadership.value != forgotten
    assert world.server.stream == [b"0"]
