"""The scheduler: what must happen with time rather than with an event. One leader by lease.

- the threshold sweep: judges experiments with events since the last sweep (what a worker may have left unjudged when
  it died) and those with a time clause, whose verdict can change without any event;
- what changes in definitions while no event comes, and the last judgement of what is completed;
- anomalies in windows that have closed;
- summaries, and criteria to be translated, each in a loop of its own: a model may take its time;
- trimming, removing consumers that are gone, and putting right a lag that the server has got wrong.

How far it came is kept in Redis, so that the next leader continues where the last one stopped. Every job may run twice
without harm: alerts are held apart by the state of their criterion, the summary by its slot.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.alerts import told
from redis_agent.clock import Clock, iso
from redis_agent.events import Reason
from redis_agent.examiner import Examiner
from redis_agent.judge import Item, Judge, Judgement
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.housekeeping import Housekeeping
from redis_agent.store.lease import Leadership
from redis_agent.store.outbox import Outbox
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.summaries import Summaries
from redis_agent.telemetry import Liveness, Telemetry
from redis_agent.translating import Translating
from redis_agent.watch import Watch

_TICK_SECONDS = 0.5
_RETRY_SECONDS = 1.0
# Between two trimmings the stream grows beyond its length by what comes.
_TRIM_SECONDS = 1.0
_CORRECT_SECONDS = 5.0
# Each kind of trimming lasts so long at a time: where events come as fast as they go, the other jobs have their turn.
_TRIM_TURN_SECONDS = 2.0
_CONSUMERS_SECONDS = 60.0
_EXAMINE_SECONDS = 5.0
_TRANSLATE_SECONDS = 10.0
# Events are attributed to a sweep by their time of receipt; a batch in flight may land a little later.
_SWEEP_OVERLAP_MS = 30_000
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
        summaries: Summaries | None,
        translating: Translating | None,
        aggregates: Aggregates,
        outbox: Outbox,
        housekeeping: Housekeeping,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        sweep_seconds: float,
        watch_seconds: float,
        summary_seconds: float,
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
            Job(_TRIM_SECONDS, self._trim),
            Job(_CORRECT_SECONDS, self._count_buried),
            Job(_CORRECT_SECONDS, self._correct_lags),
            Job(_CONSUMERS_SECONDS, self._remove_consumers),
        ]
        self._unhurried: list[Job] = []
        if summaries is not None:
            self._unhurried.append(Job(min(summary_seconds, 1.0), summaries.summarise_when_due))
        if translating is not None:
            self._unhurried.append(Job(_TRANSLATE_SECONDS, translating.offer))

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the schedule until told to stop."""
        self._stop = stop
        released = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leadership.run(released))
            unhurried = {tasks.create_task(self._keep([job], stop)) for job in self._unhurried}
            await self._keep(self._jobs, stop, liveness="scheduler")
            # What they have not done by now is due for the next leader.
            for task in unhurried:
                task.cancel()
            await asyncio.gather(*unhurried, return_exceptions=True)
            released.set()

    async def _keep(self, jobs: list[Job], stop: asyncio.Event, *, liveness: str = "") -> None:
        """Do these jobs when they are due."""
        # Each job has its own, so that one that works says nothing about one that does not.
        recoveries = [Recovery(log=self._log, telemetry=self._telemetry, stop=stop) for _ in jobs]
        while not stop.is_set():
            if liveness:
                self._liveness.beat(liveness)
            if self._leadership.value is None:
                await self._leadership.held(timeout=_TICK_SECONDS)
                continue
            await self._run_due(jobs, recoveries, stop)
            await sleep_unless(stop, _TICK_SECONDS)

    async def _run_due(self, jobs: list[Job], recoveries: list[Recovery], stop: asyncio.Event) -> None:
        """Do what is due; a job that fails is tried again later and does not hold up the others."""
        loop = asyncio.get_running_loop()
        for job, recovery in zip(jobs, recoveries, strict=True):
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

    async def _correct_lags(self) -> None:
        """After a restart or a failover some servers count from where they are not."""
        wrong = await self._housekeeping.correct_lags()
        if wrong:
            self._log.info("lag_corrected", was=wrong)

    async def _remove_consumers(self) -> None:
        removed = await self._housekeeping.remove_consumers()
        if removed:
            self._log.info("consumers_removed", consumers=removed)
