"""Alerts through the whole agent with the real SDK, and a Gemini that answers well and in every bad way."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.analyst.askers import alert, raise_
from tests.gemini_stub import GOOD, KEY, GeminiStub, hanging, modes, running
from tests.integration.test_analyses import Heard, listener
from tests.processes import Agents

DEADLINE = 2.0
CRITERION = "response_rate < 0.08 after 100 sends"


@pytest.fixture
async def stub() -> AsyncIterator[GeminiStub]:
    async with running() as found:
        yield found


def with_gemini(stub: GeminiStub, **more: Any) -> dict[str, Any]:
    return {
        "GOOGLE_API_KEY": KEY,
        "GOOGLE_GEMINI_BASE_URL": stub.url,
        "REDIS_AGENT_ANALYSIS_DEADLINE_SECONDS": DEADLINE,
        **more,
    }


async def experiment(client: Redis, *, sent: int = 1250, replies: int = 52) -> None:
    specs = [{"name": "response_rate", "formula": "replies / emails_sent"}]
    definition = {"failure_criteria": json.dumps([CRITERION]), "metrics": json.dumps(specs)}
    await client.hset("experiments:exp", mapping=definition)
    fields = {"events_total": "9", "email_sent_count": str(sent), "reply_count": str(replies)}
    await client.hset("metrics_aggregated:exp", mapping=fields)


def told(number: int, **more: Any) -> dict[str, Any]:
    return alert(number, metric="response_rate", criterion=CRITERION, **more)


async def delivered(client: Redis, heard: Heard, number: int) -> tuple[float, dict[str, Any]]:
    """How long an alert took, and what its analysis says."""
    began = time.monotonic()
    await raise_(client, told(number))
    await heard.count(number + 1)
    return heard.at[number] - began, heard.alerts[number]["analysis"]


async def test_alert_is_worded_by_gemini_and_its_analysis_stands_in_the_history(
    agents: Agents, client: Redis, stub: GeminiStub
) -> None:
    await experiment(client)
    async with listener(client) as heard:
        # The SDK is imported with the first question, which takes its time on a busy machine.
        await agents.start("dispatcher", **with_gemini(stub, REDIS_AGENT_ANALYSIS_DEADLINE_SECONDS=20)).ready()
        _, analysis = await delivered(client, heard, 0)
    assert analysis == {"source": "gemini", **GOOD}
    assert '"successes": 52' in stub.asked[0].message or '"successes":52' in stub.asked[0].message


@pytest.mark.parametrize("case", modes())
async def test_however_gemini_answers_the_alert_arrives_by_its_deadline_once(
    agents: Agents, client: Redis, stub: GeminiStub, case: str
) -> None:
    await experiment(client)
    stub.standing = modes()[case]
    async with listener(client) as heard:
        await agents.start("dispatcher", **with_gemini(stub)).ready()
        found = [await delivered(client, heard, number) for number in range(2)]
    print(f"| {case} | {found[0][1]['source']} | {found[0][0]:.2f} s | {found[1][0]:.2f} s | {stub.calls} |")
    assert max(seconds for seconds, _ in found) < DEADLINE + 1.0
    assert heard.ids == ["0", "1"]
    if found[0][1]["source"] == "template":
        assert found[0][1]["insight"].startswith("response_rate is 4.16 % (52 of 1,250), below the failure threshold")


async def test_hundred_alerts_while_gemini_hangs_arrive_in_order_by_their_deadline(
    agents: Agents, client: Redis, stub: GeminiStub
) -> None:
    stub.standing = hanging()
    async with listener(client) as heard:
        await agents.start("dispatcher", **with_gemini(stub)).ready()
        began = time.monotonic()
        await raise_(client, *[told(n, experiment=f"exp_{n}") for n in range(100)])
        await heard.count(100)
    assert heard.ids == [str(n) for n in range(100)]
    assert heard.at[-1] - began < DEADLINE + 2.0
    assert stub.calls <= 10
