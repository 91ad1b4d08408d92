"""The composition root: settings become clients, clients become roles, roles run until told to stop.

Order matters when stopping: roles stop reading and finish what they read, then leases are handed over, then the
endpoint and the connections close. What a deadline cuts short stays pending in Redis and is taken up by others.
"""

import asyncio
import gc
import os
import signal
import socket
import threading
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_agent import __version__, log
from redis_agent.alerts import INTERVAL
from redis_agent.analyst.ahead import Analyses
from redis_agent.analyst.analyst import Analyst
from redis_agent.analyst.asking import Asker, Nobody
from redis_agent.analyst.gemini import Access, Gemini
from redis_agent.analyst.models import chain
from redis_agent.analyst.reader import Evidence, Reader
from redis_agent.analyst.translator import translate
from redis_agent.bridge import Bridge
from redis_agent.bridge_share import Share
from redis_agent.bridge_terms import BridgeTenure, Terms
from redis_agent.catalogue import Catalogue
from redis_agent.clock import Clock
from redis_agent.config import Settings
from redis_agent.criteria import CriterionKind
from redis_agent.dispatcher import Dispatcher
from redis_agent.endpoint import Endpoint
from redis_agent.errors import PartitionsError, RedisAccessError
from redis_agent.examiner import Examiner
from redis_agent.folding import Folding
from redis_agent.holding import Holding
from redis_agent.intake import Intake
from redis_agent.judge import Judge, Rules
from redis_agent.lifecycle import Policy
from redis_agent.lockstep import Lockstep
from redis_agent.maturity import Maturity
from redis_agent.overview import KnownExperiments
from redis_agent.page.document import Document
from redis_agent.page.site import StatusPage
from redis_agent.projecting import Projecting
from redis_agent.roster import Roster
from redis_agent.routing import router
from redis_agent.scheduler import Scheduler
from redis_agent.sharing import Alongside, Role, Shared, hindrances_of
from redis_agent.store import keys
from redis_agent.store.address import secrets_in
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.analyses import KeptAnalyses
from redis_agent.store.anomalies import Anomalies
from redis_agent.store.client import follow_master
from redis_agent.store.definitions import Definitions
from redis_agent.store.durability import Durability
from redis_agent.store.failures import Remedy, classify
from redis_agent.store.finals import Finals
from redis_agent.store.housekeeping import Housekeeping
from redis_agent.store.inspection import Inspection
from redis_agent.store.lease import Leadership, Lease, Tenure
from redis_agent.store.listening import AgreedNode, OneServer, Source
from redis_agent.store.mirror import Mirror
from redis_agent.store.outbox import Delivery, Outbox
from redis_agent.store.partitions import Partition, Partitions
from redis_agent.store.projections import Projections
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.store.rights import missing_rights
from redis_agent.store.spending import Spending
from redis_agent.store.stream import TOGETHER, EventStream
from redis_agent.store.translations import Translations
from redis_agent.store.union import AllWindows
from redis_agent.store.windows import Windows
from redis_agent.summaries import Digests, Rhythm, Sources, Summaries, daily_at
from redis_agent.telemetry import Level, Liveness, Telemetry
from redis_agent.telling import Teller
from redis_agent.tracing import OFF, Tracing
from redis_agent.translating import Translating
from redis_agent.watch import Watch
from redis_agent.windows import Retention
from redis_agent.worker import Worker

ROLES = ("bridge", "worker", "dispatcher", "scheduler")
# What a cancelled task gets to end, and the whole process after that, once the deadline of a drain has passed.
_CANCEL_SECONDS, _END_SECONDS = 0.5, 1.0

Run = Callable[[asyncio.Event], Awaitable[None]]

