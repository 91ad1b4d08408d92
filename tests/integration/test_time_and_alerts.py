"""What happens with time, how alerts leave, and what the endpoint shows."""

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from tests.integration.flow import METRICS, ORCHESTRATOR, OUTBOX, alerts, answered, http, publish, settled
from tests.processes import Agents
from tests.waiting import eventually

# design.md, "Prometheus metrics"
NAMES = {
    "events_total", "stream_lag", "stream_lag_known", "stream_length", "pending_entries", "oldest_pending_seconds",
    "oldest_unread_seconds", "batch_seconds", "event_latency_seconds", "alert_latency_seconds", "alerts_total",
    "dead_letters_total", "reclaimed_total", "bridge_received_total", "bridge_gaps_total", "bridge_leader",
    "scheduler_leader", "llm_requests_total", "llm_tokens_total", "redis_errors_total",
}  # fmt: skip


# Alerts and time -----------------------------------------------------------------------------------------------


async def test_time_clause_fires_by_the_sweep_alone_and_once(agents: Agents, client: Redis) -> None:
    await client.hset("experiments:exp", mapping={"failure_criteria": '["replies < 3 after 2 seconds"]'})
    await agents.start(THRESHOLD_CHECK_INTERVAL_SECONDS=0.2).ready()
    await publish(client, event="reply", count=1)
    await settled(client, 1)
    assert await alerts(client) == []

    await eventually(lambda: client.xlen(OUTBOX), 15, what="the sweep tells")

    (alert,) = await alerts(client)
    assert (alert["type"], alert["criterion"]) == ("failure_threshold", "replies < 3 after 2 seconds")
    await sweeps(client, 3)
    assert await client.xlen(OUTBOX) == 1


async def test_errors_of_ever_new_kinds_are_a_few_alerts_and_other_experiments_are_told_all_the_same(
    agents: Agents, client: Redis
) -> None:
    await agents.start().ready()
    for n in range(60):
        words = f"{chr(97 + n % 26)}{chr(97 + n // 26)} failed"
        await publish(client, event="error", message=words)
    await publish(client, experiment_id="other", event="error", message="also broken")
    await settled(client, 61)

    told = [alert["experiment_id"] for alert in await alerts(client)]
    assert told == ["exp"] * 5 + ["other"]
    assert await client.hget("metrics_aggregated:exp", "error_count") == "60"


async def test_crossing_told_as_early_is_told_once_and_again_when_it_is_confirmed(
    agents: Agents, client: Redis
) -> None:
    specs = [{"name": "rate", "formula": "replies / sends"}]
    definition = {"success_criteria": '["rate > 10%"]', "metrics": json.dumps(specs)}
    await client.hset("experiments:exp", mapping=definition)
    await agents.start(ALERT_COOLDOWN_SECONDS=1, THRESHOLD_CHECK_INTERVAL_SECONDS=0.2).ready()
    await publish(client, event="send", count=30)
    await publish(client, event="reply", count=5)
    await eventually(lambda: client.xlen(OUTBOX), 15, what="the early sign is told")
    await sweeps(client, 10)  # longer than the cooldown
    await publish(client, event="send", count=1)
    await sweeps(client, 3)
    assert [alert["evidence"] for alert in await alerts(client)] == ["early"]

    await publish(client, event="reply", count=20)

    async def both() -> bool:
        return await client.xlen(OUTBOX) >= 2

    await eventually(both, 15, what="the confirmation is told")
    assert [alert["evidence"] for alert in await alerts(client)][:2] == ["early", "confirmed"]


async def test_what_lasts_is_told_again_with_new_events_only_and_after_waits_that_grow(
    agents: Agents, client: Redis
) -> None:
    await client.hset("experiments:exp", mapping={"failure_criteria": '["bounce_rate > 0.05"]'})
    settings = {"ALERT_COOLDOWN_SECONDS": 1, "THRESHOLD_CHECK_INTERVAL_SECONDS": 0.2, "REDIS_AGENT_ALERT_BACKOFF": 100}
    await agents.start(**settings).ready()
    await publish(client, bounce_rate=0.07)
    await eventually(lambda: client.xlen(OUTBOX), 15, what="it is told")
    await sweeps(client, 8)  # longer than the cooldown
    assert await client.xlen(OUTBOX) == 1, "nothing is new"

    async def twice() -> bool:
        await publish(client, bounce_rate=0.07)
        return await client.xlen(OUTBOX) >= 2

    await eventually(twice, 15, what="it is told again")
    await sweeps(client, 8)
    await publish(client, bounce_rate=0.08)
    await sweeps(client, 2)
    first, second = await alerts(client)
    assert ("repeated" in first, second["repeated"], "since" in second["message"]) == (False, True, True)
    (state,) = map(json.loads, (await client.hgetall("redis_agent:alert_state:exp")).values())
    assert (state["level"], state["told"], state["alert_id"]) == ("confirmed", 2, second["alert_id"])
    (cooldown,) = [key async for key in client.scan_iter("redis_agent:cooldown:exp:failure_threshold:*")]
    assert 90 <= await client.ttl(cooldown) <= 100
    assert await client.get(cooldown) == second["alert_id"]


