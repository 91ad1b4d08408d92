"""What examining found is kept with its alert or not at all, by whoever leads, once."""

import json

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.store import keys
from redis_agent.store.anomalies import NOTED, OVERTAKEN, SILENCED, WRONG_TYPE, Anomalies, Examined, Tell
from redis_agent.store.lease import Lease

TTL = 1_000
KEY = keys.anomalies("e")


def tell(alert_id: str = "id", *, seconds: int = 100) -> Tell:
    return Tell("anomaly", "f", seconds, alert_id, f"data {alert_id}", json.dumps({alert_id: 1}))


async def lead(raw: Redis, owner: str = "me") -> str:
    value = await Lease(raw, name=keys.LEASE_SCHEDULER, owner=owner, ttl_ms=60_000).acquire()
    assert value is not None
    return value


async def outbox(raw: Redis) -> list[bytes]:
    return [fields[b"data"] for _, fields in await raw.xrange(keys.OUTBOX)]


async def test_series_and_alert_are_written_in_one_step_and_expire_together(raw: Redis) -> None:
    anomalies = Anomalies(raw, ttl_seconds=TTL)
    await raw.hset(KEY, mapping={"upto": 600, "count:old": "x", "count:a": "1"})
    found = Examined("e", "600", 1_200, {"count:a": "2", "told": "held"}, ["count:old"], tell())
    other = Examined("f:with:colons", "", 1_200, {"count:b": "3"})
    assert await anomalies.write(await lead(raw), [found, other], mark="[1]") == [0, NOTED]
    assert await raw.hgetall(KEY) == {b"upto": b"1200", b"count:a": b"2", b"told": b'{"id": 1}'}
    assert await raw.hgetall(keys.anomalies("f:with:colons")) == {b"upto": b"1200", b"count:b": b"3"}
    assert await outbox(raw) == [b"data id"]
    assert await raw.hget(keys.SCHEDULER, "anomalies") == b"[1]"
    assert 0 < await raw.ttl(KEY) <= TTL
    assert (await anomalies.read(["e", "none"])) == [{"upto": "1200", "count:a": "2", "told": '{"id": 1}'}, {}]
    assert await anomalies.examined_upto(["e", "none"]) == ["1200", ""]


async def test_whoever_leads_no_more_writes_nothing(raw: Redis) -> None:
    stopped = await lead(raw)
    await raw.delete(keys.LEASE_SCHEDULER)
    await lead(raw, "another")
    found = Examined("e", "", 600, {"count:a": "1"}, tell=tell())
    assert await Anomalies(raw, ttl_seconds=TTL).write(stopped, [found], mark="[1]") is None
    assert not await raw.exists(KEY, keys.OUTBOX, keys.SCHEDULER)


async def test_of_two_who_examine_the_same_window_one_is_heard(raw: Redis) -> None:
    anomalies, lease = Anomalies(raw, ttl_seconds=TTL), await lead(raw)
    assert await anomalies.write(lease, [Examined("e", "", 600, {"count:a": "1"}, tell=tell("first"))]) == [0]
    late = Examined("e", "", 600, {"count:a": "2"}, tell=tell("second"))
    assert await anomalies.write(lease, [late]) == [OVERTAKEN]
    assert await raw.hget(KEY, "count:a") == b"1"
    assert await outbox(raw) == [b"data first"]


async def test_what_is_cooling_down_or_muted_is_kept_as_not_told(raw: Redis) -> None:
    anomalies, lease = Anomalies(raw, ttl_seconds=TTL), await lead(raw)
    await raw.set(keys.cooldown("e", "anomaly", "f"), "before", ex=50)
    (left_ms,) = await anomalies.write(lease, [Examined("e", "", 600, {"told": "held"}, tell=tell())]) or []
    assert 0 < left_ms <= 50_000
    await raw.delete(keys.cooldown("e", "anomaly", "f"))
    await raw.set(keys.silence("e", "anomaly"), "by hand", ex=50)
    assert await anomalies.write(lease, [Examined("e", "600", 1_200, tell=tell())]) == [SILENCED]
    assert await raw.hgetall(KEY) == {b"upto": b"1200", b"told": b"held"}
    assert await outbox(raw) == []
    await raw.delete(keys.silence("e", "anomaly"))
    assert await anomalies.write(lease, [Examined("e", "1200", 1_800, tell=tell())]) == [0]
    assert await raw.hget(KEY, "told") == b'{"id": 1}'
    assert 0 < await raw.ttl(keys.cooldown("e", "anomaly", "f")) <= 100


