"""A campaign does not fail for the emails that it sent a minute ago."""

import json
import time

from redis.asyncio import Redis

from tests.cli.conftest import run_cli
from tests.integration.flow import alerts, publish
from tests.processes import Agents
from tests.waiting import eventually

METRICS = [{"name": "reply_rate", "type": "percentage", "formula": "replies / emails_sent"}]


async def test_emails_that_nobody_had_time_to_answer_make_no_failure(
    agents: Agents, client: Redis, redis_url: str
) -> None:
    definition = {"failure_criteria": '["reply_rate < 0.02"]', "metrics": json.dumps(METRICS)}
    await client.hset("experiments:exp", mapping=definition)
    settings = {"REDIS_AGENT_MATURITY_SECONDS": 3_600, "THRESHOLD_CHECK_INTERVAL_SECONDS": 0.2}
    await agents.start(**settings).ready()

    async def check() -> dict[str, object]:
        done = await run_cli("check", "exp", "--json", REDIS_URL=redis_url, REDIS_AGENT_MATURITY_SECONDS="3600")
        return dict(done.document["criteria"][0])

    await publish(client, event="reply", count=0)
    await publish(client, event="email_sent", count=500, timestamp=time.time())

    async def counted() -> bool:
        return await client.hget("metrics_aggregated:exp", "email_sent_count") == "500"

    await eventually(counted, 15, what="the emails are counted")
    found = await check()
    assert (found["state"], found["samples"]) == ("unknown", None)
    assert "none of the 500 trials of reply_rate is old enough" in str(found["reason"])

    await publish(client, event="email_sent", count=300, timestamp=time.time() - 2 * 3_600)

    async def told() -> bool:
        return bool(await alerts(client))

    # What was counted for a minute is counted anew in the next one.
    await eventually(told, 75, what="emails that had their time make a failure")
    (alert,) = await alerts(client)
    assert (alert["type"], alert["evidence"], alert["samples"]) == ("failure_threshold", "confirmed", 300)
    assert "500 trials too young to count" in alert["message"]
    found = await check()
    assert (found["state"], found["samples"]) == ("met", 300)
