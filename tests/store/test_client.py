"""The clients talk to every kind of address that the settings accept."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from redis_agent.store import keys, scripts
from redis_agent.store.client import connect, subscription
from redis_agent.store.failures import Remedy, classify
from tests.conftest import OwnServerFactory


async def test_unix_socket_works_for_commands_and_subscriptions(own_server: OwnServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    own_server(unixsocket=str(path))
    client = connect(f"unix://{path}", name="test")
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
    weak = connect(url.replace("redis://", "redis://weak:secret@"), name="weak")
    try:
        with pytest.raises(Exception) as caught:
            await scripts.run(weak, "lease_acquire", [keys.LEASE_BRIDGE, keys.fence(keys.LEASE_BRIDGE)], ["me", 100])
        failure = classify(caught.value)
        assert (failure.remedy, failure.kind) == (Remedy.FATAL, "noperm"), caught.value
    finally:
        await asyncio.gather(admin.aclose(), weak.aclose())
