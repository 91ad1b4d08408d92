"""The scripts in lua/: headers that tell the truth, and what each promises when it is repeated, late or refused."""

import contextlib
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.lockstep import Announcement, Claim
from redis_agent.lockstep import Batch as Mirrored
from redis_agent.store import keys, scripts
from redis_agent.store.aggregates import Aggregates, DerivedUpdate
from redis_agent.store.anomalies import Anomalies, Examined, Tell
from redis_agent.store.dead_letters import DeadLetters
from redis_agent.store.division import arrive
from redis_agent.store.failures import Remedy, classify
from redis_agent.store.housekeeping import Housekeeping, trim
from redis_agent.store.inspection import Inspection
from redis_agent.store.lease import Lease
from redis_agent.store.listening import agree_on_node
from redis_agent.store.mirror import DeafError, Mirror, Renewal, Written
from redis_agent.store.namespace import NamespacedClient, namespace_of
from redis_agent.store.outbox import (
    FENCED,
    GIVEN_UP,
    NOT_PENDING,
    NOTED,
    OVERTAKEN,
    Delivery,
    Outbox,
    Raise,
    StateChange,
)
from redis_agent.store.partitions import Partition, Recorded, change_record, record
from redis_agent.store.projections import Projections
from redis_agent.store.spending import Spending
from redis_agent.store.stream import Applied, Batch, EventStream, ExperimentUpdate
from tests.mirrors import mirror_of

NAMES = sorted(f.name[:-4] for f in (resources.files("redis_agent.store") / "lua").iterdir() if f.name.endswith(".lua"))
CHANNEL = "test:orchestrator"


def event_stream(client: Redis, consumer: str = "c1", **limits: int) -> EventStream:
    given = {"max_fields": 1000, "max_raw": 100, "max_dead": 100} | limits
    return EventStream(reader=client, client=client, consumer=consumer, **given)


def alert(number: int, *, experiment: str = "e", state: StateChange | None = None) -> Raise:
    return Raise(experiment, "success_threshold", f"f{number}", 100, f"id{number}", f"data {number}", 5, state)


def change(number: int, told: str, *, experiment: str = "e", expected: bytes = b"", held: str = "held") -> StateChange:
    return StateChange(keys.alert_state(experiment), f"f{number}", expected, told, held)


def update(experiment: str, **counters: int) -> ExperimentUpdate:
    now = "2026-01-01T00:00:00.000Z"
    plan = {"id": experiment, "events": "1", "first": now, "last": now, "last_ms": 1, "gauges": []}
    flat = [part for n, c in counters.items() for part in (f"{n}_count", str(c))]
    return ExperimentUpdate(experiment, plan | {"counters": flat}, [b"{}"])


# Headers -------------------------------------------------------------------------------------------------------


def header(name: str) -> dict[str, str]:
    """The sections of a script's header: what stands after `KEYS:`, `ARGV:`, `returns:` and `cost:`."""
    lines = [line[2:].strip() for line in scripts.source(name).splitlines()[1:] if line.startswith("--")]
    sections: dict[str, str] = defaultdict(str)
    section = "what"
    for line in lines:
        if found := re.match(r"(KEYS|ARGV|returns|cost): ?", line):
            section = found[1]
        sections[section] += " " + re.sub(r"^(KEYS|ARGV|returns|cost): ?", "", line)
    return sections


def fixed(names: str) -> int:
    """How many names a header lists before those that repeat."""
    listed = re.split(r"\bfor each\b|\(|,? then\b|\*", names)[0].strip().rstrip(",")
    if not listed or "of each" in listed:
        return 0
    return len(listed.split(","))


@pytest.mark.parametrize("name", NAMES)
def test_header_names_keys_arguments_result_and_cost(name: str) -> None:
    source, sections = scripts.source(name), header(name)

    assert source.startswith(("#!lua\n-- ", "#!lua flags=allow-oom\n-- "))
    assert sections["what"].strip().endswith((".", ")")) or "." in sections["what"]
    assert all(sections[part].strip() for part in ("KEYS", "ARGV", "returns", "cost")), sections
    assert re.search(r"O\(", sections["cost"])


