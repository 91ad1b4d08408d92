"""Reads what Gemini sent back: pure, from the SDK's response to a checked answer or the reason why there is none."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from redis_agent.analyst.failures import Failure, Reason, Remedy
from redis_agent.analyst.grounding import Facts, ungrounded

_BLOCKED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MODEL_ARMOR",
        "ESCALATION",
        "PUP_LIMITED_DISABLED",
    }
)
_CUT_OFF: Final = frozenset({"MAX_TOKENS", "CONTINUATION"})
_ENDED: Final = frozenset({"", "STOP", "FINISH_REASON_UNSPECIFIED"})
_FENCE = re.compile(r"\A\s*```[\w-]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: the answer's text, "" for none.
        failure: why there is none that counts.
        tokens_in: read.
        tokens_out: written.
        tokens_thought: thought, which is paid for like what is written.
    """

    text: str = ""
    failure: Failure | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_thought: int = 0


def reply_of(response: Any) -> Reply:
    """What a `GenerateContentResponse` says."""
    usage = response.usage_metadata
    spent = Reply(
        tokens_in=_count(getattr(usage, "prompt_token_count", None)),
        tokens_out=_count(getattr(usage, "candidates_token_count", None)),
        tokens_thought=_count(getattr(usage, "thoughts_token_count", None)),
    )
    feedback = _name(getattr(response.prompt_feedback, "block_reason", None))
    if feedback:
        return _failed(spent, "blocked", f"the prompt: {feedback}")
    if not response.candidates:
        return _failed(spent, "not_json", "no candidates")
    candidate = response.candidates[0]
    ended = _name(candidate.finish_reason)
    if ended in _BLOCKED:
        return _failed(spent, "blocked", f"the answer: {ended}")
    if ended in _CUT_OFF:
        return _failed(spent, "truncated", ended)
    text = "".join(_texts(candidate.content.parts if candidate.content is not None else None))
    if ended not in _ENDED or not text.strip():
        return _failed(spent, "not_json", ended or "no text")
    return replace(spent, text=text)


def _failed(spent: Reply, reason: Reason, said: str) -> Reply:
    return replace(spent, failure=Failure(reason, Remedy.GIVE_UP, said=said))


def _texts(parts: Iterable[Any] | None) -> list[str]:
    """What the answer says, without what the model thought."""
    return [part.text for part in parts or () if isinstance(part.text, str) and not part.thought]


def _name(choice: Any) -> str:
    return str(getattr(choice, "value", choice) or "")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 10_000_000 else 0


def answer_in(
    text: str, schema: type[BaseModel], facts: Facts, fault_of: Callable[[Any], str] | None = None
) -> BaseModel | Failure:
    """The answer that a text holds, as JSON, in a fence or not.

    Args:
        text: what the model wrote.
        schema: what it must be.
        facts: what it may speak of.
        fault_of: says what else is wrong with an answer that fits the schema, "" for nothing.
    """
    fenced = _FENCE.match(text)
    try:
        value = schema.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason: Reason = "not_json" if first["type"] == "json_invalid" else "wrong_schema"
        where = ".".join(map(str, first["loc"])) or "it"
        return Failure(reason, Remedy.GIVE_UP, said=f"{where}: {first['msg']}")
    unknown = ungrounded(value, facts)
    if unknown:
        return Failure("ungrounded", Remedy.GIVE_UP, said="not in the facts: " + ", ".join(unknown[:5]))
    fault = fault_of(value) if fault_of is not None else ""
    return Failure("ungrounded", Remedy.GIVE_UP, said=fault) if fault else value
