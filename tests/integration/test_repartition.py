"""The number of partitions is changed with all that is known of the experiments, wherever the command is killed."""

import asyncio
import contextlib
import json
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from redis.asyncio import Redis

from redis_agent import app, log
from redis_agent.cli import main
from redis_agent.config import Settings, load_settings
from redis_agent.errors import PartitionsError
from redis_agent.repartition import Report, repartition
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.dead_letters import DeadLetters
from redis_agent.store.inspection import Inspection
from redis_agent.store.partitions import Partitions, Recorded
from redis_agent.store.tuned import Tuned
from tests.seeds import SEED
from tests.waiting import eventually

EXPERIMENTS = [f"exp-{n}" for n in range(9)] + ["exp:colon", "é{x}"]

LASTING_A_TIME = (b"metrics_windows:", b"redis_agent:cooldown:", b"redis_agent:silence:", b"redis_agent:anomalies:")
OF_EXPERIMENTS = (b"metrics:", b"redis_agent:fold_state:", b"redis_agent:alert_state:", *LASTING_A_TIME)


@contextlib.asynccontextmanager
async def partitions_of(redis_url: str, count: int) -> AsyncIterator[Partitions]:
    found = Partitions(Address(redis_url), count, name="test")
    yield found
    await found.aclose()


def lasting(names: list[str]) -> set[str]:
    """But for what begins anew."""
    return {name for name in names if not name.endswith((":fence", ":scheduler", ":reclaim", ":copied"))}


async def command(redis_url: str, *args: str, partitions: int = 1) -> tuple[int, Any]:
    env = {"REDIS_URL": redis_url, "REDIS_AGENT_PARTITIONS": str(partitions)}
    done = await asyncio.to_thread(CliRunner().invoke, main, [*args, "--json"], env=env)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout) if done.stdout else done.stderr


async def change(redis_url: str, to: int, *more: str) -> Any:
    code, document = await command(redis_url, "repartition", "--to", str(to), "--yes", *more)
    assert code == 0, document
    return document


async def state(redis_url: str, count: int) -> dict[str, Any]:
    """What is known of the experiments, wherever it is: it must be the same before and after."""
    async with partitions_of(redis_url, count) as partitions:
        found: dict[str, Any] = {"index": {}, "letters": set(), "alerts": set(), "events": {}}
        for partition in partitions.all:
            client = partition.client
            for one, aggregate in (await Aggregates(client).read(EXPERIMENTS)).items():
                assert partitions.of(one) is partition
                found[one] = aggregate
            found["index"] |= await Aggregates(client).all()
            found["letters"] |= {(letter.reason, letter.data) async for letter in DeadLetters(client).all()}
            async for alert in Inspection(client).alerts(await Inspection(client).given_up()):
                found["alerts"].add((alert.data, alert.delivered, alert.analysis))
            async for page in Inspection(client).entries():
                for entry in page:
                    found["events"].setdefault(entry.data, []).append(entry.at_ms)
            names = [key async for key in client.scan_iter(count=1_000) if key.startswith(OF_EXPERIMENTS)]
            async with client.pipeline(transaction=False) as pipe:
                for key in names:
                    pipe.dump(key)
                    pipe.pttl(key)
                replies = await pipe.execute()
            for key, dump, ttl_ms in zip(names, replies[::2], replies[1::2], strict=True):
                assert key.decode() not in found
                found[key.decode()] = dump
                assert (ttl_ms > 0) == key.startswith(LASTING_A_TIME)
        return found


def settings_of(redis_url: str, count: int) -> Settings:
    environment = {"REDIS_URL": redis_url, "REDIS_AGENT_HTTP_PORT": "0", "REDIS_AGENT_PARTITIONS": str(count)}
    return load_settings(environment | {"REDIS_AGENT_LEASE_SECONDS": "1", "SUMMARY_INTERVAL_SECONDS": "2592000"})


@contextlib.asynccontextmanager
async def agent(redis_url: str, count: int) -> AsyncIterator[None]:
    """All roles in this process, leading everywhere."""
    log.configure(level="error", form="json")
    stop = asyncio.Event()
    running = asyncio.create_task(app.run(settings_of(redis_url, count), roles=frozenset(app.ROLES), stop=stop))
    try:
        async with partitions_of(redis_url, count) as partitions:

            async def lead() -> bool:
                assert not running.done(), running.exception()
                leaders = [await Inspection(p.client).leader(keys.LEASE_BRIDGE) for p in partitions.all]
                return None not in leaders

            await eventually(lead, 20)
        yield
    finally:
        stop.set()
        assert await asyncio.wait_for(running, 30) == 0


