"""Dead letters can be seen whole, put through the front door again once, and dropped."""

import base64
import json
import os
import pty

import redis.asyncio

from redis_agent.store import keys
from tests.cli.conftest import Cli, add, agent, until_applied
from tests.waiting import eventually

HOSTILE = b"hello \x1b[31m\xff\x00"


async def buried(redis_url: str) -> list[tuple[str, bytes]]:
    """The dead letters: id and original bytes."""
    async with redis.asyncio.Redis.from_url(redis_url, protocol=2) as raw:
        rows = await raw.xrange(keys.DEAD_LETTERS)
    return [(entry_id.decode(), fields[b"data"]) for entry_id, fields in rows]


async def bury(client: redis.asyncio.Redis, redis_url: str, *events: dict[str, object] | bytes) -> list[str]:
    """Have these events become dead letters; their ids among these."""
    async with agent(redis_url, "worker"):
        await add(client, *events)
        await until_applied(client)
    return [entry_id for entry_id, _ in await buried(redis_url)]


async def bury_for_a_wrong_type(client: redis.asyncio.Redis, redis_url: str) -> str:
    """A good event whose experiment's aggregate is in the way."""
    await client.set(keys.aggregate("exp_a"), "a string")
    return (await bury(client, redis_url, {"experiment_id": "exp_a", "event": "x", "count": 3}))[-1]


async def test_the_list_has_reasons_and_original_bytes(cli: Cli, client: redis.asyncio.Redis, redis_url: str) -> None:
    sources = []
    async with agent(redis_url, "worker"):
        sources += await add(client, HOSTILE, b"[1]")
        await until_applied(client)
    done = await cli("dead-letters", "list", "--json")
    assert done.code == 0
    document = done.document
    assert document["total"] == 2
    newest, oldest = document["entries"]
    assert newest["data"] == "[1]"
    assert newest["reason"].startswith("not_object")
    assert newest["source_id"] == sources[1]
    assert newest["deliveries"] == 1
    assert isinstance(newest["at"], int)
    assert "data_base64" not in newest
    assert base64.b64decode(oldest["data_base64"]) == HOSTILE
    assert oldest["data"] == HOSTILE.decode("utf-8", "replace")
    plain = (await cli("dead-letters", "list")).out
    assert oldest["id"] in plain
    assert "\\x1b[31m" in plain  # shown, not obeyed by the terminal


async def test_all_are_listed_for_programs_and_people_see_the_newest(cli: Cli, client: redis.asyncio.Redis) -> None:
    for n in range(120):
        await client.xadd(keys.DEAD_LETTERS, {"data": f"{n}", "reason": "r", "source_id": "1-1", "at": 1})
    document = (await cli("dead-letters", "list", "--json")).document
    assert [entry["data"] for entry in document["entries"]] == [f"{n}" for n in reversed(range(120))]
    plain = (await cli("dead-letters", "list")).out.splitlines()
    assert len(plain) == 1 + 50 + 1
    assert plain[-1].startswith("and 70 more")
    assert len((await cli("dead-letters", "list", "--json", "--limit", "3")).document["entries"]) == 3


async def test_one_is_shown_whole_where_the_list_shortens_it(cli: Cli, client: redis.asyncio.Redis) -> None:
    long = "x" * 5_000
    entry_id = await client.xadd(keys.DEAD_LETTERS, {"data": long, "reason": "r", "source_id": "1-1", "at": 1})
    assert long not in (await cli("dead-letters", "list")).out
    assert long in (await cli("dead-letters", "show", entry_id)).out
    assert (await cli("dead-letters", "show", entry_id, "--json")).document["data"] == long
    missing = await cli("dead-letters", "show", "1-1")
    assert missing.code == 1
    assert missing.err == "Error: there is no dead letter 1-1\n"


