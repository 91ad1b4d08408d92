"""Judging: aggregates as the gate returned them become derived metrics and alerts.

Used by the worker after every batch and by the scheduler's sweep. It stands outside the gate on purpose: a batch is
applied whether or not its experiments can be judged, and what a crash leaves unjudged the next sweep judges.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from redis_agent import criteria, experiments, log
from redis_agent.aggregate import events_total
from redis_agent.alerts import Crossing, FinalVerdict
from redis_agent.catalogue import Catalogue
from redis_agent.clock import Clock
from redis_agent.criteria import Evaluation, Metrics
from redis_agent.events import COMPLETED_EVENT, RUN_COMPLETED_EVENT, MetricEvent, read
from redis_agent.experiments import Experiment, Verdict
from redis_agent.lifecycle import Level
from redis_agent.maturity import Maturity
from redis_agent.store.aggregates import Aggregates, DerivedUpdate
from redis_agent.store.failures import Remedy, classify
from redis_agent.store.recovery import Recovery
from redis_agent.telemetry import Liveness, Telemetry
from redis_agent.telling import Finding, States, Teller
from redis_agent.tracing import OFF, Span, Step, Tracing

_T = TypeVar("_T")

# Among so many of an experiment's newest events the run that completed it is looked for.
_NEWEST_EVENTS = 50
# Judging rests this many times as long as the process worked meanwhile.
_REST = 4.0
# Experiments judged before others in the process get their turn.
_SLICE = 4
# With nothing to judge, it says this often that it lives.
_LOOK_SECONDS = 1.0
# Bounds of what is remembered between batches; beyond it is forgotten and read again.
_MEMORY = 10_000


@dataclass(slots=True)
class Item:
    """One experiment to judge.

    Attributes:
        experiment_id: which.
        fields: its aggregate hash.
        at_ms: receipt of the newest event that led here; 0 when time alone did.
        trace: the context of the newest traced one among those events, if any.
    """

    experiment_id: str
    fields: dict[str, str]
    at_ms: int = 0
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An experiment that is to be judged soon.

    Attributes:
        fields: its aggregate hash; None when it is to be read when its turn comes.
        at_ms: receipt of the newest event.
        trace: the context of the newest traced one, if any.
    """

    fields: dict[str, str] | None
    at_ms: int
    trace: str = ""


