"""Keeps what a model has made of criteria that nobody understands, so that each is offered once."""

import json
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.store import keys

# A translation is used for so long, and asked for anew after that; where there was none, it is offered again.
_FOUND_SECONDS = 90 * 86_400
_NONE_SECONDS = 86_400
_SHOWN = 400


class Translations:
    """The translations, by the keys of `experiments.Experiment.untranslated`."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def of(self, translation_keys: Sequence[str]) -> dict[str, str]:
        """What was offered: its canonical text, or "" where nothing came of it."""
        if not translation_keys:
            return {}
        try:
            kept = await self._client.mget([keys.translation(key) for key in translation_keys])
        except ResponseError:
            return {}
        found = {}
        for key, data in zip(translation_keys, kept, strict=True):
            try:
                criterion = json.loads(data)["criterion"] if data is not None else None
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # somebody else wrote it: offered again
            if isinstance(criterion, str):
                found[key] = criterion
        return found

    async def keep(self, key: str, text: str, criterion: str | None) -> None:
        """Keep what came of a text."""
        data = json.dumps({"text": text[:_SHOWN], "criterion": criterion or ""}, ensure_ascii=False)
        await self._client.set(keys.translation(key), data, ex=_FOUND_SECONDS if criterion else _NONE_SECONDS)
