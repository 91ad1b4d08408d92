"""The periodic summary and the daily digest: one an interval across all replicas, in a model's words where it has any.

    slot due -> read all experiments -> words, until the deadline -> raised, once for its slot -> marked

What an interval has told is kept apart by the cooldown of its slot, so that two leaders, or one that dies between
raising and marking, tell it once.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from redis_agent import log
from redis_agent.alerts import DAY, INTERVAL, summary_alert
from redis_agent.analyst.analyst import GEMINI, TEMPLATE, Analyst
from redis_agent.analyst.answers import SummaryAnalysis
from redis_agent.analyst.facts import clean
from redis_agent.analyst.reader import Reader, alerts_of
from redis_agent.clock import Clock, stream_id
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.housekeeping import Housekeeping, SummaryMark
from redis_agent.store.inspection import Inspection
from redis_agent.store.lease import Leadership
from redis_agent.store.outbox import SILENCED, Outbox, Raise
from redis_agent.store.partitions import partition_of
from redis_agent.summary import MAX_LINES, Digest, Subject, digest
from redis_agent.telemetry import Telemetry

DAY_MS: Final = 86_400_000
# A last summary further in the future was made before the clock was set back: replicas' clocks differ by less.
_CLOCK_BACK_MS: Final = 5_000
# Experiments judged in one go: bounds the memory of a summary.
_PAGE: Final = 500
# Of the alerts of an interval so many of the newest are looked through for what has changed.
_TOLD: Final = 1_000
# Characters of a line that a model is given, and of one that it gives.
_FACT_LINE: Final = 160
_SAID_LINE: Final = 300
_HEADLINE: Final = 400


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When a summary is due: at every whole interval, counted from an offset into it.

    Attributes:
        period: `INTERVAL` or `DAY`; names its mark, too.
        every_ms: the interval.
        offset_ms: since the beginning of the epoch.
    """

    period: str
    every_ms: int
    offset_ms: int = 0

    def slot(self, now_ms: int) -> int:
        """The number of the interval that this moment lies in."""
        return (now_ms - self.offset_ms) // self.every_ms

    def began_ms(self, slot: int) -> int:
        """When it began, which is when the one before was due."""
        return slot * self.every_ms + self.offset_ms

    def fingerprint(self, slot: int) -> str:
        """Tells what is due then apart from all else; a day by its minute, which may be changed."""
        return str(slot) if self.period == INTERVAL else f"{self.period}-{self.began_ms(slot) // 60_000}"


def daily_at(at: str) -> Rhythm | None:
    """Every day at a time "HH:MM" in UTC; None for ""."""
    if not at:
        return None
    hours, _, minutes = at.partition(":")
    return Rhythm(DAY, DAY_MS, (60 * int(hours) + int(minutes)) * 60_000)


@dataclass(frozen=True, slots=True)
class Sources:
    """What a digest is made of, in one partition.

    Attributes:
        reader: judges experiments.
        aggregates, inspection, housekeeping: what stands in Redis.
    """

    reader: Reader
    aggregates: Aggregates
    inspection: Inspection
    housekeeping: Housekeeping


class Digests:
    """Makes digests of what stands in Redis.

    Args:
        sources: of each partition.
        analyst: words a digest, where it can.
        quiet_after_seconds: an experiment without events for so long is quiet.
        deadline_seconds: how long its words may take.
    """

    def __init__(
        self,
        *,
        sources: Sequence[Sources],
        analyst: Analyst,
        quiet_after_seconds: float,
        deadline_seconds: float,
    ) -> None:
        self._sources = sources
        self._analyst = analyst
        self._quiet_after_ms = int(1000 * quiet_after_seconds)
        self._deadline_seconds = deadline_seconds

    async def read(self, last_events: Mapping[str, int], *, since_ms: int, now_ms: int) -> Digest:
        """The digest of a time, as it stands now.

        Args:
            last_events: experiment -> ms of its last event, of all that are to be spoken of.
            since_ms: its beginning.
            now_ms: its end.

        Raises:
            RedisError, OSError: something could not be read.
        """
        subjects: list[Subject] = []
        told: list[tuple[str, dict[str, Any]]] = []
        for number, sources in enumerate(self._sources):
            ids = [one for one in last_events if partition_of(one, len(self._sources)) == number]
            for first in range(0, len(ids), _PAGE):
                subjects += [
                    Subject(
                        experiment_id=found.experiment_id,
                        last_event_ms=last_events[found.experiment_id],
                        judged=found.experiment is None or found.experiment.judged,
                        fields=found.fields,
                        verdicts=found.verdicts,
                    )
                    for found in await sources.reader.look(ids[first : first + _PAGE])
                ]
            told += alerts_of(await sources.inspection.newest_alerts(_TOLD, since_ms=since_ms))
        told.sort(key=lambda one: stream_id(one[0]), reverse=True)  # by the times of their entries, newest first
        return digest(
            subjects,
            [alert for _, alert in told[:_TOLD]],
            now_ms=now_ms,
            since_ms=since_ms,
            quiet_after_ms=self._quiet_after_ms,
        )

    async def everything(self) -> dict[str, int]:
        """Every experiment that ever had an event -> ms of its last."""
        found: dict[str, int] = {}
        for sources in self._sources:
            found |= await sources.aggregates.all()
        return dict(sorted(found.items(), key=lambda last: last[1], reverse=True))

    async def floor(self) -> str:
        """Up to where events have been applied; it moves whenever one is."""
        return ",".join([await sources.housekeeping.floor() for sources in self._sources])

    def nothing_new(self, last_events: Mapping[str, int], *, since_ms: int, now_ms: int) -> bool:
        """Whether this time had no event and no experiment turned quiet in it."""
        return not any(
            last_ms >= since_ms or since_ms < last_ms + self._quiet_after_ms <= now_ms
            for last_ms in last_events.values()
        )

    async def word(self, plain: Digest) -> tuple[Digest, str]:
        """The digest in a model's words, or as it is, and whose words they are; never later than the deadline."""
        deadline = asyncio.get_running_loop().time() + self._deadline_seconds
        said = await self._analyst.word_summary(_facts(plain), deadline=deadline) if self._deadline_seconds else None
        return (plain, TEMPLATE) if said is None else (_reworded(plain, said), GEMINI)


