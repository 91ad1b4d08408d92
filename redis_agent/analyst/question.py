"""A question for Gemini while it is asked, and what it can come to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from redis_agent.analyst.failures import Failure, Reason
from redis_agent.analyst.grounding import Facts
from redis_agent.analyst.prompting import Prompt
from redis_agent.analyst.reading import answer_in


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was checked.

    Attributes:
        value: an instance of the schema that was asked for.
        model: who gave it.
        tokens_in, tokens_out: what it cost; what it cost then, where it was known already.
        cached: whether it was.
    """

    value: BaseModel
    model: str
    tokens_in: int
    tokens_out: int
    cached: bool


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There is none.

    Attributes:
        reason: why, one of a fixed set: a label of `redis_agent_llm_requests_total`.
    """

    reason: Reason


@dataclass(slots=True)
class Question:
    """What one `ask` is about, and how far it has come.

    Attributes:
        prompt, schema, deadline: as asked; the deadline on the loop's clock.
        told: the facts as the model has them.
        fault_of: the caller's own check of an answer.
        calls: made so far.
        calling_since: when the call that is under way began.
        late: the reason if time runs out now.
        has_waited: whether it has waited for a rate limit once.
    """

    prompt: Prompt
    schema: type[BaseModel]
    deadline: float
    told: Facts
    fault_of: Callable[[Any], str] | None = None
    calls: int = 0
    calling_since: float | None = None
    late: Reason = "timeout"
    has_waited: bool = False

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - asyncio.get_running_loop().time()

    def read(self, text: str) -> BaseModel | Failure:
        """The answer to this question that a text holds."""
        return answer_in(text, self.schema, self.told, self.fault_of)
