"""The worker: stream entries become exact aggregates, each once.

    read -> decode -> fold -> apply (the gate) -> confirm -> judge

Tasks, each one batch ahead of the next, so that the server reads and applies while this process decodes and
folds: one reads, one folds, one applies, one confirms (where REDIS_AGENT_DURABILITY asks for it), one judges; one more
renews what takes long. What happens to a batch if the
process dies:

1. read, not applied                 pending under this consumer's name: read again at the next start under the same
                                     name, or reclaimed by another after REDIS_AGENT_RECLAIM_IDLE_SECONDS
2. applied, reply not seen           acked in the same step: whoever tries again finds it no longer pending
3. applied, not confirmed            the server has it, or has forgotten sums and ack alike: then it is handed out again
4. applied, not judged               judged with the experiment's next event, or by the scheduler's next sweep
"""

import asyncio
import time
from collections import Counter

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.alerts import Alert
from redis_agent.clock import Clock
from redis_agent.confirming import Confirming
from redis_agent.events import MetricEvent, Reason, read
from redis_agent.folding import Folded, Folding
from redis_agent.holding import Holding
from redis_agent.intake import Intake, Queues
from redis_agent.judge import Judge
from redis_agent.log import Throttle
from redis_agent.store import keys
from redis_agent.store.durability import Durability
from redis_agent.store.failures import Remedy
from redis_agent.store.recovery import Recovery
from redis_agent.store.stream import (
    Applied,
    Batch,
    Blocked,
    Conflict,
    DeadLetter,
    EventStream,
    Stale,
    StreamEntry,
)
from redis_agent.telemetry import Liveness, Telemetry

# Experiments whose refused names were said, each once with the first name; beyond it they are only counted.
_SAID_NAMES = 1_000