async def whole_run(redis_url: str, client: Redis, count: int, *, first: int = 0) -> list[Any]:
    """Agents apply events, tell alerts and bury what is no event, until all is done; the alerts that were heard."""
    for one in EXPERIMENTS:
        definition = {"hypothesis": one, "success_criteria": '["sent_count > 3"]', "state": "running"}
        await client.hset(keys.experiment(one), mapping=definition)
    heard = client.pubsub()
    await heard.subscribe("fullsend:to_orchestrator")
    async with agent(redis_url, count):
        for n in range(first, first + 5 * len(EXPERIMENTS)):
            event = {"experiment_id": EXPERIMENTS[n % len(EXPERIMENTS)], "event": "sent", "score": n}
            await client.publish("fullsend:metrics", json.dumps(event, ensure_ascii=False))
        for n in range(6):
            await client.publish("fullsend:metrics", f"no json {first + n}")
        error = {"experiment_id": "exp-3", "event": "error", "message": "broken"}
        await client.publish("fullsend:metrics", json.dumps(error))

        async def done() -> bool:
            document = (await command(redis_url, "status", partitions=count))[1]
            stream, alerts = document["stream"], document["alerts"]
            assert stream["dead_letters"] >= 6
            return stream["lag"] == stream["pending"] == alerts["waiting"] == 0

        await eventually(done, 20, interval=0.1)
        await asyncio.sleep(0.6)
        await eventually(done, 20, interval=0.1)
    told = []
    while (message := await heard.get_message(timeout=0.05)) is not None:
        if message["type"] == "message":
            told.append(json.loads(message["data"]))
    await heard.aclose()
    return told


# Killed anywhere ---------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """What ends a change here as SIGKILL would: nothing more is sent."""


