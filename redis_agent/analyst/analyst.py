"""The analyst: facts, then Gemini until the deadline, else the template. Never late, and never an error."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.analyst import template
from redis_agent.analyst.answers import AlertAnalysis, SummaryAnalysis
from redis_agent.analyst.asking import Asker
from redis_agent.analyst.facts import Facts, clean
from redis_agent.analyst.gathering import Material, gather
from redis_agent.analyst.reader import Reader
from redis_agent.clock import Clock
from redis_agent.log import Throttle
from redis_agent.telemetry import Telemetry

GEMINI: Final = "gemini"
TEMPLATE: Final = "template"
_KEY_METRIC: Final = 100
_INSIGHT: Final = 600
_ACTION: Final = 300
# Of the time until the deadline, what reading may take, with somebody to be asked afterwards and without: where Redis
# is slow the alert speaks for itself.
_READING_SHARE: Final = {True: 0.5, False: 0.9}
# With less time than this left nobody is asked.
_LEAST_SECONDS: Final = 0.3
# What a model may call what the criteria themselves make so: it may see a risk, and be slower to call a success one.
_AGREEING: Final = {
    "on_track": frozenset({"on_track", "at_risk"}),
    "at_risk": frozenset({"at_risk"}),
    "failing": frozenset({"failing", "at_risk"}),
    "succeeded": frozenset({"succeeded", "on_track"}),
}
# Questions that are asked at the same time.
_AT_ONCE: Final = 16


class Analyst:
    """Says what an experiment's state, or an alert about it, means.

    Args:
        reader: reads the facts.
        asker: words them, where it can.
        telemetry: counts who did.
        clock: the time.
    """

    def __init__(self, *, reader: Reader, asker: Asker, telemetry: Telemetry, clock: Clock) -> None:
        self._reader = reader
        self._asker = asker
        self._telemetry = telemetry
        self._clock = clock
        self._log = log.get("analyst")
        self._throttle = Throttle()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def facts(self, experiment_id: str, alert: Mapping[str, Any], *, since: float, deadline: float) -> Facts:
        """The facts for an alert; where they cannot be read in time, those that the alert itself says.

        Args:
            experiment_id: which experiment.
            alert: the alert's JSON object.
            since: when it was seen, on the event loop's clock: the facts are not older.
            deadline: of the analysis, on the same clock.
        """
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(now + _READING_SHARE[self._asker.available] * (deadline - now)):
                material = await self._reader.material(experiment_id, since=since)
            return gather(material, now=self._clock.now(), alert=alert)
        except (RedisError, OSError, TimeoutError) as error:
            self._say("facts_unreadable", error)
        except Exception as error:  # noqa: BLE001 - an analysis is not worth an alert
            self._say("facts_failed", error)
        return gather(Material(experiment_id, None, {}), now=self._clock.now(), alert=alert)

    async def word(self, facts: Facts, *, deadline: float, instead: dict[str, Any] | None = None) -> dict[str, Any]:
        """The object `analysis` of an alert: source, status, key_metric, insight, action.

        Args:
            facts: what it speaks of.
            deadline: on the event loop's clock.
            instead: the template's analysis of the facts, where there is one already.
        """
        asked = self._asker.available
        answer = await self._ask("analyze", facts.as_json(), AlertAnalysis, deadline) if asked else None
        words = instead or plain(facts)
        # Nothing in a sentence without numbers can be checked, but how the experiment stands is known.
        if isinstance(answer, AlertAnalysis) and answer.status in _AGREEING[words["status"]]:
            self._telemetry.analyses.labels("alert", GEMINI).inc()
            return _document(GEMINI, answer.status, answer.key_metric, answer.insight, answer.action)
        self._telemetry.analyses.labels("alert", TEMPLATE).inc()
        return words

    async def word_summary(self, facts: Mapping[str, Any], *, deadline: float) -> SummaryAnalysis | None:
        """A summary in a model's words; None where there are none in time."""
        answer = await self._ask("summarize", facts, SummaryAnalysis, deadline)
        found = answer if isinstance(answer, SummaryAnalysis) else None
        self._telemetry.analyses.labels("summary", GEMINI if found else TEMPLATE).inc()
        return found

    async def _ask(
        self,
        prompt: Any,
        facts: Mapping[str, Any],
        schema: type[AlertAnalysis] | type[SummaryAnalysis],
        deadline: float,
    ) -> object:
        """The answer's value, or None."""
        if not self._asker.available:
            return None
        try:
            async with asyncio.timeout_at(deadline), self._turns:
                if asyncio.get_running_loop().time() > deadline - _LEAST_SECONDS:
                    return None
                answer = await self._asker.ask(prompt, facts, schema, deadline=deadline)
        except TimeoutError:
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, the template says the same
            self._say("asking_failed", error)
            return None
        return getattr(answer, "value", None)

    def _say(self, event: str, error: Exception) -> None:
        if self._throttle.due(event, asyncio.get_running_loop().time()):
            self._log.warning(event, error=clean(repr(error), 200), meaning="the analysis is plainer for it")


def plain(facts: Facts) -> dict[str, Any]:
    """The template's analysis of these facts."""
    found = template.analyse(facts)
    return _document(TEMPLATE, found.status, found.key_metric, found.insight, found.action)


def plain_of_alert(alert: Mapping[str, Any], experiment_id: str, clock: Clock) -> dict[str, Any]:
    """The template's analysis of an alert of whose experiment nothing is known but what the alert says."""
    return plain(gather(Material(experiment_id, None, {}), now=clock.now(), alert=alert))


def _document(source: str, status: str, key_metric: str, insight: str, action: str) -> dict[str, Any]:
    return {
        "source": source,
        "status": status,
        "key_metric": clean(key_metric, _KEY_METRIC),
        "insight": clean(insight, _INSIGHT),
        "action": clean(action, _ACTION),
    }