async def test_replay_says_that_a_letter_was_applied_once_its_cause_is_gone(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    entry_id = await bury_for_a_wrong_type(client, redis_url)
    await client.delete(keys.aggregate("exp_a"))
    async with agent(redis_url, "worker"):
        done = await cli("dead-letters", "replay", entry_id, "--json")
    assert done.code == 0
    [entry] = done.document["entries"]
    assert (entry["id"], entry["outcome"]) == (entry_id, "applied")
    assert await client.xlen(keys.DEAD_LETTERS) == 0
    assert await client.hget(keys.aggregate("exp_a"), "x_count") == "3"
    assert (await cli("replay")).code == 0


async def test_replay_says_that_a_letter_is_one_again_and_why(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    before = await bury(client, redis_url, HOSTILE, b"[1]")
    async with agent(redis_url, "worker"):
        done = await cli("dead-letters", "replay", "--all", "--json")
        assert done.code == 1
        after = [entry_id for entry_id, _ in await buried(redis_url)]
        assert [e["outcome"] for e in done.document["entries"]] == ["dead_letter", "dead_letter"]
        assert [e["dead_letter_id"] for e in done.document["entries"]] == after
        assert [e["reason"].partition(":")[0] for e in done.document["entries"]] == [
            "not_json",
            "not_object",
        ]
        assert not set(before) & set(after)
        plain = await cli("dead-letters", "replay", after[0])
        assert "dead letter again: not_json" in plain.out
    assert sorted(data for _, data in await buried(redis_url)) == sorted([HOSTILE, b"[1]"])


async def test_replay_says_that_nobody_works(cli: Cli, client: redis.asyncio.Redis, redis_url: str) -> None:
    entry_id = await bury_for_a_wrong_type(client, redis_url)
    done = await cli("dead-letters", "replay", entry_id, "--wait", "0.3")
    assert done.code == 0
    assert "is a worker running?" in done.out
    assert await client.xlen(keys.DEAD_LETTERS) == 0
    rows = await client.xrevrange(keys.STREAM, count=1)
    assert json.loads(rows[0][1]["data"])["count"] == 3


async def test_replay_does_not_wait_when_told_so(cli: Cli, client: redis.asyncio.Redis, redis_url: str) -> None:
    entry_id = await bury_for_a_wrong_type(client, redis_url)
    async with agent(redis_url, "worker"):
        done = await cli("dead-letters", "replay", entry_id, "--wait", "0", "--json")
    assert done.code == 0
    assert done.document["entries"][0]["outcome"] == "waiting"


async def test_a_letter_is_replayed_once_however_often_it_is_asked_for(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    entry_id = await bury_for_a_wrong_type(client, redis_url)
    length = await client.xlen(keys.STREAM)
    assert (await cli("dead-letters", "replay", entry_id, "--wait", "0")).code == 0
    again = await cli("dead-letters", "replay", entry_id, "--wait", "0")
    assert again.code == 1
    assert "no such dead letter" in again.out
    assert await client.xlen(keys.STREAM) == length + 1


async def test_five_binary_megabytes_are_listed_shown_and_replayed_whole(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    large = HOSTILE * (5_000_000 // len(HOSTILE))
    (entry_id,) = await bury(client, redis_url, large)
    (entry,) = (await cli("dead-letters", "list", "--json")).document["entries"]
    assert base64.b64decode(entry["data_base64"]) == large
    assert len((await cli("dead-letters", "list")).out) < 1_000
    shown = (await cli("dead-letters", "show", entry_id, "--json")).document
    assert base64.b64decode(shown["data_base64"]) == large
    async with agent(redis_url, "worker"):
        done = await cli("dead-letters", "replay", entry_id, "--json")
    assert done.code == 1
    assert done.document["entries"][0]["reason"].startswith("too_large")
    assert [data for _, data in await buried(redis_url)] == [large]


async def test_letters_without_the_usual_fields_break_nothing(
    cli: Cli, client: redis.asyncio.Redis, redis_url: str
) -> None:
    entry_id = await client.xadd(keys.DEAD_LETTERS, {"other": "x"})
    await client.xadd(keys.DEAD_LETTERS, {"data": "[1]", "at": "soon", "deliveries": "-", "reason": ""})
    assert (await cli("dead-letters", "list")).code == 0
    document = (await cli("dead-letters", "list", "--json")).document
    assert [(e["data"], e["reason"], e["at"], e["deliveries"]) for e in document["entries"]] == [
        ("[1]", "", 0, 0),
        ("", "", 0, 0),
    ]
    assert (await cli("dead-letters", "show", entry_id)).code == 0
    async with agent(redis_url, "worker"):
        done = await cli("dead-letters", "replay", "--all", "--json")
    assert [e["reason"].partition(":")[0] for e in done.document["entries"]] == ["not_json", "not_object"]
    assert await client.xlen(keys.DEAD_LETTERS) == 2


async def test_replay_that_cannot_be_written_says_which_and_why_and_keeps_the_letter(
    cli: Cli, client: redis.asyncio.Redis
) -> None:
    entry_id = await client.xadd(keys.DEAD_LETTERS, {"data": "x", "reason": "r"})
    await client.rpush(keys.STREAM, "no stream")
    done = await cli("dead-letters", "replay", entry_id, "1-1", "--wait", "0", "--json")
    assert done.code == 1
    first, second = done.document["entries"]
    assert (first["id"], first["outcome"], second["outcome"]) == (entry_id, "failed", "missing")
    assert "WRONGTYPE" in first["reason"]
    assert await client.xlen(keys.DEAD_LETTERS) == 1


async def test_letters_are_dropped_by_id_or_all(cli: Cli, client: redis.asyncio.Redis) -> None:
    ids = [await client.xadd(keys.DEAD_LETTERS, {"data": "x", "reason": "r"}) for _ in range(5)]
    done = await cli("dead-letters", "drop", ids[0], ids[1], "--json")
    assert done.code == 0
    assert done.document == {"dropped": 2, "missing": 0}
    missing = await cli("dead-letters", "drop", ids[0])
    assert missing.code == 1
    assert "named no dead letter" in missing.err
    assert (await cli("dead-letters", "drop", "--all", "--yes")).out == "3 dropped\n"
    assert await client.xlen(keys.DEAD_LETTERS) == 0
    assert (await cli("dead-letters", "drop", "--all")).out == "0 dropped\n"


async def test_drop_asks_on_a_terminal(client: redis.asyncio.Redis, redis_url: str) -> None:
    entry_id = await client.xadd(keys.DEAD_LETTERS, {"data": "x", "reason": "r"})
    assert await _drop_on_a_terminal(redis_url, entry_id, b"n\n") == 1
    assert await client.xlen(keys.DEAD_LETTERS) == 1
    assert await _drop_on_a_terminal(redis_url, entry_id, b"y\n") == 0
    assert await client.xlen(keys.DEAD_LETTERS) == 0


async def test_ids_and_all_exclude_each_other_and_one_is_needed(cli: Cli) -> None:
    for command in ("replay", "drop"):
        assert (await cli("dead-letters", command)).code == 2
        assert (await cli("dead-letters", command, "1-1", "--all")).code == 2
        wrong = await cli("dead-letters", command, "abc")
        assert wrong.code == 2
        assert "'abc' is no id" in wrong.err


async def _drop_on_a_terminal(redis_url: str, entry_id: str, answer: bytes) -> int:
    import asyncio
    import sys

    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "redis_agent", "dead-letters", "drop", entry_id),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "REDIS_URL": redis_url},
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        shown = b""

        def asked() -> bool:
            nonlocal shown
            try:
                shown += os.read(ours, 10_000)
            except BlockingIOError:
                return False
            return b"[y/N]" in shown

        await eventually(asked)
        os.write(ours, answer)
        return await asyncio.wait_for(process.wait(), 30)
    finally:
        os.close(ours)
