"""The clients talk to every kind of address that the settings accept."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from redis_agent.store import keys, scripts
from redis_agent.store.address import Address
from redis_agent.store.client import arrived, connect, subscription
from redis_agent.store.failures import Remedy, classify
from tests.conftest import OwnServerFactory


async def test_unix_socket_works_for_commands_and_subscriptions(own_server: OwnServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    own_server(unixsocket=str(path))
    client = connect(Address(f"unix://{path}"), name="test")
    try:
        assert await client.ping()
        connection = subscription(client)
        await connection.connect()
        await connection.send_command("SUBSCRIBE", "channel")
        assert (await connection.read_response())[0] == b"subscribe"
        assert await client.publish("channel", "x") == 1
        assert (await connection.read_response())[2] == b"x"
        await connection.disconnect()
    finally:
        await client.aclose()


async def test_missing_right_inside_a_script_is_no_reason_to_try_again(own_server: OwnServerFactory) -> None:
    url = own_server().url
    admin = Redis.from_url(url)
    await admin.execute_command("ACL", "SETUSER", "weak", "on", ">secret", "~*", "&*", "+@all", "-incr")
    weak = connect(Address(url.replace("redis://", "redis://weak:secret@")), name="weak")
    try:
        with pytest.raises(Exception) as caught:
            await scripts.run(weak, "lease_acquire", [keys.LEASE_BRIDGE, keys.fence(keys.LEASE_BRIDGE)], ["me", 100])
        failure = classify(caught.value)
        assert (failure.remedy, failure.kind) == (Remedy.FATAL, "noperm"), caught.value
    finally:
        await asyncio.gather(admin.aclose(), weak.aclose())


async def test_messages_that_have_arrived_are_taken_together_and_in_order(redis_url: str) -> None:
    client = connect(Address(redis_url), name="test")
    connection = subscription(client)
    try:
        await connection.connect()
        await connection.send_command("SUBSCRIBE", "channel")
        assert (await arrived(connection))[0][0] == b"subscribe"
        async with client.pipeline(transaction=False) as pipe:
            for n in range(5_000):
                pipe.publish("channel", n)
            await pipe.execute()
        await connection.send_command("PING", check_health=False)
        await connection.send_command("XADD", "a command that a subscriber may not send", check_health=False)

        takes: list[list[Any]] = []
        while not takes or not isinstance(takes[-1][-1], Exception):
            try:
                takes.append(await asyncio.wait_for(arrived(connection), 10))
            except ResponseError as first:
                takes.append([first])
        replies = [reply for take in takes for reply in take]
        assert [int(reply[2]) for reply in replies[:5_000]] == list(range(5_000))
        assert replies[5_000][0] == b"pong"
        assert isinstance(replies[5_001], ResponseError), "an error keeps its place behind what came before it"
        assert len(takes) < 500, "not one by one"
        await client.client_kill_filter(_type="pubsub")
        with pytest.raises((RedisError, OSError)):
            await asyncio.wait_for(arrived(connection), 10)
    finally:
        await connection.disconnect()
        await client.aclose()


async def test_reply_that_does_not_come_in_time_is_nobodys(redis_url: str) -> None:
    client = connect(Address(redis_url), name="test", reply_timeout=0.1)
    try:
        for n in range(3):
            with pytest.raises(RedisTimeoutError):
                await client.execute_command("BLPOP", "nothing", 0.3)
            assert await client.execute_command("ECHO", str(n)) == str(n).encode()
        await asyncio.sleep(0.15)
        assert await client.ping(), "what was in time does not end the connection later"
    finally:
        await client.aclose()


async def test_process_that_was_stopped_for_longer_than_it_waits_takes_the_reply_that_has_come(redis_url: str) -> None:
    client = connect(Address(redis_url), name="test", reply_timeout=0.1)
    try:
        connected = await client.client_id()
        waiting = asyncio.create_task(client.execute_command("ECHO", "late"))
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - nothing of this process runs meanwhile
        assert await waiting == b"late"
        assert await client.client_id() == connected
    finally:
        await client.aclose()


async def test_errors_keep_their_place_among_the_replies_of_a_pipeline(redis_url: str) -> None:
    client = connect(Address(redis_url), name="test")
    commands = [("ECHO", str(n)) if n % 3 else ("GET",) for n in range(1, 600)]
    try:
        async with client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies = await pipe.execute(raise_on_error=False)
            assert await pipe.execute() == [], "nothing is sent twice"
        for (name, *args), reply in zip(commands, replies, strict=True):
            assert isinstance(reply, ResponseError) if name == "GET" else reply == args[0].encode()
        async with client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ECHO", "1").execute_command("GET").execute_command("ECHO", "2")
            with pytest.raises(ResponseError, match="wrong number of arguments"):
                await pipe.execute()
        assert await client.execute_command("ECHO", "3") == b"3"
    finally:
        await client.aclose()


async def test_pipeline_that_is_cancelled_leaves_no_reply_to_whoever_comes_next(redis_url: str) -> None:
    client = connect(Address(redis_url), name="test")

    async def many() -> None:
        async with client.pipeline(transaction=False) as pipe:
            for _ in range(255):  # after so many, others have their turn
                pipe.execute_command("ECHO", "of the pipeline")
            pipe.execute_command("BLPOP", "nothing", 0.05)
            await pipe.execute()

    try:
        for where in ("sleep", "_wait_for_data"):
            await client.ping()
            task = asyncio.create_task(many())
            async with asyncio.timeout(5):
                while _waits_in(task) != where:  # noqa: ASYNC110 - nobody says where it waits
                    await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            assert await client.execute_command("ECHO", "alone") == b"alone"
    finally:
        await client.aclose()


def _waits_in(task: asyncio.Task[None]) -> str:
    """The coroutine that it stands in."""
    coroutine: Any = task.get_coro()
    while hasattr(getattr(coroutine, "cr_await", None), "cr_await"):
        coroutine = coroutine.cr_await
    return str(coroutine.__name__)


async def test_connection_that_the_server_has_ended_is_made_anew(redis_url: str) -> None:
    client = connect(Address(redis_url), name="test")
    other = connect(Address(redis_url), name="other")
    try:
        for _ in range(3):
            assert await other.client_kill_filter(_id=str(await client.client_id())) == 1
            await asyncio.sleep(0.01)  # until its end has been seen
            assert await client.ping()
    finally:
        await asyncio.gather(client.aclose(), other.aclose())