# Definitions are not looked at more often than this, however short they are remembered.
_WATCH_SECONDS = 1.0
# What is traced is exported at the end for so long at the most.
_EXPORT_SECONDS = 2.0
# The page reads definitions again after so long at the least.
_PAGE_DEFINITIONS_SECONDS = 5.0
# A process that gave no sign of life for so long, or for a lease time, has no share of the partitions any more.
_LEAST_ALIVE_SECONDS = 3.0
# Clients that were made meanwhile are looked for this often.
_FOLLOW_SECONDS = 0.5
# How often it is looked at whether there are as many partitions as at the start.
_PARTITIONS_SECONDS = 1.0
# What is known of the series of an experiment that is not examined any more goes after so long.
_ANOMALIES_TTL_SECONDS = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Parts:
    """What every role of a process shares.

    Attributes:
        name: the process's name among the replicas, and its consumer's name.
        owner: unique for this start of the process; leases are held under it.
        partitions: all of them, and what belongs to none.
        partition: the one that these are for; where there is something once, the home partition.
        client: short commands in that partition.
        durability: what counts as written, applied and ready to be delivered.
        catalogue: the experiments as they are defined.
        asker: words analyses and summaries, where it can.
        tracing: of events, where that is asked for.
    """

    settings: Settings
    name: str
    owner: str
    partitions: Partitions
    partition: Partition
    client: Redis
    durability: Durability
    catalogue: Catalogue
    asker: Asker
    telemetry: Telemetry
    liveness: Liveness
    clock: Clock
    tracing: Tracing


async def run(settings: Settings, *, roles: frozenset[str], stop: asyncio.Event | None = None) -> int:
    """Run roles in this process until told to stop.

    Args:
        settings: checked settings.
        roles: some of `ROLES`.
        stop: ends the run when set; without it SIGTERM and SIGINT do, and a second one ends it hard.

    Returns:
        the exit code: 0 after a complete drain, 1 when the drain took longer than allowed.

    Raises:
        AgentError: what keeps the agent from starting, in words.
    """
    logger = log.get("app")
    _tune_collector()
    async with AsyncExitStack() as stack:
        if stop is None:
            stop = asyncio.Event()
            stack.callback(_stop_on_signals(stop, settings.shutdown_seconds + _END_SECONDS))
        parts = await _parts(settings, stack)
        async with AsyncExitStack() as serving:
            runs = {role: _role(role, parts) for role in ROLES if role in roles}
            endpoint = _endpoint(parts, runs)
            await endpoint.start()
            serving.push_async_callback(endpoint.stop)
            roster = Roster(parts.client, name=parts.name, owner=parts.owner, roles=roles, telemetry=parts.telemetry)
            if not await _redis_answers(parts, roster, roles, stop):
                return 0
            logger.info("started", roles=sorted(roles), name=parts.name, redis=settings.address_shown)
            code = await _run_until_stopped(runs, parts, roster, stop)
        logger.info("stopped", exit_code=code)
        return code