def _facts(plain: Digest) -> dict[str, Any]:
    """What a model is given: the same lines, shorter."""
    facts = plain.as_json()
    lines = {
        name: [clean(line, _FACT_LINE) for line in found] for name, found in facts.items() if isinstance(found, list)
    }
    return {**facts, "headline": clean(plain.headline, _HEADLINE), "experiments": plain.experiments, **lines}


def _reworded(plain: Digest, said: SummaryAnalysis) -> Digest:
    def lines(found: list[str]) -> tuple[str, ...]:
        return tuple(clean(line, _SAID_LINE) for line in found[:MAX_LINES] if line.strip())

    return replace(
        plain,
        headline=clean(said.headline, _HEADLINE) or plain.headline,
        wins=lines(said.wins),
        concerns=lines(said.concerns),
        changes=lines(said.changes),
        quiet=lines(said.quiet),
    )


class Summaries:
    """Raises the summaries that are due, as the scheduler's leader.

    Args:
        leadership: of the scheduler.
        digests: what they say.
        outbox: where they go.
        housekeeping: which interval was summarised last.
        telemetry, clock: as everywhere.
        interval: the rhythm of the periodic summary.
        day: that of the daily digest, if there is one.
    """

    def __init__(
        self,
        *,
        leadership: Leadership,
        digests: Digests,
        outbox: Outbox,
        housekeeping: Housekeeping,
        telemetry: Telemetry,
        clock: Clock,
        interval: Rhythm,
        day: Rhythm | None,
    ) -> None:
        self._leadership = leadership
        self._digests = digests
        self._outbox = outbox
        self._housekeeping = housekeeping
        self._telemetry = telemetry
        self._clock = clock
        self._rhythms = [interval, *([day] if day is not None else [])]
        self._log = log.get("scheduler")

    async def summarise_when_due(self) -> None:
        """Raise the summary of each interval that has just ended, once across all replicas.

        Raises:
            RedisError, OSError: it is due again; nothing is told twice.
        """
        for rhythm in self._rhythms:
            await self._when_due(rhythm)

    async def _when_due(self, rhythm: Rhythm) -> None:
        now_ms = self._clock.now_ms()
        slot = rhythm.slot(now_ms)
        last = await self._housekeeping.summary_mark(rhythm.period)
        if last is None or last.at_ms - now_ms > _CLOCK_BACK_MS:
            # The first summary is that of the first whole interval; so is the next one after the clock was set back.
            mark = SummaryMark(slot, now_ms, await self._digests.floor())
            await self._housekeeping.set_summary_mark(rhythm.period, mark)
            return
        if rhythm.began_ms(slot) <= last.at_ms:
            return
        term = self._leadership.value
        floor = await self._digests.floor()
        last_events = await self._digests.everything()
        # Times of events are of other clocks; whether any was applied is known without.
        if floor == last.floor and self._digests.nothing_new(last_events, since_ms=last.at_ms, now_ms=now_ms):
            self._log.info("summary_skipped", period=rhythm.period, why="no event, and nothing has turned quiet")
        else:
            plain = await self._digests.read(last_events, since_ms=last.at_ms, now_ms=now_ms)
            worded, by = await self._digests.word(plain)
            if self._leadership.value != term:
                return  # it took long: whoever leads now has it due, too
            await self._raise(rhythm, slot, worded, by, since_ms=last.at_ms)
        await self._housekeeping.set_summary_mark(rhythm.period, SummaryMark(slot, now_ms, floor))

    async def _raise(self, rhythm: Rhythm, slot: int, found: Digest, by: str, *, since_ms: int) -> None:
        alert = summary_alert(
            alert_id=str(uuid.uuid4()),
            now=self._clock.now(),
            summary=found.text(),
            experiments=found.experiments,
            period=rhythm.period,
            since=datetime.fromtimestamp(since_ms / 1000, UTC),
            worded_by=by,
        )
        # Whoever comes second in this interval finds the cooldown taken.
        raised = Raise(
            experiment_id=alert.experiment_id,
            alert_type=alert.type.value,
            fingerprint=rhythm.fingerprint(slot),
            cooldown_seconds=max(1, 2 * rhythm.every_ms // 1000),
            alert_id=alert.alert_id,
            data=alert.dumps(),
            at_ms=0,
            replaces=rhythm.period == INTERVAL,
        )
        (outcome,) = await self._outbox.raise_([raised])
        if outcome == 0:
            self._log.info("alert_raised", alert=alert.as_json())
        elif outcome == SILENCED:
            self._telemetry.alerts.labels(alert.type.value, alert.severity.value, "silenced").inc()
            self._log.info("alert_silenced", alert=alert.as_json())
