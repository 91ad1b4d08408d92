"""Criteria that nobody understands are offered to a model, each text once, and what comes of it is kept.

The catalogue uses what is kept (`experiments.with_translations`), `check` shows it. A translation is only ever what our
own parser has read, about metrics that the experiment's definition knows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from redis_agent import log
from redis_agent.catalogue import Catalogue
from redis_agent.criteria import CriterionKind
from redis_agent.experiments import JudgedCriterion
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.translations import Translations

# The most recently active experiments are looked at, and so many texts offered in one turn.
_PAGE: Final = 200
_A_TURN: Final = 3
# Nobody waits for a translation.
_SECONDS: Final = 20.0

Translate = Callable[[str, Sequence[str], CriterionKind, float], Awaitable[str | None]]


class Translating:
    """Offers criteria, as the scheduler's leader.

    Args:
        catalogue: the experiments.
        aggregates: which of them are active.
        translations: what came of earlier offers.
        translate: text, metrics, kind and deadline (on the event loop's clock) to a canonical text, or None.
    """

    def __init__(
        self, *, catalogue: Catalogue, aggregates: Aggregates, translations: Translations, translate: Translate
    ) -> None:
        self._catalogue = catalogue
        self._aggregates = aggregates
        self._translations = translations
        self._translate = translate
        self._log = log.get("scheduler")

    async def offer(self) -> bool:
        """Offer some of what was not offered yet; True when there is more.

        Raises:
            RedisError, OSError: what came of it could not be kept: it is offered again.
        """
        found = await self._catalogue.experiments(list(await self._aggregates.page(0, _PAGE)))
        waiting: dict[str, tuple[JudgedCriterion, Sequence[str]]] = {
            key: (entry, experiment.names)
            for experiment in found.values()
            if experiment.judged and not experiment.finished
            for key, entry in experiment.untranslated.items()
        }
        offered = await self._translations.of(list(waiting))
        new = [(key, *waiting[key]) for key in waiting if key not in offered]
        for key, entry, names in new[:_A_TURN]:
            deadline = asyncio.get_running_loop().time() + _SECONDS
            criterion = await self._translate(entry.text, names, entry.kind, deadline)
            await self._translations.keep(key, entry.text, criterion)
            if criterion is None:
                self._log.info("criterion_not_translated", text=entry.text[:200])
        return len(new) > _A_TURN
