"""Askers for tests: one that answers, is slow, fails, or does not keep to its deadline; and a dispatcher with one."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, SecretStr
from redis.asyncio import Redis

from redis_agent import app
from redis_agent.alerts import AlertType
from redis_agent.analyst.answers import AlertAnalysis, CriterionTranslation, SummaryAnalysis
from redis_agent.analyst.asking import Answer, NoAnswer
from redis_agent.clock import Clock
from redis_agent.config import Settings
from redis_agent.store.outbox import Outbox, Raise

ANALYSIS = AlertAnalysis(status="at_risk", key_metric="bounce_rate", insight="It bounces more.", action="none")
SUMMARY = SummaryAnalysis(headline="All is well.", wins=["a wins"], concerns=[], changes=["b changed"], quiet=[])
# Longer than any deadline here.
NEVER = 3_600.0


class Fake:
    """Answers after so many seconds, whatever the deadline; or refuses, or raises."""

    def __init__(self, seconds: float = 0.0, *, reason: str = "", error: Exception | None = None) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.translation = ""
        self._seconds, self._reason, self._error = seconds, reason, error

    @property
    def available(self) -> bool:
        return True

    async def ask(
        self,
        prompt: str,  # noqa: ARG002 - the signature is the protocol's
        facts: Mapping[str, Any],
        schema: type[BaseModel],
        *,
        deadline: float,  # noqa: ARG002
    ) -> Answer | NoAnswer:
        self.asked.append(facts)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.at_once -= 1
        if self._error is not None:
            raise self._error
        if self._reason:
            return NoAnswer(self._reason)
        values: dict[type[BaseModel], BaseModel] = {AlertAnalysis: ANALYSIS, SummaryAnalysis: SUMMARY}
        values[CriterionTranslation] = CriterionTranslation(criterion=self.translation)
        return Answer(values[schema], "fake", 1, 1, cached=False)

    async def aclose(self) -> None:
        return


class Stubborn(Fake):
    """Does not let itself be cancelled before its time."""

    async def ask(
        self, prompt: str, facts: Mapping[str, Any], schema: type[BaseModel], *, deadline: float
    ) -> Answer | NoAnswer:
        sleeping = asyncio.ensure_future(asyncio.sleep(self._seconds))
        while not sleeping.done():
            try:
                await asyncio.shield(sleeping)
            except asyncio.CancelledError:
                continue
        return await super().ask(prompt, facts, schema, deadline=deadline)


def settings_of(url: str, **given: Any) -> Settings:
    quick = {"lease_seconds": 1.0, "http_port": 0, "definitions_ttl_seconds": 0.0}
    return Settings(redis_url=SecretStr(url), **{**quick, **given})


class Shifted(Clock):
    """The machine's clock, and some time that the test adds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.seconds)

    def now_ms(self) -> int:
        return super().now_ms() + int(1000 * self.seconds)


@asynccontextmanager
async def role(
    name: str, url: str, asker: Any, *, clock: Clock | None = None, **given: Any
) -> AsyncIterator[app.Parts]:
    """One role in this process, with an asker of the test's."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        parts = replace(await app._parts(settings_of(url, **given), stack), asker=asker, clock=clock or Clock())
        running = asyncio.create_task(app._role(name, parts).run(stop))
        try:
            yield parts
        finally:
            stop.set()
            await running


def alert(number: int, *, experiment: str = "exp", kind: AlertType = AlertType.FAILURE, **more: Any) -> dict[str, Any]:
    return {
        "type": kind.value,
        "experiment_id": experiment,
        "message": f"{experiment}: bounce_rate 24 % (12 of 50) is above the failure threshold of 10 %. It is met.",
        "severity": "high",
        "alert_id": str(number),
        "criterion": "bounce_rate > 0.1",
        "metric": "bounce_rate",
        **more,
    }


async def raise_(client: Redis, *alerts: dict[str, Any], at_ms: int = 0) -> None:
    """Put alerts into the outbox, in one step."""
    raised = [
        Raise(a["experiment_id"], a["type"], uuid.uuid4().hex, 600, a["alert_id"], json.dumps(a), at_ms) for a in alerts
    ]
    assert await Outbox(client).raise_(raised) == [0] * len(alerts)
