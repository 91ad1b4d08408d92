"""The scheduler: what must happen with time rather than with an event. One leader by lease.

- the threshold sweep: judges experiments with events since the last sweep (what a worker may have left unjudged when
  it died) and those with a time clause, whose verdict can change without any event;
- what changes in definitions while no event comes, and the last judgement of what is completed;
- anomalies in windows that have closed;
- the periodic summary, one an interval across all replicas;
- trimming, and removing consumers that are gone.

How far it came is kept in Redis, so that the next leader continues where the last one stopped. Every job may run twice
without harm: alerts are held apart by the state of their criterion, the summary by its slot.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.alerts import summary_alert, told
from redis_agent.clock import Clock, iso
from redis_agent.events import Reason
from redis_agent.examiner import Examiner
from redis_agent.judge import Item, Judge, Judgement
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.housekeeping import Housekeeping, SummaryMark
from redis_agent.store.lease import Leadership
from redis_agent.store.outbox import SILENCED, Outbox, Raise
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.summary import Subject, plain_summary
from redis_agent.telemetry import Liveness, Telemetry
from redis_agent.watch import Watch

_TICK_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_TRIM_SECONDS = 5.0
# Each kind of trimming lasts so long at a time: where events come as fast as they go, the other jobs have their turn.
_TRIM_TURN_SECONDS = 2.0
_CONSUMERS_SECONDS = 60.0
_EXAMINE_SECONDS = 5.0
# Events are attributed to a sweep by their time of receipt; a batch in flight may land a little later.
_SWEEP_OVERLAP_MS = 30_000
# A last summary further in the future was made before the clock was set back: replicas' clocks differ by less.
_CLOCK_BACK_MS = 5_000
# Experiments judged in one go: bounds the memory of a sweep.
_PAGE = 500
# A definition may gain a time clause at any time; all experiments are looked at this often.
_FULL_SWEEP_SECONDS = 3600.0


@dataclass(slots=True)
class Job:
    """Something to do every so often.

    Attributes:
        every_seconds: the interval.
        do: the work; it answers True when its time was up before it was done, and is due again at once.
        due: next time, on the event loop's clock.
    """

    every_seconds: float
    do: Callable[[], Awaitable[bool | None]]
    due: float = 0.0


class Scheduler:
    """Runs the schedule while it holds the lease."""

    def __init__(
        self,
        *,
        leadership: Leadership,
        judge: Judge,
        watch: Watch,
        examiner: Examiner | None,
        aggregates: Aggregates,
        outbox: Outbox,
        housekeeping: Housekeeping,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        sweep_seconds: float,
        watch_seconds: float,
        summary_seconds: float,
        quiet_after_seconds: float,
        alerts_max: int,
    ) -> None:
        self._leadership = leadership
        self._judge = judge
        self._watch = watch
        self._aggregates = aggregates
        self._outbox = outbox
        self._housekeeping = housekeeping
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._summary_seconds = summary_seconds
        self._quiet_after_seconds = quiet_after_seconds
        self._alerts_max = alerts_max
        self._log = log.get("scheduler")
        self._timed: set[str] = set()
        self._full_sweep_due = 0.0
        self._term: str | None = None
        self._stop = asyncio.Event()
        self._jobs = [
            Job(sweep_seconds, self.sweep),
            Job(watch_seconds, self._judge_changed),
            Job(watch_seconds, self._judge_completed),
            *([Job(_EXAMINE_SECONDS, examiner.examine)] if examiner is not None else []),
            Job(min(summary_seconds, 1.0), self.summarise_when_due),
            Job(_TRIM_SECONDS, self._trim),
            Job(_TRIM_SECONDS, self._count_buried),
            Job(_CONSUMERS_SECONDS, self._remove_consumers),
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the schedule until told to stop."""
        self._stop = stop
        released = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leadership.run(released))
            # Each job has its own, so that one that works says nothing about one that does not.
            recoveries = [Recovery(log=self._log, telemetry=self._telemetry, stop=stop) for _ in self._jobs]
            while not stop.is_set():
                self._liveness.beat("scheduler")
                if self._leadership.value is None:
                    await self._leadership.held(timeout=_TICK_SECONDS)
                    continue
                await self._run_due(recoveries, stop)
                await sleep_unless(stop, _TICK_SECONDS)
            released.set()

    async def _run_due(self, recoveries: list[Recovery], stop: asyncio.Event) -> None:
        """Do what is due; a job that fails is tried again later and does not hold up the others."""
        loop = asyncio.get_running_loop()
        for job, recovery in zip(self._jobs, recoveries, strict=True):
            if stop.is_set() or self._leadership.value is None:
                return
            if loop.time() < job.due:
                continue
            try:
                again = await job.do()
                recovery.succeeded()
                job.due = loop.time() + (0.0 if again else job.every_seconds)
            except (RedisError, OSError) as error:
                failure = recovery.note(error, job.do.__name__.strip("_"))
                job.due = loop.time() + max(_RETRY_SECONDS, recovery.wait_seconds(failure))
            except Exception as error:  # noqa: BLE001 - the edge of the loop: one job must not end the role
                job.due = loop.time() + job.every_seconds
                self._log.error("job_failed", job=job.do.__name__.strip("_"), error=repr(error)[:300], exc_info=True)

    # The sweep ---------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Judge what may have changed since the last sweep, by events or by time."""
        started_ms = self._clock.now_ms()
        # Where the clock was set back since the last sweep, that one lies in the future.
        since_ms = min(started_ms, await self._housekeeping.swept_ms())
        fresh = await self._aggregates.active_since(max(0, since_ms - _SWEEP_OVERLAP_MS))
        loop = asyncio.get_running_loop()
        if self._leadership.value != self._term:
            # A new term: what another leader found with a time clause is not known here.
            self._term, self._full_sweep_due = self._leadership.value, 0.0
        others: set[str] = set(self._timed)
        full = loop.time() >= self._full_sweep_due
        if full:
            others = set(await self._aggregates.all())
        ids = [*fresh, *sorted(others - fresh.keys())]
        for first in range(0, len(ids), _PAGE):
            if self._leadership.value is None:
                return
            self._liveness.beat("scheduler")
            await self._sweep_page(ids[first : first + _PAGE])
        await self._housekeeping.set_swept_ms(started_ms)
        if full:
            self._full_sweep_due = loop.time() + _FULL_SWEEP_SECONDS

    async def _judge_changed(self) -> None:
        """Judge experiments whose definition is another than the one they were judged by."""
        changed = await self._watch.changed()
        if changed:
            await self._sweep_page(changed)
            self._watch.judged(changed)

    async def _judge_completed(self) -> None:
        """Judge what is completed, and has all its events, for the last time."""
        completed = await self._watch.completed()
        if completed:
            judged = await self._sweep_page(completed, final=True)
            # Marked only when told: whoever dies in between leaves it to be judged again, which tells nothing twice.
            await self._watch.judged_finally(judged, iso(self._clock.now()))

    async def _sweep_page(self, ids: list[str], *, final: bool = False) -> list[str]:
        """Judge these experiments; those that are defined and have an aggregate."""
        found = await self._aggregates.read(ids)
        judgements = await self._judge.judge([Item(i, fields) for i, fields in found.items()], final=final)
        for judgement in judgements:
            self._remember(judgement)
        return [judgement.experiment.id for judgement in judgements]

    def _remember(self, judgement: Judgement) -> None:
        """Keep track of what time alone can change."""
        if judgement.timed:
            self._timed.add(judgement.experiment.id)
        else:
            self._timed.discard(judgement.experiment.id)

    # The summary -------------------------------------------------------------------------------------------

    async def summarise_when_due(self) -> None:
        """Raise the summary of the interval that has just ended, once across all replicas."""
        now_ms = self._clock.now_ms()
        slot = now_ms // int(self._summary_seconds * 1000)
        last = await self._housekeeping.summary_mark()
        if last is None or last.at_ms - now_ms > _CLOCK_BACK_MS:
            # The first summary is that of the first whole interval; so is the next one after the clock was set back.
            await self._housekeeping.set_summary_mark(SummaryMark(slot, now_ms, await self._housekeeping.floor()))
            return
        if slot <= last.slot:
            return
        floor = await self._housekeeping.floor()
        last_events = await self._aggregates.all()
        # Times of events are of other clocks; whether any was applied is known without.
        if floor == last.floor and self._nothing_new(last_events, since_ms=last.at_ms, now_ms=now_ms):
            self._log.info("summary_skipped", why="no event, and nothing has turned quiet")
        else:
            await self._summarise(last_events, slot=slot, since_ms=last.at_ms, now_ms=now_ms)
        await self._housekeeping.set_summary_mark(SummaryMark(slot, now_ms, floor))

    def _nothing_new(self, last_events: dict[str, int], *, since_ms: int, now_ms: int) -> bool:
        """Whether the interval had no event and no experiment turned quiet in it."""
        quiet_ms = int(1000 * self._quiet_after_seconds)
        return not any(
            last_ms >= since_ms or since_ms < last_ms + quiet_ms <= now_ms for last_ms in last_events.values()
        )

    async def _summarise(self, last_events: dict[str, int], *, slot: int, since_ms: int, now_ms: int) -> None:
        subjects: list[Subject] = []
        ids = list(last_events)
        for first in range(0, len(ids), _PAGE):
            found = await self._aggregates.read(ids[first : first + _PAGE])
            judged = await self._judge.look([Item(i, f) for i, f in found.items()])
            verdicts = {j.experiment.id: j for j in judged}
            subjects += [
                Subject(
                    experiment_id=i,
                    last_event_ms=last_events[i],
                    judged=i not in verdicts or verdicts[i].experiment.judged,
                    fields=fields,
                    verdicts=verdicts[i].verdicts if i in verdicts else [],
                )
                for i, fields in found.items()
            ]
        text = plain_summary(
            subjects,
            now_ms=now_ms,
            since_ms=since_ms,
            quiet_after_ms=int(self._quiet_after_seconds * 1000),
        )
        alert = summary_alert(
            alert_id=str(uuid.uuid4()),
            now=self._clock.now(),
            summary=text,
            experiments=len(subjects),
        )
        # Whoever comes second in this interval finds the cooldown taken.
        raised = Raise(
            experiment_id=alert.experiment_id,
            alert_type=alert.type.value,
            fingerprint=str(slot),
            cooldown_seconds=max(1, int(2 * self._summary_seconds)),
            alert_id=alert.alert_id,
            data=alert.dumps(),
            at_ms=0,
            replaces=True,
        )
        (outcome,) = await self._outbox.raise_([raised])
        if outcome == 0:
            self._log.info("alert_raised", alert=alert.as_json())
        elif outcome == SILENCED:
            self._telemetry.alerts.labels(alert.type.value, alert.severity.value, "silenced").inc()
            self._log.info("alert_silenced", alert=alert.as_json())

    # Housekeeping ------------------------------------------------------------------------------------------

    async def _trim(self) -> bool:
        """Whether there may be more to trim."""
        loop = asyncio.get_running_loop()
        until = 0.0

        def leading() -> bool:
            self._liveness.beat("scheduler")
            return loop.time() < until and self._leadership.value is not None and not self._stop.is_set()

        until = loop.time() + _TRIM_TURN_SECONDS
        await self._housekeeping.trim(keep_going=leading)
        again = loop.time() >= until
        until = loop.time() + _TRIM_TURN_SECONDS
        dropped = await self._housekeeping.trim_hard(keep_going=leading)
        again = again or loop.time() >= until
        if dropped.removed:
            self._telemetry.stream_dropped.inc(dropped.removed)
            self._telemetry.stream_dropped_unread.inc(dropped.unread)
            self._log.error(
                "stream_over_hard_limit",
                dropped=dropped.removed,
                unread=dropped.unread,
                why="a consumer group does not read or ack; past REDIS_AGENT_STREAM_HARD_LIMIT entries go all the same",
            )

        until = loop.time() + _TRIM_TURN_SECONDS
        await self._trim_alerts(keep_going=leading)
        return again or loop.time() >= until

    async def _trim_alerts(self, keep_going: Callable[[], bool]) -> None:
        """Keep the outbox within its length; alerts that nobody has received are counted and said."""
        dropped: Counter[tuple[str, str]] = Counter()
        over = 1
        while over and keep_going():
            undelivered, over = await self._outbox.trim(self._alerts_max)
            dropped.update((about.type, about.severity) for about in map(told, undelivered))
        for (kind, severity), count in dropped.items():
            self._telemetry.alerts.labels(kind, severity, "undelivered").inc(count)
        if dropped:
            self._log.error(
                "alerts_over_limit",
                dropped=dropped.total(),
                why="nobody received them, and REDIS_AGENT_ALERTS_MAX_LENGTH newer ones wait",
            )

    async def _count_buried(self) -> None:
        """What an operator sends to the dead letters is counted here: a command has no counter that anybody reads."""
        buried = await self._housekeeping.take_buried()
        if buried:
            self._telemetry.dead_letters.labels(Reason.OPERATOR.value).inc(buried)

    async def _remove_consumers(self) -> None:
        removed = await self._housekeeping.remove_consumers()
        if removed:
            self._log.info("consumers_removed", consumers=removed)