class Knife:
    """Ends a change so many commands, or pipelines of them, into a step; with a half, one more is sent unanswered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        self.steps: list[int] = []
        self._after = math.inf
        self._dead = False
        send = Tuned.send_packed_command

        async def counted(connection: Any, *args: Any, **more: Any) -> None:
            if connection.client_name != "redis-agent:repartition":
                await send(connection, *args, **more)
                return
            if self._dead or self.sent == self._after:
                self._dead = True
                raise KilledError
            await send(connection, *args, **more)
            self.sent += 1
            if self.sent == self._after + 0.5:
                self._dead = True
                raise KilledError

        monkeypatch.setattr(Tuned, "send_packed_command", counted)

    async def change(self, redis_url: str, to: int, *, step: int = -1, after: float = 0) -> Report:
        """Change the number of partitions in this process; each step but the first begins with a line that is said."""
        self.sent, self._after, self._dead = 0, math.inf if step else after, False
        self.steps = [0]

        def say(line: str) -> None:
            assert line
            self.steps.append(self.sent)
            if len(self.steps) == step + 1:
                self._after = self.sent + after

        return await repartition(load_settings({"REDIS_URL": redis_url}), to, dry_run=False, say=say)

    def moments(self, rng: random.Random) -> list[tuple[int, float]]:
        """A moment in each step of the last change."""
        lengths = [b - a for a, b in pairwise([*self.steps, self.sent])]
        return [(step, rng.randrange(2 * length) / 2) for step, length in enumerate(lengths)]


@pytest.fixture
def knife(monkeypatch: pytest.MonkeyPatch) -> Knife:
    return Knife(monkeypatch)


async def test_change_that_is_killed_anywhere_is_ended_or_taken_back_and_nothing_is_lost(
    redis_url: str, client: Redis, knife: Knife
) -> None:
    print(f"seed: {SEED}")
    rng = random.Random(SEED)
    await whole_run(redis_url, client, 4)
    await client.set("of somebody else", "1")
    before, count, seen = await state(redis_url, 4), 4, Counter[str]()
    for to in (6, 1, 3):
        names = await client.keys()
        await knife.change(redis_url, to)
        moments = knife.moments(rng)
        assert await state(redis_url, to) == before
        await knife.change(redis_url, count)
        assert lasting(await client.keys()) == lasting(names)
        names = await client.keys()
        for step, after in moments:
            with contextlib.suppress(KilledError):
                await knife.change(redis_url, to, step=step, after=after)
            begun = await under_way(redis_url)
            seen["none" if begun is None else "settled" if begun.settled else "copying"] += 1
            if begun is not None:
                with pytest.raises(PartitionsError, match=f"being changed from {count} to {to}"):
                    await app.run(settings_of(redis_url, rng.choice((count, to))), roles=frozenset({"worker"}))
            if begun is None or begun.settled:
                await knife.change(redis_url, to)
                assert await state(redis_url, to) == before
                await knife.change(redis_url, count)
            elif rng.random() < 0.5:
                assert (await knife.change(redis_url, count)).outcome == "taken_back"
                assert lasting(await client.keys()) == lasting(names)
                assert await state(redis_url, count) == before
        await knife.change(redis_url, to)
        assert await state(redis_url, to) == before
        assert await under_way(redis_url) is None
        count = to
    assert await client.get("of somebody else") == "1"
    assert seen["copying"] >= 6, seen
    assert seen["settled"] >= 3, seen


async def under_way(redis_url: str) -> Recorded | None:
    async with partitions_of(redis_url, 1) as partitions:
        recorded = await partitions.recorded()
    return None if recorded is None or recorded.becoming is None else recorded


async def test_agents_go_on_where_those_of_another_number_ended(redis_url: str, client: Redis) -> None:
    told = await whole_run(redis_url, client, 1)
    assert Counter(one["type"] for one in told) == {"success_threshold": len(EXPERIMENTS) - 1, "error": 1}
    await command(redis_url, "silence", "exp-8", "--for", "1h")
    for runs, (before, after) in enumerate(((1, 4), (4, 6), (6, 1)), 1):
        code, possible = await command(redis_url, "repartition", "--to", str(after), "--dry-run")
        assert (code, possible["outcome"], possible["experiments"]) == (0, "possible", len(EXPERIMENTS))
        done = await change(redis_url, after)
        assert (done["outcome"], done["before"], done["after"]) == ("changed", before, after)
        counts = ("experiments", "keys", "events", "dead_letters", "alerts")
        assert [done[name] for name in counts] == [possible[name] for name in counts]
        assert (await change(redis_url, after))["outcome"] == "unchanged"

        told = await whole_run(redis_url, client, after, first=5 * runs * len(EXPERIMENTS))

        assert told == [], "criteria are met as they were, and the error's cooldown is not over"
        agreed = (await command(redis_url, "replay", partitions=after))[1]
        assert (agreed["agree"], agreed["experiments"], agreed["not_comparable"]) == (True, len(EXPERIMENTS), 0)
        async with partitions_of(redis_url, after) as partitions:
            for one in EXPERIMENTS:
                await is_copied(client, partitions, one, sent=5 * (runs + 1))
            gaps = [int(await p.client.hget(keys.BRIDGE, "gaps") or 0) for p in partitions.all]
        assert gaps == [runs] * after, "what was published between two runs was missed, and that is known"
        silenced = (await command(redis_url, "silence", "--list", partitions=after))[1]
        assert [one["experiment_id"] for one in silenced] == ["exp-8"]
        namespaces = {key.partition(":")[0] for key in await client.keys("{redis_agent-*")}
        assert namespaces == {f"{{redis_agent-{n}}}" for n in range(after if after > 1 else 0)}
    assert not await client.keys("*:copied")


async def is_copied(client: Redis, partitions: Partitions, experiment: str, *, sent: int) -> None:
    """The sums are exact, and others read the same."""
    partition = partitions.of(experiment).client
    aggregate = (await Aggregates(partition).read([experiment]))[experiment]
    assert aggregate["sent_count"] == str(sent)
    assert await client.hgetall(keys.aggregate(experiment)) == aggregate
    events = [event.decode() for event in await partition.lrange(keys.raw_events(experiment), 0, -1)]
    assert await client.lrange(keys.raw_events(experiment), 0, -1) == events
    assert len(events) == int(aggregate["events_total"])


# What is in the way --------------------------------------------------------------------------------------------


async def obstacles(redis_url: str, to: int = 3) -> list[tuple[int | None, str]]:
    code, report = await command(redis_url, "repartition", "--to", str(to), "--yes")
    assert (code, report["outcome"]) == (1, "blocked")
    assert all(one["remedy"] for one in report["obstacles"])
    return [(one["partition"], one["what"]) for one in report["obstacles"]]


async def test_what_is_in_the_way_is_said_and_nothing_is_changed(redis_url: str, client: Redis) -> None:
    async with partitions_of(redis_url, 2) as partitions:
        await partitions.check()
        first, second = (partition.client for partition in partitions.all)
        await first.zadd(keys.REPLICAS, {"host-1|bridge,worker": 1000 * int((await client.time())[0])})
        await second.set(keys.LEASE_SCHEDULER, "1:host-1-0a")
        await second.xadd(keys.STREAM, {"data": "{}"})
        await first.xadd(keys.STREAM, {"data": "{}"})
        for name in (keys.GROUP, "others"):
            await first.xgroup_create(keys.STREAM, name, id="0")
            await first.xreadgroup(name, "dead", {keys.STREAM: ">"})
        await second.xadd(keys.OUTBOX, {"data": "{}"})
        names = sorted(await client.keys())
        assert await obstacles(redis_url) == [
            (None, "the agent host-1 runs (bridge, worker)"),
            (1, "host-1-0a holds the lease of the scheduler"),
            (0, "events are not applied: 0 unread, 1 pending"),
            (0, f"the group others, which is not the agent's, has not acked all of {keys.STREAM}"),
            (1, "events are not applied: 1 unread, 0 pending"),
            (1, "alerts wait for somebody who receives them"),
        ]
        assert sorted(await client.keys()) == names
        assert await client.get(keys.PARTITIONS) == "2"
        assert (await command(redis_url, "repartition", "--to", "3", "--dry-run"))[0] == 1
        # A change that was begun before somebody wrote is not in the way of taking it back.
        await first.delete(keys.REPLICAS)
        await second.delete(keys.LEASE_SCHEDULER)
        await client.set(keys.PARTITIONS, "2>3 copying 1f")
        assert len(await obstacles(redis_url)) == 4
        assert (await change(redis_url, 2))["outcome"] == "taken_back"
    assert await client.get(keys.PARTITIONS) == "2"


async def test_state_whose_number_was_forgotten_is_not_deleted(redis_url: str, client: Redis) -> None:
    async with partitions_of(redis_url, 4) as partitions:
        await partitions.of("exp-0").client.hset(keys.aggregate("exp-0"), "events_total", "1")
        await partitions.home.client.zadd(keys.REPLICAS, {"killed long ago|worker": 1})
        found = await obstacles(redis_url, 6)
        number = partitions.of("exp-0").number
        key = f"{partitions.of('exp-0').namespace}{keys.aggregate('exp-0')}"
        assert found == [(number, f"there is something already, such as {key}")]
        await client.set(keys.PARTITIONS, "4")
        assert (await change(redis_url, 6))["outcome"] == "changed"
    await client.xadd(keys.STREAM, {"data": "{}"})
    assert [where for where, _ in await obstacles(redis_url, 1)] == [0]


async def test_user_needs_no_more_than_the_documentation_says(redis_url: str, client: Redis) -> None:
    rights = "+client -@admin -@dangerous +@read +@write -flushall -flushdb -swapdb +eval +evalsha +ping +info +time"
    names = "fullsend:* metrics_aggregated:* metrics:* metrics_windows:* redis_agent:* {redis_agent-* {metrics:*"
    given = ["resetkeys", "-@all", *rights.split(), *(f"~{pattern}" for pattern in names.split())]
    await client.execute_command("ACL", "SETUSER", "mover", "on", ">pw", *given)
    await client.execute_command("ACL", "LOG", "RESET")  # what tests before this one were refused
    try:
        await client.hset(keys.aggregate("exp-0"), mapping={"events_total": "1"})
        await client.zadd(keys.EXPERIMENTS, {"exp-0": 1})
        await client.set("of somebody else", "1")
        await client.xadd(keys.STREAM, {"data": '{"experiment_id":"exp-0","event":"sent"}'})
        await client.xgroup_create(keys.STREAM, keys.GROUP, id="$")
        url = redis_url.replace("redis://", "redis://mover:pw@")
        for to in (3, 2, 1):
            assert (await change(url, to))["events"] == 1
        assert await client.hgetall(keys.aggregate("exp-0")) == {"events_total": "1"}
        assert await client.execute_command("ACL", "LOG") == []
    finally:
        await client.execute_command("ACL", "DELUSER", "mover")


async def test_change_that_is_under_way_is_ended_before_another_begins(redis_url: str, client: Redis) -> None:
    for recorded, wrong, remedy in (
        ("2>3 copying 1f", 4, "end it first, with --to 3, or take it back with --to 2"),
        ("2>3 settled 1f", 2, "end it first, with --to 3"),
    ):
        await client.set(keys.PARTITIONS, recorded)
        code, said = await command(redis_url, "repartition", "--to", str(wrong), "--yes")
        assert (code, remedy in said) == (1, True)
    assert (await change(redis_url, 3))["outcome"] == "changed"
    assert await client.get(keys.PARTITIONS) == "3"


async def test_run_that_another_has_taken_over_from_settles_nothing(redis_url: str, client: Redis) -> None:
    await client.xadd(keys.STREAM, {"data": "{}"})
    await client.xgroup_create(keys.STREAM, keys.GROUP, id="$")

    def say(line: str) -> None:
        if line == "comparing":
            with redis.Redis.from_url(redis_url) as other:
                other.set(keys.PARTITIONS, "1>3 copying 0f")

    with pytest.raises(PartitionsError, match="somebody else"):
        await repartition(load_settings({"REDIS_URL": redis_url}), 3, dry_run=False, say=say)
    assert await client.get(keys.PARTITIONS) == "1>3 copying 0f"
    assert await client.xlen(keys.STREAM) == 1


async def test_agent_that_slept_while_the_number_was_changed_ends(redis_url: str, client: Redis) -> None:
    running = asyncio.create_task(app.run(settings_of(redis_url, 1), roles=frozenset({"worker"})))

    async def at_work() -> bool:
        return bool(await client.exists(keys.STREAM))

    await eventually(at_work)
    await client.set(keys.PARTITIONS, "3")
    with pytest.raises(PartitionsError, match="is of 3 partitions"):
        await asyncio.wait_for(running, 10)


async def test_agent_and_change_that_begin_at_once_see_each_other(redis_url: str, client: Redis) -> None:
    """An agent is in the roster before it looks whether the number is being changed; the change looks after noting."""
    await client.set(keys.PARTITIONS, "1>3 copying 1f")
    order = []
    async with client.monitor() as monitor:
        with pytest.raises(PartitionsError, match="being changed"):
            await app.run(settings_of(redis_url, 1), roles=frozenset({"worker"}))
        await client.echo("end")
        async for said in monitor.listen():
            order.append(said["command"])
            if said["command"] == "ECHO end":
                break
    entered = next(n for n, one in enumerate(order) if one.startswith(f"ZADD {keys.REPLICAS}"))
    assert entered < order.index(f"GET {keys.PARTITIONS}")
    assert await client.zcard(keys.REPLICAS) == 0, "it has left again"
    with pytest.raises(PartitionsError, match="stop all agents"):
        await changed_by_one_that_enters(redis_url)
    assert (await change(redis_url, 1))["outcome"] == "taken_back"


async def changed_by_one_that_enters(redis_url: str) -> None:
    def say(line: str) -> None:
        if line == "comparing":
            with redis.Redis.from_url(redis_url) as other:
                now_ms = 1000 * int(other.time()[0])
                other.zadd(keys.REPLICAS, {"late|worker": now_ms})

    try:
        await repartition(load_settings({"REDIS_URL": redis_url}), 3, dry_run=False, say=say)
    finally:
        with redis.Redis.from_url(redis_url) as other:
            other.delete(keys.REPLICAS)


async def test_what_is_written_while_it_is_copied_is_noticed(redis_url: str, client: Redis) -> None:
    await client.hset(keys.aggregate("exp-0"), "events_total", "1")
    await client.xadd(keys.STREAM, {"data": "{}"})
    await client.xgroup_create(keys.STREAM, keys.GROUP, id="$")
    for write in (
        lambda other: other.hset(keys.aggregate("exp-0"), "events_total", "2"),
        lambda other: other.xadd(keys.DEAD_LETTERS, {"data": "{}"}),
    ):

        def say(line: str, write: Callable[[redis.Redis], object] = write) -> None:
            if line == "comparing":
                with redis.Redis.from_url(redis_url) as other:
                    write(other)

        with pytest.raises(PartitionsError, match=r"changed while it was copied|written to the old partitions"):
            await repartition(load_settings({"REDIS_URL": redis_url}), 3, dry_run=False, say=say)
    assert (await change(redis_url, 3))["dead_letters"] == 1
    async with partitions_of(redis_url, 3) as partitions:
        assert (await Aggregates(partitions.of("exp-0").client).read(["exp-0"]))["exp-0"] == {"events_total": "2"}
