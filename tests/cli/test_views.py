"""What programs read from `status`, `experiments`, `alerts` and `pending`, and what people see."""

import json
import time
from typing import Any

import pytest
import redis.asyncio

from redis_agent.store import keys
from tests.cli.conftest import Cli, add, agent, until_applied
from tests.waiting import eventually

ORCHESTRATOR = "fullsend:to_orchestrator"


async def define(client: redis.asyncio.Redis, experiment_id: str, **fields: Any) -> None:
    document = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    await client.hset(keys.experiment(experiment_id), mapping=document)


async def test_status_has_the_fields_of_the_design_on_an_empty_server(cli: Cli) -> None:
    done = await cli("status", "--json")
    assert done.code == 0
    document = done.document
    assert document["redis"]["role"] == "master"
    assert document["redis"]["version"][0].isdigit()
    assert document["redis"]["used_memory_human"]
    assert document["stream"] == {
        "length": 0,
        "group_exists": False,
        "lag": 0,
        "pending": 0,
        "oldest_pending_seconds": None,
        "oldest_unread_seconds": None,
        "dead_letters": 0,
    }
    assert document["problems"] == {}
    assert document["bridge"]["in_step"] == 0
    assert document["bridge"]["leader"] is None
    assert document["bridge"]["replicas"] == []
    assert document["bridge"]["gaps"] == 0
    assert document["scheduler"] == {"leader": None}
    assert document["dispatcher"] == {"leader": None}
    assert document["experiments"] == 0
    assert document["alerts"] == {"total": 0, "delivered": 0, "waiting": 0, "undelivered": 0}
    plain = (await cli("status")).out
    assert "start `redis-agent run`" in plain
    assert "nothing there yet: no event has come, and no worker has run" in plain


