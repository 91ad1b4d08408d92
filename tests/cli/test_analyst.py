"""`analyze`, `summary` and the analyses that `alerts` shows, off a terminal and as JSON."""

import json
from typing import Any

import pytest
import redis.asyncio

from redis_agent.store import keys
from tests.cli.conftest import Cli, agent
from tests.integration.flow import publish
from tests.waiting import eventually

DEFINITION = {
    "hypothesis": "Short messages are answered",
    "success_criteria": json.dumps(["replies >= 5"]),
    "failure_criteria": json.dumps(["bounce_rate > 0.1", "nobody likes it"]),
    "metrics": json.dumps([{"name": "bounce_rate", "formula": "bounces / emails_sent"}]),
}


async def campaign(client: redis.asyncio.Redis, *, sent: int, bounced: int, replies: int) -> None:
    await client.hset("experiments:exp", mapping=DEFINITION)
    for event, count in (("email_sent", sent), ("bounce", bounced), ("reply", replies)):
        await publish(client, event=event, count=count)

    async def applied() -> bool:
        return await client.hget("metrics_aggregated:exp", "events_total") == "3"

    await eventually(applied, what="the events are applied")


async def test_analyze_says_how_an_experiment_stands_and_why(client: redis.asyncio.Redis, cli: Cli) -> None:
    async with agent(str(client_url(client))):
        await campaign(client, sent=400, bounced=90, replies=6)
    shown, document = await cli("analyze", "exp"), (await cli("analyze", "exp", "--json")).document
    status, insight, action, *_ = shown.out.splitlines()
    assert status == "exp: failing  (template)"
    assert insight.startswith(
        "bounce_rate is 22.5 % (90 of 400), above the failure threshold of 10 %; its only success"
    )
    assert action.startswith("action: Pause it and find the cause behind bounce_rate")
    assert set(document) == {"experiment_id", "analysis", "facts"}
    assert document["analysis"]["status"] == "failing"
    assert document["facts"]["experiment"]["hypothesis"] == DEFINITION["hypothesis"]
    assert shown.err == ""


def client_url(client: redis.asyncio.Redis) -> str:
    given = client.connection_pool.connection_kwargs
    return f"redis://{given['host']}:{given['port']}/{given['db']}"


async def test_analyze_knows_what_it_does_not_know(cli: Cli) -> None:
    finished = await cli("analyze", "nothing", "--json")
    assert (finished.code, finished.out) == (1, "")
    assert "nothing is unknown" in finished.err


@pytest.mark.parametrize("flags", [[], ["--daily"]])
async def test_summary_is_one_page_for_people_and_one_object_for_programs(
    client: redis.asyncio.Redis, cli: Cli, flags: list[str]
) -> None:
    async with agent(client_url(client)):
        await campaign(client, sent=400, bounced=90, replies=6)

        async def told() -> bool:
            return await client.xlen(keys.OUTBOX) >= 2

        await eventually(told, what="both criteria are told")
    shown, document = await cli("summary", *flags), (await cli("summary", *flags, "--json")).document
    lines = shown.out.splitlines()
    assert lines[0] == (
        f"1 experiment had events in the last {'day' if flags else 'hour'}: 1 success criterion met, "
        "1 failure criterion met, 0 experiments quiet."
    )
    assert lines[1:5] == ["Wins", "- exp: replies is 6, at least 5", "Concerns", lines[4]]
    assert lines[4].startswith("- exp: bounce_rate is 22.5 % (90 of 400), above 10 %")
    assert lines[5] == "Changed"
    assert lines[6].startswith("- exp: the failure criterion (bounce_rate > 0.1) was met at ")
    assert (document["period"], document["experiment_count"]) == ("day" if flags else "interval", 1)
    assert document["summary"].splitlines() == lines
    assert (document["wins"], document["worded_by"]) == (["exp: replies is 6, at least 5"], "template")


async def test_summary_of_nothing_reads_well(cli: Cli) -> None:
    finished = await cli("summary")
    assert finished.out.startswith("0 experiments had events in the last hour")


async def test_alerts_show_the_analysis_that_they_were_delivered_with(client: redis.asyncio.Redis, cli: Cli) -> None:
    heard: list[dict[str, Any]] = []
    async with client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe("fullsend:to_orchestrator")
        async with agent(client_url(client)):
            await campaign(client, sent=400, bounced=90, replies=1)

            async def told() -> bool:
                message = await listener.get_message(timeout=0.1)
                heard.extend([json.loads(message["data"])] if message else [])
                return bool(heard)

            await eventually(told, what="the alert arrives")
    (shown,) = (await cli("alerts", "--json")).document
    assert shown == {**heard[0], "delivered": True}
    assert shown["analysis"]["status"] == "failing"
