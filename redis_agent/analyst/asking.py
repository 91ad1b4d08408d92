"""Who can be asked for an analysis: Gemini, or nobody."""

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from redis_agent.analyst.prompting import PromptName
from redis_agent.analyst.question import Answer, NoAnswer


class Asker(Protocol):
    """Words facts, or says that it cannot."""

    async def ask(
        self,
        prompt: PromptName,
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
        prompt: PromptName,  # noqa: ARG002 - the signature is the protocol's
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