def _tune_collector() -> None:
    """A batch makes thousands of objects that die together and form no cycles.

    At the default threshold the collector walks them a dozen times a batch for nothing, a third of a worker's time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _parts(settings: Settings, stack: AsyncExitStack) -> Parts:
    name = settings.consumer or f"{socket.gethostname()}-{os.getpid()}"
    partitions = Partitions(settings.address, settings.partitions, name=f"redis-agent:{name}")
    stack.push_async_callback(partitions.aclose)
    client = partitions.home.client
    telemetry = Telemetry()
    telemetry.partitions.set(settings.partitions)
    asker = asker_of(settings, client, telemetry)
    stack.push_async_callback(asker.aclose)
    return Parts(
        settings=settings,
        name=name,
        owner=f"{name}-{uuid.uuid4().hex[:8]}",
        partitions=partitions,
        partition=partitions.home,
        client=client,
        durability=_durability(settings, client, telemetry),
        catalogue=Catalogue(
            definitions=Definitions(partitions.wide),
            telemetry=telemetry,
            ttl_seconds=settings.definitions_ttl_seconds,
            translations=Translations(client) if settings.translate_criteria else None,
        ),
        asker=asker,
        telemetry=telemetry,
        liveness=Liveness(),
        clock=Clock(),
        tracing=tracing_of(settings, name),
    )


def _durability(settings: Settings, client: Redis, telemetry: Telemetry) -> Durability:
    return Durability(client, level=settings.durability, replicas=settings.durability_replicas, telemetry=telemetry)


def _each(parts: Parts) -> Sequence[Parts]:
    """What the roles of each partition share; with one partition all is as it is."""
    if parts.partitions.plain:
        return [parts]
    return [_apart(parts, partition) for partition in parts.partitions.all]


def _apart(parts: Parts, partition: Partition) -> Parts:
    telemetry = parts.telemetry.apart()
    return replace(
        parts,
        partition=partition,
        client=partition.client,
        durability=_durability(parts.settings, partition.client, telemetry),
        telemetry=telemetry,
        liveness=parts.liveness.apart(f"of partition {partition.number}"),
    )


def tracing_of(settings: Settings, name: str) -> Tracing:
    """What traces events; where it is asked for and cannot be had, that is said, and the agent runs without."""
    if not settings.asks_for_traces:
        return OFF
    logger = log.get("tracing")
    if settings.trace_fault:
        logger.warning("not_traced", why=settings.trace_fault)
        return OFF
    try:
        from redis_agent.otel import OpenTelemetry  # noqa: PLC0415 - heavy, optional, and seldom asked for

        return OpenTelemetry(
            instance=name,
            channel=settings.orchestrator_channel,
            per_second=None if settings.otel_traces_sampler else settings.traces_per_second,
        )
    except ImportError as error:
        remedy = "pip install 'redis-agent[tracing]', or unset the variables of OpenTelemetry that ask for traces"
        logger.warning("not_traced", why=f"OpenTelemetry is not installed: {error}", remedy=remedy)
    except Exception as error:  # noqa: BLE001 - of the SDK, about its variables: they must not stop the agent
        logger.warning("not_traced", why=f"OpenTelemetry cannot be set up: {type(error).__name__}")
    return OFF


def asker_of(settings: Settings, client: Redis, telemetry: Telemetry) -> Asker:
    """Who words analyses and summaries; nobody where there is no key."""
    gemini = gemini_for(settings, client, telemetry)
    return gemini if gemini.available else Nobody()


def reader_of(settings: Settings, client: Redis, *, catalogue: Catalogue, clock: Clock) -> Reader:
    """What reads the facts."""
    return Reader(
        catalogue=catalogue,
        aggregates=Aggregates(client),
        windows=Windows(client),
        outbox=Outbox(client),
        inspection=Inspection(client),
        maturity=Maturity(Windows(client), clock, settings.maturity_seconds),
        clock=clock,
        evidence=Evidence(settings.alert_alpha, settings.min_samples),
    )


def digests_of(
    settings: Settings, clients: Sequence[Redis], *, catalogue: Catalogue, clock: Clock, analyst: Analyst
) -> Digests:
    """What makes summaries, of all partitions."""
    return Digests(
        sources=[
            Sources(
                reader=reader_of(settings, client, catalogue=catalogue, clock=clock),
                aggregates=Aggregates(client),
                inspection=Inspection(client),
                housekeeping=_housekeeping(settings, client),
            )
            for client in clients
        ],
        analyst=analyst,
        quiet_after_seconds=settings.quiet_after_seconds,
        deadline_seconds=settings.analysis_deadline_seconds,
    )


def _reader_of_facts(parts: Parts) -> Reader:
    return reader_of(parts.settings, parts.client, catalogue=parts.catalogue, clock=parts.clock)


def _analyst(parts: Parts, reader: Reader) -> Analyst:
    return Analyst(reader=reader, asker=parts.asker, telemetry=parts.telemetry, clock=parts.clock)


def _stop_on_signals(stop: asyncio.Event, end_seconds: float) -> Callable[[], None]:
    """The first signal asks for a drain, a second one ends the process; returns how to undo this.

    So does a thread, `end_seconds` after the first: closing a connection to a server that does not answer can take
    long, and so can whatever nobody has thought of.
    """
    loop = asyncio.get_running_loop()
    last_resort = threading.Timer(end_seconds, _end_hard)
    last_resort.daemon = True

    def handle(signum: int) -> None:
        if stop.is_set():
            os._exit(128 + signum)  # whatever is unfinished stays pending in Redis
        stop.set()
        log.get("app").info("stopping", signal=signal.Signals(signum).name)
        last_resort.start()

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(signum, handle, signum)

    def undo() -> None:
        if len(asyncio.all_tasks(loop)) <= 1:  # only this one: nothing can hold the end up any more
            last_resort.cancel()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(signum)

    return undo


def _end_hard() -> None:
    """End the process from another thread; whatever is unfinished stays pending in Redis."""
    log.get("app").error("ended_hard", why="the drain and what closes after it took too long")
    os._exit(1)


async def _redis_answers(parts: Parts, roster: Roster, roles: frozenset[str], stop: asyncio.Event) -> bool:
    """Wait until Redis answers; False when told to stop before it did.

    In the roster first, and then a look at how many partitions there are: `redis-agent repartition` notes that it
    changes them and then looks into the roster, so one of the two sees the other.

    Raises:
        RedisAccessError: it answers, but does not let us in.
        PartitionsError: what is there is of another number of partitions, or that is being changed.
        DurabilityError: it cannot promise the durability asked for.
    """
    logger = log.get("app")
    durabilities = [_durability(parts.settings, one.client, parts.telemetry) for one in parts.partitions.all]
    recovery = Recovery(log=logger, telemetry=parts.telemetry, stop=stop)
    while not stop.is_set():
        try:
            await parts.client.ping()
            missing = await missing_rights(parts.client) if "worker" in roles else []
            if missing:
                raise RedisAccessError(
                    f"{parts.settings.address_shown} does not let this user run {', '.join(missing)}"
                )
            async with roster.entered():
                await parts.partitions.check()
                for durability in durabilities:
                    await durability.check()
        except (RedisError, OSError) as error:
            if classify(error).remedy is Remedy.FATAL:
                raise RedisAccessError(f"{parts.settings.address_shown} refuses: {error}") from error
            await recovery.after(error, f"connect to {parts.settings.address_shown}")
        else:
            recovery.succeeded()
            await _warn_of_eviction(parts)
            return True
    return False


async def _warn_of_eviction(parts: Parts) -> None:
    """Say at the start when the server may throw keys of ours away: counts, floors and cooldowns then go unnoticed."""
    clients = [partition.client for partition in parts.partitions.all]
    try:
        memory = await asyncio.gather(*(client.info("memory") for client in clients))
    except (RedisError, OSError):
        return  # not allowed to ask, or gone again
    policies = {one.get("maxmemory_policy", "noeviction") for one in memory} - {"noeviction"}
    for policy in sorted(policies):
        log.get("app").warning(
            "keys_may_be_evicted",
            maxmemory_policy=policy,
            remedy="set maxmemory-policy to noeviction, or give the agent a server of its own",
        )


async def _run_until_stopped(
    runs: dict[str, Role],
    parts: Parts,
    roster: Roster,
    stop: asyncio.Event,
) -> int:
    """Run the roles; a role that dies takes the others down in good order, then the process.

    Raises:
        PartitionsError: the number of partitions was changed meanwhile, as while this process was stopped.
    """
    changed: list[PartitionsError] = []

    async def heed_partitions() -> None:
        while not await sleep_unless(stop, _PARTITIONS_SECONDS):
            try:
                await parts.partitions.heed()
            except PartitionsError as error:
                changed.append(error)
                stop.set()
            except (RedisError, OSError):
                continue  # said by those who work

    async def guarded(run: Run) -> None:
        try:
            await run(stop)
        finally:
            stop.set()

    async def everything() -> None:
        async with asyncio.TaskGroup() as tasks:
            for part in runs.values():
                tasks.create_task(guarded(part.run))
            tasks.create_task(roster.run(stop))
            tasks.create_task(_follow_masters(parts.partitions, stop))
            tasks.create_task(heed_partitions())

    running = asyncio.create_task(everything())
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    until = asyncio.get_running_loop().time() + parts.settings.shutdown_seconds
    done, _ = await asyncio.wait({running}, timeout=parts.settings.shutdown_seconds)
    if not done:
        log.get("app").error("drain_too_long", seconds=parts.settings.shutdown_seconds)
        running.cancel()
        await asyncio.wait({running}, timeout=_CANCEL_SECONDS)
        return 1
    left = until - asyncio.get_running_loop().time()
    await parts.tracing.close(min(_EXPORT_SECONDS, max(0.0, left)))
    running.result()
    for error in changed:
        raise error
    return 0


# Roles ---------------------------------------------------------------------------------------------------------


async def _follow_masters(partitions: Partitions, stop: asyncio.Event) -> None:
    """Also those of clients that are made later, when a partition becomes this process's to work in."""
    followed: set[int] = set()
    async with asyncio.TaskGroup() as tasks:
        while not stop.is_set():
            for client in partitions.clients[len(followed) :]:
                followed.add(len(followed))
                tasks.create_task(follow_master(client, stop))
            await sleep_unless(stop, _FOLLOW_SECONDS)