@dataclass(slots=True)
class Judgement:
    """What judging one experiment came to.

    Attributes:
        experiment: which.
        verdicts: one for each criterion.
        timed: whether they can change by the clock alone.
    """

    experiment: Experiment
    verdicts: list[Verdict]
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide what criteria come to.

    Attributes:
        alpha: level of the anytime-valid test.
        min_samples: trials below which a rate is not believed.
        max_fields: that an aggregate may hold, derived metrics included.
    """

    alpha: float
    min_samples: int
    max_fields: int


class Judge:
    """Judges experiments and has told what is to be told."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        aggregates: Aggregates,
        teller: Teller,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        rules: Rules,
        maturity: Maturity,
        tracing: Tracing = OFF,
    ) -> None:
        self._catalogue = catalogue
        self._maturity = maturity
        self._tracing = tracing
        self._aggregates = aggregates
        self._teller = teller
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._rules = rules
        self._log = log.get("judge")
        self._said: set[tuple[str, str]] = set()
        self._mailbox: dict[str, Waiting] = {}
        self._posted = asyncio.Event()
        self._idle = False

    # After every batch -------------------------------------------------------------------------------------

    def wants(self, experiment_id: str) -> bool:
        """Whether its aggregate is of use at once: it is defined as far as is known, and nothing is being judged.

        Of most batches under load it is not: then one reading, when its turn comes, stands for all of them.
        """
        return self._idle and self._catalogue.may_define(experiment_id)

    def submit(self, aggregates: Mapping[str, dict[str, str] | None], at_ms: int, traces: Mapping[str, str]) -> None:
        """Have these experiments judged soon; newer aggregates replace older ones not judged yet.

        Args:
            aggregates: experiment -> its aggregate; None has it read when it is judged.
            at_ms: receipt of their newest event.
            traces: the context of an event of these experiments, of those that have one that is traced.
        """
        for experiment_id, fields in aggregates.items():
            waiting = self._mailbox.get(experiment_id)
            known = waiting.fields if waiting else None
            trace = traces.get(experiment_id) or (waiting.trace if waiting else "")
            # Never an older aggregate over a newer one, in whatever order they come.
            if fields is None or known is None or events_total(fields) >= events_total(known):
                self._mailbox[experiment_id] = Waiting(fields, at_ms, trace)
        self._posted.set()

    async def run(self, stop: asyncio.Event, *, rest: Callable[[asyncio.Event, float], Awaitable[None]]) -> None:
        """Judge what is submitted until told to stop and nothing is left.

        Under load experiments are judged less often than batches are applied: judging rests four times as long as the
        process worked meanwhile, so that it takes no more than a fifth of it. Waiting for Redis is no work.

        Args:
            stop: ends it.
            rest: waits until told to stop or so many seconds, or while there is other work.
        """
        waking = asyncio.create_task(self._wake(stop))
        try:
            await self._judge_all(stop, rest)
        finally:
            waking.cancel()

    async def _wake(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._posted.set()

    async def _judge_all(self, stop: asyncio.Event, rest: Callable[[asyncio.Event, float], Awaitable[None]]) -> None:
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        while self._mailbox or not stop.is_set():
            self._liveness.beat("worker.judge")
            if not self._mailbox:
                self._posted.clear()
                self._idle = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._posted.wait()
                continue
            waiting, self._mailbox, self._idle = self._mailbox, {}, False
            worked = time.thread_time()
            try:
                # Asked for now, and needed last: the answer comes while the rest is done.
                states = self._ask_states([i for i in waiting if self._catalogue.may_judge(i)])
                await self.judge(await self._items(waiting), states=states)
                recovery.succeeded()
            except (RedisError, OSError) as error:
                for experiment_id, item in waiting.items():
                    self._mailbox.setdefault(experiment_id, item)
                await recovery.after(error, "judge")
                if stop.is_set():
                    return  # the next sweep judges them
            except Exception:  # noqa: BLE001 - the edge of the loop: what was judged is lost, the role is not
                self._once("", "judging_failed", exc_info=True)
            await rest(stop, _REST * (time.thread_time() - worked))

    async def _items(self, waiting: Mapping[str, Waiting]) -> list[Item]:
        """Those that are defined, with their aggregates.

        Raises:
            RedisError, OSError: definitions or aggregates could not be read.
        """
        defined = await self._catalogue.experiments(list(waiting))
        unread = await self._aggregates.read([i for i in defined if waiting[i].fields is None])
        known = ((i, waiting[i].fields or unread.get(i)) for i in defined)
        return [Item(i, fields, waiting[i].at_ms, waiting[i].trace) for i, fields in known if fields]

    # Judging -----------------------------------------------------------------------------------------------

    async def judge(
        self, items: Sequence[Item], *, final: bool = False, states: asyncio.Task[States] | None = None
    ) -> list[Judgement]:
        """Judge experiments: write their derived metrics, raise the alerts that are due.

        Args:
            items: what to judge; those that are not defined are left out.
            final: they are over: judge them for the last time, and tell that they are completed. Otherwise what is in
                the state completed has no verdicts.
            states: what is remembered of their criteria, if it was asked for already.

        Raises:
            RedisError, OSError: nothing is half done; judging again is safe.
        """
        found = await self._catalogue.experiments([item.experiment_id for item in items])
        states = states or self._ask_states([i for i, one in found.items() if one.judged])
        return await self._judge(items, found, states, final=final)

    def _ask_states(self, experiment_ids: Sequence[str]) -> asyncio.Task[States]:
        """Whoever has no use for them in the end need not wait for them, nor care for their failure."""
        asked = asyncio.create_task(self._teller.states(experiment_ids))
        asked.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return asked

    async def _judge(
        self,
        items: Sequence[Item],
        found: Mapping[str, Experiment],
        states: asyncio.Task[States],
        *,
        final: bool,
    ) -> list[Judgement]:
        mature = await self._mature(items, found)
        updates: list[DerivedUpdate] = []
        findings: list[Finding] = []
        judgements: list[Judgement] = []
        spans: list[Span] = []
        for n, item in enumerate(items):
            if n % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            experiment = found.get(item.experiment_id)
            if experiment is None:
                continue
            span = self._tracing.begin(Step.JUDGE, item.trace, experiment_id=experiment.id)
            try:
                metrics = experiments.metrics_of(experiment, item.fields)
                update = derived_update(experiment, item.fields, metrics, self._rules.max_fields)
                verdicts = (
                    self._verdicts(experiment, item.fields, metrics, mature.get(experiment.id), final=final)
                    if final or not experiment.finished
                    else []
                )
                finding = _finding(item, experiment, verdicts, span.context)
            except Exception:  # noqa: BLE001 - one experiment must not stop the others
                self._once(item.experiment_id, "judging_failed", exc_info=True)
                continue
            if update is not None:
                updates.append(update)
            if verdicts:
                findings.append(finding)
            judgements.append(Judgement(experiment, verdicts, self._timed(experiment, verdicts)))
            spans.append(span)
        if updates:
            await self._each(self._aggregates.write_derived, updates, lambda update: update.experiment_id)
        if findings:
            known = await states
            await self._each(partial(self._teller.tell, known=known), findings, lambda finding: finding.experiment_id)
        for span in spans:
            span.end()
        if final:
            await self._each(self._complete, [j for j in judgements if j.experiment.judged], lambda j: j.experiment.id)
        return judgements

    def _timed(self, experiment: Experiment, verdicts: Sequence[Verdict]) -> bool:
        """Whether time alone can change a verdict: one waits for its time, or trials grow old enough to count."""
        if experiment.finished or not experiment.judged:
            return False
        waits = any(verdict.has_time_clause and verdict.state != "met" for verdict in verdicts)
        return waits or (self._maturity.matters and experiment.asks_for_less)

    async def _complete(self, judgements: list[Judgement]) -> None:
        """Tell that these experiments are completed."""
        for judgement in judgements:
            experiment_id = judgement.experiment.id
            raw = await self._aggregates.newest_events(experiment_id, _NEWEST_EVENTS)
            verdicts = [_final(verdict) for verdict in judgement.verdicts]
            await self._teller.complete(experiment_id, verdicts, _run_id(raw))

    async def _each(
        self, write: Callable[[list[_T]], Awaitable[None]], items: list[_T], whose: Callable[[_T], str]
    ) -> None:
        """Write all at once; what the server refuses, one by one, so that it costs only its own experiment."""
        try:
            await write(items)
        except (ResponseError, UnicodeError) as error:
            if classify(error).remedy is not Remedy.RETRY:
                raise  # the server's state, not the item: all of it will be tried again
            for item in items if len(items) > 1 else []:
                await self._each(write, [item], whose)
            if len(items) == 1:
                self._once(whose(items[0]), "judgement_not_written", problem=str(error)[:200])

    async def _mature(self, items: Sequence[Item], found: Mapping[str, Experiment]) -> dict[str, dict[str, str]]:
        """The fields of what is old enough, where that matters."""
        asked = {i.experiment_id: i.fields for i in items if i.experiment_id in found}
        wanted = {i: fields for i, fields in asked.items() if found[i].judged and found[i].asks_for_less}
        return await self._maturity.fields(wanted)

    def _verdicts(
        self,
        experiment: Experiment,
        fields: Mapping[str, str],
        metrics: Metrics,
        mature: Mapping[str, str] | None,
        *,
        final: bool = False,
    ) -> list[Verdict]:
        if not experiment.judged:
            return []
        return experiments.judge(
            experiment,
            fields,
            now=self._clock.now(),
            alpha=self._rules.alpha,
            min_samples=self._rules.min_samples,
            final=final,
            mature=mature,
            metrics=metrics,
        )

    def _once(self, experiment_id: str, event: str, **fields: Any) -> None:
        """Say a problem of one experiment once, not with every batch."""
        what = (experiment_id, f"{event}:{fields.get('problem', '')}")
        if what in self._said:
            return
        if len(self._said) > _MEMORY:
            self._said.clear()
        self._said.add(what)
        self._telemetry.definition_errors.inc()
        self._log.warning(event, experiment_id=experiment_id, **fields)


def derived_update(
    experiment: Experiment, fields: Mapping[str, str], metrics: Metrics, max_fields: int
) -> DerivedUpdate | None:
    """What must change in the aggregate hash so that its derived metrics are those of its sums.

    New ones are left out when the hash has no room for them.
    """
    derived = experiments.derived(experiment, metrics)
    changed = {name: value for name, value in derived.items() if name in fields and fields[name] != value}
    room = max(0, max_fields - len(fields))
    changed |= dict(itertools.islice(((n, v) for n, v in derived.items() if n not in fields), room))
    gone = [name for name in fields if name not in derived and not criteria.is_base_field(name)]
    if not changed and not gone:
        return None
    return DerivedUpdate(experiment.id, fields.get("events_total", ""), changed, gone)


def crossing(verdict: Verdict, evaluation: Evaluation) -> Crossing:
    """A verdict in the words of an alert."""
    proof = evaluation.proof
    return Crossing(
        kind=verdict.kind,
        criterion=verdict.text,
        fingerprint=verdict.fingerprint,
        metric=evaluation.metric,
        operator=evaluation.operator,
        threshold=evaluation.threshold,
        value=evaluation.value,
        samples=evaluation.samples,
        interval=evaluation.interval,
        evidence=evaluation.evidence,
        reason=evaluation.reason,
        successes=None if proof is None else proof.successes,
        scale=evaluation.scale,
        confidence=None if proof is None else 1 - proof.alpha,
    )


def _final(verdict: Verdict) -> FinalVerdict:
    value = None if verdict.evaluation is None else verdict.evaluation.value
    return FinalVerdict(verdict.kind, verdict.text, verdict.state, value, verdict.reason)


def _run_id(newest_first: Sequence[bytes]) -> str | None:
    """The run that the newest event about a completion names."""
    for data in newest_first:
        event = read(data, max_bytes=len(data))
        if isinstance(event, MetricEvent) and event.name in (COMPLETED_EVENT, RUN_COMPLETED_EVENT):
            return event.text("run_id")
    return None


def _finding(item: Item, experiment: Experiment, verdicts: Sequence[Verdict], trace: str) -> Finding:
    """Where the experiment's criteria stand; what only says the same as another is left out."""
    levels: dict[str, Level] = {}
    crossings: dict[str, Callable[[], Crossing]] = {}
    for verdict in experiments.without_repeats(verdicts):
        evaluation = verdict.evaluation
        if evaluation is None or evaluation.state == "unknown":
            continue
        crossings[verdict.fingerprint] = partial(crossing, verdict, evaluation)
        if evaluation.state == "not_met":
            levels[verdict.fingerprint] = Level.INACTIVE
        else:
            levels[verdict.fingerprint] = Level.EARLY if evaluation.evidence == "early" else Level.CONFIRMED
    total = events_total(item.fields)
    known = frozenset(entry.fingerprint for entry in experiment.criteria)
    failures = frozenset(entry.fingerprint for entry in experiment.criteria if entry.kind == "failure")
    return Finding(experiment.id, total, item.at_ms, levels, crossings, failures, known, trace)
