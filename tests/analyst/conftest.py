"""The stub of Gemini, and what asks it, with the real SDK and a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.analyst.answers import AlertAnalysis
from redis_agent.analyst.gemini import Access, Answer, Gemini, NoAnswer
from redis_agent.analyst.models import chain
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.spending import Breaker, Spending
from redis_agent.telemetry import Telemetry
from tests.gemini_stub import KEY, GeminiStub, running

MODELS = ("gemini-3.5-flash-lite", "gemini-3.6-flash", "gemini-2.5-flash-lite")
FACTS: dict[str, Any] = {
    "experiment": "exp_cold_email",
    "criteria": [{"criterion": "response_rate < 8% after 100 emails_sent", "kind": "failure", "state": "met"}],
    "metrics": {"response_rate": 0.042, "emails_sent": 1250},
}

Making = Callable[..., Gemini]


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(Address(redis_url), name="test-analyst")
    yield client
    await client.aclose()


@pytest.fixture
async def stub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiStub]:
    """The stub, which nothing in the environment of whoever runs the tests stands before."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("GEMINI_API_KEY", "GOOGLE_VERTEX_BASE_URL", "GOOGLE_GENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    async with running() as one:
        yield one


@pytest.fixture
async def making(stub: GeminiStub, raw: Redis) -> AsyncIterator[Making]:
    """Makes as many replicas as a test wants, all on one stub and one Redis."""
    made: list[Gemini] = []

    def make(
        *,
        access: Access | None = None,
        models: tuple[str, ...] = MODELS,
        per_minute: int = 100,
        per_day: int = 1_000,
        breaker: Breaker | None = None,
        client: Redis | None = None,
        **options: Any,
    ) -> Gemini:
        spending = Spending(client or raw, per_minute=per_minute, per_day=per_day, breaker=breaker)
        made.append(
            Gemini(
                access=access or Access(api_key=KEY, base_url=stub.url),
                models=chain(models[0], models[1:]),
                spending=spending,
                telemetry=options.pop("telemetry", None) or Telemetry(),
                **options,
            )
        )
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


async def ask(gemini: Gemini, facts: dict[str, Any] | None = None, *, seconds: float = 5.0) -> Answer | NoAnswer:
    deadline = asyncio.get_running_loop().time() + seconds
    return await gemini.ask("analyze", FACTS if facts is None else facts, AlertAnalysis, deadline=deadline)


def came(answer: Answer | NoAnswer) -> str:
    """What an answer came to, in one word."""
    if isinstance(answer, NoAnswer):
        return answer.reason
    return "known" if answer.cached else "answer"
