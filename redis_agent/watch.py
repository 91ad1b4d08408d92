"""What changes in definitions while no event comes: criteria that somebody rewrites, experiments that are completed.

Nothing scans the key space. Every second or so a page of the index of experiments with events is looked at: the most
recently active ones, and some of the others in turn, so that the cost is bounded whatever their number.

A completed experiment is judged once more, on its final values. They are final when every event that was in the
stream at the time has been applied, and no more come for a moment; events that a process cannot apply are not
waited for beyond a minute.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from redis_agent.catalogue import Catalogue
from redis_agent.experiments import Experiment
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.finals import Finals

# Experiments looked at each time: so many of the most recently active, and so many of the others in turn.
_PAGE: Final = 200
# Events of a completed experiment may still be on their way: without any for so long there are no more.
_SETTLED_SECONDS: Final = 2.0
_LONGEST_SECONDS: Final = 60.0
# Experiments that are remembered as judged; beyond it the oldest is judged again, which tells nothing twice.
_MEMORY: Final = 10_000


@dataclass(slots=True)
class _Completion:
    """A completed experiment that waits for its last judgement; times are the event loop's, for clocks differ.

    Attributes:
        noticed: When it was.
        written: The id of the newest event in the stream at the time.
        last_event_ms: Of the experiment, as its index has it.
        still: Since when that is the same.
    """

    noticed: float
    written: tuple[int, int]
    last_event_ms: int
    still: float


class Watch:
    """Says which experiments are to be judged although nothing happened to them."""

    def __init__(self, *, catalogue: Catalogue, aggregates: Aggregates, finals: Finals) -> None:
        self._catalogue = catalogue
        self._aggregates = aggregates
        self._finals = finals
        self._offset = 0
        self._page: dict[str, int] = {}
        self._known: dict[str, Experiment] = {}
        self._judged: dict[str, Experiment] = {}
        self._completions: dict[str, _Completion] = {}

    async def changed(self) -> list[str]:
        """Turn to the next page; the experiments on it whose definition is not the one they were judged by.

        Raises:
            RedisError, OSError: nothing is forgotten; asking again is safe.
        """
        newest = await self._aggregates.page(0, _PAGE)
        others = await self._aggregates.page(_PAGE + self._offset, _PAGE) if len(newest) == _PAGE else {}
        self._offset = self._offset + _PAGE if len(others) == _PAGE else 0
        page = {**others, **newest}
        self._known = await self._catalogue.experiments(list(page))
        self._page = page
        for experiment_id in page.keys() - self._known.keys():
            self._judged.pop(experiment_id, None)
        return [i for i, e in self._known.items() if not e.finished and self._judged.get(i) is not e]

    def judged(self, ids: Iterable[str]) -> None:
        """These experiments have been judged as they are defined now."""
        self._judged |= {i: self._known[i] for i in ids if i in self._known}
        while len(self._judged) > _MEMORY:
            del self._judged[next(iter(self._judged))]

    async def completed(self) -> list[str]:
        """The experiments on the page that are to be judged finally now.

        Raises:
            RedisError, OSError: nothing is forgotten; asking again is safe.
        """
        done = await self._finals.judged(list(self._known))
        await self._finals.forget([i for i in done if not self._known[i].finished])
        waiting = {i for i, e in self._known.items() if e.finished and i not in done}
        for experiment_id in self._page.keys() - waiting:
            self._completions.pop(experiment_id, None)
        if not waiting:
            return []
        now = asyncio.get_running_loop().time()
        written, applied = await self._finals.written(), await self._finals.applied()
        for experiment_id in waiting:
            last_event_ms = self._page[experiment_id]
            known = self._completions.setdefault(experiment_id, _Completion(now, written, last_event_ms, now))
            if known.last_event_ms != last_event_ms:
                known.last_event_ms, known.still = last_event_ms, now
        return [i for i in waiting if self._is_final(i, applied, now)]

    def _is_final(self, experiment_id: str, applied: tuple[int, int], now: float) -> bool:
        completion = self._completions[experiment_id]
        if now - completion.noticed >= _LONGEST_SECONDS:
            return True
        return applied >= completion.written and now - completion.still >= _SETTLED_SECONDS

    async def judged_finally(self, ids: Iterable[str], at: str) -> None:
        """These experiments have had their last judgement, at a moment (ISO 8601)."""
        await self._finals.mark(dict.fromkeys(ids, at))
