"""`replay` agrees when every event changed the aggregates once, and names each field that differs."""

import asyncio
import json
import random
from typing import Any

import redis.asyncio

from redis_agent.store import keys
from tests.cli.conftest import Cli, add, agent, until_applied
from tests.waiting import eventually


def history(seed: int, count: int, experiments: int = 5) -> list[dict[str, Any] | bytes]:
    draw = random.Random(seed)
    events: list[dict[str, Any] | bytes] = []
    for _ in range(count):
        experiment_id = f"exp_{draw.randrange(experiments)}"
        kind = draw.randrange(5)
        if kind == 0:
            events.append(b"not json")
        elif kind == 1:
            events.append({"experiment_id": experiment_id, "score": round(draw.gauss(0, 10), 6)})
        elif kind == 2:
            events.append({"experiment_id": experiment_id, "flag": draw.random() < 0.5, "tiny": 1e-7})
        else:
            events.append({"experiment_id": experiment_id, "event": draw.choice("abc"), "count": draw.randrange(50)})
    return events


async def apply(client: redis.asyncio.Redis, redis_url: str, *events: dict[str, Any] | bytes, **settings: str) -> None:
    async with agent(redis_url, "worker", **settings):
        await add(client, *events)
        await until_applied(client)


async def test_it_agrees_with_what_the_worker_made_of_the_stream(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    events = history(1, 300)
    await apply(client, redis_url, *events)
    done = await cli("replay", "--json")
    assert done.code == 0
    assert done.document == {
        "agree": True,
        "experiments": 5,
        "entries": sum(1 for event in events if isinstance(event, dict)),
        "not_comparable": 0,
        "differences": [],
    }
    assert (await cli("replay")).out.startswith("the aggregates agree with the stream: 5 experiments, ")


async def test_it_agrees_on_an_empty_server(cli: Cli) -> None:
    done = await cli("replay", "--json")
    assert done.code == 0
    assert done.document["agree"] is True
    assert done.document["experiments"] == 0


async def test_it_differs_after_tampering_with_any_one_field(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    await apply(client, redis_url, *history(2, 200))
    key = keys.aggregate("exp_3")
    fields = ("a_count", "events_total", "score_sum", "score_samples", "score_min", "flag_latest", "last_updated")
    for field in fields:
        true = await client.hget(key, field)
        await client.hset(key, field, "77777")
        done = await cli("replay", "--json")
        assert done.code == 1
        assert done.document["agree"] is False
        assert done.document["differences"] == [
            {"experiment_id": "exp_3", "field": field, "aggregate": "77777", "replayed": true}
        ]
        await client.hset(key, field, true)
    await client.hset(key, "a_count", "77777")
    plain = await cli("replay")
    assert plain.code == 1
    assert "do NOT agree with the stream: 1 difference;" in plain.out
    assert "a_count" in plain.out


async def test_fields_that_are_missing_or_too_many_are_differences(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    await apply(client, redis_url, {"experiment_id": "e", "event": "a"})
    await client.hdel(keys.aggregate("e"), "a_count")
    await client.hset(keys.aggregate("e"), mapping={"b_count": "1", "a_rate": "0.5"})
    assert (await cli("replay", "--json")).document["differences"] == [
        {"experiment_id": "e", "field": "a_count", "aggregate": None, "replayed": "1"},
        {"experiment_id": "e", "field": "b_count", "aggregate": "1", "replayed": None},
    ]


async def test_an_aggregate_that_is_missing_or_too_many_is_a_difference(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    await apply(client, redis_url, {"experiment_id": "gone", "event": "a"}, {"experiment_id": "unlisted", "event": "a"})
    await client.delete(keys.aggregate("gone"), keys.aggregate("unlisted"))
    await client.zrem(keys.EXPERIMENTS, "unlisted")
    await client.zadd(keys.EXPERIMENTS, {"invented": 1})
    await client.hset(keys.aggregate("invented"), "events_total", "1")
    done = await cli("replay", "--json")
    assert done.code == 1
    totals = {
        d["experiment_id"]: (d["aggregate"], d["replayed"])
        for d in done.document["differences"]
        if d["field"] == "events_total"
    }
    assert totals == {"gone": (None, "1"), "unlisted": (None, "1"), "invented": ("1", None)}


async def test_an_experiment_that_the_index_forgot_is_still_compared(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    await apply(client, redis_url, {"experiment_id": "unlisted", "event": "a"}, {"experiment_id": "e", "event": "a"})
    await client.zrem(keys.EXPERIMENTS, "unlisted")
    document = (await cli("replay", "--json")).document
    assert (document["agree"], document["experiments"], document["entries"]) == (True, 2, 2)


async def test_what_is_unread_or_pending_does_not_count(cli: Cli, client: redis.asyncio.Redis, redis_url: str) -> None:
    await apply(client, redis_url, *[{"experiment_id": "e", "event": "a"}] * 3)
    await add(client, *[{"experiment_id": "e", "event": "a"}] * 4)
    await client.xreadgroup(keys.GROUP, "dead", {keys.STREAM: ">"}, count=2)
    document = (await cli("replay", "--json")).document
    assert (document["agree"], document["entries"]) == (True, 3)


async def test_dead_letters_of_readable_events_do_not_count_until_they_are_replayed(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    await client.set(keys.aggregate("e"), "in the way")
    await apply(client, redis_url, *[{"experiment_id": "e", "event": "a"}] * 3)
    assert (await cli("replay", "--json")).document["agree"] is True
    await client.delete(keys.aggregate("e"))
    async with agent(redis_url, "worker"):
        assert (await cli("dead-letters", "replay", "--all")).code == 0
    document = (await cli("replay", "--json")).document
    assert (document["agree"], document["entries"]) == (True, 3)
    assert await client.hget(keys.aggregate("e"), "a_count") == "3"


async def test_names_that_were_refused_are_no_difference(cli: Cli, client: redis.asyncio.Redis, redis_url: str) -> None:
    events = [{"experiment_id": "e", "event": f"event_{n}"} for n in range(15)]
    await apply(client, redis_url, *events, *events, REDIS_AGENT_MAX_FIELDS="10")
    assert (await cli("replay", "--json")).document["agree"] is True
    await client.hincrby(keys.aggregate("e"), "event_3_count", 1)
    assert (await cli("replay", "--json")).document["agree"] is False


async def test_more_refused_names_than_are_remembered_are_no_difference(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    events = [{"experiment_id": "e", "event": f"event_{n}"} for n in range(300)]
    await apply(client, redis_url, *events, REDIS_AGENT_MAX_FIELDS="10")
    assert (await cli("replay", "--json")).document["agree"] is True


async def test_experiments_from_before_a_trimmed_stream_are_said_not_to_be_comparable(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    await apply(client, redis_url, *[{"experiment_id": "old", "event": "a"}] * 5)
    await asyncio.sleep(0.01)  # another millisecond: the next experiment begins later
    ids = await add(client, {"experiment_id": "old", "event": "a"})
    await asyncio.sleep(0.01)
    await apply(client, redis_url, *[{"experiment_id": "new", "event": "a"}] * 5)
    await client.xtrim(keys.STREAM, minid=ids[0], approximate=False)
    done = await cli("replay", "--json")
    assert done.code == 0
    document = done.document
    assert (document["agree"], document["experiments"], document["not_comparable"]) == (True, 1, 1)
    assert "1 experiment could not be compared" in (await cli("replay")).out
    await client.hincrby(keys.aggregate("new"), "a_count", 1)
    assert (await cli("replay", "--json")).document["agree"] is False


async def test_a_stream_that_was_lost_proves_nothing_about_what_came_before(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    async with agent(redis_url, "bridge", "worker"):
        event = '{"experiment_id":"old","event":"a"}'
        assert await client.publish("fullsend:metrics", event) == 1
        await eventually(lambda: client.exists(keys.aggregate("old")))
    await client.delete(keys.STREAM)
    document = (await cli("replay", "--json")).document
    assert (document["agree"], document["not_comparable"]) == (True, 1)


async def test_one_experiment_can_be_compared_alone(cli: Cli, client: redis.asyncio.Redis, redis_url: str) -> None:
    await apply(client, redis_url, *history(3, 100))
    await client.hincrby(keys.aggregate("exp_1"), "events_total", 1)
    other = await cli("replay", "--experiment", "exp_2", "--json")
    assert (other.code, other.document["experiments"]) == (0, 1)
    this = await cli("replay", "--experiment", "exp_1", "--json")
    assert (this.code, len(this.document["differences"])) == (1, 1)
    unknown = await cli("replay", "--experiment", "nope", "--json")
    assert unknown.code == 1
    assert unknown.err.startswith("Error: nope is unknown")


async def test_derived_metrics_are_left_alone(cli: Cli, client: redis.asyncio.Redis, redis_url: str) -> None:
    await client.hset(
        keys.experiment("e"),
        mapping={"metrics": '[{"name": "rate", "type": "percentage", "formula": "a / b"}]'},
    )
    async with agent(redis_url, "worker"):
        await add(client, {"experiment_id": "e", "event": "a"}, {"experiment_id": "e", "event": "b"})
        await eventually(lambda: client.hget(keys.aggregate("e"), "rate"))
    assert (await cli("replay")).code == 0


async def test_it_is_exact_while_events_flow_and_workers_work(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    enough = asyncio.Event()

    async def publish() -> int:
        sent = 0
        while not enough.is_set():
            async with client.pipeline(transaction=False) as pipe:
                # New experiments begin all the time: more than fit into one snapshot, some unknown to the index.
                for event in history(sent, 50, experiments=min(300, 1 + sent // 10)):
                    pipe.publish("fullsend:metrics", event if isinstance(event, bytes) else json.dumps(event))
                    sent += 1
                await pipe.execute()
            await asyncio.sleep(0.02)
        return sent

    async with (
        agent(redis_url, REDIS_AGENT_BATCH_SIZE="40", REDIS_AGENT_CONSUMER="one"),
        agent(redis_url, "worker", REDIS_AGENT_BATCH_SIZE="30", REDIS_AGENT_CONSUMER="two"),
    ):
        publishing = asyncio.create_task(publish())
        try:
            for _ in range(4):
                found = await cli("replay", "--json")
                assert found.document["differences"] == []
                assert found.code == 0
        finally:
            enough.set()
            sent = await publishing
        await eventually(lambda: _written(client, sent))
        await until_applied(client)
    document = (await cli("replay", "--json")).document
    assert document["agree"] is True
    assert document["experiments"] > 100


async def _written(client: redis.asyncio.Redis, count: int) -> bool:
    return int(await client.hget(keys.BRIDGE, "written") or 0) == count
