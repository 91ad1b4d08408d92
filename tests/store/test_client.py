"""The clients talk to every kind of address that the settings accept."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

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
