"""One call of Gemini: made, counted, read, and what came of it told to the other replicas."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from redis_agent.analyst import failures
from redis_agent.analyst.failures import Failure, Remedy
from redis_agent.analyst.models import NOTHING, tuning
from redis_agent.analyst.question import Answer, Question
from redis_agent.analyst.reading import Reply
from redis_agent.analyst.redaction import Redactor
from redis_agent.analyst.sdk import Sdk
from redis_agent.clock import Clock
from redis_agent.store.failures import classify
from redis_agent.store.spending import Outcome, Spending
from redis_agent.telemetry import Telemetry

# A model that was not there may come, as while it is rolled out: it is tried again after so long.
_GONE_SECONDS: Final = 3_600.0
# A call that was given up sooner says nothing about the service.
_FAIR_SECONDS: Final = 1.0
# An answer that is there waits no longer than this until it is noted.
_NOTE_SECONDS: Final = 0.5
# What is still being noted when the process ends may take so long.
_CLOSE_SECONDS: Final = 1.0


@dataclass(slots=True)
class Standing:
    """What was learnt about the models of the list.

    Attributes:
        models: in the order in which they are asked.
        gone: model -> when it may be asked again, on the loop's clock.
        untuned: models that did not take what tunes them.
    """

    models: tuple[str, ...]
    gone: dict[str, float] = field(default_factory=dict)
    untuned: set[str] = field(default_factory=set)

    def current(self) -> str | None:
        """The model to ask now; None if all are gone."""
        now = asyncio.get_running_loop().time()
        return next((model for model in self.models if self.gone.get(model, 0.0) <= now), None)

    def is_gone(self, model: str) -> None:
        """It was not there."""
        self.gone[model] = asyncio.get_running_loop().time() + _GONE_SECONDS

    def takes_nothing(self, model: str) -> bool:
        """It refused a request: whether asking without what tunes it is something new."""
        is_new = model not in self.untuned and tuning(model) != NOTHING
        self.untuned.add(model)
        return is_new


class Calls:
    """Makes calls that were admitted.

    Args:
        sdk: what they are made with.
        spending: hears what came of them.
        standing: of the models.
        telemetry: counts calls and tokens.
        clock: for a `Retry-After` that is a date.
        redact: hides secrets in what is logged.
        log: where it is logged.
    """

    def __init__(
        self,
        *,
        sdk: Sdk,
        spending: Spending,
        standing: Standing,
        telemetry: Telemetry,
        clock: Clock,
        redact: Redactor,
        log: Any,
    ) -> None:
        self._sdk = sdk
        self._spending = spending
        self._standing = standing
        self._telemetry = telemetry
        self._clock = clock
        self._redact = redact
        self._log = log
        self._settling: set[asyncio.Task[None]] = set()

    async def make(self, model: str, question: Question) -> Answer | Failure:
        """One call, of one model."""
        tuned = NOTHING if model in self._standing.untuned else tuning(model)
        question.calls += 1
        question.calling_since = asyncio.get_running_loop().time()
        self._telemetry.llm_calls.inc()
        try:
            reply = await self._sdk.generate(model, question.prompt, question.schema, tuned, question.left)
        except Exception as error:  # noqa: BLE001 - every error of the SDK and below it has a reason
            reply = Reply(failure=failures.of_error(error, self._clock.now()))
        question.calling_since = None
        found = _read(reply, model, question)
        await self._account(found, reply)
        return found

    def give_up(self, question: Question) -> None:
        """The deadline came during a call: nobody waits any more, but the other replicas want to know."""
        began = question.calling_since
        if began is not None and question.deadline - began >= _FAIR_SECONDS:
            task = asyncio.create_task(self._settle("failed", Reply(), 0.0))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def aclose(self) -> None:
        """Finish what is being noted."""
        if self._settling:
            _, late = await asyncio.wait(self._settling, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def _account(self, found: Answer | Failure, reply: Reply) -> None:
        kinds = {"input": reply.tokens_in, "output": reply.tokens_out, "thinking": reply.tokens_thought}
        for kind, count in kinds.items():
            if count:
                self._telemetry.llm_tokens.labels(kind).inc(count)
        outcome: Outcome = "ok"
        asked_seconds = 0.0
        if isinstance(found, Failure):
            if found.remedy is Remedy.WAIT:
                outcome, asked_seconds = "limited", found.wait_seconds
            elif failures.is_of_service(found.reason):
                outcome = "failed"
        await self._settle(outcome, reply, asked_seconds)

    async def _settle(self, outcome: Outcome, reply: Reply, asked_seconds: float) -> None:
        tokens_out = reply.tokens_out + reply.tokens_thought
        try:
            async with asyncio.timeout(_NOTE_SECONDS):
                opened = await self._spending.settle(
                    outcome, tokens_in=reply.tokens_in, tokens_out=tokens_out, asked_seconds=asked_seconds
                )
        except Exception as error:  # noqa: BLE001 - the answer counts, also where it could not be noted
            self._telemetry.redis_errors.labels(classify(error).kind).inc()
            said = failures.for_log(self._redact(f"{type(error).__name__}: {error}"))
            self._log.warning("llm_unsettled", outcome=outcome, error=said)
            return
        if opened:
            self._log.warning("llm_circuit_open", reason=outcome, open_seconds=round(opened, 1))


def _read(reply: Reply, model: str, question: Question) -> Answer | Failure:
    if reply.failure is not None:
        return reply.failure
    value = question.read(reply.text)
    if isinstance(value, Failure):
        return value
    return Answer(value, model, reply.tokens_in, reply.tokens_out + reply.tokens_thought, cached=False)
