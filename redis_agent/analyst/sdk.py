"""The Google Gen AI SDK, behind one small class: imported when first used, and off the event loop.

Importing it costs half a second and 40 MB; processes that never ask never pay. Its retries are off: every call is made
once, and what is worth repeating is repeated by whoever watches the deadline and the budget.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from redis_agent.analyst.models import Tuning, is_alias
from redis_agent.analyst.prompting import Prompt
from redis_agent.analyst.reading import Reply, reply_of

# An answer has at most 1,500 tokens. Thinking counts as well: a model that thinks although it was asked not to must not
# be cut off in the middle of its answer. Also the most that one call can cost.
MOST_OUTPUT_TOKENS: Final = 8_192
# What Gemini reads of JSON Schema and is of use to it. Lengths are checked here, not there.
_SCHEMA_WORDS: Final = ("type", "enum", "description")
# Longer than the deadline of whoever asks, who gives up first. Only the server hears of it.
_GRACE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Access:
    """How Gemini is reached.

    Attributes:
        api_key: of the Gemini API, or of Vertex AI in express mode.
        base_url: instead of Google's, for a proxy or a stub.
        vertexai: Vertex AI instead of the Gemini API.
        project, location: of Vertex AI, with the credentials that the environment has (ADC).
    """

    api_key: str = field(default="", repr=False)
    base_url: str = field(default="", repr=False)
    vertexai: bool = False
    project: str = ""
    location: str = ""

    @property
    def is_configured(self) -> bool:
        """Whether there is anything to ask with."""
        return bool(self.api_key) or self.vertexai


class Sdk:
    """Calls `generateContent`.

    Args:
        access: how.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._loading: asyncio.Task[tuple[Any, Any]] | None = None

    async def load(self) -> tuple[Any, Any]:
        """Import the SDK and make its client, once; whoever gives up waiting leaves the work to the next.

        Returns:
            The client, and the SDK's module of types.

        Raises:
            Exception: whatever the SDK or its import comes up with.
        """
        if self._loading is None or (self._loading.done() and _has_failed(self._loading)):
            self._loading = asyncio.create_task(asyncio.to_thread(_make, self._access))
            # A failure that nobody waits for any more is told to whoever asks next.
            self._loading.add_done_callback(_has_failed)
        return await asyncio.shield(self._loading)

    async def generate(self, model: str, prompt: Prompt, schema: type[BaseModel], tuning: Tuning, left: float) -> Reply:
        """One call.

        Args:
            model: which.
            prompt: instruction and facts.
            schema: of the answer.
            tuning: what this model takes.
            left: seconds that the caller will wait.

        Raises:
            Exception: the SDK's errors and those of what is below it; `failures.of_error` reads them.
        """
        client, types = await self.load()
        thinking = {"thinking_level": tuning.thinking_level, "thinking_budget": tuning.thinking_budget}
        chosen = {name: value for name, value in thinking.items() if value is not None}
        config = types.GenerateContentConfig(
            http_options=types.HttpOptions(
                timeout=int((max(0.0, left) + _GRACE_SECONDS) * 1000),
                api_version="v1beta" if is_alias(model) and not self._access.vertexai else None,
            ),
            system_instruction=prompt.instruction,
            temperature=tuning.temperature,
            max_output_tokens=MOST_OUTPUT_TOKENS,
            response_mime_type="application/json",
            response_json_schema=json_schema(schema),
            thinking_config=types.ThinkingConfig(**chosen) if chosen else None,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            # Else the SDK makes further calls of its own, outside of the budget.
            automatic_continuation=False,
        )
        return reply_of(await client.aio.models.generate_content(model=model, contents=prompt.message, config=config))

    async def aclose(self) -> None:
        """Close the connections. An import that is under way is left to its thread."""
        loading, self._loading = self._loading, None
        if loading is None or not loading.done() or _has_failed(loading):
            return
        client, _ = loading.result()
        await client.aio.aclose()
        client.close()


def _make(access: Access) -> tuple[Any, Any]:
    from google import genai  # noqa: PLC0415 - heavy: see above
    from google.genai import types  # noqa: PLC0415

    options = types.HttpOptions(
        base_url=access.base_url or None,
        # Set at all, it turns off what the SDK does where it is not: after a broken connection its aiohttp path sleeps
        # up to ten seconds and sends the request again, whatever else was asked for.
        retry_options=types.HttpRetryOptions(attempts=1),
    )
    if access.vertexai and access.project:
        location = access.location or None
        client = genai.Client(vertexai=True, project=access.project, location=location, http_options=options)
    elif access.vertexai:
        client = genai.Client(vertexai=True, api_key=access.api_key or None, http_options=options)
    else:
        client = genai.Client(vertexai=False, api_key=access.api_key, http_options=options)
    return client, types


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The schema as Gemini is told it: names, types, choices and what each is for."""
    told = _told(schema.model_json_schema())
    told.pop("description", None)  # the docstring is for us
    return told


def _told(part: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {word: part[word] for word in _SCHEMA_WORDS if word in part}
    if "properties" in part:
        told["properties"] = {name: _told(inner) for name, inner in part["properties"].items()}
        told["required"] = list(part["properties"])
    if "items" in part:
        told["items"] = _told(part["items"])
    return told
