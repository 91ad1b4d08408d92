"""Who can be asked for an analysis: Gemini, or nobody."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, validated.

    Attributes:
        value: of the schema that was asked for.
        model: which model.
        tokens_in, tokens_out: what it cost.
        cached: whether the same was asked before.
    """

    value: BaseModel
    model: str
    tokens_in: int
    tokens_out: int
    cached: bool


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why there is none, in a word fit for a label."""

    reason: str


class Asker(Protocol):
    """Words facts, or says that it cannot."""

    async def ask(
        self,
        prompt: Literal["analyze", "summarize"],
        facts: Mapping[str, Any],
        schema: type[BaseModel],
        *,
        deadline: float,
    ) -> Answer | NoAnswer:
        """The answer, before the deadline (on the event loop's clock); whatever goes wrong, nothing is raised."""

    @property
    def available(self) -> bool:
        """Whether asking makes sense now."""

    async def aclose(self) -> None:
        """Close what is open."""


class Nobody:
    """Stands in where there is no key."""

    async def ask(
        self,
        prompt: Literal["analyze", "summarize"],  # noqa: ARG002 - the signature is the protocol's
        facts: Mapping[str, Any],  # noqa: ARG002
        schema: type[BaseModel],  # noqa: ARG002
        *,
        deadline: float,  # noqa: ARG002
    ) -> Answer | NoAnswer:
        """Never an answer."""
        return NoAnswer("no_key")

    @property
    def available(self) -> bool:
        """Never."""
        return False

    async def aclose(self) -> None:
        """Nothing is open."""