async def test_status_shows_who_leads_and_which_replicas_run(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    async with agent(redis_url, REDIS_AGENT_CONSUMER="here"):
        await eventually(lambda: client.exists(keys.LEASE_SCHEDULER, keys.LEASE_DISPATCHER))
        await eventually(lambda: client.zcard(keys.REPLICAS))
        await client.zadd(keys.REPLICAS, {"long gone|bridge": 1})
        document = (await cli("status", "--json")).document
        for role in ("bridge", "scheduler", "dispatcher"):
            assert document[role]["leader"].startswith("here-")
        assert document["bridge"]["replicas"] == ["here"]
        roles = ["bridge", "dispatcher", "scheduler", "worker"]
        assert document["replicas"] == [{"name": "here", "roles": roles, "in_step": True}]
        assert document["bridge"]["in_step"] == 1


async def test_replica_whose_clock_runs_ahead_does_not_take_the_others_for_gone(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.zadd(keys.REPLICAS, {"there|worker": (await client.time())[0] * 1000})
    behind = time.time_ns
    monkeypatch.setattr("redis_agent.clock.time.time_ns", lambda: behind() + 3_600 * 10**9)
    async with agent(redis_url, "worker", REDIS_AGENT_CONSUMER="here"):
        await eventually(lambda: client.zscore(keys.REPLICAS, "here|worker"))
        replicas = (await cli("status", "--json")).document["replicas"]
    assert [replica["name"] for replica in replicas] == ["here", "there"]


async def test_status_shows_which_bridge_is_not_in_step(cli: Cli, client: redis.asyncio.Redis) -> None:
    now_ms = (await client.time())[0] * 1000
    await client.zadd(keys.REPLICAS, {"a|b|bridge,worker": now_ms, "c|bridge": now_ms, "d|worker": now_ms})
    ready = {"a|b-0123abcd": now_ms, "c-0123abcd": now_ms - 3_600_000, "long-gone-0123abcd": 1}
    await client.zadd(keys.BRIDGE_READY, ready)
    document = (await cli("status", "--json")).document
    assert document["bridge"]["in_step"] == 1
    assert document["bridge"]["replicas"] == ["a|b", "c"]
    assert document["replicas"] == [
        {"name": "a|b", "roles": ["bridge", "worker"], "in_step": True},
        {"name": "c", "roles": ["bridge"], "in_step": False},
        {"name": "d", "roles": ["worker"]},
    ]
    plain = (await cli("status")).out
    assert "1 of 2 bridges" in plain
    assert "c  (bridge, bridge not in step)" in plain


async def test_status_tells_gaps_with_their_length_and_what_was_given_up(cli: Cli, client: redis.asyncio.Redis) -> None:
    await client.hset(keys.BRIDGE, mapping={"gaps": 3, "gap_ms": 75_400, "given_up": 12, "written": "x"})
    document = (await cli("status", "--json")).document["bridge"]
    assert (document["gaps"], document["gap_seconds"], document["given_up"], document["written"]) == (3, 75.4, 12, 0)
    assert "3, 1m 15s in all; 12 events given up unwritten" in (await cli("status")).out


WRONG = {
    "stream": keys.STREAM,
    "dead letters": keys.DEAD_LETTERS,
    "bridge": keys.LEASE_BRIDGE,
    "scheduler": keys.LEASE_SCHEDULER,
    "dispatcher": keys.LEASE_DISPATCHER,
    "replicas": keys.REPLICAS,
    "in step": keys.BRIDGE_READY,
    "gaps": keys.BRIDGE,
    "experiments": keys.EXPERIMENTS,
    "alerts": keys.OUTBOX,
    "undelivered": keys.UNDELIVERED,
}


@pytest.mark.parametrize("part", WRONG)
async def test_status_says_in_its_place_that_a_key_has_the_wrong_type_and_shows_the_rest(
    cli: Cli, client: redis.asyncio.Redis, part: str
) -> None:
    await client.rpush(WRONG[part], "in the way")
    done = await cli("status", "--json")
    assert done.code == 0
    assert {name: said.partition(" ")[0] for name, said in done.document["problems"].items()} == {part: "WRONGTYPE"}
    plain = await cli("status")
    assert plain.code == 0
    lines = {line[:13].strip(): line[14:] for line in plain.out.splitlines()}
    assert lines[part].startswith("unreadable: WRONGTYPE")
    assert plain.out.count("unreadable") == 1
    assert set(lines) >= {"redis", *WRONG} - {"undelivered"}


async def test_status_with_every_key_in_the_way_still_shows_the_server(cli: Cli, client: redis.asyncio.Redis) -> None:
    for key in WRONG.values():
        await client.rpush(key, "in the way")
    done = await cli("status")
    assert done.code == 0
    assert done.out.count("unreadable") == len(WRONG)
    assert "master" in done.out


async def test_status_tells_of_a_backlog_that_nobody_reads(cli: Cli, client: redis.asyncio.Redis) -> None:
    await add(client, *[{"experiment_id": "e", "event": "x"}] * 7)
    await client.xgroup_create(keys.STREAM, keys.GROUP, id="0")
    await client.xreadgroup(keys.GROUP, "somebody", {keys.STREAM: ">"}, count=3)
    stream = (await cli("status", "--json")).document["stream"]
    assert (stream["length"], stream["lag"], stream["pending"]) == (7, 4, 3)
    assert 0 <= stream["oldest_pending_seconds"] < 60
    assert 0 <= stream["oldest_unread_seconds"] < 60
    plain = (await cli("status")).out
    assert "lag 4: entries not read yet, the oldest for" in plain
    assert "3 pending, the oldest for" in plain


async def test_status_tells_of_entries_that_no_group_reads(cli: Cli, client: redis.asyncio.Redis) -> None:
    await add(client, {"experiment_id": "e", "event": "x"})
    assert "1 entry, and no consumer group: no worker has run yet, or it was lost" in (await cli("status")).out


async def test_a_lag_that_the_server_cannot_tell_is_null_and_not_zero(cli: Cli, client: redis.asyncio.Redis) -> None:
    ids = await add(client, *[{"experiment_id": "e", "event": "x"}] * 3)
    await client.xgroup_create(keys.STREAM, keys.GROUP, id=ids[0])
    await client.xdel(keys.STREAM, ids[1])
    groups = await client.xinfo_groups(keys.STREAM)
    assert groups[0]["lag"] is None  # else this test shows nothing
    assert (await cli("status", "--json")).document["stream"]["lag"] is None
    assert (await cli("pending", "--json")).document["lag"] is None
    assert "unknown" in (await cli("status")).out


async def test_lag_that_the_server_cannot_tell_is_zero_where_nothing_is_left_to_read(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    ids = await add(client, *[{"experiment_id": "e", "event": "x"}] * 3)
    await client.xgroup_create(keys.STREAM, keys.GROUP, id=ids[0])
    await client.xdel(keys.STREAM, ids[1], ids[2])
    assert (await cli("status", "--json")).document["stream"]["lag"] == 0
    assert (await cli("pending", "--json")).document["lag"] == 0


async def test_lag_before_there_is_a_group_counts_all_that_it_will_read(cli: Cli, client: redis.asyncio.Redis) -> None:
    ids = await add(client, *[{"experiment_id": "e", "event": "x"}] * 3)
    assert (await cli("pending", "--json")).document["lag"] == 3
    await client.set(keys.FLOOR, ids[0])  # a lost group: where it will be created anew, the server does not count
    assert (await cli("pending", "--json")).document["lag"] is None
    await client.set(keys.FLOOR, ids[2])
    assert (await cli("pending", "--json")).document["lag"] == 0


async def test_experiments_are_listed_with_their_rates_and_criteria(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    await define(
        client,
        "exp_a",
        state="running",
        hypothesis="it works",
        success_criteria=["reply_rate >= 40%", "meetings >= 3"],
        failure_criteria=[],
        metrics=[{"name": "reply_rate", "type": "percentage", "formula": "replies / sends"}],
    )
    async with agent(redis_url, "worker"):
        await add(
            client,
            {"experiment_id": "exp_a", "event": "send", "count": 100},
            {"experiment_id": "exp_a", "event": "reply", "count": 50},
            {"experiment_id": "exp_b", "score": 0.5},
        )
        await until_applied(client)
        await eventually(lambda: client.hget(keys.aggregate("exp_a"), "reply_rate"))
    document = (await cli("experiments", "--json")).document
    assert document["total"] == 2
    by_id = {row["experiment_id"]: row for row in document["experiments"]}
    assert by_id["exp_a"]["state"] == "running"
    assert by_id["exp_a"]["events_total"] == 2
    assert by_id["exp_a"]["rates"] == {"reply_rate": 0.5}
    assert by_id["exp_a"]["criteria"] == {"met": 1, "total": 2}
    assert by_id["exp_b"]["state"] is None
    assert by_id["exp_b"]["criteria"] == {"met": 0, "total": 0}

    one = (await cli("experiments", "exp_a", "--json")).document
    assert one["hypothesis"] == "it works"
    assert one["aggregate"]["send_count"] == "100"
    assert [c["state"] for c in one["criteria"]] == ["met", "unknown"]
    assert one["refused"] == {}
    plain = (await cli("experiments", "exp_a")).out
    assert "send_count" in plain
    assert "reply_rate >= 40%" in plain
    assert "1 of 2 met" in (await cli("experiments")).out


async def test_names_that_were_refused_are_shown(cli: Cli, client: redis.asyncio.Redis, redis_url: str) -> None:
    async with agent(redis_url, "worker", REDIS_AGENT_MAX_FIELDS="10"):
        for n in range(12):
            await add(client, {"experiment_id": "exp_a", "event": f"event_{n:02d}"})
        await until_applied(client)
    document = (await cli("experiments", "exp_a", "--json")).document
    # Three of the ten are events_total, first_event_at and last_updated.
    assert set(document["refused"]) == {f"event_{n:02d}" for n in range(7, 12)}
    assert "event_11" in (await cli("experiments", "exp_a")).out


async def test_alerts_are_their_own_json_newest_first_with_whether_somebody_received_them(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    def error(experiment_id: str, message: str) -> dict[str, str]:
        return {"experiment_id": experiment_id, "event": "error", "message": message}

    async with client.pubsub(ignore_subscribe_messages=True) as orchestrator:
        await orchestrator.subscribe(ORCHESTRATOR)
        async with agent(redis_url, "worker", "dispatcher"):
            await add(client, error("exp_a", "first"))
            received: list[dict[str, Any]] = []

            async def one() -> bool:
                message = await orchestrator.get_message(timeout=0.2)
                if message:
                    received.append(json.loads(message["data"]))
                return bool(received)

            await eventually(one)
            await orchestrator.unsubscribe(ORCHESTRATOR)
            await eventually(lambda: _nobody_listens(client))
            await add(client, error("exp_b", "second"), error("exp_a", "third"))
            await eventually(lambda: _length(client, 3))
    found = (await cli("alerts", "--json")).document
    assert [(a["experiment_id"], a["delivered"]) for a in found] == [
        ("exp_a", False),
        ("exp_b", False),
        ("exp_a", True),
    ]
    assert {k: v for k, v in found[2].items() if k != "delivered"} == received[0]
    assert (await cli("status", "--json")).document["alerts"] == {
        "total": 3,
        "delivered": 1,
        "waiting": 2,
        "undelivered": 0,
    }
    of_b = (await cli("alerts", "--experiment", "exp_b", "--json")).document
    assert [a["experiment_id"] for a in of_b] == ["exp_b"]
    assert len((await cli("alerts", "--limit", "2", "--json")).document) == 2
    plain = (await cli("alerts")).out.splitlines()
    assert len(plain) == 4
    assert "third" in plain[1]


async def test_an_alert_that_was_given_up_does_not_count_as_delivered(cli: Cli, client: redis.asyncio.Redis) -> None:
    entry = await client.xadd(keys.OUTBOX, {"data": '{"type":"error","experiment_id":"e"}', "at": 1})
    await client.xgroup_create(keys.OUTBOX, keys.DISPATCHER_GROUP, id="0")
    await client.xreadgroup(keys.DISPATCHER_GROUP, "d", {keys.OUTBOX: ">"})
    await client.xack(keys.OUTBOX, keys.DISPATCHER_GROUP, entry)
    assert (await cli("alerts", "--json")).document[0]["delivered"] is True
    await client.sadd(keys.UNDELIVERED, entry)
    assert (await cli("alerts", "--json")).document[0]["delivered"] is False
    assert (await cli("status", "--json")).document["alerts"]["undelivered"] == 1


async def test_alerts_are_shown_also_where_it_is_not_known_which_were_given_up(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    await client.xadd(keys.OUTBOX, {"data": '{"type":"error","experiment_id":"e"}', "at": 1})
    await client.xgroup_create(keys.OUTBOX, keys.DISPATCHER_GROUP, id="$")
    await client.xadd(keys.OUTBOX, {"data": '{"type":"error","experiment_id":"e"}', "at": 1})
    await client.set(keys.UNDELIVERED, "in the way")
    done = await cli("alerts", "--json")
    assert done.code == 0
    assert [alert["delivered"] for alert in done.document] == [False, None]
    assert done.err.count("\n") == 1
    assert f"the key {keys.UNDELIVERED} is a string, not a set" in done.err
    assert " ? " in (await cli("alerts")).out


async def test_alerts_know_what_was_delivered_also_while_the_group_is_lost(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    ids = [await client.xadd(keys.OUTBOX, {"data": '{"type":"error"}', "at": 1}) for _ in range(3)]
    await client.set(keys.OUTBOX_FLOOR, ids[1])
    assert [alert["delivered"] for alert in (await cli("alerts", "--json")).document] == [False, True, True]
    counts = (await cli("status", "--json")).document["alerts"]
    assert counts == {"total": 3, "delivered": 2, "waiting": 1, "undelivered": 0}


async def test_what_is_no_alert_in_the_outbox_is_shown_and_breaks_nothing(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    for data in ("not json", "[1]", '{"a": NaN}', '{"message": "\\ud800 \x1b[31m"}'):
        await client.xadd(keys.OUTBOX, {"data": data})
    await client.xadd(keys.OUTBOX, {"other": "x"})
    assert len((await cli("alerts", "--json")).document) == 5
    assert (await cli("alerts")).code == 0


async def _nobody_listens(client: redis.asyncio.Redis) -> bool:
    return (await client.pubsub_numsub(ORCHESTRATOR))[0][1] == 0


async def _length(client: redis.asyncio.Redis, count: int) -> bool:
    return await client.xlen(keys.OUTBOX) == count
