"""The dispatcher: alerts leave the outbox when somebody listens, oldest first, each once.

Any number of replicas may run; one holds the lease and delivers, so that the order is kept. Publishing and acking
are one script, fenced by the lease. If the process dies before that script, the alert is still pending and the next
holder delivers it; after it, the alert is acked and nobody delivers it again.

    read -> pending -> take over -> durable -> analysis -> deliver, superseded, or given up

What is delivered always comes from the list of what is pending, never straight from a read: a read that reached the
server late, of a dispatcher that was stopped and is no longer the leader, leaves alerts pending under its name, which
are older than what the leader reads next.

An alert may wait for its analysis, up to a deadline that counts from when it was first seen (`analyst.ahead`). What is
published is the alert's JSON with `analysis`; the outbox keeps the alert as it was raised, and the analysis beside it.
"""

import asyncio
from dataclasses import replace

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.alerts import AlertType, Told, told
from redis_agent.analyst.ahead import Analyses
from redis_agent.clock import Clock
from redis_agent.log import Throttle
from redis_agent.store.durability import Durability
from redis_agent.store.group import Created
from redis_agent.store.lease import Leadership
from redis_agent.store.outbox import FENCED, GIVEN_UP, NOT_PENDING, SILENCED, SUPERSEDED, Delivery, OutboxEntry
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.telemetry import Liveness, Telemetry
from redis_agent.tracing import OFF, Span, Step, Tracing

# Alerts held in memory at once; the rest waits in the outbox.
_READ_COUNT = 100
_BLOCK_MS = 500
# So long an alert waits for its analysis before it is looked whether we still lead.
_TURN_SECONDS = 0.1
# While nobody listens, the oldest alert is offered again after these many seconds, doubling to the second.
_OFFER_SECONDS = (0.1, 1.0)


class Dispatcher:
    """Delivers alerts to the Orchestrator's channel.

    Args:
        delivery: the outbox as this process sees it.
        analyses: what alerts mean, made while they wait.
        durability: what an alert waits for: one that was delivered is not forgotten with its cooldown.
        leadership: of the dispatcher's lease.
        ttl_seconds: an alert that nobody listened to for so long is given up.
        tracing: of the alerts that carry a trace.
    """

    def __init__(
        self,
        *,
        delivery: Delivery,
        analyses: Analyses,
        durability: Durability,
        leadership: Leadership,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        ttl_seconds: float,
        tracing: Tracing = OFF,
    ) -> None:
        self._delivery = delivery
        self._analyses = analyses
        self._durability = durability
        self._leadership = leadership
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._ttl_ms = int(ttl_seconds * 1000)
        self._tracing = tracing
        self._log = log.get("dispatcher")
        self._throttle = Throttle()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until told to stop; what is not delivered stays in the outbox."""
        released = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leadership.run(released))
            try:
                await self._deliver_all(stop)
            finally:
                self._analyses.end()
            released.set()

    async def _deliver_all(self, stop: asyncio.Event) -> None:
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        group_known = False
        # Whether there may be alerts that were read and are not delivered.
        left = True
        while not stop.is_set():
            self._liveness.beat("dispatcher")
            lease = self._leadership.value
            if lease is None:
                group_known = False
                self._analyses.end()
                await self._leadership.held(timeout=0.5)
                continue
            try:
                if not group_known:
                    self._say_lost(await self._delivery.ensure_group())
                    await self._analyses.begin()
                    group_known, left = True, True
                if left:
                    waiting = await self._delivery.take_over(_READ_COUNT)
                else:
                    waiting = await self._delivery.read(count=_READ_COUNT, block_ms=_BLOCK_MS)
                left = bool(waiting)
                await self._analyses.see(waiting)
                if waiting and self._durability.waits and await self._durability.reached() is None:
                    continue
                if waiting:
                    delivered = await self._deliver_in_order(lease, waiting, stop)
                    left = not delivered or len(waiting) == _READ_COUNT
                recovery.succeeded()
            except (RedisError, OSError) as error:
                # A reply may be lost: what is still pending says what was not delivered.
                group_known = False
                await recovery.after(error, "deliver")

    async def _deliver_in_order(self, lease: str, waiting: list[OutboxEntry], stop: asyncio.Event) -> bool:
        """Deliver these alerts, oldest first, as long as the lease is ours; whether that was so for all of them."""
        wait = _OFFER_SECONDS[0]
        for entry in waiting:
            about = told(entry.data)
            span: Span | None = None
            while not stop.is_set() and self._leadership.value == lease:
                self._liveness.beat("dispatcher")
                data = await self._analyses.ready(entry, wait_seconds=_TURN_SECONDS)
                if data is None:
                    await self._analyses.look_ahead()
                    continue
                span = span or self._tracing.begin(Step.DELIVER, entry.trace, entry_id=entry.id)
                outcome = await self._delivery.deliver(
                    lease,
                    replace(entry, data=data),
                    ttl_ms=self._ttl_ms,
                    replaceable=about.type == AlertType.SUMMARY and not about.lasting,
                    experiment_id=about.experiment_id,
                    alert_type=about.type,
                )
                if outcome == FENCED:
                    self._leadership.lose("fenced")
                    return False
                if outcome != 0:
                    wait = _OFFER_SECONDS[0] if outcome > 0 else wait
                    self._analyses.forget(entry.id)
                    self._done(entry, about, outcome, span)
                    break
                if self._throttle.due("nobody_listens", asyncio.get_running_loop().time()):
                    self._log.warning("nobody_listens", oldest=entry.id, at_least=len(waiting))
                await self._analyses.look_ahead()
                await sleep_unless(stop, wait)
                wait = min(2 * wait, _OFFER_SECONDS[1])
            else:
                return False
        return True

    def _say_lost(self, created: Created | None) -> None:
        if created is not None and created.lost:
            self._telemetry.alerts_lost.inc(created.lost)
            self._log.error(
                "outbox_deleted",
                lost=created.lost,
                meaning="somebody deleted the outbox; so many alerts of it were not delivered yet",
            )

    def _done(self, entry: OutboxEntry, about: Told, outcome: int, span: Span) -> None:
        """Count and say what became of an alert."""
        if outcome == NOT_PENDING:
            return  # somebody else's delivery, or trimmed and counted there
        words = {GIVEN_UP: "undelivered", SUPERSEDED: "superseded", SILENCED: "silenced"}
        word = words.get(outcome, "sent")
        self._telemetry.alerts.labels(about.type, about.severity, word).inc()
        span.note(experiment_id=about.experiment_id, alert_id=about.alert_id, alert_type=about.type)
        span.end(word if outcome == GIVEN_UP else "", outcome=word, receivers=max(0, outcome))
        now_ms = self._clock.now_ms()
        if outcome == SILENCED:
            self._log.info("alert_silenced", alert_id=about.alert_id, experiment_id=about.experiment_id)
        elif outcome == SUPERSEDED:
            self._log.info("alert_superseded", alert_id=about.alert_id)
        elif outcome == GIVEN_UP:
            waited_ms = now_ms - int(entry.id.partition("-")[0])
            self._log.error("alert_undelivered", alert_id=about.alert_id, waited_ms=waited_ms)
        else:
            if entry.at_ms:
                self._telemetry.alert_latency.observe(max(0.0, (now_ms - entry.at_ms) / 1000))
            self._log.info("alert_delivered", alert_id=about.alert_id, receivers=outcome)