async def test_metric_that_flaps_is_told_as_flapping_once_by_many_workers_and_a_sweep(
    agents: Agents, client: Redis
) -> None:
    await client.hset("experiments:exp", mapping={"failure_criteria": '["bounce_rate > 0.05"]'})
    settings = {"ALERT_COOLDOWN_SECONDS": 1, "THRESHOLD_CHECK_INTERVAL_SECONDS": 0.2, "REDIS_AGENT_ALERT_BACKOFF": 1}
    started = [agents.start(**settings), *(agents.start("worker", **settings) for _ in range(2))]
    for agent in started:
        await agent.ready()

    async def state() -> dict[str, Any]:
        kept = await client.hgetall("redis_agent:alert_state:exp")
        return dict(json.loads(next(iter(kept.values())))) if kept else {}

    for n in range(14):
        level = ("cleared", "confirmed")[n % 2 == 0]
        await publish(client, bounce_rate=0.07 if level == "confirmed" else 0.01)

        async def seen(level: str = level) -> bool:
            return (await state()).get("level") == level

        await eventually(seen, 15, what=f"{level}, the time {n}")
        await sweeps(client, 2)

    told = await alerts(client)
    assert [alert.get("flapping", False) for alert in told].count(True) == 1
    assert told[-1].get("flapping"), "after that nothing more is told"
    assert len(told) <= 3


async def test_failure_that_is_over_is_told_where_that_is_wanted(agents: Agents, client: Redis) -> None:
    await client.hset("experiments:exp", mapping={"failure_criteria": '["bounce_rate > 0.05"]'})
    await agents.start(REDIS_AGENT_NOTIFY_CLEARED="true", THRESHOLD_CHECK_INTERVAL_SECONDS=0.2).ready()
    await publish(client, bounce_rate=0.07)
    await eventually(lambda: client.xlen(OUTBOX), 15, what="the failure is told")
    await publish(client, bounce_rate=0.01)

    async def both() -> bool:
        return await client.xlen(OUTBOX) >= 2

    await eventually(both, 15, what="its end is told")
    await sweeps(client, 3)
    assert [(a["type"], a["severity"]) for a in await alerts(client)] == [
        ("failure_threshold", "high"),
        ("cleared", "info"),
    ]


async def test_muted_errors_are_not_delivered_and_counted_and_others_are(agents: Agents, client: Redis) -> None:
    agent = await agents.start(http=True).ready()
    await client.set("redis_agent:silence:error:exp", "by hand", ex=600)
    async with client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(ORCHESTRATOR)
        await publish(client, event="error", message="muted")
        await publish(client, experiment_id="other", event="error", message="heard")
        heard: list[str] = []

        async def one() -> bool:
            while message := await listener.get_message(timeout=0.05):
                heard.append(json.loads(message["data"])["experiment_id"])
            return bool(heard)

        await eventually(one, 15, what="the other experiment's error is delivered")
    assert heard == ["other"]
    assert len(await alerts(client)) == 2, "the history has both"
    assert (await client.xpending(OUTBOX, "dispatcher"))["pending"] == 0
    _, text = await http(agent, "/metrics")
    assert 'redis_agent_alerts_total{outcome="silenced",severity="high",type="error"} 1.0' in text


async def sweeps(client: Redis, number: int) -> None:
    for _ in range(number):
        before = await client.hget("redis_agent:scheduler", "swept_ms")

        async def swept(before: str | None = before) -> bool:
            return await client.hget("redis_agent:scheduler", "swept_ms") != before

        await eventually(swept, what="a sweep")


async def test_summary_comes_once_an_interval_with_two_schedulers(agents: Agents, client: Redis) -> None:
    settings = {"SUMMARY_INTERVAL_SECONDS": 2, "REDIS_AGENT_QUIET_AFTER_SECONDS": 1}
    await agents.start("bridge", "worker").ready()
    schedulers = [agents.start("scheduler", **settings) for _ in range(2)]
    for scheduler in schedulers:
        await scheduler.ready()
    stop = asyncio.Event()

    async def life() -> None:
        while not stop.is_set():
            await publish(client, event="tick")
            await asyncio.sleep(0.2)

    living = asyncio.create_task(life())
    await eventually(lambda: client.xlen(OUTBOX), 10, what="the first summary")
    leader = next(s for s in schedulers if any(e["event"] == "lease_acquired" for e in s.log()))
    leader.kill()  # the other one continues where it stopped

    async def three() -> bool:
        return await client.xlen(OUTBOX) >= 3

    await eventually(three, 15, what="three summaries")
    stop.set()
    await living

    found = [(a["type"], int(i.partition("-")[0]) // 2000) for a, (i, _) in zip(
        await alerts(client), await client.xrange(OUTBOX), strict=True
    )]  # fmt: skip
    assert {kind for kind, _ in found} == {"periodic_summary"}
    assert len({slot for _, slot in found}) == len(found), "no interval is summarised twice"
    summary = (await alerts(client))[0]
    assert summary["experiment_count"] == 1
    assert summary["message"] == summary["summary"].splitlines()[0]