def _role(role: str, parts: Parts) -> Role:
    if role == "bridge":
        return _bridge(parts)
    if parts.partitions.plain:
        return _ROLES[role](parts)
    if role == "worker":
        return _workers(parts)
    return Alongside({each.partition.number: _ROLES[role](each) for each in _each(parts)})


def _workers(parts: Parts) -> Shared:
    each = _each(parts)
    return Shared(
        make=lambda number: _projecting(each[number]),
        partitions=len(each),
        name=parts.name,
        inspection=Inspection(parts.client),
        alive_seconds=max(_LEAST_ALIVE_SECONDS, parts.settings.lease_seconds),
        liveness=lambda number: each[number].liveness,
        telemetry=parts.telemetry,
    )


def _reader(parts: Parts) -> Redis:
    """A client of its own for blocking reads, so that nothing short waits behind them."""
    return parts.partitions.reader(parts.partition, name=f"redis-agent:{parts.name}:reader")


def _lease(parts: Parts, name: str) -> Lease:
    return Lease(parts.client, name=name, owner=parts.owner, ttl_ms=int(parts.settings.lease_seconds * 1000))


def _leadership(parts: Parts, lease: Tenure, role: str, gauge: Level) -> Leadership:
    seconds = parts.settings.lease_seconds
    return Leadership(
        lease=lease,
        ttl_seconds=seconds,
        log=log.get(role),
        telemetry=parts.telemetry,
        gauge=gauge,
    )


