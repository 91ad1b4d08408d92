"""What a leader has written is held until it is durable, and written again where a server lacks it."""

from redis_agent.lockstep import Claim, Lockstep


def leader(*events: bytes) -> Lockstep:
    """A leader whose row begins at position 1."""
    lockstep = Lockstep(10**6)
    lockstep.subscribed()
    lockstep.begin(Claim("1:a", 0, "e1", "", False, 0))
    for event in events:
        lockstep.receive(0, event)
    return lockstep


def events(lockstep: Lockstep) -> list[bytes]:
    batch = lockstep.batch(10, 10**6)
    return [] if batch is None else [event for _, event in batch.events]


def test_what_is_written_is_held_and_not_written_twice_until_it_is_confirmed() -> None:
    lockstep = leader(b"1", b"2", b"3")
    lockstep.wrote(2)
    assert (len(lockstep), lockstep.sent, lockstep.written) == (3, 2, 0)
    assert events(lockstep) == [b"3"]
    lockstep.confirmed(2)
    assert (len(lockstep), lockstep.written) == (1, 2)


def test_what_a_server_that_took_over_lacks_is_written_again_under_a_new_numbering() -> None:
    lockstep = leader(b"1", b"2", b"3")
    lockstep.wrote(3)
    lockstep.confirmed(1)
    forgotten, _ = lockstep.renumbered("e2", 2, subscription=lockstep.subscriptions)
    assert forgotten == 0
    assert events(lockstep) == [b"3"]
    batch = lockstep.batch(10, 10**6)
    assert batch is not None
    assert (batch.first, batch.given_up_from) == (3, 3)


def test_only_what_was_confirmed_counts_as_forgotten() -> None:
    lockstep = leader(b"1", b"2", b"3")
    lockstep.wrote(3)
    lockstep.confirmed(2)
    forgotten, _ = lockstep.renumbered("e2", 0, subscription=lockstep.subscriptions)
    assert forgotten == 2
    assert events(lockstep) == [b"3"]


def test_a_follower_that_takes_over_writes_what_the_server_lacks_of_its_row() -> None:
    lockstep = leader(b"1", b"2", b"3")
    lockstep.end_term()
    lockstep.control(b"written e1 1")
    lockstep.broke()
    lockstep.subscribed()
    lockstep.begin(Claim("2:a", 2, "e2", "e1", False, 0))
    assert events(lockstep) == [b"3"]
    assert lockstep.written == 1


def test_the_same_token_for_an_older_epoch_is_no_reason_to_forget_the_row() -> None:
    lockstep = leader(b"1", b"2")
    lockstep.wrote(2)
    lockstep.end_term()
    assert lockstep.begin(Claim("1:a", 0, "e1", "", True, 0)) is None
    assert events(lockstep) == [b"1", b"2"]


def test_what_was_written_and_is_dropped_for_want_of_room_is_not_lost() -> None:
    lockstep = Lockstep(400)
    lockstep.subscribed()
    lockstep.begin(Claim("1:a", 0, "e1", "", False, 0))
    assert [lockstep.receive(0, b"%d" % n) for n in range(3)] == [0, 0, 0]
    lockstep.wrote(3)
    assert [lockstep.receive(0, b"%d" % n) for n in range(3, 7)] == [0, 0, 0, 1]
    assert lockstep.given_up == 1
