"""What a model says is taken as far as the criteria bear it out."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, cast

import pytest
from pydantic import BaseModel

from redis_agent import experiments
from redis_agent.analyst.analyst import Analyst
from redis_agent.analyst.answers import AlertAnalysis
from redis_agent.analyst.asking import Answer, NoAnswer
from redis_agent.analyst.gathering import Material, gather
from redis_agent.analyst.reader import Reader
from redis_agent.clock import Clock
from redis_agent.telemetry import Telemetry

NOW = datetime(2026, 2, 5, 12, tzinfo=UTC)
Status = Literal["on_track", "at_risk", "failing", "succeeded"]


class Says:
    """Always of the same opinion."""

    available = True

    def __init__(self, status: Status) -> None:
        self._status: Status = status

    async def ask(
        self, prompt: str, facts: Mapping[str, Any], schema: type[BaseModel], *, deadline: float
    ) -> Answer | NoAnswer:
        assert prompt == "analyze"
        assert facts
        assert schema is AlertAnalysis
        assert deadline > asyncio.get_running_loop().time()
        value = AlertAnalysis(status=self._status, key_metric="bounces", insight="All is as it is.", action="none")
        return Answer(value, "fake", 1, 1, cached=False)

    async def aclose(self) -> None:
        return


@pytest.mark.parametrize(
    ("counts", "kinds", "believed"),
    [
        ({"bounce": 9}, {"failure": "bounce > 5"}, {"failing", "at_risk"}),
        ({"bounce": 9}, {"success": "bounce > 5"}, {"succeeded", "on_track"}),
        ({"bounce": 1}, {"failure": "bounce > 5"}, {"on_track", "at_risk"}),
    ],
)
@pytest.mark.parametrize("status", ["on_track", "at_risk", "failing", "succeeded"])
async def test_a_standing_that_the_criteria_do_not_bear_out_is_not_believed(
    counts: dict[str, int], kinds: dict[str, str], believed: set[str], status: Status
) -> None:
    definition = {f"{kind}_criteria": json.dumps([text]) for kind, text in kinds.items()}
    experiment = experiments.parse_experiment("exp", definition)
    fields = {f"{name}_count": str(count) for name, count in counts.items()} | {"events_total": "9"}
    verdicts = experiments.judge(experiment, fields, now=NOW)
    facts = gather(Material("exp", experiment, fields, verdicts), now=NOW, alert=None)
    analyst = Analyst(reader=cast("Reader", None), asker=Says(status), telemetry=Telemetry(), clock=Clock())
    found = await analyst.word(facts, deadline=asyncio.get_running_loop().time() + 60)
    assert found["source"] == ("gemini" if status in believed else "template")
    assert found["status"] in believed