async def test_alerts_are_delivered_once_and_in_order_by_two_dispatchers(agents: Agents, client: Redis) -> None:
    dispatchers = [await agents.start("dispatcher").ready() for _ in range(2)]
    await eventually(lambda: client.get("redis_agent:lease:dispatcher"))
    async with client.pubsub(ignore_subscribe_messages=True) as listener:
        for first in (0, 50):
            for n in range(first, first + 50):
                await client.xadd(OUTBOX, {"data": json.dumps({"type": "error", "alert_id": str(n)}), "at": 0})
            if first == 0:
                await listener.subscribe(ORCHESTRATOR)
            else:
                holder = await client.get("redis_agent:lease:dispatcher") or ""
                leader = next((d for d in dispatchers if f"-{d.pid}-" in holder), dispatchers[0])
                assert await leader.terminate() == 0

        heard: list[str] = []

        async def all_heard() -> bool:
            while message := await listener.get_message(timeout=0.05):
                heard.append(json.loads(message["data"])["alert_id"])
            return len(heard) >= 100

        await eventually(all_heard, 20, what="all alerts arrive")
    assert heard == [str(n) for n in range(100)]
    assert (await client.xpending(OUTBOX, "dispatcher"))["pending"] == 0


async def test_alert_nobody_listens_to_waits_and_is_given_up_in_the_end(agents: Agents, client: Redis) -> None:
    dispatcher = agents.start("dispatcher", REDIS_AGENT_ALERT_DELIVERY_TTL_SECONDS=1, http=True)
    entry = await client.xadd(OUTBOX, {"data": '{"type":"error","severity":"high","alert_id":"a"}', "at": 0})
    line = await dispatcher.logged("alert_undelivered")
    assert line["waited_ms"] >= 1000
    assert await client.smembers("redis_agent:alerts:undelivered") == {entry}
    assert [entry_id for entry_id, _ in await client.xrange(OUTBOX)] == [entry], "it stays in the history"
    _, text = await http(dispatcher, "/metrics")
    assert 'redis_agent_alerts_total{outcome="undelivered",severity="high",type="error"} 1.0' in text


async def test_formulas_appear_under_their_plain_names(agents: Agents, client: Redis) -> None:
    metrics = [{"name": "response_rate", "formula": "replies / emails_sent"}]
    await client.hset("experiments:exp", mapping={"metrics": json.dumps(metrics)})
    await agents.start().ready()
    await publish(client, event="email_sent", count=40)
    await publish(client, event="reply", count=5)

    async def derived() -> bool:
        return await client.hget("metrics_aggregated:exp", "response_rate") == "0.125"

    await eventually(derived, what="the rate is written")
    await publish(client, event="reply", count=5)

    async def newer() -> bool:
        return await client.hget("metrics_aggregated:exp", "response_rate") == "0.25"

    await eventually(newer, what="the newer rate is written")


# The endpoint --------------------------------------------------------------------------------------------------


async def test_metrics_parse_and_have_every_promised_name(agents: Agents, client: Redis) -> None:
    agent = await agents.start(http=True).ready()
    await publish(client, event="error", message="m")
    await client.publish(METRICS, "junk")
    await settled(client, 2)

    _, text = await http(agent, "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    exposed = {s.name for f in families.values() for s in f.samples} | set(families)
    exposed |= {f"{f.name}_total" for f in families.values() if f.type == "counter"}
    assert {f"redis_agent_{name}" for name in NAMES} <= exposed
    samples = {(s.name, *sorted(s.labels.values())): s.value for f in families.values() for s in f.samples}
    assert samples["redis_agent_events_total", "applied"] == 1
    assert samples["redis_agent_dead_letters_total", "not_json"] == 1
    assert samples["redis_agent_bridge_leader",] == samples["redis_agent_stream_lag_known",] == 1
    assert samples["redis_agent_event_latency_seconds_count",] == 2
    assert "exp" not in {v for f in families.values() for s in f.samples for v in s.labels.values()}


async def test_stream_of_the_wrong_type_is_said_as_such_and_not_as_a_server_that_is_away(
    agents: Agents, client: Redis
) -> None:
    agent = await agents.start("scheduler", http=True).ready()
    await client.set("fullsend:metrics:stream", "in the way")
    assert "Redis answers: WRONGTYPE" in await answered(agent, "/readyz", 503)
    _, text = await http(agent, "/metrics")
    assert "redis_agent_redis_up 1.0" in text
    assert "redis_agent_stream_lag_known 0.0" in text


@pytest.mark.parametrize("path", ["/", "/metrics/../etc", "/unknown"])
async def test_unknown_paths_are_no_error(agents: Agents, path: str) -> None:
    agent = await agents.start(http=True).ready()
    status, _ = await http(agent, path)
    assert status in (200, 404)
