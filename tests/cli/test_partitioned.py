"""Commands over four partitions on one server: all are read, and what is changed is changed in the right one."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from redis_agent.cli import main
from redis_agent.clock import Clock
from redis_agent.maturity import Maturity
from redis_agent.overview import KnownExperiments
from redis_agent.page.document import Document
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.flow import flow
from redis_agent.store.outbox import Outbox, Raise
from redis_agent.store.partitions import Partition, Partitions
from redis_agent.store.union import AllWindows
from redis_agent.windows import SECONDS
from tests.cli.conftest import Finished, agent, run_cli
from tests.waiting import eventually

PARTITIONS = "4"
# One of each partition.
IDS = ("exp-0", "exp-4", "exp-1", "exp-5")
ID, SAME = "1769940000000-0", "1769940000000-7"

Command = Callable[..., Awaitable[Finished]]


@pytest.fixture
async def partitions(redis_url: str) -> AsyncIterator[Partitions]:
    found = Partitions(Address(redis_url), int(PARTITIONS), name="test")
    await found.check()
    assert [found.of(one).number for one in IDS] == [0, 1, 2, 3]
    yield found
    await found.aclose()


@pytest.fixture
def command(redis_url: str) -> Command:
    """`await command("status", "--json")` in this process, against four partitions unless told otherwise."""

    async def call(*args: str, **environment: str) -> Finished:
        env = {"REDIS_URL": redis_url, "REDIS_AGENT_PARTITIONS": PARTITIONS, **environment}
        done = await asyncio.to_thread(CliRunner().invoke, main, args, env=env)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Finished(done.exit_code, done.stdout, done.stderr)

    return call


async def held(partition: Partition, *ids: str, event: bytes = b'{"experiment_id":"e","event":"tick"}') -> None:
    """Entries that somebody has read and will never finish."""
    for entry_id in ids:
        await partition.client.xadd(keys.STREAM, {"data": event}, id=entry_id)
    await partition.client.xgroup_create(keys.STREAM, keys.GROUP, id="0")
    await partition.client.xreadgroup(keys.GROUP, "dead", {keys.STREAM: ">"})


async def buried(partition: Partition, entry_id: str, data: str = "no json", reason: str = "not_json") -> None:
    letter = {"data": data, "reason": reason, "source_id": "1-0", "deliveries": "1", "at": "1769940000000"}
    await partition.client.xadd(keys.DEAD_LETTERS, letter, id=entry_id)


def this_hour() -> int:
    return Clock().now_ms() // 1000 // SECONDS["hour"] * SECONDS["hour"]


async def pending_in(partitions: Partitions) -> list[int]:
    return [(await flow(partition.client)).pending for partition in partitions.all]


async def letters_in(partitions: Partitions) -> list[int]:
    return [await partition.client.xlen(keys.DEAD_LETTERS) for partition in partitions.all]


# Which partitions there are ------------------------------------------------------------------------------------


async def test_commands_refuse_another_number_of_partitions_than_there_are(
    command: Command, partitions: Partitions
) -> None:
    for wrong in ("1", "3"):
        done = await command("status", REDIS_AGENT_PARTITIONS=wrong)
        assert done.code == 1
        assert f"is of 4 partitions, and REDIS_AGENT_PARTITIONS is {wrong}" in done.err


async def test_a_command_that_looks_records_nothing_and_sees_state_of_one_partition(
    command: Command, redis_url: str
) -> None:
    one = Partitions(Address(redis_url), 1, name="test")
    assert (await command("status")).code == 0
    assert await one.home.client.keys() == []
    await one.home.client.xadd(keys.STREAM, {"data": "{}"})
    assert "is of 1 partition, and" in (await command("status")).err
    await one.aclose()


# Looking -------------------------------------------------------------------------------------------------------


async def test_status_adds_partitions_up_and_says_where_nobody_leads(command: Command, partitions: Partitions) -> None:
    now_ms = Clock().now_ms()
    for partition in partitions.all:
        for _ in range(partition.number + 1):
            await partition.client.xadd(keys.STREAM, {"data": "{}"})
        await buried(partition, ID)
        await partition.client.zadd(keys.EXPERIMENTS, {IDS[partition.number]: now_ms})
        await partition.client.set(keys.LEASE_BRIDGE, f"1.1:{'ab'[partition.number % 2]}-01234567")
        await partition.client.hset(keys.BRIDGE, mapping={"gaps": 1, "gap_ms": 500, "given_up": 2, "written": 10})
        ready = {"a-01234567": now_ms} | ({"b-01234567": now_ms} if partition.number else {})
        await partition.client.zadd(keys.BRIDGE_READY, ready)
    for partition in partitions.all[1:]:
        await partition.client.set(keys.LEASE_SCHEDULER, "1:a-01234567")
    await partitions.home.client.zadd(keys.REPLICAS, {"a|bridge,worker": now_ms, "b|bridge": now_ms})

    document = (await command("status", "--json")).document

    assert (document["stream"]["length"], document["stream"]["lag"], document["stream"]["dead_letters"]) == (10, 10, 4)
    assert document["stream"]["group_exists"] is False
    bridge = document["bridge"]
    assert (bridge["leader"], bridge["gaps"], bridge["gap_seconds"]) == ("a-01234567, b-01234567", 4, 2)
    assert (bridge["in_step"], bridge["written"], bridge["given_up"]) == (1, 40, 8)
    assert [replica["in_step"] for replica in document["replicas"]] == [True, False]
    assert document["scheduler"]["leader"] is None, "partition 0 has none"
    assert document["experiments"] == 4
    assert [p["partition"] for p in document["partitions"]] == [0, 1, 2, 3]
    assert [p["stream"]["length"] for p in document["partitions"]] == [1, 2, 3, 4]
    assert [p["scheduler"]["leader"] for p in document["partitions"]] == [None, *3 * ["a-01234567"]]
    assert document["problems"] == {}
    plain = (await command("status")).out
    assert "0: 1 entry, lag 1, 0 pending; bridge a-01234567, NO scheduler, NO dispatcher" in plain


async def test_status_of_one_partition_says_nothing_of_partitions(command: Command, redis_url: str) -> None:
    document = (await command("status", "--json", REDIS_AGENT_PARTITIONS="1")).document
    assert "partitions" not in document
    assert "nodes" not in document["redis"]


async def test_experiments_are_listed_by_their_last_event_whatever_their_partition(
    command: Command, partitions: Partitions
) -> None:
    order = ["exp-1", "exp-5", "exp-4", "exp-0"]
    for n, one in enumerate(order):
        client = partitions.of(one).client
        await client.zadd(keys.EXPERIMENTS, {one: 1_769_940_000_000 - 1000 * n})
        await client.hset(keys.aggregate(one), mapping={"sent_count": n, "events_total": n, "last_updated": f"t{n}"})
        # A copy that is behind is not what is shown.
        await partitions.wide.hset(keys.aggregate(one), mapping={"sent_count": 99, "events_total": 99})
        await partitions.wide.hset(keys.experiment(one), mapping={"success_criteria": f'["sent > {n - 1}"]'})

    document = (await command("experiments", "--json")).document
    assert [row["experiment_id"] for row in document["experiments"]] == order
    assert [row["events_total"] for row in document["experiments"]] == [0, 1, 2, 3]
    assert document["total"] == 4
    first = (await command("experiments", "--json", "--limit", "2")).document["experiments"]
    assert [row["experiment_id"] for row in first] == order[:2]

    one = (await command("experiments", "exp-0", "--json")).document
    assert (one["aggregate"]["sent_count"], one["defined"], one["partition"]) == ("3", True, 0)
    checked = (await command("check", "exp-0", "--json")).document
    assert [(c["state"], c["value"]) for c in checked["criteria"]] == [("met", 3.0)]


async def test_windows_of_an_experiment_are_read_in_its_partition(command: Command, partitions: Partitions) -> None:
    hour_s = this_hour()
    for n, one in enumerate(IDS):
        window = keys.window(one, "hour", hour_s)
        await partitions.of(one).client.hset(window, mapping={"events": n + 1, "sent_count": n + 1})
    for n, one in enumerate(IDS):
        history = (await command("experiments", one, "--history", "--json")).document
        assert sum(history["counts"]["sent"]) == n + 1


async def raise_alerts(partitions: Partitions) -> None:
    """One alert in each partition, the first the oldest."""
    for one in IDS:
        data = json.dumps({"type": "error", "experiment_id": one, "severity": "high", "message": one})
        await Outbox(partitions.of(one).client).raise_([Raise(one, "error", "f", 60, one, data, 0)])
        await asyncio.sleep(0.002)


async def test_alerts_of_all_partitions_come_newest_first(command: Command, partitions: Partitions) -> None:
    await raise_alerts(partitions)
    # Entries of the same id in two partitions: what is known of one is not said of the other.
    for number in (1, 2):
        client = partitions.all[number].client
        await client.xadd(keys.OUTBOX, {"data": json.dumps({"message": f"last {number}"})}, id="9999999999999-0")
        await client.xgroup_create(keys.OUTBOX, keys.DISPATCHER_GROUP, id="$")
    await partitions.all[1].client.sadd(keys.UNDELIVERED, "9999999999999-0")

    found = (await command("alerts", "--json")).document
    assert sorted((alert["message"], alert["partition"], alert["delivered"]) for alert in found[:2]) == [
        ("last 1", 1, False),
        ("last 2", 2, True),
    ]
    assert [alert["message"] for alert in found[2:]] == list(reversed(IDS))
    assert len((await command("alerts", "--json", "--limit", "3")).document) == 3
    of_one = (await command("alerts", "--experiment", "exp-4", "--json")).document
    assert [alert["partition"] for alert in of_one] == [1]


async def test_status_page_shows_all_partitions(partitions: Partitions) -> None:
    await raise_alerts(partitions)
    for n, one in enumerate(IDS):
        client = partitions.of(one).client
        await client.zadd(keys.EXPERIMENTS, {one: 1_769_940_000_000 + n})
        await client.hset(keys.aggregate(one), mapping={"sent_count": 5, "events_total": 5})
        window = keys.window(one, "hour", this_hour())
        await client.hset(window, mapping={"events": 5, "sent_count": 5})
        await held(partitions.of(one), f"{1_769_940_000_000 - n}-0", SAME)
        await buried(partitions.of(one), ID)
    known = KnownExperiments(
        partitions, maturity=Maturity(AllWindows(partitions), Clock(), 0), alpha=0.05, min_samples=20, translate=True
    )

    found = await Document(partitions, address_shown="here", experiments=known).read()

    shown = found["experiments"]["shown"]
    assert [(e["id"], e["events"], sum(e["hours"]["events"])) for e in shown] == [(one, 5, 5) for one in IDS[::-1]]
    assert [alert["experiment_id"] for alert in found["alerts_shown"]] == list(reversed(IDS))
    entries = [entry["id"] for entry in found["pending"]["entries"]]
    assert entries[:4] == [f"{n}:{1_769_940_000_000 - n}-0" for n in (3, 2, 1, 0)]
    assert sorted(entries[4:]) == [f"{n}:{SAME}" for n in range(4)]
    assert [(c["name"], c["pending"]) for c in found["pending"]["consumers"]] == [("dead", 8)]
    assert sorted(letter["id"] for letter in found["dead_letters"]) == [f"{n}:{ID}" for n in range(4)]
    assert found["stream"]["added"] == 8
    assert found["problems"] == {}


# Entries -------------------------------------------------------------------------------------------------------


async def test_pending_shows_each_entry_with_its_partition(command: Command, partitions: Partitions) -> None:
    await held(partitions.all[3], ID, SAME)
    await held(partitions.all[1], SAME)
    document = (await command("pending", "--json")).document
    assert (document["pending"], document["lag"], document["length"]) == (3, 0, 3)
    assert document["exists"] is False, "two partitions have no group yet"
    assert [(c["name"], c["pending"]) for c in document["consumers"]] == [("dead", 3)]
    assert [(e["partition"], e["id"]) for e in document["entries"]] == [(3, ID), (1, SAME), (3, SAME)]
    named = (await command("pending", f"3:{SAME}", ID, "--json")).document
    assert [(e["partition"], e["id"]) for e in named["entries"]] == [(3, SAME), (3, ID)]
    assert (await command("pending", f"2:{ID}", "--json")).document["missing"] == [f"2:{ID}"]
    assert "there are 0 to 3" in (await command("pending", f"4:{ID}")).err
    assert "is no id" in (await command("pending", f"1:{ID}", REDIS_AGENT_PARTITIONS="1")).err


async def test_what_is_done_to_an_entry_is_done_in_its_partition(command: Command, partitions: Partitions) -> None:
    await held(partitions.all[3], ID, SAME)
    await held(partitions.all[1], SAME)

    for action in ("--claim", "--dead-letter"):
        refused = await command("pending", action, SAME, "--yes", "--wait", "0")
        assert refused.code == 1
        assert f"{SAME} is in 2 partitions: say which, 1:{SAME} or 3:{SAME}" in refused.err
    claimed = await command("pending", "--claim", f"1:{SAME}", ID, "--json", "--wait", "0")
    assert claimed.code == 0
    assert [(e["partition"], e["id"], e["outcome"]) for e in claimed.document["entries"]] == [
        (1, SAME, "waiting"),
        (3, ID, "waiting"),
    ]
    holders = [await p.client.xpending(keys.STREAM, keys.GROUP) for p in (partitions.all[1], partitions.all[3])]
    assert [{c["name"]: c["pending"] for c in holder["consumers"]} for holder in holders] == [
        {b"parked": 1},
        {b"dead": 1, b"parked": 1},
    ]
    given_up = await command("pending", "--dead-letter", f"3:{SAME}", "--json", "--yes")
    assert given_up.code == 0
    assert given_up.document["entries"][0]["partition"] == 3
    assert await pending_in(partitions) == [0, 1, 0, 1]
    assert await letters_in(partitions) == [0, 0, 0, 1]


async def test_dead_letters_are_listed_and_named_by_their_partition(command: Command, partitions: Partitions) -> None:
    await buried(partitions.all[0], ID)
    await buried(partitions.all[2], SAME, "two")
    await buried(partitions.all[3], SAME, "three")

    document = (await command("dead-letters", "list", "--json")).document
    assert document["total"] == 3
    assert {(e["partition"], e["id"], e["data"]) for e in document["entries"]} == {
        (2, SAME, "two"),
        (3, SAME, "three"),
        (0, ID, "no json"),
    }
    assert document["entries"][2]["id"] == ID, "the oldest last"
    assert (await command("dead-letters", "show", f"3:{SAME}", "--json")).document["data"] == "three"
    assert (await command("dead-letters", "show", ID, "--json")).document["partition"] == 0
    assert f"2:{SAME} or 3:{SAME}" in (await command("dead-letters", "show", SAME)).err
    assert "there is no dead letter" in (await command("dead-letters", "show", f"1:{ID}")).err

    assert f"2:{SAME} or 3:{SAME}" in (await command("dead-letters", "drop", SAME, "--yes")).err
    dropped = await command("dead-letters", "drop", f"2:{SAME}", ID, f"1:{ID}", "--yes", "--json")
    assert dropped.document == {"dropped": 2, "missing": 1}
    assert await letters_in(partitions) == [0, 0, 0, 1]
    assert (await command("dead-letters", "drop", "--all", "--yes", "--json")).document["dropped"] == 1


async def test_replayed_dead_letter_enters_the_stream_of_its_partition(
    command: Command, partitions: Partitions
) -> None:
    await buried(partitions.all[1], ID, '{"experiment_id":"exp-4","event":"sent"}')
    await buried(partitions.all[2], ID, '{"experiment_id":"exp-1","event":"sent"}')
    done = await command("dead-letters", "replay", "--all", "--wait", "0", "--json")
    assert done.document["replayed"] == 2
    assert sorted(e["partition"] for e in done.document["entries"]) == [1, 2]
    assert [await p.client.xlen(keys.STREAM) for p in partitions.all] == [0, 1, 1, 0]
    assert await letters_in(partitions) == [0, 0, 0, 0]


async def test_what_was_published_for_the_wrong_partition_is_replayed_into_the_right_one(
    command: Command, partitions: Partitions
) -> None:
    event, why = '{"experiment_id":"exp-5","event":"sent"}', "wrong_partition: its experiment belongs to partition 3"
    await buried(partitions.all[1], ID, event, why)
    await buried(partitions.all[3], SAME, event, why)
    done = await command("dead-letters", "replay", "--all", "--wait", "0", "--json")
    assert {(e["partition"], e.get("new_partition")) for e in done.document["entries"]} == {(1, 3), (3, None)}
    assert [await p.client.xlen(keys.STREAM) for p in partitions.all] == [0, 0, 0, 2]
    assert await letters_in(partitions) == [0, 0, 0, 0]


# Silences, events ----------------------------------------------------------------------------------------------


async def test_silence_is_set_where_the_alerts_of_the_experiment_are_raised(
    command: Command, partitions: Partitions
) -> None:
    for one in (*IDS, "all"):
        assert (await command("silence", one, "--for", "1h")).code == 0
    for one in IDS:
        assert await partitions.of(one).client.exists(keys.silence(one, None))
    assert await partitions.home.client.exists(keys.silence("all", None)), "summaries are raised in the home partition"
    listed = (await command("silence", "--list", "--json")).document
    assert [row["experiment_id"] for row in listed] == ["all", *sorted(IDS)]
    for one in (*IDS, "all"):
        assert (await command("silence", one, "--remove")).code == 0
    assert (await command("silence", "--list", "--json")).document == []
    assert (await command("silence", "exp-4", "--remove")).code == 1


async def test_published_event_is_received_by_whoever_listens(command: Command, partitions: Partitions) -> None:
    event = ("publish", "--experiment", "exp-4", "--event", "sent", "--json")
    assert (await command(*event)).document == {"published": 1, "receivers": 0, "unheard": 1}
    async with partitions.home.client.pubsub() as listener:
        await listener.subscribe("fullsend:metrics")
        await listener.get_message(timeout=1)
        assert (await command(*event)).document == {"published": 1, "receivers": 1, "unheard": 0}


# What the agent made of events ---------------------------------------------------------------------------------


async def test_what_workers_applied_is_proved_analysed_and_summed_up(
    command: Command, partitions: Partitions, redis_url: str
) -> None:
    for one in IDS:
        definition = {"hypothesis": one, "success_criteria": '["sent_count > 2"]', "state": "running"}
        await partitions.wide.hset(keys.experiment(one), mapping=definition)
        for n in range(IDS.index(one) + 1):
            event = {"experiment_id": one, "event": "sent", "score": n}
            await partitions.of(one).client.xadd(keys.STREAM, {"data": json.dumps(event)})

    async def applied() -> bool:
        flows = [await flow(partition.client) for partition in partitions.all]
        return all(found.exists and found.lag == found.pending == 0 for found in flows)

    async with agent(redis_url, "worker", REDIS_AGENT_PARTITIONS=PARTITIONS):
        await eventually(applied, 20)

    agreed = (await command("replay", "--json")).document
    assert (agreed["agree"], agreed["experiments"], agreed["entries"], agreed["not_comparable"]) == (True, 4, 10, 0)
    analysis = (await command("analyze", "exp-5", "--json")).document
    assert analysis["facts"]["experiment"]["events"] == 4
    told = (await command("summary", "--json")).document
    assert told["experiment_count"] == 4
    assert datetime.fromisoformat(told["until"]) <= datetime.now(UTC)

    await partitions.of("exp-1").client.hincrby(keys.aggregate("exp-1"), "sent_count", 1)
    differs = await command("replay", "--json")
    assert differs.code == 1
    found: list[dict[str, Any]] = differs.document["differences"]
    assert [(d["experiment_id"], d["aggregate"], d["replayed"]) for d in found] == [("exp-1", "4", "3")]
    assert (await command("replay", "--experiment", "exp-5", "--json")).code == 0
    assert (await command("replay", "--experiment", "exp-1", "--json")).code == 1


async def test_demo_runs_on_partitions_and_tells_the_truth() -> None:
    done = await run_cli("demo", "--plain", "--seconds", "1", "--speed", "20", REDIS_AGENT_PARTITIONS="3")
    assert done.code == 0
    assert "a replay of the stream agrees with every aggregate" in done.out.splitlines()[-1]