@pytest.mark.parametrize("name", NAMES)
def test_body_builds_no_key_and_reads_no_argument_that_the_header_does_not_have(name: str) -> None:
    body = "\n".join(line for line in scripts.source(name).splitlines() if not line.startswith(("--", "#!")))
    used_keys = [int(n) for n in re.findall(r"KEYS\[(\d+)\]", body)]
    used_args = [int(n) for n in re.findall(r"ARGV\[(\d+)\]", body)]

    assert max(used_keys, default=0) <= max(fixed(header(name)["KEYS"]), 1)
    if fixed(header(name)["ARGV"]) and "each" not in header(name)["ARGV"] and "..." not in header(name)["ARGV"]:
        assert set(used_args) == set(range(1, fixed(header(name)["ARGV"]) + 1))
    assert not re.search(r"'(redis_agent|fullsend|metrics|metrics_aggregated|experiments):", body)


@pytest.mark.parametrize("name", NAMES)
def test_body_rests_on_nothing_that_redis_7_0_has_not(name: str) -> None:
    body = "\n".join(re.sub(r"--.*", "", line) for line in scripts.source(name).splitlines())

    # Redis 7.4 and Valkey 8.0 brought `os`, Valkey 8.0 `server`: naming a global that is not there ends a script.
    assert re.findall(r"(?<![\w.:'])(?:os|server|io|debug|package)\s*[.\[]", body) == []


async def test_every_script_has_a_wrapper_that_passes_what_its_header_lists(
    raw: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[int, int]] = {}
    run = scripts.run

    async def spied(client: Redis, name: str, names: list[str], args: list[Any]) -> Any:
        seen[name] = (len(names), len(args))
        return await run(client, name, names, args)

    monkeypatch.setattr(scripts, "run", spied)
    await run_every_wrapper(raw)

    assert sorted(seen) == NAMES
    for name, (key_count, arg_count) in seen.items():
        sections = header(name)
        wanted = fixed(sections["KEYS"]), fixed(sections["ARGV"])
        if re.search(r"each|\.\.\.", sections["KEYS"]):
            assert key_count >= wanted[0], name
        else:
            assert key_count == wanted[0], name
        if re.search(r"each|\.\.\.|\*", sections["ARGV"]):
            assert arg_count > wanted[1], name
        else:
            assert arg_count == wanted[1], name