async def test_key_of_another_type_costs_its_own_experiment_only(raw: Redis) -> None:
    anomalies, lease = Anomalies(raw, ttl_seconds=TTL), await lead(raw)
    await raw.set(KEY, "mine")
    found = [Examined("e", "", 600, {"count:a": "1"}, tell=tell("e")), Examined("f", "", 600, tell=tell("f"))]
    assert await anomalies.write(lease, found) == [WRONG_TYPE, 0]
    assert await raw.get(KEY) == b"mine"
    assert await outbox(raw) == [b"data f"]
    assert await anomalies.read(["e"]) == [{}]
    assert await anomalies.examined_upto(["e", "f"]) == ["", "600"]


async def test_outbox_of_another_type_stops_all_before_anything_is_written(raw: Redis) -> None:
    lease = await lead(raw)
    await raw.set(keys.OUTBOX, "mine")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await Anomalies(raw, ttl_seconds=TTL).write(lease, [Examined("e", "", 600, tell=tell())])
    assert not await raw.exists(KEY, keys.cooldown("e", "anomaly", "f"))


async def test_thousands_of_series_are_written_in_one_go(raw: Redis) -> None:
    series = {f"count:{n}": "x" * 20 for n in range(7_777)}
    found = Examined("e", "", 600, series, [f"gauge:{n}" for n in range(3_333)])
    assert await Anomalies(raw, ttl_seconds=TTL).write(await lead(raw), [found, found]) == [NOTED, OVERTAKEN]
    assert await raw.hlen(KEY) == 7_778


# How complete the windows are -----------------------------------------------------------------------------------


async def test_windows_are_complete_up_to_the_oldest_event_that_is_not_applied(raw: Redis) -> None:
    anomalies, now_ms = Anomalies(raw, ttl_seconds=TTL), 1_700_000_500_000
    assert (await anomalies.standing(now_ms)).complete_ms == now_ms
    await raw.xgroup_create(keys.STREAM, keys.GROUP, "0", mkstream=True)
    for second in (100, 400, 450):
        await raw.xadd(keys.STREAM, {"data": "{}"}, id=f"{1_700_000_000 + second}000-0")
    assert (await anomalies.standing(now_ms)).complete_ms == 1_700_000_100_000, "nothing is read yet"
    await raw.xreadgroup(keys.GROUP, "c", {keys.STREAM: ">"}, count=2)
    await raw.xack(keys.STREAM, keys.GROUP, "1700000100000-0")
    assert (await anomalies.standing(now_ms)).complete_ms == 1_700_000_400_000, "one is in hand"
    await raw.xreadgroup(keys.GROUP, "c", {keys.STREAM: ">"}, count=2)
    later_ms = now_ms + 100_000
    assert (await anomalies.standing(later_ms)).complete_ms == later_ms, "what is stuck is in nobody's way"


async def test_windows_are_complete_no_further_than_a_bridge_was_at_work(raw: Redis) -> None:
    anomalies, now_ms = Anomalies(raw, ttl_seconds=TTL), 1_700_000_500_000
    await raw.hset(keys.BRIDGE, mapping={"at": now_ms - 70_000, "gaps": 2, "given_up": 30})
    standing = await anomalies.standing(now_ms)
    assert standing.complete_ms == now_ms - 70_000
    await raw.hset(keys.BRIDGE, "gaps", 3)
    await raw.hset(keys.ACCOUNT, "lost", 5)
    await raw.hset(keys.SCHEDULER, mapping={"stream_dropped_unread": 7, "anomalies": "[0,0,[]]"})
    after = await anomalies.standing(now_ms)
    assert after.losses - standing.losses == 1 + 5 + 7
    assert after.mark == "[0,0,[]]"
