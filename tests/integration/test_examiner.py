"""The examiner against a real server, on a clock of the test's: what it leaves out, and what holds it back."""

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.catalogue import Catalogue
from redis_agent.clock import Clock
from redis_agent.examiner import Examiner, Mark
from redis_agent.experiments import parse_experiment
from redis_agent.lifecycle import CriterionState, Level, Policy
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.anomalies import Anomalies, Standing
from redis_agent.store.client import connect
from redis_agent.store.definitions import Definitions
from redis_agent.store.lease import Leadership, Lease
from redis_agent.store.outbox import Outbox
from redis_agent.store.windows import Windows
from redis_agent.telemetry import Liveness, Telemetry

BEGIN = 1_767_571_200  # Monday, 2026-01-05
WINDOW, HOUR, DAY = 600, 3_600, 86_400


class SetClock(Clock):
    """A clock that the test sets, in seconds."""

    def __init__(self) -> None:
        self.at_s = BEGIN

    def now_ms(self) -> int:
        return 1000 * self.at_s


class Led(Leadership):
    """Leads with a lease that the test holds."""

    def __init__(self, value: str) -> None:
        self.held_value: str | None = value

    @property
    def value(self) -> str | None:
        return self.held_value


class World:
    """An experiment with steady events, and its examiner."""

    def __init__(self, client: Redis, lease: str) -> None:
        self.client, self.clock, self.telemetry = client, SetClock(), Telemetry()
        self.rng = random.Random(3)
        self.leadership = Led(lease)
        self.examiner = self.new_examiner()

    def new_examiner(self) -> Examiner:
        """As a new leader has it."""
        return Examiner(
            leadership=self.leadership,
            anomalies=Anomalies(self.client, ttl_seconds=DAY),
            windows=Windows(self.client),
            aggregates=Aggregates(self.client),
            catalogue=Catalogue(definitions=Definitions(self.client), telemetry=self.telemetry, ttl_seconds=0),
            outbox=Outbox(self.client),
            telemetry=self.telemetry,
            liveness=Liveness(),
            clock=self.clock,
            policy=Policy(60_000, 2.0, early=True),
            window_seconds=WINDOW,
            max_series=100,
            hours_kept=True,
        )

    async def put(self, at_s: int, experiment: str = "exp", **counts: int) -> None:
        """What the gate writes of a minute; its events came at its end."""
        fields = {"events": 1} | {f"{name}_count": count for name, count in counts.items()}
        for kind, start in (("minute", at_s), ("hour", at_s // HOUR * HOUR)):
            await self.client.hset(keys.window(experiment, kind, start), mapping=fields)
        await self.client.zadd(keys.EXPERIMENTS, {experiment: 1000 * (at_s + 60)}, gt=True)

    async def pass_hours(self, hours: float, *, sent: int = 50, bounced: int | None = None) -> None:
        """Windows with events, each examined as soon as it has closed; nothing where nothing is sent."""
        end = self.clock.at_s // WINDOW * WINDOW + int(hours * HOUR)
        for start in range(self.clock.at_s // WINDOW * WINDOW, end, WINDOW):
            if sent:
                bounces = self.rng.randrange(0, 3) if bounced is None else bounced
                await self.put(start + 60, email_sent=sent + self.rng.randrange(-9, 10), bounce=bounces)
            await self.at(start + WINDOW + 40)

    async def at(self, at_s: int) -> None:
        self.clock.at_s = at_s
        while await self.examiner.examine():
            pass

    async def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(fields[b"data"]) for _, fields in await self.client.xrange(keys.OUTBOX)]

    async def upto(self, experiment: str = "exp") -> int:
        return int(await self.client.hget(keys.anomalies(experiment), "upto") or 0)


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    client = connect(Address(redis_url), name="examiner")
    lease = await Lease(client, name=keys.LEASE_SCHEDULER, owner="test", ttl_ms=600_000).acquire()
    assert lease is not None
    yield World(client, lease)
    await client.aclose()


async def test_steady_events_are_no_news_and_a_burst_is_one_alert(world: World) -> None:
    await world.pass_hours(50)
    assert await world.alerts() == []
    await world.pass_hours(1, bounced=25)
    await world.pass_hours(3)
    assert world.telemetry.examined_until._value.get() == world.clock.at_s - 40
    (alert,) = await world.alerts()
    assert (alert["metric"], alert["anomaly"], alert["since"]) == ("bounce", "high", "2026-01-07T02:00:00.000Z")


async def test_a_new_leader_without_memory_goes_on_where_the_last_one_stopped(world: World) -> None:
    await world.pass_hours(49)
    world.examiner = world.new_examiner()
    await world.pass_hours(1, bounced=25)
    world.examiner = world.new_examiner()
    await world.pass_hours(1, bounced=25)
    assert len(await world.alerts()) == 1


async def test_two_days_without_a_scheduler_are_caught_up_with_and_told_as_far_as_they_are_news(world: World) -> None:
    # Nobody examines while these windows close.
    for start in range(BEGIN, BEGIN + 45 * HOUR, WINDOW):
        before, lately = 30 * HOUR <= start - BEGIN < 31 * HOUR, start - BEGIN >= 44.5 * HOUR
        bounced = 25 if before else 90 if lately else 1  # what is no larger than one that is known is no news
        await world.put(start + 60, email_sent=50 + world.rng.randrange(-9, 10), bounce=bounced)
    await world.at(BEGIN + 45 * HOUR + 40)
    assert await world.upto() == BEGIN + 45 * HOUR
    (alert,) = await world.alerts()
    assert alert["since"] == "2026-01-06T20:30:00.000Z", "the burst of the day before is history"


async def test_silence_of_the_agent_itself_is_no_anomaly(world: World) -> None:
    await world.pass_hours(72)
    at_work = world.clock.at_s
    # No bridge is at work for an hour: nothing closes. Then it is, and counts the gap.
    await world.client.hset(keys.BRIDGE, mapping={"at": 1000 * at_work, "gaps": 0})
    await world.at(at_work + HOUR)
    assert await world.upto() <= at_work
    await world.client.hset(keys.BRIDGE, mapping={"at": 1000 * (at_work + HOUR), "gaps": 1})
    world.examiner = world.new_examiner()
    await world.at(at_work + HOUR)
    assert await world.upto() == (at_work + HOUR - 30) // WINDOW * WINDOW
    await world.client.delete(keys.BRIDGE)
    await world.pass_hours(2)
    assert await world.alerts() == []


async def test_silence_of_the_publishers_is_told(world: World) -> None:
    await world.pass_hours(72)
    await world.pass_hours(3, sent=0)
    (alert,) = await world.alerts()
    assert (alert["metric"], alert["anomaly"]) == ("email_sent", "silence")


async def test_events_that_wait_to_be_applied_hold_back_the_windows_they_belong_to(world: World) -> None:
    await world.pass_hours(2)
    await world.client.xgroup_create(keys.STREAM, keys.GROUP, "0", mkstream=True)
    waiting = BEGIN + 2 * HOUR + 300
    await world.client.xadd(keys.STREAM, {"data": "{}"}, id=f"{1000 * waiting}-0")
    await world.at(BEGIN + 3 * HOUR)
    assert await world.upto() == BEGIN + 2 * HOUR
    await world.client.xreadgroup(keys.GROUP, "c", {keys.STREAM: ">"})
    await world.client.xack(keys.STREAM, keys.GROUP, f"{1000 * waiting}-0")
    await world.at(BEGIN + 3 * HOUR)
    assert await world.upto() == BEGIN + 3 * HOUR - WINDOW


async def test_failure_that_was_told_mutes_anomalies_until_it_is_over(world: World) -> None:
    definition = {"failure_criteria": '["bounce > 20"]', "success_criteria": '["email_sent > 5"]'}
    await world.client.hset("experiments:exp", mapping=definition)
    experiment = parse_experiment("exp", definition, None)
    failure, success = (next(c for c in experiment.criteria if c.kind == kind) for kind in ("failure", "success"))
    met = CriterionState(level=Level.CONFIRMED, open=True).dumps()
    await world.client.hset(keys.alert_state("exp"), success.fingerprint, met)
    await world.client.hset(keys.alert_state("exp"), failure.fingerprint, met)
    await world.pass_hours(50)
    await world.pass_hours(0.5, bounced=25)
    assert await world.alerts() == []
    muted = world.telemetry.alerts.labels("anomaly", "medium", "silenced")._value.get()
    assert muted >= 1
    await world.client.hdel(keys.alert_state("exp"), failure.fingerprint)
    await world.pass_hours(0.5, bounced=25)
    (alert,) = await world.alerts()
    assert alert["since"] == "2026-01-07T02:00:00.000Z", "it still goes on, and is told with its beginning"


async def test_muted_anomaly_is_told_when_the_silence_is_over_and_it_goes_on(world: World) -> None:
    await world.pass_hours(50)
    await world.client.set(keys.silence("exp", "anomaly"), "by hand")
    await world.pass_hours(1, bounced=25)
    assert await world.alerts() == []
    await world.client.delete(keys.silence("exp", "anomaly"))
    await world.pass_hours(0.5, bounced=25)
    assert len(await world.alerts()) == 1


@pytest.mark.parametrize("state", ["completed", "archived", "failed"])
async def test_experiment_that_is_over_is_not_examined(world: World, state: str) -> None:
    await world.client.hset("experiments:exp", "state", state)
    await world.pass_hours(1)
    assert await world.upto() == 0


async def test_key_that_somebody_else_made_costs_its_own_experiment_only(world: World) -> None:
    await world.client.set(keys.anomalies("other"), "mine")
    await world.put(BEGIN + 60, experiment="other", email_sent=1)
    await world.pass_hours(1)
    assert await world.upto() == BEGIN + HOUR
    assert await world.client.get(keys.anomalies("other")) == b"mine"


async def test_leader_that_lost_its_lease_writes_nothing(world: World) -> None:
    await world.pass_hours(1)
    await world.client.set(keys.LEASE_SCHEDULER, "999:another")
    await world.pass_hours(1)
    assert await world.upto() == BEGIN + HOUR


def test_what_was_lost_between_two_looks_blinds_the_windows_between_them() -> None:
    mark = Mark(0, 1_000_000)
    mark = mark.after(Standing(2_000_000, 0, ""), 2_010_000)
    assert mark.blind == ()
    mark = mark.after(Standing(3_000_000, 1, ""), 3_010_000)
    assert mark.blind == ((2_000_000, 3_010_000),)
    assert not mark.sees(1_900, 2_001)
    assert not mark.sees(3_000, 3_600)
    assert mark.sees(1_400, 2_000)
    assert mark.sees(3_600, 4_200)
    assert Mark.loads(mark.dumps()) == mark
    assert Mark.loads("") is Mark.loads("[1]") is Mark.loads('{"a": 1}') is None
    for n in range(100):
        mark = mark.after(Standing(4_000_000 + n, n + 2, ""), 4_000_000 + n)
    assert len(mark.blind) == 50
    assert mark.after(Standing(900_000_000, 101, ""), 900_000_000).blind == ()