async def run_every_wrapper(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    await mirror.write(claim.value, epoch=claim.epoch, batch=Mirrored(1, 1, [(1, b"{}")]))
    await mirror.announce(claim.value, Announcement(claim.epoch, "m", 1))
    await mirror.renew(claim.value, epoch=claim.epoch, mark="m", confirmed=None)
    await mirror.broken(claim.value, new_epoch="", gap_ms=None, may_yield=True)
    await mirror.release(claim.value)
    lease = Lease(raw, name=keys.LEASE_SCHEDULER, owner="me", ttl_ms=10_000)
    value = await lease.acquire() or ""
    await lease.renew(value)
    found = Examined("e", "", 600, {"count:x": "[]"}, ["gone"], Tell("anomaly", "f", 1, "id", "data", "{}"))
    assert await Anomalies(raw, ttl_seconds=9).write(value, [found], mark="m") == [0]
    await lease.release(value)
    stream = event_stream(raw)
    await stream.ensure_group()
    (entry,) = await stream.read_new(count=1, block_ms=1)
    assert isinstance(await stream.apply(Batch([entry.id], [update("e", a=1)])), Applied)
    await stream.renew([entry.id])
    await stream.reclaim(idle_ms=1000, every_ms=1000, count=1)
    await raw.xadd(keys.STREAM, {"data": "{}"})
    (entry,) = await stream.read_new(count=1, block_ms=1)
    own = await stream.read_own(after="0-0", count=1)
    assert own.looked_to == entry.id
    assert await stream.take_alone(own.entries[0]) == own.entries[0]
    await stream.forgive(entry.id)
    await stream.apply(Batch([entry.id]))
    await trim(raw, 0)
    await Aggregates(raw).write_derived([DerivedUpdate("e", "1", {"rate": "1"}, ["old"])])
    await Outbox(raw).raise_([alert(1)])
    delivery = Delivery(reader=raw, client=raw, consumer="me", channel=CHANNEL)
    await delivery.ensure_group()
    (waiting,) = await delivery.read(count=1, block_ms=1)
    leading = await Lease(raw, name=keys.LEASE_DISPATCHER, owner="me", ttl_ms=10_000).acquire() or ""
    assert await delivery.deliver(leading, waiting, ttl_ms=-1, replaceable=True) == GIVEN_UP
    assert await Outbox(raw).trim(100) == ([], 0)
    await Housekeeping(raw, stream_max=1, stream_hard=10, consumer_expiry_seconds=0).remove_consumers()
    await Housekeeping(raw, stream_max=1, stream_hard=10, consumer_expiry_seconds=0).trim_hard(lambda: True)
    assert await Housekeeping(raw, stream_max=1, stream_hard=10, consumer_expiry_seconds=0).correct_lags() == {}
    letter = await raw.xadd(keys.DEAD_LETTERS, {"data": "x"})
    assert await DeadLetters(raw).replay(letter.decode(), now_ms=1)
    spending = Spending(raw, per_minute=1, per_day=1)
    assert await spending.admit() is None
    await spending.settle("ok", tokens_in=1)
    assert (await Inspection(raw).snapshot(["e"], with_unapplied=True)).delivered == entry.id
    assert await record(raw, 8, state=[keys.OWNERS]) == Recorded(8)
    assert await change_record(raw, Recorded(8), Recorded(8, 6, token="a"))
    assert await change_record(raw, Recorded(8, 6, token="a"), Recorded(8))
    assert not await arrive(Partition(0, namespace_of(raw), raw))
    assert await agree_on_node(raw, before="", wanted="a") == "a"
    await raw.hset(keys.TOUCHED, "e", "1")
    assert await Projections(raw, raw, max_raw=10).project(["e"]) == {"e"}


async def test_flushed_script_cache_costs_nothing_but_a_round_trip(raw: Redis) -> None:
    await run_every_wrapper(raw)
    await raw.flushall()
    await raw.script_flush()
    await run_every_wrapper(raw)
    assert await raw.hget(keys.aggregate("e"), "a_count") == b"1"


async def test_bridges_agree_on_the_node_that_was_named_first(raw: Redis) -> None:
    assert await agree_on_node(raw, before="", wanted="a") == "a"
    assert await agree_on_node(raw, before="", wanted="b") == "a", "who comes late does not know it yet"
    assert await agree_on_node(raw, before="a", wanted="b") == "b"
    assert await agree_on_node(raw, before="a", wanted="c") == "b"


# Leases --------------------------------------------------------------------------------------------------------


async def test_one_of_two_owners_holds_a_lease_and_tokens_grow(raw: Redis) -> None:
    ann, bob = (Lease(raw, name=keys.LEASE_BRIDGE, owner=owner, ttl_ms=5_000) for owner in ("ann", "bob"))
    tokens = []
    for _ in range(5):
        held = await ann.acquire()
        assert held is not None
        assert await ann.acquire() == held, "asking again gives the same token"
        assert await bob.acquire() is None
        assert not await bob.renew(held.replace("ann", "bob"))
        assert await ann.renew(held)
        await ann.release(held)
        assert not await ann.renew(held), "what was given back cannot be prolonged"
        tokens.append(int(held.partition(":")[0]))
        taken = await bob.acquire()
        assert taken is not None
        await ann.release(held)  # late: must not end another's term
        assert await raw.get(keys.LEASE_BRIDGE) == taken.encode()
        tokens.append(int(taken.partition(":")[0]))
        await bob.release(taken)
    assert tokens == sorted(set(tokens))


async def test_owner_with_a_colon_in_its_name_still_knows_its_lease(raw: Redis) -> None:
    assert await Lease(raw, name=keys.LEASE_BRIDGE, owner="a:b:c", ttl_ms=5_000).acquire() == "1:a:b:c"


async def test_lease_runs_out_by_itself(raw: Redis) -> None:
    await Lease(raw, name=keys.LEASE_BRIDGE, owner="ann", ttl_ms=5_000).acquire()
    assert 0 < await raw.pttl(keys.LEASE_BRIDGE) <= 5_000


async def test_late_dispatcher_is_refused_by_every_script_it_would_write_with(raw: Redis) -> None:
    late_dispatcher = await Lease(raw, name=keys.LEASE_DISPATCHER, owner="ann", ttl_ms=5_000).acquire() or ""
    await raw.delete(keys.LEASE_DISPATCHER)  # as if it had run out
    await Lease(raw, name=keys.LEASE_DISPATCHER, owner="bob", ttl_ms=5_000).acquire()
    await Outbox(raw).raise_([alert(1)])
    delivery = Delivery(reader=raw, client=raw, consumer="ann", channel=CHANNEL)
    await delivery.ensure_group()
    (entry,) = await delivery.read(count=1, block_ms=1)

    async with raw.pubsub() as listener:
        await listener.subscribe(CHANNEL)
        await listener.get_message(timeout=1)
        assert await delivery.deliver(late_dispatcher, entry, ttl_ms=0, replaceable=True) == FENCED
        assert await listener.get_message(ignore_subscribe_messages=True, timeout=0.05) is None
    assert not await raw.exists(keys.STREAM)
    assert (await raw.xpending(keys.OUTBOX, keys.DISPATCHER_GROUP))["pending"] == 1


async def test_nobody_leads_without_a_lease(raw: Redis) -> None:
    written = await mirror_of(raw, owner="ann", ttl_ms=1).write("1:ann", epoch="", batch=Mirrored(1, 1, [(1, b"x")]))
    assert written.outcome == "fenced"
    assert not await raw.exists(keys.STREAM)


async def test_dead_letter_goes_through_the_front_door_once(raw: Redis) -> None:
    letter = (await raw.xadd(keys.DEAD_LETTERS, {"data": b"\xff\x00", "reason": "not_json: x"})).decode()
    entry_id = await DeadLetters(raw).replay(letter, now_ms=7)
    assert await DeadLetters(raw).replay(letter, now_ms=7) is None
    assert await raw.xrange(keys.STREAM) == [((entry_id or "").encode(), {b"data": b"\xff\x00", b"at": b"7"})]
    assert await raw.xlen(keys.DEAD_LETTERS) == 0


# Mirror --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def subscribed(*mirrors: Mirror) -> AsyncIterator[None]:
    """The subscriptions of these bridges stand."""
    async with mirrors[0]._client.pubsub() as listener:
        await listener.subscribe(*(mirror.alive for mirror in mirrors))
        for _ in mirrors:
            await listener.get_message(timeout=5)
        yield


async def begin_to_lead(raw: Redis) -> tuple[Mirror, Claim]:
    mirror = mirror_of(raw, owner="me", ttl_ms=50_000)
    claim = await mirror.claim(epoch="", new_epoch="e1")
    assert claim is not None
    return mirror, claim


async def test_mirrored_positions_are_written_once_in_whatever_batches_they_come(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    rng, reached = random.Random(7), 0
    for _ in range(60):
        first = rng.randint(max(1, reached - 5), reached + 1)
        batch = Mirrored(first, first, [(n, b"%d" % n) for n in range(first, first + rng.randint(1, 6))])
        for _ in range(rng.randint(1, 2)):  # sent again after a lost reply
            written = await mirror.write(claim.value, epoch="e1", batch=batch)
            reached = max(reached, first + len(batch.events) - 1)
            assert written == Written("written", reached)
    entries = await raw.xrange(keys.STREAM)
    assert [(e[b"data"], e[b"at"]) for _, e in entries] == [(b"%d" % n, b"%d" % n) for n in range(1, reached + 1)]


async def test_traced_events_carry_their_contexts_and_no_other_has_the_field(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    batch = Mirrored(1, 1, [(n, b"%d" % n) for n in range(1, 13)])
    for context in ("first", "again"):  # sent again after a lost reply
        await mirror.write(claim.value, epoch="e1", batch=batch, traces={2: f"{context}-2", 12: f"{context}-12"})
    stream = event_stream(raw)
    await stream.ensure_group()

    read = await stream.read_new(count=100, block_ms=1)

    assert {int(entry.data or b""): entry.trace for entry in read if entry.trace} == {2: "first-2", 12: "first-12"}
    assert [entry.at_ms for entry in read] == list(range(1, 13))
    fields = [set(entry) for _, entry in await raw.xrange(keys.STREAM)]
    assert [n for n, names in enumerate(fields, 1) if b"trace" in names] == [2, 12]
    assert all(names - {b"trace"} == {b"data", b"at"} for names in fields)


async def test_alert_carries_its_context_into_the_outbox(raw: Redis) -> None:
    await Outbox(raw).raise_([replace(alert(1), trace="context"), alert(2)])
    delivery = Delivery(reader=raw, client=raw, consumer="ann", channel=CHANNEL)
    await delivery.ensure_group()

    assert [entry.trace for entry in await delivery.read(count=9, block_ms=1)] == ["context", ""]
    assert [set(entry) for _, entry in await raw.xrange(keys.OUTBOX)] == [{b"data", b"at", b"trace"}, {b"data", b"at"}]


async def test_hole_in_the_positions_is_refused_and_told(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    await mirror.write(claim.value, epoch="e1", batch=Mirrored(1, 1, [(1, b"a"), (1, b"b")]))
    assert await mirror.write(claim.value, epoch="e1", batch=Mirrored(4, 4, [(1, b"d")])) == Written("hole", 2)
    assert await raw.xlen(keys.STREAM) == 2


async def test_positions_that_were_given_up_are_skipped_and_counted(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    assert await mirror.write(claim.value, epoch="e1", batch=Mirrored(4, 1, [(1, b"d")])) == Written("written", 4, 3)
    assert await raw.hget(keys.BRIDGE, "given_up") == b"3"


async def test_late_leader_of_the_bridge_can_do_nothing_more(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    await raw.delete(keys.LEASE_BRIDGE)  # as if it had run out
    other = mirror_of(raw, owner="you", ttl_ms=50_000)
    async with subscribed(other):
        assert await other.claim(epoch="e1", new_epoch="e2") is not None
    batch = Mirrored(1, 1, [(1, b"x")])
    assert (await mirror.write(claim.value, epoch="e1", batch=batch)).outcome == "fenced"
    assert await mirror.renew(claim.value, epoch="e1", mark="m", confirmed=None) is None
    assert not await mirror.announce(claim.value, Announcement("e1", "m", 3))
    assert (await mirror.broken(claim.value, new_epoch="e9", gap_ms=1, may_yield=True)).outcome == "fenced"
    await mirror.release(claim.value)
    assert (await raw.get(keys.LEASE_BRIDGE) or b"").endswith(b":you")
    assert await raw.hget(keys.BRIDGE, "epoch") == b"e1"
    assert not await raw.exists(keys.STREAM)


async def test_bridge_not_in_step_waits_for_one_that_is_as_long_as_that_gives_signs_of_life(raw: Redis) -> None:
    mirror, _claim = await begin_to_lead(raw)
    follower, newcomer = (mirror_of(raw, owner=owner, ttl_ms=50_000) for owner in ("follower", "newcomer"))
    async with subscribed(follower):
        assert await follower.claim(epoch="e1", new_epoch="e2") is None
    await raw.delete(keys.LEASE_BRIDGE)
    assert await newcomer.claim(epoch="", new_epoch="e3") is None
    now = int((await raw.time())[0]) * 1000
    for stale in (now - 60_000, now + 3_600_000):  # silent for too long; written before the clock went back
        await raw.zadd(keys.BRIDGE_READY, {"follower": stale})
        taken = await newcomer.claim(epoch="", new_epoch=f"e{stale}")
        assert taken is not None
        assert taken.gap
        await newcomer.release(taken.value)
    assert await mirror.claim(epoch="", new_epoch="e5") is not None


async def test_bridge_in_step_that_was_silent_in_an_outage_is_called_and_waited_for_as_long_as_a_lease(
    raw: Redis,
) -> None:
    _mirror, claim = await begin_to_lead(raw)
    follower, newcomer = (mirror_of(raw, owner=owner, ttl_ms=50_000) for owner in ("follower", "newcomer"))

    async def grow_older(ms: int) -> None:
        for name in ("called", "asked"):
            if await raw.hexists(keys.BRIDGE, name):
                await raw.hincrby(keys.BRIDGE, name, -ms)

    async with subscribed(follower), raw.pubsub() as listener:
        await listener.subscribe(follower.channel)
        await listener.get_message(timeout=5)
        assert await follower.claim(epoch="e1", new_epoch="e2") is None
        await raw.delete(keys.LEASE_BRIDGE)
        await raw.zadd(keys.BRIDGE_READY, {"follower": 1})
        for _ in range(3):  # called once, also when others ask often
            assert await newcomer.claim(epoch="", new_epoch="e3") is None
            await grow_older(20_000)
        assert (await listener.get_message(timeout=5))["data"] == b"free"
        assert await listener.get_message(timeout=0.1) is None
        # 60 s since it was called, and nobody was there for the last 40: another outage, so it is called anew.
        await grow_older(20_000)
        assert await newcomer.claim(epoch="", new_epoch="e3") is None
        assert (await listener.get_message(timeout=5))["data"] == b"free"
        await grow_older(20_000)
        taken = await follower.claim(epoch="e1", new_epoch="e2")
        assert taken is not None
        assert not taken.gap
        assert not await raw.hexists(keys.BRIDGE, "called")

        await raw.delete(keys.LEASE_BRIDGE)
        await raw.zadd(keys.BRIDGE_READY, {"follower": 1})
        for _ in range(3):
            assert await newcomer.claim(epoch="", new_epoch="e4") is None
            await grow_older(20_000)
        taken = await newcomer.claim(epoch="", new_epoch="e4")  # it had its lease time
        assert taken is not None
        assert taken.gap
    assert claim.epoch == "e1"


async def test_leader_that_hands_over_calls_one_that_was_silent_and_passes_over_one_that_is_gone(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    follower = mirror_of(raw, owner="follower", ttl_ms=50_000)

    async def outcome(new_epoch: str = "") -> str:
        return (await mirror.broken(claim.value, new_epoch=new_epoch, gap_ms=None, may_yield=True)).outcome

    async with subscribed(follower):
        assert await follower.claim(epoch="e1", new_epoch="e2") is None
        await raw.zadd(keys.BRIDGE_READY, {"follower": 1})
        assert await outcome() == "called"
        assert await outcome("e3") == "called"
        assert await follower.claim(epoch="e1", new_epoch="e2") is None
    assert await outcome() == "alone"  # a fresh sign, but the subscription is gone
    async with subscribed(follower):
        assert await outcome() == "yielded"
        assert not await raw.exists(keys.LEASE_BRIDGE)


async def test_bridge_whose_subscription_is_on_another_server_is_not_in_step(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    assert await mirror.renew(claim.value, epoch="e1", mark="m", confirmed=None) == Renewal(0, heard=False)
    follower = mirror_of(raw, owner="follower", ttl_ms=50_000)
    with pytest.raises(DeafError):
        await follower.claim(epoch="e1", new_epoch="e2")
    await mirror.release(claim.value)
    with pytest.raises(DeafError):
        await follower.claim(epoch="e1", new_epoch="e2")
    assert not await raw.exists(keys.BRIDGE_READY)
    async with subscribed(mirror, follower):
        assert await mirror.claim(epoch="e1", new_epoch="e3") is not None
        assert await follower.claim(epoch="e1", new_epoch="e2") is None
        assert await raw.zcard(keys.BRIDGE_READY) == 2


async def test_user_that_may_not_ask_whose_subscription_stands_waits_for_every_bridge_in_step(
    raw: Redis, redis_url: str
) -> None:
    await begin_to_lead(raw)
    await raw.delete(keys.LEASE_BRIDGE)
    await raw.zadd(keys.BRIDGE_READY, {"follower": 1})
    await raw.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "&*", "+@all", "-pubsub")
    try:
        async with NamespacedClient.from_url(redis_url, username="narrow", password="pw", protocol=2) as narrow:
            narrow.namespace = namespace_of(raw)
            newcomer = mirror_of(narrow, owner="newcomer", ttl_ms=50_000)
            assert await newcomer.claim(epoch="", new_epoch="e3") is None
            await raw.hincrby(keys.BRIDGE, "called", -60_000)
            taken = await newcomer.claim(epoch="", new_epoch="e3")
            assert taken is not None
            assert await newcomer.renew(taken.value, epoch="e3", mark="m", confirmed=None) == Renewal(0, heard=True)
    finally:
        await raw.execute_command("ACL", "DELUSER", "narrow")


async def test_bridges_in_step_that_died_are_forgotten_beyond_a_number(raw: Redis) -> None:
    follower = (await begin_to_lead(raw))[0]
    now = int((await raw.time())[0]) * 1000
    await raw.zadd(keys.BRIDGE_READY, {f"dead{n}": now - n * 60_000 for n in range(1, 100)})
    await raw.zadd(
        keys.BRIDGE_READY, {f"ahead{n}": now + n * 60_000 for n in range(1, 100)}
    )  # before the clock went back
    async with subscribed(follower):
        await follower.claim(epoch="e1", new_epoch="e2")
    assert await raw.zrevrange(keys.BRIDGE_READY, 0, 1) == [b"me", b"dead1"]
    assert await raw.zcard(keys.BRIDGE_READY) == 64


# Alerts --------------------------------------------------------------------------------------------------------


async def test_cooldown_and_outbox_entry_come_together_or_not_at_all(raw: Redis) -> None:
    outbox = Outbox(raw)
    raised = await outbox.raise_([alert(1, state=change(1, "s1")), alert(2), alert(1)])
    assert raised == [0, 0, pytest.approx(100_000, abs=5_000)]
    assert [e[b"data"] for _, e in await raw.xrange(keys.OUTBOX)] == [b"data 1", b"data 2"]
    assert await raw.get(keys.cooldown("e", "success_threshold", "f1")) == b"id1"
    assert await outbox.states(["e"]) == {"e": {"f1": b"s1"}}

    await raw.delete(keys.OUTBOX)
    await raw.set(keys.OUTBOX, "not a stream")
    with pytest.raises(ResponseError) as caught:
        await outbox.raise_([alert(3), alert(4)])
    assert classify(caught.value).remedy is Remedy.FATAL
    assert not await raw.exists(keys.cooldown("e", "success_threshold", "f3"))


async def test_wrong_type_under_one_experiments_alert_state_costs_only_that_state(raw: Redis) -> None:
    await raw.rpush(keys.alert_state("bad"), "x")
    await raw.lpush(keys.cooldown("odd", "success_threshold", "f2"), "x")
    raised = await Outbox(raw).raise_(
        [alert(1, experiment="bad", state=change(1, "s", experiment="bad")), alert(2, experiment="odd"), alert(3)]
    )
    assert raised == [0, 1, 0]
    assert await Outbox(raw).states(["bad"]) == {"bad": {}}


async def test_decision_on_a_state_that_somebody_has_changed_meanwhile_does_nothing(raw: Redis) -> None:
    outbox = Outbox(raw)
    assert await outbox.raise_([alert(1, state=change(1, "told"))]) == [0]
    await raw.delete(keys.cooldown("e", "success_threshold", "f1"))
    assert await outbox.raise_([alert(1, state=change(1, "again"))]) == [OVERTAKEN]
    assert await outbox.states(["e"]) == {"e": {"f1": b"told"}}
    assert await raw.xlen(keys.OUTBOX) == 1
    assert not await raw.exists(keys.cooldown("e", "success_threshold", "f1"))
    assert await outbox.raise_([alert(1, state=change(1, "again", expected=b"told"))]) == [0]


async def test_state_that_is_decided_without_an_alert_or_held_back_by_a_cooldown_is_kept(raw: Redis) -> None:
    outbox = Outbox(raw)
    quiet = replace(alert(1, state=change(1, "", held="rose")), data="")
    assert await outbox.raise_([quiet]) == [NOTED]
    assert not await raw.exists(keys.OUTBOX)
    await raw.set(keys.cooldown("e", "success_threshold", "f1"), "other", ex=50)
    held = alert(1, state=change(1, "told", expected=b"rose", held="held"))
    assert await outbox.raise_([held]) == [pytest.approx(50_000, abs=5_000)]
    assert await outbox.states(["e"]) == {"e": {"f1": b"held"}}
    gone = replace(alert(1, state=change(1, "", expected=b"held", held="")), data="")
    assert await outbox.raise_([gone]) == [NOTED]
    assert await outbox.states(["e"]) == {"e": {}}


async def test_delivery_publishes_once_and_only_to_listeners(raw: Redis) -> None:
    value = await Lease(raw, name=keys.LEASE_DISPATCHER, owner="me", ttl_ms=50_000).acquire() or ""
    delivery = Delivery(reader=raw, client=raw, consumer="me", channel=CHANNEL)
    await delivery.ensure_group()
    await Outbox(raw).raise_([alert(1)])
    (entry,) = await delivery.read(count=9, block_ms=1)
    assert await delivery.deliver(value, entry, ttl_ms=60_000, replaceable=False) == 0
    async with raw.pubsub() as listener:
        await listener.subscribe(CHANNEL)
        await listener.get_message(timeout=1)
        assert await delivery.deliver(value, entry, ttl_ms=60_000, replaceable=False) == 1
        assert await delivery.deliver(value, entry, ttl_ms=60_000, replaceable=False) == NOT_PENDING
        assert (await listener.get_message(timeout=1))["data"] == b"data 1"
        assert await listener.get_message(timeout=0.05) is None
    assert not await raw.exists(keys.UNDELIVERED)


async def test_lost_group_of_the_outbox_is_recreated_after_what_was_delivered_or_given_up(raw: Redis) -> None:
    value = await Lease(raw, name=keys.LEASE_DISPATCHER, owner="me", ttl_ms=50_000).acquire() or ""
    delivery = Delivery(reader=raw, client=raw, consumer="me", channel=CHANNEL)
    await delivery.ensure_group()
    await Outbox(raw).raise_([alert(n) for n in range(4)])
    first, second, *_ = await delivery.read(count=3, block_ms=1)
    async with raw.pubsub() as listener:
        await listener.subscribe(CHANNEL)
        await listener.get_message(timeout=1)
        assert await delivery.deliver(value, first, ttl_ms=60_000, replaceable=False) == 1
    assert await delivery.deliver(value, second, ttl_ms=-1, replaceable=False) == GIVEN_UP

    await raw.xgroup_destroy(keys.OUTBOX, keys.DISPATCHER_GROUP)
    await delivery.ensure_group()

    assert [entry.data for entry in await delivery.read(count=9, block_ms=1)] == ["data 2", "data 3"]


async def test_batch_that_is_partly_written_is_continued_with_each_events_own_time(raw: Redis) -> None:
    mirror, claim = await begin_to_lead(raw)
    events = [(1, b"a"), (1, b"b"), (2, b"c"), (2, b"d"), (2, b"e"), (1, b"f")]
    for upto in (1, 3, 3, 4, 6):
        written = await mirror.write(claim.value, epoch=claim.epoch, batch=Mirrored(1, 1, events[:upto]))
        assert (written.outcome, written.position) == ("written", upto)
    entries = await raw.xrange(keys.STREAM)
    assert [(int(fields[b"at"]), fields[b"data"]) for _, fields in entries] == events


async def test_event_from_the_future_does_not_pin_its_experiment_in_the_index(raw: Redis) -> None:
    stream = event_stream(raw)
    seconds, _ = await raw.time()
    past, future = (seconds - 100) * 1000, (seconds + 100_000) * 1000
    for experiment, at_ms in (("ahead", future), ("behind", past)):
        await raw.xadd(keys.STREAM, {"data": b"{}"})
        await stream.ensure_group()
        (entry,) = await stream.read_new(count=1, block_ms=1)
        change = update(experiment, a=1)
        change.plan["last_ms"] = at_ms
        assert isinstance(await stream.apply(Batch([entry.id], [change])), Applied)
    scores = await Aggregates(raw).all()
    assert scores["behind"] == past
    assert seconds * 1000 <= scores["ahead"] <= (seconds + 60) * 1000


# Derived metrics -----------------------------------------------------------------------------------------------


async def test_derived_metrics_are_written_only_beside_the_sums_they_belong_to(raw: Redis) -> None:
    await raw.hset(keys.aggregate("now"), mapping={"events_total": "5", "old": "1"})
    await raw.hset(keys.aggregate("moved_on"), mapping={"events_total": "6", "old": "1"})
    await raw.set(keys.aggregate("broken"), "not a hash")
    updates = [DerivedUpdate(i, "5", {"rate": "0.5", "x": "1"}, ["old"]) for i in ("broken", "moved_on", "now", "gone")]

    await Aggregates(raw).write_derived(updates)

    assert await raw.hgetall(keys.aggregate("now")) == {b"events_total": b"5", b"rate": b"0.5", b"x": b"1"}
    assert await raw.hgetall(keys.aggregate("moved_on")) == {b"events_total": b"6", b"old": b"1"}
    assert not await raw.exists(keys.aggregate("gone"))
