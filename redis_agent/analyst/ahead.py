"""The analyses of alerts that wait for their delivery: made ahead of it and side by side, each by its deadline.

    seen first -> kept from before? -> facts, words -> kept with the alert -> delivered with it

The deadline counts from when this process first sees an alert, and alerts behind the one to be delivered are seen while
that one waits: so none is held up for longer than one deadline, however many wait for their analyses. What is kept in
Redis is what is delivered: whoever takes over says the same, and asks nobody again.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from redis.exceptions import ResponseError

from redis_agent import log
from redis_agent.alerts import AlertType, Told, told
from redis_agent.analyst.analyst import Analyst, plain, plain_of_alert
from redis_agent.clock import Clock, stream_id
from redis_agent.store.analyses import KeptAnalyses
from redis_agent.store.outbox import OutboxEntry
from redis_agent.tracing import OFF, UNTRACED, Span, Step, Tracing

ANALYSED: Final = frozenset({AlertType.SUCCESS, AlertType.FAILURE, AlertType.ANOMALY, AlertType.COMPLETED})

# Alerts that are known ahead of their delivery, and those that are looked at in one go.
_KNOWN: Final = 1_000
_PAGE: Final = 200
# A burst must not open a connection for each of its alerts.
_KEPT_AT_ONCE: Final = 8
# How often it is looked for alerts behind the one that waits.
_LOOK_SECONDS: Final = 0.2
_NOTHING: Final = "0-0"
# Of the deadline, what writing down the analysis and delivering the alert may take.
_RESERVE: Final = 0.1


class Source(Protocol):
    """Where the alerts behind the present one are seen (see `store.outbox.Delivery.ahead`)."""

    async def ahead(self, after: str, count: int) -> list[OutboxEntry]:
        """Alerts behind this one, oldest first."""


@dataclass(slots=True)
class _Known:
    """An alert whose analysis is made, or was.

    Attributes:
        alert: its JSON object.
        experiment_id: whose it is.
        seen: when it was seen first, on the event loop's clock.
        until: its deadline, on the same clock.
        making: ends with the analysis's JSON text; None where it was kept before.
        instead: the template's analysis as JSON text, once there are facts.
        analysis: the JSON text, once it is there.
        span: of making it.
    """

    alert: dict[str, Any]
    experiment_id: str
    seen: float
    until: float
    making: asyncio.Task[str] | None = None
    instead: str = ""
    analysis: str | None = None
    span: Span = UNTRACED


class Analyses:
    """Makes the analyses of the alerts that this process is about to deliver.

    Args:
        analyst: makes one.
        kept: where they are kept.
        source: the alerts behind the present one.
        clock: the time.
        deadline_seconds: how long an alert may be held up; 0 leaves all as they are.
        tracing: of the alerts that carry a trace.
    """

    def __init__(
        self,
        *,
        analyst: Analyst,
        kept: KeptAnalyses,
        source: Source,
        clock: Clock,
        deadline_seconds: float,
        tracing: Tracing = OFF,
    ) -> None:
        self._analyst = analyst
        self._kept = kept
        self._source = source
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._tracing = tracing
        self._log = log.get("analyst")
        self._keeping = asyncio.Semaphore(_KEPT_AT_ONCE)
        self._known: dict[str, _Known] = {}
        self._seen_to = _NOTHING
        self._look_due = 0.0

    async def begin(self) -> None:
        """A new term of delivering: what was left behind by a deleted outbox goes.

        Raises:
            RedisError, OSError: the server could not be asked.
        """
        if self._deadline_seconds:
            await self._kept.sweep()

    def end(self) -> None:
        """Nothing is delivered by this process any more: whoever does sees the alerts anew."""
        for known in self._known.values():
            if known.making is not None:
                known.making.cancel()
        self._known.clear()
        self._seen_to = _NOTHING

    async def see(self, waiting: Sequence[OutboxEntry]) -> None:
        """The oldest alerts that wait, in order: begin what is not begun.

        Raises:
            RedisError, OSError: what is kept could not be read.
        """
        if not self._deadline_seconds or not waiting:
            return
        oldest = stream_id(waiting[0].id)
        for entry_id in [i for i in self._known if stream_id(i) < oldest]:
            self.forget(entry_id)
        await self._begin(waiting)

    async def look_ahead(self) -> None:
        """See the alerts that came behind those that were seen, now and then.

        Raises:
            RedisError, OSError: they could not be read.
        """
        now = asyncio.get_running_loop().time()
        if self._seen_to == _NOTHING or now < self._look_due or len(self._known) >= _KNOWN:
            return
        self._look_due = now + _LOOK_SECONDS
        try:
            behind = await self._source.ahead(self._seen_to, _PAGE)
        except ResponseError:
            return  # whoever may not look ahead delivers all the same
        await self._begin(behind)

    async def ready(self, entry: OutboxEntry, *, wait_seconds: float) -> str | None:
        """What is to be published for an alert; None when its analysis needs more time than that.

        At its deadline there is one, whatever became of it.
        """
        known = self._known.get(entry.id)
        if known is None:
            return entry.data
        loop = asyncio.get_running_loop()
        if known.analysis is None and known.making is not None:
            wait = min(wait_seconds, max(0.0, known.until - loop.time()))
            await asyncio.wait({known.making}, timeout=wait)
            if known.making.done():
                known.analysis = self._outcome(known)
            elif loop.time() >= known.until:
                known.span.end("deadline")
                known.making.cancel()
                known.analysis = self._plain(known)
            else:
                return None
        return _with_analysis(entry.data, known.analysis or "")

    def forget(self, entry_id: str) -> None:
        """The alert was delivered, or needs no delivery any more."""
        known = self._known.pop(entry_id, None)
        if known is not None and known.making is not None:
            known.making.cancel()

    async def _begin(self, entries: Sequence[OutboxEntry]) -> None:
        now = asyncio.get_running_loop().time()
        new = [
            (entry, about)
            for entry in entries
            if entry.id not in self._known and _is_analysed(about := told(entry.data))
        ]
        if new:
            await self._begin_new(new, now)
        if entries and stream_id(entries[-1].id) > stream_id(self._seen_to):
            self._seen_to = entries[-1].id

    async def _begin_new(self, new: Sequence[tuple[OutboxEntry, Told]], now: float) -> None:
        """Begin with these; what is kept of a few from before is read while their facts are."""
        asked = asyncio.create_task(self._kept.of([entry.id for entry, _ in new]))  # noqa: RUF006 - awaited below
        if len(new) > _KEPT_AT_ONCE:
            # Left behind by another dispatcher, most likely with their analyses.
            await asyncio.wait({asked})
        for entry, about in new:
            known = _Known(json.loads(entry.data), about.experiment_id, now, now + self._deadline_seconds)
            known.making = asyncio.create_task(self._make(entry.id, known, asked))
            known.making.add_done_callback(partial(_end, known))
            self._known[entry.id] = known
        try:
            kept = await asked
        except BaseException:
            for entry, _ in new:
                self.forget(entry.id)
            raise
        for entry, about in new:
            known = self._known[entry.id]
            if _is_object(kept.get(entry.id, "")):
                self.forget(entry.id)
                self._known[entry.id] = replace(known, making=None, analysis=kept[entry.id])
            else:
                known.span = self._tracing.begin(Step.ANALYSE, entry.trace, experiment_id=about.experiment_id)

    async def _make(self, entry_id: str, known: _Known, asked: asyncio.Task[dict[str, str]]) -> str:
        """The analysis of an alert, kept; it is ended where one was kept before."""
        until = known.until - _RESERVE * self._deadline_seconds
        facts = await self._analyst.facts(known.experiment_id, known.alert, since=known.seen, deadline=until)
        # From here on there is something to say at the deadline, whatever becomes of the question.
        instead = plain(facts)
        known.instead = _dumps(instead)
        await asyncio.shield(asked)
        own = _dumps(await self._analyst.word(facts, deadline=until, instead=instead))
        async with self._keeping:
            kept = await self._kept.keep(entry_id, own)
        return kept if _is_object(kept) else own

    def _outcome(self, known: _Known) -> str:
        """What making came to."""
        making = known.making
        if making is None or making.cancelled():
            return self._plain(known)
        error = making.exception()
        if error is None:
            return making.result()
        self._log.warning("analysis_failed", error=repr(error)[:200], meaning="the alert's own words stand for it")
        return self._plain(known)

    def _plain(self, known: _Known) -> str:
        """The template's analysis; of nothing but the alert, made on the spot, where no facts were there in time.

        "" where even that fails.
        """
        if known.instead:
            return known.instead
        try:
            return _dumps(plain_of_alert(known.alert, known.experiment_id, self._clock))
        except Exception as error:  # noqa: BLE001 - an analysis is not worth an alert
            self._log.error("analysis_failed", error=repr(error)[:200], exc_info=True)
            return ""


def _end(known: _Known, making: asyncio.Task[str]) -> None:
    if not making.cancelled():
        error = making.exception()
        known.span.end("" if error is None else type(error).__name__)


def _is_analysed(about: Told) -> bool:
    return about.type in ANALYSED


def _dumps(analysis: dict[str, Any]) -> str:
    return json.dumps(analysis, ensure_ascii=False, separators=(",", ":"))


def _is_object(text: str) -> bool:
    """Whether it can stand in an alert's JSON: somebody else may have written to what is kept."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _with_analysis(data: str, analysis: str) -> str:
    """The alert's JSON with one field more; its own text stays as it is."""
    alert = data.rstrip()
    return f'{alert[:-1]},"analysis":{analysis}}}' if analysis and alert.endswith("}") else data