def _bridge(parts: Parts) -> Bridge:
    settings, partitions = parts.settings, parts.partitions
    source: Source = OneServer(parts.client)
    if partitions.topology is not None:
        source = AgreedNode(
            partitions.home.client,
            partitions.topology,
            patience_seconds=settings.lease_seconds,
            telemetry=parts.telemetry,
        )
    each = _each(parts)
    return Bridge(
        source=source,
        channel=settings.metrics_channel,
        alive=_mirror(parts).alive,
        shares=[_share(one, buffer_bytes=settings.bridge_buffer_bytes // len(each)) for one in each],
        route=router(len(each), max_event_bytes=settings.max_event_bytes) if len(each) > 1 else None,
        telemetry=parts.telemetry,
        liveness=parts.liveness,
        clock=parts.clock,
    )


def _mirror(parts: Parts) -> Mirror:
    return Mirror(
        parts.client,
        durability=parts.durability,
        owner=parts.owner,
        ttl_ms=int(parts.settings.lease_seconds * 1000),
        elsewhere=parts.partitions.topology is not None,
    )


def _share(parts: Parts, *, buffer_bytes: int) -> Share:
    mirror = _mirror(parts)
    lockstep = Lockstep(buffer_bytes)
    tenure = BridgeTenure(mirror, lockstep)
    leadership = _leadership(parts, tenure, "bridge", parts.telemetry.bridge_leader)
    return Share(
        number=parts.partition.number if parts.partition.namespace else None,
        control=mirror.channel,
        lockstep=lockstep,
        leadership=leadership,
        terms=Terms(
            mirror=mirror,
            lockstep=lockstep,
            tenure=tenure,
            leadership=leadership,
            telemetry=parts.telemetry,
            batch_size=parts.settings.batch_size,
            tracing=parts.tracing,
        ),
        telemetry=parts.telemetry,
        liveness=parts.liveness,
    )


def _judge(parts: Parts) -> Judge:
    settings = parts.settings
    return Judge(
        catalogue=parts.catalogue,
        aggregates=Aggregates(parts.client),
        teller=Teller(
            outbox=Outbox(parts.client),
            telemetry=parts.telemetry,
            clock=parts.clock,
            policy=_policy(settings),
            notify_cleared=settings.notify_cleared,
            tracing=parts.tracing,
        ),
        telemetry=parts.telemetry,
        liveness=parts.liveness,
        clock=parts.clock,
        rules=Rules(
            alpha=settings.alert_alpha,
            min_samples=settings.min_samples,
            max_fields=settings.max_fields,
        ),
        maturity=Maturity(Windows(parts.client), parts.clock, settings.maturity_seconds),
        tracing=parts.tracing,
    )


def _policy(settings: Settings) -> Policy:
    return Policy(
        cooldown_ms=1000 * settings.alert_cooldown_seconds,
        backoff=settings.alert_backoff,
        early=settings.alert_evidence == "early",
    )


def _worker(parts: Parts) -> Worker:
    settings = parts.settings
    # Nothing is given up that was not tried alone, but where one delivery is all it gets.
    together = min(TOGETHER, settings.max_deliveries - 1)
    stream = EventStream(
        reader=_reader(parts),
        client=parts.client,
        consumer=parts.name,
        max_fields=settings.max_fields,
        max_raw=settings.metrics_list_length if settings.metrics_list else 0,
        max_dead=settings.dead_letters_max_length,
        together=together,
    )
    holding = Holding(
        stream=stream,
        telemetry=parts.telemetry,
        batch_size=settings.batch_size,
        batch_bytes=settings.batch_bytes,
        reclaim_idle_seconds=settings.reclaim_idle_seconds,
    )
    intake = Intake(
        stream=stream,
        holding=holding,
        telemetry=parts.telemetry,
        liveness=parts.liveness,
        reclaim_idle_seconds=settings.reclaim_idle_seconds,
    )
    folding = Folding(
        clock=parts.clock,
        max_event_bytes=settings.max_event_bytes,
        cooldown_seconds=settings.alert_cooldown_seconds,
        max_error_alerts=settings.max_error_alerts,
        retention=Retention(settings.window_minutes_ttl_seconds, settings.window_hours_ttl_seconds),
        tracing=parts.tracing,
    )
    return Worker(
        stream=stream,
        intake=intake,
        holding=holding,
        folding=folding,
        durability=parts.durability,
        judge=_judge(parts),
        telemetry=parts.telemetry,
        liveness=parts.liveness,
        clock=parts.clock,
        batch_bytes=settings.batch_bytes,
        together=together,
        max_deliveries=settings.max_deliveries,
        max_event_bytes=settings.max_event_bytes,
    )


def _projecting(parts: Parts) -> Projecting:
    settings = parts.settings
    return Projecting(
        _worker(parts),
        Projections(
            parts.client,
            parts.partitions.wide,
            max_raw=settings.metrics_list_length if settings.metrics_list else 0,
        ),
        lag=parts.telemetry.projection_lag,
        telemetry=parts.telemetry,
        liveness=parts.liveness,
    )


def _dispatcher(parts: Parts) -> Dispatcher:
    settings = parts.settings
    delivery = Delivery(
        reader=_reader(parts),
        client=parts.client,
        consumer=parts.name,
        channel=settings.orchestrator_channel,
        audience=parts.partitions.audience(settings.orchestrator_channel),
    )
    return Dispatcher(
        delivery=delivery,
        analyses=Analyses(
            analyst=_analyst(parts, _reader_of_facts(parts)),
            kept=KeptAnalyses(parts.client),
            source=delivery,
            clock=parts.clock,
            deadline_seconds=settings.analysis_deadline_seconds,
            tracing=parts.tracing,
        ),
        durability=parts.durability,
        leadership=_leadership(
            parts, _lease(parts, keys.LEASE_DISPATCHER), "dispatcher", parts.telemetry.dispatcher_leader
        ),
        telemetry=parts.telemetry,
        liveness=parts.liveness,
        clock=parts.clock,
        ttl_seconds=settings.alert_delivery_ttl_seconds,
        tracing=parts.tracing,
    )


def _examiner(parts: Parts, leadership: Leadership) -> Examiner | None:
    settings = parts.settings
    if not settings.anomaly_window_seconds or not settings.window_minutes_ttl_seconds:
        return None
    return Examiner(
        leadership=leadership,
        anomalies=Anomalies(parts.client, ttl_seconds=_ANOMALIES_TTL_SECONDS),
        windows=Windows(parts.client),
        aggregates=Aggregates(parts.client),
        catalogue=parts.catalogue,
        outbox=Outbox(parts.client),
        telemetry=parts.telemetry,
        liveness=parts.liveness,
        clock=parts.clock,
        policy=_policy(settings),
        window_seconds=settings.anomaly_window_seconds,
        max_series=settings.anomaly_max_series,
        hours_kept=settings.window_hours_ttl_seconds > 0,
    )


def _summaries(parts: Parts, leadership: Leadership, housekeeping: Housekeeping) -> Summaries | None:
    """Of all partitions, once: in the home partition."""
    settings = parts.settings
    if parts.partition is not parts.partitions.home:
        return None
    return Summaries(
        leadership=leadership,
        digests=digests_of(
            settings,
            [partition.client for partition in parts.partitions.all],
            catalogue=parts.catalogue,
            clock=parts.clock,
            analyst=_analyst(parts, _reader_of_facts(parts)),
        ),
        outbox=Outbox(parts.client),
        housekeeping=housekeeping,
        telemetry=parts.telemetry,
        clock=parts.clock,
        interval=Rhythm(INTERVAL, int(1000 * settings.summary_interval_seconds)),
        day=daily_at(settings.daily_summary_at),
    )


def _translating(parts: Parts) -> Translating | None:
    if not parts.settings.translate_criteria or not parts.asker.available:
        return None

    async def in_time(text: str, metrics: Sequence[str], kind: CriterionKind, deadline: float) -> str | None:
        return await translate(parts.asker, text, metrics, kind, deadline=deadline)

    return Translating(
        catalogue=parts.catalogue,
        aggregates=Aggregates(parts.client),
        translations=Translations(parts.client),
        translate=in_time,
    )


def _housekeeping(settings: Settings, client: Redis) -> Housekeeping:
    return Housekeeping(
        client,
        stream_max=settings.stream_max_length,
        stream_hard=settings.stream_hard_limit,
        consumer_expiry_seconds=settings.consumer_expiry_seconds,
        stream_max_age_seconds=settings.stream_max_age_seconds,
    )


def _scheduler(parts: Parts) -> Scheduler:
    settings = parts.settings
    housekeeping = _housekeeping(settings, parts.client)
    lease = _lease(parts, keys.LEASE_SCHEDULER)
    leadership = _leadership(parts, lease, "scheduler", parts.telemetry.scheduler_leader)
    return Scheduler(
        leadership=leadership,
        judge=_judge(parts),
        examiner=_examiner(parts, leadership),
        summaries=_summaries(parts, leadership, housekeeping),
        translating=_translating(parts),
        watch=Watch(
            catalogue=parts.catalogue,
            aggregates=Aggregates(parts.client),
            finals=Finals(parts.client),
        ),
        aggregates=Aggregates(parts.client),
        outbox=Outbox(parts.client),
        housekeeping=housekeeping,
        telemetry=parts.telemetry,
        liveness=parts.liveness,
        clock=parts.clock,
        sweep_seconds=settings.threshold_check_interval_seconds,
        watch_seconds=max(_WATCH_SECONDS, settings.definitions_ttl_seconds),
        summary_seconds=settings.summary_interval_seconds,
        alerts_max=settings.alerts_max_length,
    )


_ROLES: dict[str, Callable[[Parts], Role]] = {
    "worker": _worker,
    "dispatcher": _dispatcher,
    "scheduler": _scheduler,
}


def _page(parts: Parts) -> StatusPage:
    settings = parts.settings
    return StatusPage(
        document=Document(
            parts.partitions,
            address_shown=settings.address_shown,
            experiments=KnownExperiments(
                parts.partitions,
                maturity=Maturity(AllWindows(parts.partitions), parts.clock, settings.maturity_seconds),
                alpha=settings.alert_alpha,
                min_samples=settings.min_samples,
                translate=settings.translate_criteria,
                definitions_seconds=max(_PAGE_DEFINITIONS_SECONDS, settings.definitions_ttl_seconds),
            ),
        ),
        clock=parts.clock,
        name=parts.name,
        version=__version__,
        token="" if settings.http_token is None else settings.http_token.get_secret_value(),
        host=settings.http_host,
    )


def _endpoint(parts: Parts, runs: dict[str, Role]) -> Endpoint:
    def hindrances() -> list[str]:
        return [problem for role in runs.values() for problem in hindrances_of(role)]

    return Endpoint(
        clients=[partition.client for partition in parts.partitions.all],
        telemetry=parts.telemetry,
        liveness=parts.liveness,
        clock=parts.clock,
        roles=frozenset(runs),
        page=_page(parts),
        hindrances=hindrances,
        host=parts.settings.http_host,
        port=parts.settings.http_port,
        required="http_port" in parts.settings.model_fields_set,
    )


def gemini_for(settings: Settings, client: Redis, telemetry: Telemetry) -> Gemini:
    """Whoever asks Gemini, as the settings say; without a key it says so at every question.

    Args:
        settings: of the process.
        client: where all replicas share what was spent.
        telemetry: of the process.
    """
    base_url = settings.gemini_base_url.get_secret_value() if settings.gemini_base_url is not None else ""
    password = settings.sentinel_password.get_secret_value() if settings.sentinel_password is not None else ""
    is_vertexai = settings.use_vertexai or settings.use_enterprise
    return Gemini(
        access=Access(
            api_key=settings.google_api_key.get_secret_value() if settings.google_api_key is not None else "",
            base_url="" if is_vertexai else base_url,
            vertexai=is_vertexai,
            project=settings.google_cloud_project,
            location=settings.google_cloud_location,
        ),
        models=chain(settings.model, settings.model_fallbacks.split(",")),
        spending=Spending(client, per_minute=settings.llm_calls_per_minute, per_day=settings.llm_calls_per_day),
        telemetry=telemetry,
        secrets=(*secrets_in(settings.redis_url.get_secret_value()), password),
        cache_seconds=settings.llm_cache_seconds,
    )
