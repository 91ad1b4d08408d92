"""The gate's Lua and a model of it in Python, driven by the same random histories, never differ."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from redis_agent.aggregate import as_aggregate, fold
from redis_agent.clock import iso_from_ms
from redis_agent.events import MetricEvent, Unreadable, read
from redis_agent.folding import experiment_update
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.group import Created
from redis_agent.store.stream import (
    Applied,
    Batch,
    Conflict,
    DeadLetter,
    ErrorAlert,
    EventStream,
    Stale,
)
from redis_agent.windows import Retention
from tests.conftest import RunningServer
from tests.store.gate_model import HOURS_TTL, MINUTES_TTL, Event, Expected, GateModel, id_key

MAX_FIELDS, MAX_RAW, COOLDOWN_SECONDS = 16, 4, 1000
CONSUMERS = ("ann", "bob", "cyd")
BASE_MS = 1_700_000_000_000
RETENTION = Retention(MINUTES_TTL, HOURS_TTL)

# Histories -----------------------------------------------------------------------------------------------------

NASTY = st.sampled_from(
    [0, -0.0, 0.1, 0.2, 0.1 + 0.2, -0.3, 1e-7, 1e-12, 5e-13, 1.5e-12, -5e-13, 1e-300, 1e15, -1e15, 999999999999.9999,
     0.000000000001, -999999999999.0, 123456789.123456789, 1e12, 1e14 + 0.1, -1e-12, True, 33333333333333.33]
)  # fmt: skip
VALUES = st.one_of(
    NASTY,
    st.integers(-(10**15), 10**15),
    st.floats(-1e15, 1e15, allow_nan=False),
    st.decimals(-1000, 1000, places=6).map(float),
)
COUNTS = st.one_of(st.integers(0, 30), st.just(1_000_000_000))
BODIES = st.one_of(
    st.fixed_dictionaries({"event": st.sampled_from(["email_sent", "reply", "bounce"])}, optional={"count": COUNTS}),
    st.dictionaries(st.sampled_from(["rate", "score", "größe", "a b"]), VALUES, min_size=1, max_size=3),
    st.fixed_dictionaries({"event": st.just("batch"), "count": COUNTS, "rate": VALUES}),
    st.fixed_dictionaries({"event": st.just("error"), "error_type": st.sampled_from(["io", "auth"]), "n": st.just(5)}),
)
# Seconds between an event's own time and its arrival: within a minute, an hour, a day and beyond, and ahead.
LATE = st.one_of(
    st.sampled_from([0, 30, 59.9, 3_000, 7_000, 8_000, 86_000, 90_000, -30, -61, 1e9]), st.integers(0, 400)
)
EVENTS = st.builds(
    Event,
    experiment=st.sampled_from(["a", "a", "a", "b", "b", "c:d", "broken", ""]),
    body=st.one_of(BODIES, st.builds(lambda body, late: {**body, "timestamp": BASE_MS / 1000 - late}, BODIES, LATE)),
    at_ms=st.integers(BASE_MS, BASE_MS + 5_000),
)
CONSUMER = st.sampled_from(CONSUMERS)
PICKS = st.lists(st.integers(0, 200), min_size=1, max_size=8)
STEPS = st.one_of(
    st.tuples(st.just("publish"), st.lists(EVENTS, min_size=1, max_size=6)),
    st.tuples(st.just("publish"), st.lists(EVENTS, min_size=1, max_size=6)),
    st.tuples(st.just("read"), CONSUMER, st.integers(1, 6)),
    st.tuples(st.just("read"), CONSUMER, st.integers(1, 6)),
    st.tuples(st.just("finish"), CONSUMER),  # all that it holds, as a worker does
    st.tuples(st.just("finish"), CONSUMER),
    st.tuples(st.just("apply"), CONSUMER, PICKS),  # anything: others' entries, applied ones, unread ones
    st.tuples(st.just("apply twice"), CONSUMER, CONSUMER, PICKS),
    st.tuples(st.just("reclaim"), CONSUMER, st.integers(1, 6)),
    st.tuples(st.just("flush scripts")),
    st.tuples(st.just("lose the group")),
)


# What is driven -------------------------------------------------------------------------------------------------


class World:
    """The real gate and its model, side by side."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.streams = {
            name: EventStream(
                reader=client, client=client, consumer=name, max_fields=MAX_FIELDS, max_raw=MAX_RAW, max_dead=100_000
            )
            for name in CONSUMERS
        }
        self.model = GateModel(max_fields=MAX_FIELDS, max_raw=MAX_RAW)

    async def step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("publish", events):
                for event in events:
                    # Ids of our own: a history is the same each time, and sequences of 0 and above come up.
                    number = len(self.model.stream)
                    entry_id = f"{BASE_MS + number // 3}-{number % 3}"
                    await self.client.xadd(keys.STREAM, {"data": event.data, "at": event.at_ms}, id=entry_id)
                    self.model.stream.append((entry_id, event))
            case ("read", consumer, count):
                entries = await self.streams[consumer].read_new(count=count, block_ms=1)
                assert [e.id for e in entries] == self.model.read(consumer, count)
            case ("finish", consumer):
                own = await self.streams[consumer].read_own(after="0-0", count=1000)
                assert [e.id for e in own.entries] == self.model.own(consumer)
                await self.as_worker(consumer, [e.id for e in own.entries])
            case ("apply", consumer, picks):
                await self.as_worker(consumer, self.picked(picks))
            case ("apply twice", first, second, picks):
                ids = self.picked(picks)
                await self.as_worker(first, ids)
                await self.as_worker(second, ids)
            case ("reclaim", consumer, count):
                await self.client.delete(keys.RECLAIM)  # the model's scan begins at the beginning
                step = await self.streams[consumer].reclaim(idle_ms=0, every_ms=0, count=count)
                assert [e.id for e in step.entries] == self.model.reclaim(consumer, count)
            case ("flush scripts",):
                await self.client.script_flush()
            case ("lose the group",):
                self.model.lose_group()
                await self.client.xgroup_destroy(keys.STREAM, keys.GROUP)
                created = await self.streams["ann"].ensure_group()
                assert created == Created(self.model.floor or "0-0")
                await self.check()

    def picked(self, picks: Sequence[int]) -> list[str]:
        known = self.model.stream
        return list(dict.fromkeys(known[n % len(known)][0] for n in picks)) if known else []

    async def as_worker(self, consumer: str, ids: list[str]) -> None:
        """Apply as a worker does: again with what is still pending, again without an experiment that conflicts."""
        refused: set[str] = set()
        ids = sorted(ids, key=id_key)
        while ids:
            batch = self.fold(ids, refused)
            alerts = [(a.cooldown_key, a.alert_id, a.data) for a in batch.alerts]
            expected = self.model.apply(consumer, ids, refused=refused, alerts=alerts, broken={"broken"})
            outcome = await self.streams[consumer].apply(batch)
            self.compare(outcome, expected)
            await self.check()
            if isinstance(outcome, Stale):
                ids = [i for i in ids if i in outcome.pending]
            elif isinstance(outcome, Conflict):
                refused.add(outcome.experiment_id)
            else:
                return

    def fold(self, ids: Sequence[str], refused: set[str]) -> Batch:
        batch = Batch(list(ids))
        places = [n for n, (known, _) in enumerate(self.model.stream) if known in set(ids)]
        batch.contiguous = places[-1] - places[0] + 1 == len(ids)
        good: list[tuple[str, int, MetricEvent]] = []
        alerts: dict[str, ErrorAlert] = {}
        for position, entry_id in enumerate(ids):
            event = self.model.event(entry_id)
            reading = read(event.data, max_bytes=10_000)
            if isinstance(reading, Unreadable) or event.experiment in refused:
                readable = isinstance(reading, MetricEvent)
                reason = "wrong_type: x" if readable else str(reading)
                batch.dead.append(DeadLetter(position, reason, event.data, event.at_ms, readable))
                continue
            good.append((entry_id, event.at_ms, reading))
            if event.error_type is not None:
                key = keys.cooldown(event.experiment, "error", event.error_type)
                alert_id = str(uuid.uuid4())
                alerts.setdefault(key, ErrorAlert(key, COOLDOWN_SECONDS, alert_id, f"alert {alert_id}", event.at_ms))
        batch.updates = [experiment_update(change, RETENTION) for change in fold(good, RETENTION).values()]
        batch.alerts = list(alerts.values())
        return batch

    def compare(self, outcome: Applied | Stale | Conflict, expected: Expected) -> None:
        assert type(outcome).__name__.lower() == expected.outcome
        if isinstance(outcome, Stale):
            assert outcome.pending == expected.pending
        elif isinstance(outcome, Conflict):
            assert (outcome.experiment_id, outcome.key) == ("broken", keys.aggregate("broken"))
        else:
            assert outcome.raised == expected.raised
            assert set(outcome.refused) == expected.refused
            for experiment_id, fields in outcome.aggregates.items():
                assert fields == self.model.experiments[experiment_id].hash(iso_from_ms)

    # What Redis holds -------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Everything in Redis is as the model has it."""
        model, client = self.model, self.client
        for name, experiment in model.experiments.items():
            assert await self.aggregate(name) == experiment.hash(iso_from_ms)
            assert await client.lrange(keys.raw_events(name), 0, -1) == experiment.raw
        assert await client.get(keys.aggregate("broken")) == b"not a hash"
        pending = await client.xpending_range(keys.STREAM, keys.GROUP, "-", "+", 10_000)
        assert {p["message_id"].decode(): p["consumer"].decode() for p in pending} == model.pending
        dead = [
            (e[b"data"], e[b"reason"].decode().partition(":")[0], e[b"source_id"].decode())
            for _, e in await client.xrange(keys.DEAD_LETTERS)
        ]
        assert dead == model.dead
        assert {m.decode() for m in await client.smembers(keys.UNAPPLIED)} == model.unapplied
        assert [e[b"data"].decode() for _, e in await client.xrange(keys.OUTBOX)] == model.outbox
        assert {k.decode() async for k in client.scan_iter("redis_agent:cooldown:*")} == model.cooldowns.keys()
        for key, alert_id in model.cooldowns.items():
            assert (await client.get(key)).decode() == alert_id
            assert 0 < await client.ttl(key) <= COOLDOWN_SECONDS
        found = {k.decode() async for k in client.scan_iter("metrics_windows:*", count=1000)}
        assert found == model.windows.keys()
        for key, window in model.windows.items():
            assert {f.decode(): v.decode() for f, v in (await client.hgetall(key)).items()} == window.hash()
            assert 0 < await client.ttl(key) <= (MINUTES_TTL if ":minute:" in key else HOURS_TTL)
        floor = await client.get(keys.FLOOR)
        assert (floor.decode() if floor else None) == model.floor
        scores = await client.zrange(keys.EXPERIMENTS, 0, -1, withscores=True)
        assert {m.decode(): s for m, s in scores} == {n: max(e.times) for n, e in model.experiments.items()}

    async def aggregate(self, name: str) -> dict[str, str]:
        return {f.decode(): v.decode() for f, v in (await self.client.hgetall(keys.aggregate(name))).items()}

    async def check_against_fold(self) -> None:
        """The aggregates are, to the letter, one fold of all events that were applied."""
        for name, experiment in self.model.experiments.items():
            events = [(i, e.at_ms, read(e.data, max_bytes=10_000)) for i, e in experiment.applied]
            change = fold([(i, at, r) for i, at, r in events if isinstance(r, MetricEvent)])[name]
            kept = experiment.counters.keys()
            change.counters = {n: v for n, v in change.counters.items() if n in kept}
            change.gauges = {n: v for n, v in change.gauges.items() if n in experiment.gauges}
            assert await self.aggregate(name) == as_aggregate(change)


