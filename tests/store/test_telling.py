"""Telling with a real server: many at a time tell a crossing once, and what cannot be kept costs only itself."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.alerts import Crossing
from redis_agent.clock import Clock
from redis_agent.lifecycle import Level, Policy
from redis_agent.store import keys
from redis_agent.store.outbox import Outbox
from redis_agent.store.silences import Silences
from redis_agent.telemetry import Telemetry
from redis_agent.telling import Finding, Teller

START_MS = 1_769_940_000_000
MINUTE = 60_000
TELEMETRY = Telemetry()


class Simulated(Clock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.ms / 1000, UTC)

    def now_ms(self) -> int:
        return self.ms


def crossing(fingerprint: str = "f", kind: str = "failure") -> Crossing:
    return Crossing(
        kind=kind, criterion="bounce_rate > 0.05", fingerprint=fingerprint, metric="bounce_rate", operator=">",
        threshold=0.05, value=0.07, samples=None, interval=None, evidence="fact", reason="0.07 is above 0.05",
    )  # fmt: skip


def finding(level: Level, *, events: int = 1, experiment: str = "e", fingerprint: str = "f") -> Finding:
    known = frozenset({fingerprint})
    return Finding(
        experiment, events, 0, {fingerprint: level}, {fingerprint: lambda: crossing(fingerprint)}, known, known
    )


@pytest.fixture
def clock() -> Simulated:
    return Simulated()


def teller(raw: Redis, clock: Clock, *, notify_cleared: bool = False) -> Teller:
    return Teller(
        outbox=Outbox(raw),
        telemetry=TELEMETRY,
        clock=clock,
        policy=Policy(cooldown_ms=5 * MINUTE, backoff=2.0, early=True),
        notify_cleared=notify_cleared,
    )


async def told(raw: Redis) -> list[dict[str, Any]]:
    return [json.loads(fields[b"data"]) for _, fields in await raw.xrange(keys.OUTBOX)]


async def test_crossing_that_many_find_at_once_is_told_once(raw: Redis, clock: Simulated) -> None:
    tellers = [teller(raw, clock) for _ in range(20)]
    for n in range(3):
        found = [finding(Level.CONFIRMED, experiment=e) for e in ("a", "b")]
        await asyncio.gather(*[one.tell(found) for one in tellers])
        assert sorted(alert["experiment_id"] for alert in await told(raw)) == ["a", "b"], n
    (state,) = (await raw.hgetall(keys.alert_state("a"))).values()
    assert json.loads(state)["told"] == 1


@pytest.mark.parametrize("wanted", [False, True])
async def test_cleared_failure_is_told_once_if_that_is_wanted(raw: Redis, clock: Simulated, wanted: bool) -> None:
    for n, level in enumerate((Level.CONFIRMED, Level.INACTIVE, Level.INACTIVE, Level.CONFIRMED, Level.INACTIVE)):
        clock.ms += MINUTE // 6
        tellers = [teller(raw, clock, notify_cleared=wanted) for _ in range(5)]
        await asyncio.gather(*[one.tell([finding(level, events=n)]) for one in tellers])
    alerts = await told(raw)
    assert [alert["type"] for alert in alerts] == ["failure_threshold", "cleared"][: 1 + wanted]
    if wanted:
        assert (alerts[1]["severity"], alerts[1]["criterion"]) == ("info", "bounce_rate > 0.05")
        assert "not met any more" in alerts[1]["message"]


@pytest.mark.parametrize("kind", [None, "failure_threshold"])
async def test_muted_crossing_is_told_when_the_silence_is_over(raw: Redis, clock: Simulated, kind: str | None) -> None:
    silences = Silences(raw)
    await silences.add("e", kind, seconds=100, since="now")
    await silences.add("e", "error", seconds=100, since="now")
    assert [(s.experiment_id, s.type) for s in await silences.all()] == [
        ("e", None if kind is None else "error"),
        ("e", "error" if kind is None else kind),
    ]
    before = silenced()
    for n in range(3):
        await teller(raw, clock).tell([finding(Level.CONFIRMED, experiment=e, events=n) for e in ("e", "other")])
    assert [alert["experiment_id"] for alert in await told(raw)] == ["other"]
    assert silenced() == before + 1, "once for each crossing"
    assert not await raw.exists(keys.cooldown("e", "failure_threshold", "f"))
    assert await silences.remove("e", kind)
    assert not await silences.remove("e", kind)
    await teller(raw, clock).tell([finding(Level.CONFIRMED, events=9)])
    assert [alert["experiment_id"] for alert in await told(raw)] == ["other", "e"]


def silenced() -> float:
    sample = TELEMETRY.registry.get_sample_value(
        "redis_agent_alerts_total", {"type": "failure_threshold", "severity": "high", "outcome": "silenced"}
    )
    return sample or 0.0


async def test_crossing_whose_state_was_lost_is_held_back_by_its_cooldown(raw: Redis, clock: Simulated) -> None:
    await teller(raw, clock).tell([finding(Level.CONFIRMED)])
    await raw.delete(keys.alert_state("e"))
    await teller(raw, clock).tell([finding(Level.CONFIRMED, events=2)])
    assert len(await told(raw)) == 1
    await raw.delete(keys.cooldown("e", "failure_threshold", "f"))
    await teller(raw, clock).tell([finding(Level.CONFIRMED, events=3)])
    assert len(await told(raw)) == 2


async def test_process_whose_clock_is_ahead_does_not_tell_too_early(raw: Redis, clock: Simulated) -> None:
    await teller(raw, clock).tell([finding(Level.CONFIRMED)])
    clock.ms += 3_600_000
    await teller(raw, clock).tell([finding(Level.CONFIRMED, events=2)])
    assert len(await told(raw)) == 1, "the cooldown runs by the server's clock"


async def test_what_is_remembered_of_a_criterion_that_is_gone_from_the_definition_goes_after_an_hour(
    raw: Redis, clock: Simulated
) -> None:
    await teller(raw, clock).tell([finding(Level.CONFIRMED, fingerprint="old")])
    for wait, left in ((0, {b"old", b"new"}), (3_600_001, {b"new"})):
        clock.ms += wait
        await teller(raw, clock).tell([finding(Level.CONFIRMED, fingerprint="new")])
        assert set(await raw.hkeys(keys.alert_state("e"))) == left


async def test_alert_state_of_the_wrong_type_costs_only_itself(raw: Redis, clock: Simulated) -> None:
    await raw.set(keys.alert_state("bad"), "x")
    await teller(raw, clock).tell([finding(Level.CONFIRMED, experiment=e) for e in ("bad", "good")])
    await teller(raw, clock).tell([finding(Level.CONFIRMED, experiment=e, events=2) for e in ("bad", "good")])
    assert [alert["experiment_id"] for alert in await told(raw)] == ["bad", "good"]
