"""Alerts carry their analysis, within the deadline, in order and once; whatever the model does."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.alerts import AlertType
from redis_agent.store import keys
from tests.analyst.askers import ANALYSIS, NEVER, Fake, Stubborn, alert, raise_, role
from tests.integration.flow import ORCHESTRATOR, OUTBOX, publish
from tests.processes import ALL_ROLES, Agents
from tests.waiting import eventually

DEADLINE = 1.0
# What a busy machine may add to a deadline.
SLACK = 2.0
GEMINI = {"source": "gemini", **ANALYSIS.model_dump()}


class Heard:
    """Alerts as they arrived, and when."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.at: list[float] = []

    @property
    def ids(self) -> list[str]:
        return [alert["alert_id"] for alert in self.alerts]

    async def count(self, number: int, timeout: float = 20.0) -> None:
        await eventually(lambda: len(self.alerts) >= number, timeout, interval=0.01, what=f"{number} alerts arrive")


@asynccontextmanager
async def listener(client: Redis) -> AsyncIterator[Heard]:
    heard = Heard()
    async with client.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(ORCHESTRATOR)

        async def listen() -> None:
            while True:
                message = await subscription.get_message(timeout=1)
                if message is not None:
                    heard.alerts.append(json.loads(message["data"]))
                    heard.at.append(time.monotonic())

        listening = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def test_alert_carries_what_the_model_said_of_its_facts(client: Redis, redis_url: str) -> None:
    asker = Fake()
    told = alert(1)
    async with listener(client) as heard, role("dispatcher", redis_url, asker):
        await raise_(client, told)
        await heard.count(1)
    assert heard.alerts == [{**told, "analysis": GEMINI}]
    (facts,) = asker.asked
    assert facts["alert"]["metric"] == "bounce_rate"
    assert facts["experiment"]["id"] == "exp"


@pytest.mark.parametrize(
    "asker",
    [
        Fake(NEVER),
        Fake(0.1, reason="budget"),
        Fake(0.1, error=RuntimeError("boom")),
        Fake(0.1, error=ValueError("bad")),
        Stubborn(2 * DEADLINE),
    ],
    ids=["hangs", "refuses", "raises", "raises another", "ignores cancellation"],
)
async def test_whatever_the_model_does_the_alert_arrives_by_its_deadline_in_plain_words(
    client: Redis, redis_url: str, asker: Fake
) -> None:
    async with (
        listener(client) as heard,
        role("dispatcher", redis_url, asker, analysis_deadline_seconds=DEADLINE),
    ):
        began = time.monotonic()
        await raise_(client, alert(1))
        await heard.count(1)
    assert heard.at[0] - began < DEADLINE + SLACK
    analysis = heard.alerts[0]["analysis"]
    assert (analysis["source"], analysis["status"], analysis["key_metric"]) == ("template", "failing", "bounce_rate")
    assert analysis["insight"].startswith("bounce_rate 24 % (12 of 50) is above the failure threshold of 10 %")


async def test_hundred_alerts_at_once_arrive_in_order_each_by_its_deadline(client: Redis, redis_url: str) -> None:
    asker = Fake(NEVER)
    async with (
        listener(client) as heard,
        role("dispatcher", redis_url, asker, analysis_deadline_seconds=DEADLINE),
    ):
        await raise_(client, alert(0))
        await heard.count(1)
        began = time.monotonic()
        await raise_(client, *[alert(n, experiment=f"exp_{n % 7}") for n in range(1, 101)])
        await heard.count(101)
    assert heard.ids == [str(n) for n in range(101)]
    assert heard.at[-1] - began < DEADLINE + SLACK
    assert asker.most_at_once <= 16


async def test_alerts_that_come_while_others_wait_are_not_held_up_for_longer_than_their_own_deadline(
    client: Redis, redis_url: str
) -> None:
    raised: list[float] = []
    async with (
        listener(client) as heard,
        role("dispatcher", redis_url, Fake(NEVER), analysis_deadline_seconds=DEADLINE),
    ):
        for n in range(25):
            await raise_(client, alert(n))
            raised.append(time.monotonic())
            await asyncio.sleep(DEADLINE / 5)  # load over time is what this is about
        await heard.count(25)
    assert heard.ids == [str(n) for n in range(25)]
    late = max(at - since for at, since in zip(heard.at, raised, strict=True))
    assert late < DEADLINE + SLACK


async def test_answers_out_of_order_leave_the_alerts_in_order(client: Redis, redis_url: str) -> None:
    class Uneven(Fake):
        async def ask(self, prompt: str, facts: Any, schema: Any, *, deadline: float) -> Any:
            self._seconds = 0.5 if len(self.asked) % 3 == 0 else 0.0
            return await super().ask(prompt, facts, schema, deadline=deadline)

    async with listener(client) as heard, role("dispatcher", redis_url, Uneven()):
        kinds = [AlertType.FAILURE, AlertType.ERROR, AlertType.ANOMALY, AlertType.COMPLETED]
        await raise_(client, *[alert(n, kind=kinds[n % 4]) for n in range(40)])
        await heard.count(40)
    assert heard.ids == [str(n) for n in range(40)]
    assert [a["type"] for a in heard.alerts if "analysis" not in a] == ["error"] * 10


async def test_facts_are_never_older_than_the_alert(client: Redis, redis_url: str) -> None:
    asker = Fake()
    async with listener(client) as heard, role("dispatcher", redis_url, asker):
        for n in range(1, 11):
            await client.hset("metrics_aggregated:exp", mapping={"events_total": n})
            await raise_(client, alert(2 * n), alert(2 * n + 1))
            await heard.count(2 * n)
    assert [facts["experiment"]["events"] for facts in asker.asked] == [n for n in range(1, 11) for _ in range(2)]


