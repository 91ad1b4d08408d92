"""Summaries: one an interval and one a day whoever leads, in a model's words if they come in time, in nobody's way."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from redis_agent.store import keys
from tests.analyst.askers import NEVER, SUMMARY, Fake, Shifted, role
from tests.integration.flow import alerts
from tests.waiting import eventually

LEASE = "redis_agent:lease:scheduler"
# No periodic summary but at the beginning of a month.
SELDOM = 2_592_000.0
SWEEPS = {"threshold_check_interval_seconds": 0.6}


async def experiment(client: Redis, name: str = "exp", *, at_ms: int | None = None) -> None:
    """An experiment that wins, as the workers leave it after an event."""
    now_ms = int(time.time() * 1000) if at_ms is None else at_ms
    await client.hset(f"experiments:{name}", mapping={"success_criteria": json.dumps(["replies >= 5"])})
    await client.hincrby(f"metrics_aggregated:{name}", "events_total", 1)
    await client.hset(f"metrics_aggregated:{name}", mapping={"reply_count": "6"})
    await client.zadd(keys.EXPERIMENTS, {name: now_ms})
    await client.incrbyfloat(keys.FLOOR, 1)


async def summaries(client: Redis, period: str = "interval") -> list[dict[str, Any]]:
    return [a for a in await alerts(client) if a["type"] == "periodic_summary" and a["period"] == period]


async def some(client: Redis, number: int, period: str = "interval") -> bool:
    return len(await summaries(client, period)) >= number


async def marked(client: Redis, period: str = "summary") -> bool:
    return await client.hexists(keys.SCHEDULER, f"{period}_slot")


async def test_summary_is_told_in_the_models_words_with_its_headline_as_the_message(
    client: Redis, redis_url: str
) -> None:
    asker = Fake()
    async with role("scheduler", redis_url, asker, summary_interval_seconds=1.0):
        await eventually(lambda: marked(client), what="the first interval begins")
        await experiment(client)
        await eventually(lambda: some(client, 1), what="a summary")
    told = (await summaries(client))[0]
    assert (told["worded_by"], told["message"], told["experiment_count"]) == ("gemini", SUMMARY.headline, 1)
    assert told["summary"] == "All is well.\nWins\n- a wins\nChanged\n- b changed"
    assert asker.asked[0]["wins"] == ["exp: replies is 6, at least 5"]


async def test_slow_answer_holds_up_neither_the_other_jobs_nor_the_summary(client: Redis, redis_url: str) -> None:
    asker = Fake(NEVER)
    given = {"summary_interval_seconds": 1.0, "threshold_check_interval_seconds": 0.1}
    async with role("scheduler", redis_url, asker, analysis_deadline_seconds=4.0, **given):
        await eventually(lambda: marked(client), what="the first interval begins")
        await experiment(client)
        await eventually(lambda: bool(asker.asked), what="the model is asked")
        asked = time.monotonic()
        before = await client.hget(keys.SCHEDULER, "swept_ms")

        async def swept() -> bool:
            return await client.hget(keys.SCHEDULER, "swept_ms") != before

        await eventually(swept, 3, what="a sweep")
        assert not await some(client, 1)
        await eventually(lambda: some(client, 1), 6, what="the summary")
        assert time.monotonic() - asked < 4.0 + 2.0
    told = (await summaries(client))[0]
    assert told["worded_by"] == "template"
    assert "- exp: replies is 6, at least 5" in told["summary"]


async def test_leader_that_is_replaced_while_it_waits_for_words_tells_nothing_twice(
    client: Redis, redis_url: str
) -> None:
    slow, quick = Fake(1.5), Fake()
    given = {"summary_interval_seconds": 2.0, "analysis_deadline_seconds": 10.0}
    async with role("scheduler", redis_url, slow, **given):
        await eventually(lambda: marked(client), what="the first interval begins")
        await experiment(client)
        await eventually(lambda: bool(slow.asked), what="the first leader asks")
        async with role("scheduler", redis_url, quick, **given):

            async def robbed() -> bool:
                await client.delete(LEASE)
                return bool(quick.asked)

            await eventually(robbed, 20, interval=0.05, what="the second leader asks")
            await eventually(lambda: some(client, 1), what="a summary")
            await experiment(client)
            await eventually(lambda: some(client, 2), what="another one")
    told = await summaries(client)
    slots = [int(datetime.fromisoformat(a["timestamp"]).timestamp()) // 2 for a in told]
    assert len(set(slots)) == len(slots), "no interval is summarised twice"


async def test_digest_comes_once_a_day_at_its_minute_whoever_leads(client: Redis, redis_url: str) -> None:
    now = datetime.now(UTC)
    at = now + timedelta(hours=2)
    given = {"summary_interval_seconds": SELDOM, "daily_summary_at": f"{at:%H:%M}"} | SWEEPS
    at_minute = at.replace(second=0, microsecond=0)
    clock = Shifted()
    async with role("scheduler", redis_url, Fake(), clock=clock, **given):
        await eventually(lambda: marked(client, "summary_day"), what="the first day begins")
        await experiment(client)
        clock.seconds = (at_minute - now).total_seconds() - 20
        await time_goes_by(client)
        assert not await some(client, 1, "day")
        clock.seconds += 90
        await eventually(lambda: some(client, 1, "day"), what="the digest")
    async with role("scheduler", redis_url, Fake(), clock=clock, **given):
        await experiment(client, at_ms=clock.now_ms())
        clock.seconds += 3_600 * 20
        await time_goes_by(client)
        assert len(await summaries(client, "day")) == 1
        clock.seconds += 3_600 * 4
        await eventually(lambda: some(client, 2, "day"), what="the digest of the next day")
    first, second = await summaries(client, "day")
    assert datetime.fromisoformat(second["since"]) > datetime.fromisoformat(first["since"]) + timedelta(hours=1)
    assert await summaries(client) == []


async def time_goes_by(client: Redis) -> None:
    """Wait for two sweeps: the second began after now, at the time that the test has set."""
    for _ in range(2):
        before = await client.hget(keys.SCHEDULER, "swept_ms")

        async def swept(before: str | None = before) -> bool:
            return await client.hget(keys.SCHEDULER, "swept_ms") != before

        await eventually(swept, what="a sweep")


async def test_day_without_anything_new_has_no_digest(client: Redis, redis_url: str) -> None:
    at = datetime.now(UTC) + timedelta(hours=2)
    clock = Shifted()
    await experiment(client, at_ms=0)
    given = {"summary_interval_seconds": SELDOM, "daily_summary_at": f"{at:%H:%M}"} | SWEEPS
    async with role("scheduler", redis_url, Fake(), clock=clock, **given):
        await eventually(lambda: marked(client, "summary_day"), what="the first day begins")
        before = await client.hget(keys.SCHEDULER, "summary_day_slot")
        clock.seconds = 3 * 3_600

        async def due() -> bool:
            return await client.hget(keys.SCHEDULER, "summary_day_slot") != before

        await eventually(due, what="the digest is due")
    assert await summaries(client, "day") == []


async def test_hourly_summary_does_not_replace_the_digest_that_nobody_has_heard(client: Redis, redis_url: str) -> None:
    from tests.analyst.askers import raise_
    from tests.integration.test_analyses import listener

    digest = {"type": "periodic_summary", "experiment_id": "all", "period": "day"}
    hourly = digest | {"period": "interval"}
    await raise_(client, digest | {"alert_id": "day"}, hourly | {"alert_id": "1"}, hourly | {"alert_id": "2"})
    newest = (await client.xrange(keys.OUTBOX))[-1][0]
    await client.set(keys.NEWEST_SUMMARY, newest)
    async with listener(client) as heard, role("dispatcher", redis_url, Fake()):
        await heard.count(2)
    assert heard.ids == ["day", "2"]
