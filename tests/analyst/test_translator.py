"""A translation counts only when our own parser takes it and it reads only what the experiment has."""

import asyncio

import pytest

from redis_agent.analyst.translator import translate
from tests.analyst.conftest import Making
from tests.gemini_stub import GeminiStub, answer

METRICS = ["replies", "emails_sent", "response_rate", "account_restricted"]
TEXT = "We want eight or more out of every 100 people we write to to get back to us (8%)"


async def translated(making: Making, text: str = TEXT, metrics: list[str] | None = None) -> str | None:
    deadline = asyncio.get_running_loop().time() + 10
    return await translate(making(), text, METRICS if metrics is None else metrics, "success", deadline=deadline)


@pytest.mark.parametrize(
    ("said", "criterion"),
    [
        ("response_rate >= 8%", "response_rate >= 8%"),
        ("replies / emails_sent >= 0.08", "replies / emails_sent >= 0.08"),
        ("response_rate>=8% after 100 emails_sent", "response_rate >= 8% after 100 emails_sent"),
        ("account_restricted", "account_restricted: true"),
    ],
)
async def test_criterion_of_the_grammar_with_known_names_counts(
    stub: GeminiStub, making: Making, said: str, criterion: str
) -> None:
    stub.standing = answer({"criterion": said})
    assert await translated(making) == criterion
    assert "response_rate" in stub.asked[0].message


@pytest.mark.parametrize(
    "said",
    [
        "",
        "open_rate >= 8%",
        "response_rate >= 80%",
        "response_rate >= ",
        "8% >= 7%",
        "__import__('os').system('ls')",
        "the response rate should be high",
        "response_rate >= 8% and open_rate > 8%",
        "response_rate >= 8%\nreplies > 1",
        "(" * 399,
    ],
)
async def test_anything_else_is_none(stub: GeminiStub, making: Making, said: str) -> None:
    stub.standing = answer({"criterion": said})
    assert await translated(making) is None


async def test_nothing_is_asked_where_nothing_can_be_said(stub: GeminiStub, making: Making) -> None:
    assert await translated(making, metrics=[]) is None
    assert await translated(making, text="  ") is None
    assert await translated(making, text="word " * 100) is None
    assert stub.calls == 0


async def test_failing_service_translates_nothing(stub: GeminiStub, making: Making) -> None:
    stub.standing = answer("no idea", finish="SAFETY")
    assert await translated(making) is None
