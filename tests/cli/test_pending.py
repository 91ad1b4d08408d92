"""What is stuck can be seen, handed to another worker, and given up; whatever is done, nothing counts twice."""

import asyncio
import json

import redis.asyncio

from redis_agent.store import keys
from redis_agent.store.stream import EventStream
from tests.cli.conftest import Cli, add, agent, until_applied
from tests.waiting import eventually


async def stuck(client: redis.asyncio.Redis, *events: dict[str, object] | bytes, holder: str = "dead") -> list[str]:
    """Events that somebody has read and will never finish."""
    ids = await add(client, *events)
    if not await client.exists(keys.STREAM) or not await client.xinfo_groups(keys.STREAM):
        await client.xgroup_create(keys.STREAM, keys.GROUP, id="0")
    await client.xreadgroup(keys.GROUP, holder, {keys.STREAM: ">"})
    return ids


async def test_named_entries_are_shown_however_many_and_whatever_is_chosen(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    ids = await stuck(client, *[tick() for _ in range(25)])
    shown = await cli("pending", *ids)
    assert shown.code == 0
    assert all(entry_id in shown.out for entry_id in ids)
    assert "is not pending" not in shown.out

    chosen = await cli("pending", *ids, "--limit", "3", "--json")
    assert [entry["id"] for entry in chosen.document["entries"]] == ids[:3]
    assert chosen.document["missing"] == []


async def test_named_entry_that_is_left_out_is_not_called_missing(cli: Cli, client: redis.asyncio.Redis) -> None:
    (entry_id,) = await stuck(client, tick())
    for action in ("--claim", "--dead-letter"):
        done = await cli("pending", action, entry_id, "--idle", "3600", "--json", "--yes")
        assert done.code == 1
        assert [entry["outcome"] for entry in done.document["entries"]] == ["not_chosen"]


async def test_claimed_entry_that_is_deleted_is_not_called_applied(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    first, second = await stuck(client, tick(), tick())
    claiming = asyncio.create_task(cli("pending", "--claim", first, second, "--wait", "10", "--json"))

    async def released() -> bool:
        rows = await client.xpending_range(keys.STREAM, keys.GROUP, "-", "+", 10, consumername=keys.PARKED)
        return len(rows) == 2

    await eventually(released)
    await client.xdel(keys.STREAM, second)
    async with agent(redis_url):
        done = await claiming
    assert {e["id"]: e["outcome"] for e in done.document["entries"]} == {first: "applied", second: "gone"}


def tick(experiment_id: str = "e", count: int = 1) -> dict[str, object]:
    return {"experiment_id": experiment_id, "event": "tick", "count": count}


async def ticks(client: redis.asyncio.Redis, experiment_id: str = "e") -> int:
    return int(await client.hget(keys.aggregate(experiment_id), "tick_count") or 0)


# Looking -------------------------------------------------------------------------------------------------------


async def test_pending_shows_who_holds_what_of_which_experiment(cli: Cli, client: redis.asyncio.Redis) -> None:
    ids = await add(client, {"experiment_id": "exp_a", "event": "x"}, b"not json", b"{}")
    await client.xgroup_create(keys.STREAM, keys.GROUP, id="0")
    await client.xreadgroup(keys.GROUP, "first", {keys.STREAM: ">"}, count=1)
    await client.xreadgroup(keys.GROUP, "second", {keys.STREAM: ">"}, count=1)
    await client.xclaim(keys.STREAM, keys.GROUP, "second", 0, [ids[1]])
    document = (await cli("pending", "--json")).document
    assert document["stream"] == keys.STREAM
    assert document["group"] == keys.GROUP
    assert (document["pending"], document["lag"]) == (2, 1)
    assert {(c["name"], c["pending"]) for c in document["consumers"]} == {("first", 1), ("second", 1)}
    assert all(isinstance(c["idle_ms"], int) for c in document["consumers"])
    entries = [{k: v for k, v in e.items() if k not in ("idle_ms", "problem")} for e in document["entries"]]
    event = b'{"experiment_id": "exp_a", "event": "x"}'
    assert entries == [
        {
            "id": ids[0],
            "consumer": "first",
            "deliveries": 1,
            "experiment_id": "exp_a",
            "event": "x",
            "bytes": len(event),
            "excerpt": event.decode(),
        },
        {
            "id": ids[1],
            "consumer": "second",
            "deliveries": 2,
            "experiment_id": None,
            "event": None,
            "bytes": 8,
            "excerpt": "not json",
        },
    ]
    assert [e["problem"] and e["problem"].partition(":")[0] for e in document["entries"]] == [None, "not_json"]
    plain = (await cli("pending")).out
    assert ids[0] in plain
    assert "exp_a" in plain
    limited = (await cli("pending", "--json", "--limit", "1")).document
    assert len(limited["entries"]) == 1
    assert limited["pending"] == 2


async def test_pending_on_an_empty_server_is_empty(cli: Cli) -> None:
    document = (await cli("pending", "--json")).document
    assert (document["pending"], document["consumers"], document["entries"]) == (0, [], [])


async def test_pending_says_whether_there_is_no_stream_or_no_group(cli: Cli, client: redis.asyncio.Redis) -> None:
    assert (await cli("pending")).out == "nothing is pending: there is no stream of events yet\n"
    await add(client, tick(), tick())
    assert "no worker has made the consumer group yet; 2 entries wait" in (await cli("pending")).out


async def test_pending_is_narrowed_by_id_consumer_and_idleness(cli: Cli, client: redis.asyncio.Redis) -> None:
    ids = await stuck(client, tick(), tick())
    others = await stuck(client, tick(), holder="other")
    await client.xclaim(keys.STREAM, keys.GROUP, "dead", 0, [ids[0]], idle=60_000, justid=True)

    async def shown(*args: str) -> list[str]:
        return [entry["id"] for entry in (await cli("pending", "--json", *args)).document["entries"]]

    assert await shown() == ids + others
    assert await shown("--consumer", "other") == others
    assert await shown("--idle", "30") == ids[:1]
    assert await shown("--idle", "30", "--consumer", "other") == []
    assert await shown(ids[1]) == ids[1:]
    missing = await cli("pending", ids[0], "1-1")
    assert missing.code == 1
    assert "1-1 is not pending" in missing.out


async def test_other_peoples_bytes_are_shown_short_and_not_obeyed(cli: Cli, redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url, protocol=2) as raw:
        await stuck(raw, b"\x1b[2J\xff\x00" + b"x" * 5_000_000)
    (entry,) = (await cli("pending", "--json")).document["entries"]
    assert entry["bytes"] == 5_000_006
    assert len(entry["excerpt"]) <= 100
    plain = (await cli("pending")).out
    assert "\\x1b[2J" in plain
    assert len(plain) < 1_000


# Claiming ------------------------------------------------------------------------------------------------------


async def test_claimed_entries_are_applied_and_what_a_living_holder_renews_stays_with_it(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    ids = await stuck(client, tick(), tick(), tick(), holder="alive")
    async with redis.asyncio.Redis.from_url(redis_url, protocol=2) as raw:
        holder = EventStream(reader=raw, client=raw, consumer="alive", max_fields=1, max_raw=1, max_dead=1)

        async def keep() -> None:
            while True:
                await holder.renew(ids)
                await asyncio.sleep(0.05)

        keeping = asyncio.create_task(keep())
        async with agent(redis_url, "worker", REDIS_AGENT_RECLAIM_IDLE_SECONDS="2"):
            done = await cli("pending", "--claim", ids[0], ids[2], "--json", "--wait", "30")
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            rows = await client.xpending_range(keys.STREAM, keys.GROUP, "-", "+", 10)
    assert done.code == 0
    assert done.document["claimed"] == 2
    assert [(e["id"], e["outcome"]) for e in done.document["entries"]] == [(ids[0], "applied"), (ids[2], "applied")]
    assert await ticks(client) == 2
    assert [(row["message_id"], row["consumer"]) for row in rows] == [(ids[1], "alive")]


async def test_handing_an_entry_over_is_no_delivery_and_begins_the_scan_anew(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    ids = await stuck(client, tick(), tick())
    await client.hset(keys.RECLAIM, mapping={"cursor": "9-9", "done_ms": "1", "seen_ms": "5"})
    assert (await cli("pending", "--claim", ids[0], "--wait", "0")).code == 0
    rows = await client.xpending_range(keys.STREAM, keys.GROUP, "-", "+", 10)
    assert [(row["consumer"], row["times_delivered"]) for row in rows] == [(keys.PARKED, 1), ("dead", 1)]
    assert rows[0]["time_since_delivered"] >= 3_600_000
    assert await client.hgetall(keys.RECLAIM) == {"seen_ms": "5"}

    await client.delete(keys.RECLAIM)
    await client.rpush(keys.RECLAIM, "of the wrong type")
    assert (await cli("pending", "--claim", ids[1], "--wait", "0", "--json")).document["claimed"] == 1


async def test_claim_without_ids_takes_all_that_are_stuck_and_no_others(cli: Cli, client: redis.asyncio.Redis) -> None:
    ids = await stuck(client, *[tick() for _ in range(50)])
    await client.xclaim(keys.STREAM, keys.GROUP, "dead", 0, ids[:45], idle=60_000, justid=True)
    done = await cli("pending", "--claim", "--idle", "30", "--wait", "0.2", "--json")
    assert done.code == 0
    assert [(e["id"], e["outcome"]) for e in done.document["entries"]] == [(i, "waiting") for i in ids[:45]]
    plain = await cli("pending", "--claim", "--idle", "30", "--limit", "2", "--wait", "0.2")
    assert plain.out.count("is a worker running?") == 2
    assert (await cli("pending", "--claim", "--consumer", "nobody")).out == "nothing is stuck\n"


async def test_claimed_entry_that_cannot_be_applied_is_said_with_its_reason(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    ids = await stuck(client, b"not json", tick())
    async with agent(redis_url, "worker", REDIS_AGENT_RECLAIM_IDLE_SECONDS="1"):
        # The worker may be quicker than the command, and then nothing is pending any more.
        done = await cli("pending", "--claim", *ids, "1-1", "--json")
        await until_applied(client)
    outcomes = {e["id"]: e["outcome"] for e in done.document["entries"]}
    assert done.code == 1
    assert outcomes["1-1"] == "missing"
    assert outcomes[ids[0]] in ("dead_letter", "missing")
    assert await ticks(client) == 1
    assert await client.xlen(keys.DEAD_LETTERS) == 1


async def test_claiming_from_workers_that_live_makes_nothing_count_twice(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    settings = {"REDIS_AGENT_RECLAIM_IDLE_SECONDS": "0.1", "REDIS_AGENT_BATCH_SIZE": "5"}
    async with (
        agent(redis_url, "worker", **settings, REDIS_AGENT_CONSUMER="a"),
        agent(redis_url, "worker", **settings, REDIS_AGENT_CONSUMER="b"),
    ):
        for _ in range(3):
            await add(client, *[tick() for _ in range(300)])
            await cli("pending", "--claim", "--idle", "0", "--wait", "0")
        await until_applied(client)
    assert await ticks(client) == 900
    assert (await cli("replay")).code == 0


async def test_entry_that_is_gone_from_the_stream_is_said_and_not_claimed(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    ids = await stuck(client, tick(), tick())
    await client.xdel(keys.STREAM, ids[0])
    assert (await cli("pending", "--json")).document["entries"][0]["problem"] == "gone from the stream"
    for action in ("--claim", "--dead-letter"):
        done = await cli("pending", action, ids[0], "--json", "--wait", "0")
        assert done.code == 1
        assert done.document["entries"][0]["outcome"] == "deleted"
    assert await client.xlen(keys.DEAD_LETTERS) == 0


# Giving up -----------------------------------------------------------------------------------------------------


async def test_entry_given_up_is_a_dead_letter_and_is_not_applied_even_after_a_lost_group(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    ids = await stuck(client, tick(count=1), tick(count=10), tick(count=100))
    done = await cli("pending", "--dead-letter", ids[1], "--json")
    assert done.code == 0
    (letter,) = await client.xrange(keys.DEAD_LETTERS)
    assert done.document["buried"] == 1
    assert done.document["entries"] == [
        {
            "id": ids[1],
            "consumer": "dead",
            "outcome": "dead_letter",
            "reason": "operator",
            "dead_letter_id": letter[0],
        }
    ]
    assert (letter[1]["reason"], letter[1]["source_id"], letter[1]["deliveries"]) == ("operator", ids[1], "1")
    assert json.loads(letter[1]["data"])["count"] == 10

    await client.xgroup_destroy(keys.STREAM, keys.GROUP)
    async with agent(redis_url, "worker", REDIS_AGENT_RECLAIM_IDLE_SECONDS="0.2"):
        await eventually(lambda: client.exists(keys.aggregate("e")))
        await until_applied(client)
        assert await ticks(client) == 101
        assert (await cli("replay")).code == 0
        # What was given up can be brought back.
        back = await cli("dead-letters", "replay", letter[0])
        assert back.code == 0
        assert "applied" in back.out
    assert await ticks(client) == 111
    assert (await cli("replay")).code == 0


async def test_entry_is_given_up_once_however_many_ask_at_once(cli: Cli, client: redis.asyncio.Redis) -> None:
    ids = await stuck(client, tick())
    both = await asyncio.gather(*[cli("pending", "--dead-letter", ids[0], "--json") for _ in range(3)])
    assert sorted(done.code for done in both) == [0, 1, 1]
    assert sorted(done.document["entries"][0]["outcome"] for done in both) == ["dead_letter", "missing", "missing"]
    assert await client.xlen(keys.DEAD_LETTERS) == 1
    assert (await cli("pending", "--json")).document["pending"] == 0


async def test_giving_up_what_cannot_be_written_says_why_and_changes_nothing(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    ids = await stuck(client, tick())
    await client.set(keys.UNAPPLIED, "in the way")
    done = await cli("pending", "--dead-letter", ids[0])
    assert done.code == 1
    assert "failed: WRONGTYPE" in done.out
    assert (await cli("pending", "--json")).document["pending"] == 1


async def test_actions_that_make_no_sense_are_refused(cli: Cli) -> None:
    for args in (("--dead-letter",), ("--claim", "--dead-letter", "1-1"), ("--claim", "abc"), ("9" * 30,)):
        done = await cli("pending", *args)
        assert done.code == 2, args
        assert done.out == ""
