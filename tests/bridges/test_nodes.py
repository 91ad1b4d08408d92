"""Bridges of a cluster count in the order of one node; what was counted in another's places nothing."""

from redis_agent.lockstep import Announcement, Claim, Lockstep, epoch_of, node_of


def said(lockstep: Lockstep, words: str) -> Announcement | None:
    return lockstep.control(words.encode())


def test_epoch_says_in_which_nodes_order_it_counts() -> None:
    assert (epoch_of("e", "n"), epoch_of("e", "")) == ("e@n", "e")
    assert (node_of("e@n"), node_of("e")) == ("n", "")


def leader(node: str) -> Lockstep:
    lockstep = Lockstep(1_000_000)
    lockstep.subscribed(node)
    lockstep.begin(Claim("1:a", 0, epoch_of("e1", node), "", False, 0))
    said(lockstep, f"written e1@{node} 0 e1@{node}")
    return lockstep


def test_mark_of_another_nodes_epoch_places_nothing() -> None:
    follower = Lockstep(1_000_000)
    follower.subscribed("s2")
    said(follower, "written e1@s1 4 m1")
    follower.receive(1, b"x")
    said(follower, "at e1@s1 m1 4")
    said(follower, "written e1@s1 5")
    assert follower.epoch == ""


def test_mark_of_the_same_nodes_epoch_does() -> None:
    follower = Lockstep(1_000_000)
    follower.subscribed("s1")
    said(follower, "written e1@s1 4 m1")
    said(follower, "at e1@s1 m1 4")
    said(follower, "written e1@s1 4")
    assert follower.epoch == "e1@s1"


def test_leader_that_goes_to_another_node_lets_go_of_what_comes_until_that_has_settled() -> None:
    """What came to the first node, and was written, may come to the second a moment later."""
    lockstep = leader("s1")
    lockstep.receive(1, b"written")
    lockstep.wrote(1)
    lockstep.confirmed(1)
    lockstep.receive(1, b"the rest of the row")
    lockstep.broke()
    lockstep.subscribed("s2")
    lockstep.receive(2, b"written")  # once more, by another way
    assert lockstep.renumbered("e2@s2", 1, subscription=lockstep.subscriptions) == (0, None)
    for mark in ("e2@s2", "m1", "m2"):
        assert said(lockstep, f"written e2@s2 1 {mark}") is None
        lockstep.receive(2, b"written")
    assert said(lockstep, "written e2@s2 1 m3") == Announcement("e2@s2", "m3", 2)
    lockstep.receive(3, b"new")
    batch = lockstep.batch(10, 1_000)
    assert batch is not None
    assert [event for _, event in batch.events] == [b"the rest of the row", b"new"]
    assert batch.first == 2


def test_leader_whose_subscription_broke_on_the_same_node_waits_for_nothing() -> None:
    lockstep = leader("s1")
    lockstep.broke()
    lockstep.subscribed("s1")
    lockstep.receive(2, b"new")
    lockstep.renumbered("e2@s1", 0, subscription=lockstep.subscriptions)
    batch = lockstep.batch(10, 1_000)
    assert batch is not None
    assert [event for _, event in batch.events] == [b"new"]


def test_it_has_not_settled_when_the_subscription_breaks_once_more() -> None:
    lockstep = leader("s1")
    lockstep.broke()
    lockstep.subscribed("s2")
    lockstep.renumbered("e2@s2", 0, subscription=lockstep.subscriptions)
    lockstep.broke()
    lockstep.subscribed("s2")
    lockstep.receive(2, b"old")
    lockstep.renumbered("e3@s2", 0, subscription=lockstep.subscriptions)
    assert lockstep.batch(10, 1_000) is None


def test_claim_after_a_leader_on_another_node_waits_as_well() -> None:
    lockstep = Lockstep(1_000_000)
    lockstep.subscribed("s2")
    said(lockstep, "written e2@s2 7 e2@s2")  # met before the answer is seen
    lockstep.receive(1, b"old")
    lockstep.begin(Claim("2:b", 7, "e2@s2", "e1@s1", False, 100))
    assert lockstep.batch(10, 1_000) is None
    for mark in ("m1", "m2", "m3", "m4"):
        said(lockstep, f"written e2@s2 7 {mark}")
    lockstep.receive(2, b"new")
    batch = lockstep.batch(10, 1_000)
    assert batch is not None
    assert (batch.first, [event for _, event in batch.events]) == (8, [b"new"])


def test_claim_that_was_made_before_the_node_changed_begins_an_epoch_that_must_be_followed_by_another() -> None:
    """No mark of the first one would ever be met: the leader would wait for ever."""
    lockstep = Lockstep(1_000_000)
    lockstep.subscribed("s1")
    lockstep.broke()
    lockstep.subscribed("s2")
    lockstep.begin(Claim("2:b", 7, "e2@s1", "e1@s1", False, 100))
    assert said(lockstep, "written e2@s1 7 m1") is None
    assert lockstep.broken
    lockstep.renumbered("e3@s2", 7, subscription=lockstep.subscriptions)
    assert not lockstep.broken
    for mark in ("e3@s2", "m2", "m3", "m4"):
        said(lockstep, f"written e3@s2 7 {mark}")
    lockstep.receive(2, b"new")
    batch = lockstep.batch(10, 1_000)
    assert batch is not None
    assert (batch.first, [event for _, event in batch.events]) == (8, [b"new"])


def test_first_leader_of_all_keeps_what_it_has_received() -> None:
    lockstep = Lockstep(1_000_000)
    lockstep.subscribed("s1")
    lockstep.receive(1, b"first")
    lockstep.begin(Claim("1:a", 0, "e1@s1", "", False, 0))
    batch = lockstep.batch(10, 1_000)
    assert batch is not None
    assert [event for _, event in batch.events] == [b"first"]