class Worker:
    """One consumer of the group.

    Args:
        stream: the stream as this consumer sees it.
        intake: reads it.
        holding: keeps what was read until it is finished.
        folding: makes batches of what was read.
        durability: what a batch waits for before it counts as applied.
        judge: judges the touched experiments after each batch.
        batch_bytes: of one batch; twice as many may wait to be durable.
        together: an entry handed out more often than this is tried alone.
        max_deliveries: an entry handed out more often than this is given up as poisonous.
        max_event_bytes: longest event that is read.
    """

    def __init__(
        self,
        *,
        stream: EventStream,
        intake: Intake,
        holding: Holding,
        folding: Folding,
        durability: Durability,
        judge: Judge,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        batch_bytes: int,
        together: int,
        max_deliveries: int,
        max_event_bytes: int,
    ) -> None:
        self._stream = stream
        self._intake = intake
        self._holding = holding
        self._folding = folding
        self._confirming = Confirming(
            durability=durability, telemetry=telemetry, tell=self._applied, most_bytes=2 * batch_bytes
        )
        self._durability = durability
        self._judge = judge
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._max_deliveries = max_deliveries
        self._together = together
        self._max_event_bytes = max_event_bytes
        self._log = log.get("worker")
        self._stop = asyncio.Event()
        self._said_names: set[str] = set()
        self._throttle = Throttle()

    def hindrances(self) -> list[str]:
        """What keeps this worker's batches from counting as applied, in words; nothing when all is well."""
        return self._confirming.hindrances()

    async def run(self, stop: asyncio.Event) -> None:
        """Read, apply and judge until told to stop; then finish what was read."""
        self._stop = stop
        queues = Queues()
        applied, confirmed = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._intake.run(queues, stop))
            tasks.create_task(self._holding.run(applied))
            tasks.create_task(self._fold_all(queues))
            confirming = tasks.create_task(self._confirming.run(applied))
            tasks.create_task(self._judge.run(confirmed, rest=self._holding.rest))
            await self._apply_all(queues, stop)
            applied.set()
            await confirming
            confirmed.set()

    # Applying ----------------------------------------------------------------------------------------------

    async def _fold_all(self, queues: Queues) -> None:
        """Fold what was read, while the batch before it is being applied."""
        while (chunk := await queues.read.get()) is not None:
            entries = chunk.entries
            folded = self._folding.fold([entry for entry in entries if entry.deliveries <= self._together], {})
            # What was just read is every entry from the first to the last; what was pending before need not be.
            folded.batch.contiguous = chunk.new
            for entry in entries:
                if entry.deliveries > self._together:
                    await queues.folded.put(folded)
                    # Really alone: nothing else of ours is looked at when it is counted, nor until it is applied.
                    await queues.folded.join()
                    folded = await self._fold_alone(entry)
            folded.ends = chunk
            await queues.folded.put(folded)
            if folded.alone:
                await queues.folded.join()
            queues.read.task_done()
        await queues.folded.put(None)

    async def _fold_alone(self, entry: StreamEntry) -> Folded:
        """An entry that was handed out often: whoever held it may have died of it, or of another beside it.

        Its delivery is counted before it is looked at, and that of nothing else: if this process dies now, it was this
        one. Beyond the limit it is not looked at any more.
        """
        poisonous = entry.deliveries > self._max_deliveries
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=asyncio.Event())
        while True:
            try:
                found = await self._stream.take_alone(entry, counts=not poisonous)
                recovery.succeeded()
                break
            except (RedisError, OSError) as error:
                failure = await recovery.after(error, "take_alone")
                if failure.remedy is Remedy.RECREATE or self._stop.is_set():
                    found = None  # still pending, or read anew
                    break
        folded = self._folding.fold([found] if found else [], {}, poisonous=poisonous)
        folded.alone = found is not None and not poisonous
        return folded

    async def _apply_all(self, queues: Queues, stop: asyncio.Event) -> None:
        """Apply batch by batch."""
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        while True:
            self._liveness.rest("worker.apply")
            folded = await queues.folded.get()
            if folded is None:
                return
            self._liveness.beat("worker.apply")
            alone = folded.entries[0].id if folded.alone else ""
            await self._apply(folded, recovery, stop)
            if alone:
                await self._forgive(alone)
            if folded.ends is not None:
                self._holding.finish(folded.ends)
            queues.folded.task_done()

    async def _forgive(self, entry_id: str) -> None:
        """The process lives: if the entry it tried alone is pending still, that is not its fault."""
        try:
            await self._stream.forgive(entry_id)
        except (RedisError, OSError) as error:
            if self._throttle.due("not_forgiven", asyncio.get_running_loop().time()):
                self._log.warning("not_forgiven", entry=entry_id, error=str(error)[:200])

    async def _apply(self, folded: Folded, recovery: Recovery, stop: asyncio.Event) -> None:
        """Apply a batch until each entry is applied, dead-lettered, or somebody else's."""
        refused: dict[str, Conflict] = {}
        while folded.entries:
            try:
                self._ask(folded.batch)
                began = time.perf_counter()
                with self._telemetry.batch_seconds.time():
                    outcome = await self._stream.apply(folded.batch)
            except (RedisError, OSError) as error:
                if folded.alone:
                    folded.alone = False
                    await self._forgive(folded.entries[0].id)
                failure = await recovery.after(error, "apply")
                if failure.remedy is Remedy.RECREATE or stop.is_set():
                    return  # still pending (or read anew): nothing is lost by letting go
                if failure.kind == "response":
                    await self._apart(folded.entries, error, recovery, stop)
                    return
                continue
            recovery.succeeded()
            if isinstance(outcome, Applied):
                # Of a server that does not say how long it took, the time until its answer: more, never less.
                seconds = time.perf_counter() - began if outcome.seconds is None else outcome.seconds
                self._holding.applied(len(folded.entries), seconds)
                await self._confirming.applied(folded, outcome)
                return
            entries = folded.entries
            if isinstance(outcome, Stale):
                self._telemetry.events.labels("stale").inc(len(entries) - len(outcome.pending))
                entries = [entry for entry in entries if entry.id in outcome.pending]
            elif isinstance(outcome, Blocked):
                self._say_blocked(outcome)
                # Let go: they stay pending, and are taken up again after the reclaim idle time. The others go on.
                entries = folded.without("erring" if keys.without_namespace(outcome.key) == keys.OUTBOX else "dead")
            else:
                refused[outcome.experiment_id] = outcome
            folded = self._folding.fold(entries, refused)

    def _ask(self, batch: Batch) -> None:
        """Ask for the aggregates that are judged as soon as they come.

        Where batches are to be durable first, for all: one that is read later may hold what is not durable yet.
        """
        for update in batch.updates:
            update.asked = self._durability.waits or self._judge.wants(update.experiment_id)

    async def _apart(
        self,
        entries: list[StreamEntry],
        error: Exception,
        recovery: Recovery,
        stop: asyncio.Event,
    ) -> None:
        """The server refused a batch for no reason known to us: find the culprit, apply its neighbours."""
        if len(entries) > 1:
            middle = len(entries) // 2
            for half in (entries[:middle], entries[middle:]):
                await self._apply(self._folding.fold(half, {}), recovery, stop)
            return
        entry = entries[0]
        letter = DeadLetter(
            position=0,
            reason=f"{Reason.NOT_APPLIED}: {str(error)[:200]}",
            data=entry.data or b"",
            at_ms=entry.at_ms,
            # What was given up without a look is not looked at here either.
            readable=entry.deliveries > self._max_deliveries
            or isinstance(read(entry.data, max_bytes=self._max_event_bytes), MetricEvent),
            deliveries=entry.deliveries,
        )
        batch = Batch([entry.id], dead=[letter])
        folded = Folded(entries, batch, dead=Counter([Reason.NOT_APPLIED.value]))
        try:
            outcome = await self._stream.apply(batch)
        except (RedisError, OSError) as worse:
            await recovery.after(worse, "dead_letter")  # still pending; it is reclaimed
            return
        if isinstance(outcome, Applied):
            await self._confirming.applied(folded, outcome)

    def _applied(self, folded: Folded, outcome: Applied) -> None:
        """Count what became of a batch, say what must be said, pass the aggregates on."""
        telemetry = self._telemetry
        now_ms = self._clock.now_ms()
        dead = sum(folded.dead.values())
        telemetry.events.labels("applied").inc(len(folded.entries) - dead)
        telemetry.event_latency.observe_many([(now_ms - entry.at_ms) / 1000 for entry in folded.entries])
        for reason, count in folded.dead.items():
            telemetry.events.labels("dead_letter").inc(count)
            telemetry.dead_letters.labels(reason).inc(count)
        self._say_dead(folded)
        for alert, span, raised in zip(folded.alerts, folded.raising, outcome.raised, strict=True):
            if raised:
                span.end()
                self._log.info("alert_raised", alert=alert.as_json())
            else:
                self._held_back(alert)
        for alert in folded.repeats:
            self._held_back(alert)
        if outcome.refused:
            self._say_refused(outcome.refused)
        if outcome.unwritten:
            self._say_unwritten(outcome.unwritten)
        self._end_spans(folded)
        if folded.batch.updates:
            newest = max(entry.at_ms for entry in folded.entries)
            touched = (update.experiment_id for update in folded.batch.updates)
            self._judge.submit({i: outcome.aggregates.get(i) for i in touched}, newest, folded.traces)

    def _end_spans(self, folded: Folded) -> None:
        for letter in folded.batch.dead if folded.spans else []:
            if letter.position in folded.spans:
                folded.spans.pop(letter.position).end(letter.reason.partition(":")[0])
        for span in folded.spans.values():
            span.end()

    def _say_dead(self, folded: Folded) -> None:
        """Say dead letters with one example, at most once a minute for each reason."""
        for letter in folded.batch.dead:
            reason = letter.reason.partition(":")[0]
            if self._throttle.due(reason, asyncio.get_running_loop().time()):
                entry_id = folded.batch.ids[letter.position]
                self._log.warning(
                    "dead_letters",
                    reason=reason,
                    entries=folded.dead[reason],
                    example=entry_id,
                    why=letter.reason[:200],
                )

    def _say_blocked(self, blocked: Blocked) -> None:
        if self._throttle.due(f"blocked:{blocked.key}", asyncio.get_running_loop().time()):
            self._log.error(
                "shared_key_unusable",
                key=blocked.key,
                problem=blocked.problem,
                what="dead letters and error events wait for it; all others go on",
            )

    def _say_unwritten(self, unwritten: list[tuple[str, str]]) -> None:
        """Say windows of the wrong form with one example, at most once a minute."""
        self._telemetry.windows_unwritten.inc(len(unwritten))
        if self._throttle.due("windows", asyncio.get_running_loop().time()):
            key, problem = unwritten[0]
            self._log.warning(
                "window_unwritten",
                key=key,
                problem=problem[:200],
                windows=len(unwritten),
                what="the events are in the aggregates; this part of the history goes without them",
            )

    def _held_back(self, alert: Alert) -> None:
        self._telemetry.alerts.labels(alert.type.value, alert.severity.value, "cooldown").inc()

    def _say_refused(self, refused: list[tuple[str, str]]) -> None:
        self._telemetry.names_refused.inc(len(refused))
        for experiment_id, name in refused:
            if experiment_id not in self._said_names and len(self._said_names) < _SAID_NAMES:
                self._said_names.add(experiment_id)
                self._log.warning(
                    "name_refused",
                    experiment_id=experiment_id,
                    name=name,
                    why="the experiment's aggregate holds its full number of names",
                )
