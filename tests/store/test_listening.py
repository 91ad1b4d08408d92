"""By which kind of pub/sub bridges hear: recorded by the first, and not to be changed by the way."""

import pytest
from redis.asyncio import Redis

from redis_agent.errors import PubsubError
from redis_agent.store.listening import check_pubsub, recorded_pubsub
from tests.conftest import OwnServerFactory


async def test_the_first_records_it_and_the_others_must_agree(raw: Redis) -> None:
    assert await recorded_pubsub(raw) is None
    await check_pubsub(raw, "sharded")
    await check_pubsub(raw, "sharded")
    with pytest.raises(PubsubError, match="set it to sharded"):
        await check_pubsub(raw, "plain")
    assert await recorded_pubsub(raw) == "sharded"


async def test_server_without_sharded_pubsub_is_refused_and_nothing_is_recorded(own_server: OwnServerFactory) -> None:
    async with Redis.from_url(own_server(rename_command='SSUBSCRIBE ""').url) as old:
        with pytest.raises(PubsubError, match="no sharded pub/sub"):
            await check_pubsub(old, "sharded")
        assert await recorded_pubsub(old) is None
        await check_pubsub(old, "plain")


async def test_user_who_may_not_look_is_told_nothing(own_server: OwnServerFactory) -> None:
    server = own_server()
    async with Redis.from_url(server.url) as admin:
        await admin.acl_setuser("blind", enabled=True, nopass=True, commands=["+set"], keys=["*"])
        await check_pubsub(admin, "sharded")
    async with Redis.from_url(server.url, username="blind", password="x") as blind:
        assert await recorded_pubsub(blind) is None