async def test_while_nobody_listens_an_alert_is_analysed_once_whoever_leads(client: Redis, redis_url: str) -> None:
    first, second = Fake(), Fake()
    async with role("dispatcher", redis_url, first):
        await raise_(client, alert(1), alert(2))
        await eventually(lambda: _kept(client, 2), what="the analyses are kept")
    async with role("dispatcher", redis_url, second), listener(client) as heard:
        await heard.count(2)
    assert (len(first.asked), len(second.asked)) == (2, 0)
    assert [a["analysis"]["source"] for a in heard.alerts] == ["gemini", "gemini"]


async def _kept(client: Redis, number: int) -> bool:
    return int(await client.hlen(keys.ANALYSES)) == number


async def test_what_was_kept_first_is_what_is_delivered(client: Redis, redis_url: str) -> None:
    kept = {"source": "gemini", "status": "on_track", "insight": "said before"}
    await raise_(client, alert(1))
    ((entry_id, _),) = await client.xrange(OUTBOX)
    await client.hset(keys.ANALYSES, entry_id, json.dumps(kept))
    async with listener(client) as heard, role("dispatcher", redis_url, Fake()):
        await heard.count(1)
    assert heard.alerts[0]["analysis"] == kept


@pytest.mark.parametrize("in_the_way", ["a list", "no json in it"])
async def test_key_that_somebody_else_wrote_to_costs_no_alert(client: Redis, redis_url: str, in_the_way: str) -> None:
    if in_the_way == "a list":
        await client.rpush(keys.ANALYSES, "x")
    await raise_(client, alert(1))
    ((entry_id, _),) = await client.xrange(OUTBOX)
    if in_the_way != "a list":
        await client.hset(keys.ANALYSES, entry_id, "no json")
    async with listener(client) as heard, role("dispatcher", redis_url, Fake()):
        await heard.count(1)
    assert heard.alerts[0]["analysis"] == GEMINI


async def test_without_a_deadline_alerts_are_delivered_as_they_are(client: Redis, redis_url: str) -> None:
    async with (
        listener(client) as heard,
        role("dispatcher", redis_url, Fake(), analysis_deadline_seconds=0),
    ):
        await raise_(client, alert(1))
        await heard.count(1)
    assert heard.alerts == [alert(1)]


async def test_foreign_alerts_are_delivered_as_they_are_or_with_plain_words(client: Redis, redis_url: str) -> None:
    odd = [
        '{"type":"anomaly","experiment_id":5,"alert_id":"1","metric":["x"],"value":NaN,"verdicts":{"a":1}} ',
        '{"type":"experiment_completed","alert_id":"2","verdicts":[{"kind":"success","state":"met"},7]}',
        '{"type":"failure_threshold","alert_id":"3","message":"\\ud800","criterion":5,"interval":[1,"x"]}',
        "[1]",
        "no json",
    ]
    for data in odd:
        await client.xadd(OUTBOX, {"data": data})
    received: list[str] = []
    async with client.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(ORCHESTRATOR)
        await subscription.get_message(timeout=1)
        async with role("dispatcher", redis_url, Fake(reason="budget")):

            async def all_heard() -> bool:
                message = await subscription.get_message(timeout=0.1)
                received.extend([message["data"]] if message else [])
                return len(received) == len(odd)

            await eventually(all_heard, 10, what="all arrive")
    assert [json.loads(data)["analysis"]["source"] for data in received[:3]] == ["template"] * 3
    assert received[3:] == odd[3:]


async def test_dispatcher_that_is_killed_while_alerts_wait_for_their_analysis_loses_and_repeats_none(
    agents: Agents, client: Redis
) -> None:
    """The next one delivers them; nothing listens before, so that they are waiting when it is killed."""
    dispatcher = await agents.start("dispatcher").ready()
    async with listener(client) as heard:
        for turn in range(4):
            raising = asyncio.create_task(raise_(client, *[alert(50 * turn + n) for n in range(50)]))
            await heard.count(50 * turn + 1)
            dispatcher.kill()
            await raising
            await dispatcher.start().ready()
            await heard.count(50 * (turn + 1))
    assert heard.ids == [str(n) for n in range(200)]
    assert {a["analysis"]["source"] for a in heard.alerts} == {"template"}


async def test_agent_without_a_key_words_what_it_tells_plainly(agents: Agents, client: Redis) -> None:
    await agents.start(*ALL_ROLES).ready()
    await client.hset(
        "experiments:exp",
        mapping={
            "success_criteria": json.dumps(["replies >= 5", "response_rate > 0.5"]),
            "failure_criteria": json.dumps(["bounce_rate > 0.1"]),
            "metrics": json.dumps([{"name": "bounce_rate", "formula": "bounces / emails_sent"}]),
        },
    )
    async with listener(client) as heard:
        await publish(client, event="email_sent", count=400)
        await publish(client, event="bounce", count=90)
        await publish(client, event="reply", count=6)
        await heard.count(2)
    told = {a["type"]: a for a in heard.alerts}
    failing = told["failure_threshold"]["analysis"]
    assert (failing["source"], failing["status"], failing["key_metric"]) == ("template", "failing", "bounce_rate")
    assert "22.5 % (90 of 400), above the failure threshold of 10 %" in failing["insight"]
    assert "Pause it" in failing["action"]
    assert "replies is 6, at or above the success threshold of 5" in told["success_threshold"]["analysis"]["insight"]
