"""The three tests of the product's requirements, as the contract quotes them."""

import json
import uuid
from datetime import datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from tests.processes import Agents
from tests.waiting import eventually

METRICS = "fullsend:metrics"
ORCHESTRATOR = "fullsend:to_orchestrator"
COOLDOWNS = "redis_agent:cooldown:exp_test:success_threshold:*"


async def publish(client: Redis, event: dict[str, Any]) -> bytes:
    text = json.dumps(event)
    assert await client.publish(METRICS, text) >= 1, "no bridge listens"
    return text.encode()


async def applied(client: Redis, experiment: str, events: int) -> dict[str, str]:
    async def enough() -> dict[str, str] | None:
        fields = await client.hgetall(f"metrics_aggregated:{experiment}")
        return fields if fields.get("events_total") == str(events) else None

    return await eventually(enough, what=f"{events} events of {experiment} are applied") or {}


async def next_alert(client: Redis) -> dict[str, Any]:
    async with client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(ORCHESTRATOR)
        message = await eventually(lambda: listener.get_message(timeout=1), what="an alert arrives")
        alert: dict[str, Any] = json.loads(message["data"])
        return alert


async def test_basic_published_events_are_listed_raw_and_counted_exactly(agents: Agents, client: Redis) -> None:
    await agents.start().ready()

    published = [
        await publish(client, {"experiment_id": "exp_test", "event": "email_sent", "count": 1}),
        await publish(client, {"experiment_id": "exp_test", "event": "email_sent"}),
        await publish(client, {"experiment_id": "exp_test", "event": "email_sent", "count": 25}),
        await publish(client, {"experiment_id": "exp_test", "event": "reply", "count": 0}),
    ]

    aggregate = await applied(client, "exp_test", 4)
    assert aggregate["email_sent_count"] == "27"
    assert aggregate["reply_count"] == "0"
    assert aggregate["first_event_at"] <= aggregate["last_updated"]
    assert await client.lrange("metrics:exp_test", 0, -1) == [event.decode() for event in published]


async def test_threshold_alert_reaches_who_subscribes_only_after_the_metric(agents: Agents, client: Redis) -> None:
    await agents.start().ready()
    await client.hset("experiments:exp_test", "success_criteria", '["response_rate > 0.10"]')

    await publish(client, {"experiment_id": "exp_test", "response_rate": 0.15})
    await eventually(lambda: client.xlen("fullsend:alerts"), what="the alert waits in the outbox")
    alert = await next_alert(client)

    assert alert["type"] == alert["alert_type"] == "success_threshold"
    assert alert["experiment_id"] == "exp_test"
    assert alert["severity"] == "info"
    assert alert["priority"] in ("low", "medium", "high", "urgent")
    assert alert["source"] == "redis_agent"
    assert alert["criterion"] == "response_rate > 0.10"
    assert alert["current_value"] == alert["value"] == 0.15
    assert (alert["metric"], alert["operator"], alert["threshold"]) == ("response_rate", ">", 0.1)
    assert "exp_test" in alert["message"]
    assert "0.15" in alert["message"]
    assert alert["recommendation"]
    assert uuid.UUID(alert["alert_id"])
    moment = datetime.fromisoformat(alert["timestamp"])
    assert moment.utcoffset() == timedelta(0)


async def test_failure_threshold_alert_has_high_severity(agents: Agents, client: Redis) -> None:
    await agents.start().ready()
    await client.hset("experiments:exp_test", "failure_criteria", '[{"account_restricted": true}]')

    await publish(client, {"experiment_id": "exp_test", "account_restricted": True})
    alert = await next_alert(client)

    assert (alert["type"], alert["severity"], alert["priority"]) == ("failure_threshold", "high", "high")


async def test_error_event_raises_an_alert_at_once(agents: Agents, client: Redis) -> None:
    await agents.start().ready()

    await publish(client, {"experiment_id": "exp_test", "event": "error", "message": "Test error", "run_id": "r:1"})
    alert = await next_alert(client)

    assert (alert["type"], alert["severity"], alert["run_id"]) == ("error", "high", "r:1")
    assert "Test error" in alert["message"]
    assert (await applied(client, "exp_test", 1))["error_count"] == "1"


async def test_cooldown_holds_back_the_same_alert_also_after_a_restart(agents: Agents, client: Redis) -> None:
    agent = await agents.start(REDIS_AGENT_CONSUMER="stable").ready()
    await client.hset("experiments:exp_test", "success_criteria", '["response_rate > 0.10"]')
    async with client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(ORCHESTRATOR)
        await publish(client, {"experiment_id": "exp_test", "response_rate": 0.15})
        first = json.loads((await eventually(lambda: listener.get_message(timeout=1)))["data"])

        await publish(client, {"experiment_id": "exp_test", "response_rate": 0.15})
        await judged(client, agent_events=2)

        (cooldown,) = await client.keys(COOLDOWNS)
        assert 0 < await client.ttl(cooldown) <= 300
        assert await client.get(cooldown) == first["alert_id"]

        assert await agent.terminate() == 0
        await agent.start().ready()
        await publish(client, {"experiment_id": "exp_test", "response_rate": 0.16})
        await judged(client, agent_events=3)
        # An error's alert comes after whatever the metric would have raised: the outbox is in order.
        await publish(client, {"experiment_id": "exp_test", "event": "error", "message": "last"})
        last = json.loads((await eventually(lambda: listener.get_message(timeout=1)))["data"])

        assert last["type"] == "error"
        assert await client.get(cooldown) == first["alert_id"]
        assert await client.xlen("fullsend:alerts") == 2


async def judged(client: Redis, *, agent_events: int) -> None:
    """Wait until the derived metric of the witness shows that this many events of exp_test were judged."""
    await applied(client, "exp_test", agent_events)
    await client.hset(
        "experiments:witness",
        mapping={"metrics": '[{"name":"seen","formula":"ticks * 1"}]', "success_criteria": "[]"},
    )
    await publish(client, {"experiment_id": "witness", "event": "tick"})

    async def written() -> bool:
        return await client.hexists("metrics_aggregated:witness", "seen")

    await eventually(written, what="the witness is judged")
    await client.hdel("metrics_aggregated:witness", "seen")