async def play(url: str, history: Sequence[tuple[Any, ...]]) -> None:
    client = connect(Address(url), name="gate-model")
    try:
        world = World(client)
        await client.set(keys.aggregate("broken"), "not a hash")
        await world.streams["ann"].ensure_group()
        for step in history:
            await world.step(step)
            await world.check()
        # Whatever was left is read, reclaimed and applied in the end: then each event counts once.
        await world.step(("read", "bob", 10_000))
        await world.step(("reclaim", "cyd", 10_000))
        await world.step(("finish", "cyd"))
        await world.check()
        assert not world.model.pending
        applied = [i for e in world.model.experiments.values() for i, _ in e.applied]
        assert sorted(applied + [i for _, _, i in world.model.dead]) == sorted(i for i, _ in world.model.stream)
        await world.check_against_fold()
    finally:
        await client.aclose()


def random_history(rng: random.Random, steps: int) -> list[tuple[Any, ...]]:
    """A long history; hypothesis draws short ones and shrinks them, this goes further from the start."""
    values: list[Any] = [0.1, 0.2, -0.3, 1e-12, 5e-13, 1e15, -1e15, 999999999999.9999, 1e12, -1e-12, 0, -0.0, True]

    def value() -> Any:
        return rng.choice([rng.choice(values), rng.uniform(-1e6, 1e6), rng.randint(-(10**15), 10**15)])

    def event() -> Event:
        bodies: list[dict[str, Any]] = [
            {"event": rng.choice(["email_sent", "reply", "bounce"]), "count": rng.randint(0, 9)},
            {"rate": value()},
            {"score": value(), "größe": value()},
            {"event": "batch", "rate": value()},
            {"event": "error", "error_type": rng.choice(["io", "auth"])},
        ]
        body, late = rng.choice(bodies), rng.choice([0, 10, 100, 1_000, 10_000, 100_000])
        if rng.random() < 0.3:
            body = {**body, "timestamp": BASE_MS / 1000 - rng.randint(0, late)}
        experiment = rng.choice(["a", "a", "b", "b", "broken", ""])
        return Event(experiment, body, BASE_MS + rng.randint(0, 10**6))

    def step() -> tuple[Any, ...]:
        who, other, picks = rng.choice(CONSUMERS), rng.choice(CONSUMERS), [rng.randrange(10**6) for _ in range(4)]
        ordinary = [("publish", [event() for _ in range(rng.randint(1, 5))]), ("read", who, rng.randint(1, 6))]
        ordinary += [("finish", who), ("reclaim", who, rng.randint(1, 5))]
        odd = [("apply", who, picks), ("apply twice", who, other, picks), ("flush scripts",), ("lose the group",)]
        return rng.choice(ordinary if rng.random() < 0.8 else odd)

    return [step() for _ in range(steps)]


@pytest.mark.parametrize("seed", range(4))
def test_gate_and_model_agree_over_a_long_history(running_server: RunningServer, seed: int) -> None:
    running_server.wipe()
    asyncio.run(play(running_server.url, random_history(random.Random(seed), 120)))


@settings(max_examples=60, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(history=st.lists(STEPS, min_size=5, max_size=40))
def test_gate_and_model_agree_after_every_step_of_any_history(
    running_server: RunningServer, history: list[tuple[Any, ...]]
) -> None:
    running_server.wipe()
    asyncio.run(play(running_server.url, history))


@settings(max_examples=30, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(st.lists(VALUES, min_size=1, max_size=6), min_size=1, max_size=25))
def test_sums_of_any_decimals_in_any_batches_are_exact(running_server: RunningServer, batches: list[list[Any]]) -> None:
    running_server.wipe()
    history: list[tuple[Any, ...]] = []
    for batch in batches:
        history += [("publish", [Event("a", {"rate": v}, BASE_MS) for v in batch]), ("read", "ann", 100)]
        history += [("finish", "ann")]
    asyncio.run(play(running_server.url, history))
