"""What changes in definitions while no event comes: criteria that somebody rewrites, experiments that are completed.

Nothing scans the key space. Every second or so a page of the index of experiments with events is looked at: the most
recently active ones, and some of the others in turn, so that the cost is bounded whatever their number.

A completed experiment is judged once more, on its final values. It is completed when its state says so, when an event
`experiment_completed` came, or when as many runs were completed as its definition plans. Its values are final when
every event that was in the stream at the time has been applied, and no more come for a moment; events that a process
cannot apply are not waited for beyond a minute.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from redis_agent.catalogue import Catalogue
from redis_agent.events import COMPLETED_EVENT, RUN_COMPLETED_EVENT
from redis_agent.experiments import Experiment
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.finals import Finals

# Experiments looked at each time: so many of the most recently active, and so many of the others in turn.
_PAGE: Final = 200
# Events of a completed experiment may still be on their way: without any for so long there are no more.
_SETTLED_SECONDS: Final = 2.0
_LONGEST_SECONDS: Final = 60.0
# Fields of an aggregate that say how far an experiment has come.
_COUNTS: Final = (f"{COMPLETED_EVENT}_count", f"{RUN_COMPLETED_EVENT}_count")
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
        waiting = {i for i, e in self._known.items() if e.finished and i not in done} | await self._ended()
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

    async def _ended(self) -> set[str]:
        """Those that are over by their events, whatever their state says, and were not told as completed yet."""
        open_ones = [i for i, e in self._known.items() if e.judged and not e.finished]
        counts = await self._aggregates.fields(open_ones, _COUNTS)
        ended = [i for i, (over, runs) in counts.items() if is_over(over, runs, self._known[i].planned_runs)]
        return set(ended) - await self._finals.told(ended)

    def _is_final(self, experiment_id: str, applied: tuple[int, int], now: float) -> bool:
        completion = self._completions[experiment_id]
        if now - completion.noticed >= _LONGEST_SECONDS:
            return True
        return applied >= completion.written and now - completion.still >= _SETTLED_SECONDS

    async def judged_finally(self, ids: Iterable[str], at: str) -> None:
        """These experiments have had their last judgement, at a moment (ISO 8601)."""
        # What ended by its events may go on; the memory of its completion is the alert that was told.
        finished = [i for i in ids if i in self._known and self._known[i].finished]
        await self._finals.mark(dict.fromkeys(finished, at))


def is_over(completed: str | None, runs: str | None, planned: int | None) -> bool:
    """Whether events say that an experiment is over.

    Args:
        completed: how many events `experiment_completed` came, as the aggregate has it.
        runs: how many runs were completed.
        planned: how many are planned, if that is known.
    """
    return _count(completed) > 0 or (planned is not None and _count(runs) >= planned)


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 20 else 0
