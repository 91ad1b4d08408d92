"""Asks Gemini, within a deadline and a budget; every way in which that can fail ends in a reason, never in an error.

    switched off? -> prompt -> known answer? -> budget and circuit -> call -> schema -> grounding -> answer

What calls cost and whether the service is well is kept in Redis, so that all replicas share one budget, one circuit
breaker and the answers. Without Redis no call is made.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

from pydantic import BaseModel
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from redis_agent import log
from redis_agent.analyst import failures
from redis_agent.analyst.calls import Calls, Standing
from redis_agent.analyst.failures import Failure, Reason, Remedy
from redis_agent.analyst.grounding import Facts
from redis_agent.analyst.models import Chain
from redis_agent.analyst.prompting import PromptName, build
from redis_agent.analyst.question import Answer, NoAnswer, Question
from redis_agent.analyst.redaction import Redactor
from redis_agent.analyst.sdk import Access, Sdk, json_schema
from redis_agent.clock import Clock
from redis_agent.store.failures import classify
from redis_agent.store.spending import Spending
from redis_agent.telemetry import Telemetry

__all__ = ["Access", "Answer", "Gemini", "NoAnswer"]

# Less time than this, and a call would be paid for and not awaited: no model answers sooner.
_LEAST_SECONDS: Final = 0.5
# Tries of one question while the service fails, and calls altogether (models that are gone, a 429, a 400).
_MOST_TRIES: Final = 3
_MOST_CALLS: Final = 5
# Full jitter: each wait is drawn between 0 and a bound, which is this at first and doubles.
_FIRST_WAIT_SECONDS: Final = 0.25
_MOST_WAIT_SECONDS: Final = 2.0
# An answer that is there does not wait longer than this until it is remembered.
_KEEP_SECONDS: Final = 0.5
# The server's clock and ours do not tick together: a wait that ends too soon would find the circuit open.
_AFTER_WAIT_SECONDS: Final = 0.03


class _FailedError(Exception):
    """A question failed, as `failure` says."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Gemini:
    """Asks Gemini.

    Args:
        access: how it is reached.
        models: whom to ask, in order.
        spending: budget, circuit and known answers, shared by all replicas.
        telemetry: counts requests, calls and tokens.
        clock: for a `Retry-After` that is a date.
        secrets: what must not leave this process, besides the key.
        cache_seconds: how long an answer to equal facts is used again; 0 for never.
    """

    def __init__(
        self,
        *,
        access: Access,
        models: Chain,
        spending: Spending,
        telemetry: Telemetry,
        clock: Clock | None = None,
        secrets: Iterable[str] = (),
        cache_seconds: int = 3_600,
    ) -> None:
        self._log = log.get("analyst")
        self._redact = Redactor((access.api_key, access.base_url if "@" in access.base_url else "", *secrets))
        self._reason: Reason | None = None if access.is_configured else "no_key"
        self._spending = spending
        self._telemetry = telemetry
        self._cache_seconds = cache_seconds
        self._standing = Standing(models.models)
        self._sdk = Sdk(access)
        self._calls = Calls(
            sdk=self._sdk,
            spending=spending,
            standing=self._standing,
            telemetry=telemetry,
            clock=clock or Clock(),
            redact=self._redact,
            log=self._log,
        )
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        for name in models.retired if access.is_configured else ():
            self._log.warning("model_retired", model=name, asked_instead=list(models.models))

    @property
    def available(self) -> bool:
        """Whether there is a key (or Vertex AI), and it was not refused."""
        return self._reason is None

    async def ask(
        self,
        prompt: PromptName,
        facts: Mapping[str, Any],
        schema: type[BaseModel],
        *,
        deadline: float,
        fault_of: Callable[[Any], str] | None = None,
    ) -> Answer | NoAnswer:
        """Ask one question.

        Args:
            prompt: which instruction.
            facts: what is told.
            schema: of the answer.
            deadline: on the event loop's clock.
            fault_of: what else is wrong with an answer that fits the schema and the facts, "" for nothing: a status,
                for example, that the criteria do not bear out.

        Returns:
            The answer, checked, or why there is none; never later than the deadline.
        """
        if self._reason is not None:
            answer: Answer | NoAnswer = NoAnswer(self._reason)
        else:
            question = self._question(prompt, facts, schema, deadline)
            if question is None:
                answer = NoAnswer("too_large")
            else:
                question.fault_of = fault_of
                answer = await self._in_time(question)
        outcome = answer.reason if isinstance(answer, NoAnswer) else "cached" if answer.cached else "ok"
        self._telemetry.llm_requests.labels(outcome).inc()
        return answer

    async def aclose(self) -> None:
        """Finish what is being noted and close the connections."""
        await self._calls.aclose()
        try:
            await self._sdk.aclose()
        except Exception as error:  # noqa: BLE001 - the process ends anyway
            self._log.warning("llm_unclosed", error=self._said(error))

    # One question --------------------------------------------------------------------

    def _question(
        self, prompt: PromptName, facts: Mapping[str, Any], schema: type[BaseModel], deadline: float
    ) -> Question | None:
        """The question as it is put; None if the facts cannot be told."""
        try:
            built = build(prompt, facts, self._redact)
        except Exception as error:  # noqa: BLE001 - facts can be anything; the caller's template says them all the same
            self._log.error("llm_failed", reason="too_large", said=self._said(error))
            return None
        return None if built is None else Question(built, schema, deadline, Facts(built.facts))

    async def _in_time(self, question: Question) -> Answer | NoAnswer:
        timeout = asyncio.timeout_at(question.deadline)
        try:
            async with timeout:
                return await self._once_for_equal_facts(question)
        except _FailedError as failed:
            failure = failed.failure
            self._log.warning("llm_failed", reason=failure.reason, said=self._said(failure.said), calls=question.calls)
            return NoAnswer(failure.reason)
        except Exception as error:  # noqa: BLE001 - the edge: no error in here reaches an alert
            if timeout.expired():
                self._calls.give_up(question)
                self._log.warning("llm_failed", reason=question.late, said="the deadline came", calls=question.calls)
                return NoAnswer(question.late)
            self._telemetry.redis_errors.labels(classify(error).kind).inc()
            self._log.warning("llm_failed", reason="budget", said=self._said(error), calls=question.calls)
            return NoAnswer("budget")

    async def _once_for_equal_facts(self, question: Question) -> Answer | NoAnswer:
        fingerprint = self._fingerprint(question)
        lock = self._asking.setdefault(fingerprint, asyncio.Lock())
        async with lock:  # who asks the same meanwhile waits for this answer
            question.late = "budget"
            known = await self._known(fingerprint, question) if self._cache_seconds else None
            if known is not None:
                return known
            answer = await self._asked(question)
            if isinstance(answer, Answer) and self._cache_seconds:
                await self._keep(fingerprint, answer)
            return answer

    def _fingerprint(self, question: Question) -> str:
        prompt = question.prompt
        parts = [prompt.instruction, prompt.message, json_schema(question.schema), self._standing.models]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()

    async def _known(self, fingerprint: str, question: Question) -> Answer | None:
        kept = await self._spending.known(fingerprint)
        try:
            parts = json.loads(kept) if kept is not None else {}
            value = question.read(json.dumps(parts["value"]))
            if not isinstance(value, Failure):
                return Answer(value, str(parts["model"]), int(parts["in"]), int(parts["out"]), cached=True)
        except (ValueError, TypeError, KeyError, RecursionError):
            pass  # there is none, or somebody else wrote it: the answer to come replaces it
        return None

    async def _keep(self, fingerprint: str, answer: Answer) -> None:
        parts: dict[str, Any] = {"value": answer.value.model_dump(), "model": answer.model}
        parts |= {"in": answer.tokens_in, "out": answer.tokens_out}
        try:
            async with asyncio.timeout(_KEEP_SECONDS):
                await self._spending.keep(fingerprint, json.dumps(parts), seconds=self._cache_seconds)
        except Exception as error:  # noqa: BLE001 - the answer counts, also where nobody remembers it
            self._telemetry.redis_errors.labels(classify(error).kind).inc()

    # Tries ---------------------------------------------------------------------------

    async def _asked(self, question: Question) -> Answer | NoAnswer:
        """Try until there is an answer, or no sense or time in another try."""
        backoff = wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_MOST_WAIT_SECONDS)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked_for = error.failure.wait_seconds if isinstance(error, _FailedError) else 0.0
            return max(backoff(state), asked_for)

        def is_over(state: RetryCallState) -> bool:
            no_time = state.upcoming_sleep + _LEAST_SECONDS > question.left
            return no_time or state.attempt_number >= _MOST_TRIES

        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_worth_a_try), wait=wait, stop=is_over, sleep=asyncio.sleep, reraise=True
        )
        return await retrying(self._try, question)

    async def _try(self, question: Question) -> Answer | NoAnswer:
        """Ask the models of the list that are there, until one has answered or failed."""
        await self._load(question)
        while True:
            if self._reason is not None:  # by another question, meanwhile
                return NoAnswer(self._reason)
            model = self._standing.current()
            if model is None:
                raise _FailedError(Failure("no_model", Remedy.GIVE_UP, said="none of the models is there"))
            if question.left < _LEAST_SECONDS or question.calls >= _MOST_CALLS:
                raise _FailedError(Failure("timeout", Remedy.GIVE_UP, said="no time is left for a call"))
            question.late = "budget"
            refusal = await self._spending.admit()
            if refusal is not None:
                self._log.info("llm_refused", reason=refusal.by, left_seconds=round(refusal.left_ms / 1000, 1))
                reason: Reason = "circuit_open" if refusal.by == "open" else "budget"
                return NoAnswer("rate_limited" if question.has_waited else reason)
            question.late = "timeout"
            found = await self._calls.make(model, question)
            if isinstance(found, Answer):
                return found
            if not await self._is_mended(found, model, question):
                raise _FailedError(found)

    async def _is_mended(self, failure: Failure, model: str, question: Question) -> bool:
        """Act on a failure; whether the question can go out again at once."""
        match failure.remedy:
            case Remedy.NEXT_MODEL:
                self._standing.is_gone(model)
                after = self._standing.current() or "none"
                self._log.warning("model_gone", model=model, next=after, said=self._said(failure.said))
                return True
            case Remedy.PLAINLY:
                return self._standing.takes_nothing(model)
            case Remedy.OFF:
                self._switch_off(failure)
            case Remedy.WAIT if not question.has_waited:
                if 0 < failure.wait_seconds <= question.left - _LEAST_SECONDS:
                    question.has_waited = True
                    question.late = "rate_limited"
                    await asyncio.sleep(failure.wait_seconds + _AFTER_WAIT_SECONDS)
                    return True
        return False

    async def _load(self, question: Question) -> None:
        question.late = "timeout"
        try:
            await self._sdk.load()
        except Exception as error:  # noqa: BLE001 - as a rule there are no credentials for Vertex AI
            said = f"{type(error).__name__}: {error}"
            raise _FailedError(Failure("forbidden", Remedy.GIVE_UP, said=said)) from None

    def _switch_off(self, failure: Failure) -> None:
        if self._reason is None:
            self._reason = "off"
            self._log.error("llm_off", until="this process is started again", said=self._said(failure.said))

    def _said(self, what: str | Exception) -> str:
        text = what if isinstance(what, str) else f"{type(what).__name__}: {what}"
        return failures.for_log(self._redact(text))


def _is_worth_a_try(error: BaseException) -> bool:
    return isinstance(error, _FailedError) and error.failure.remedy is Remedy.AGAIN
