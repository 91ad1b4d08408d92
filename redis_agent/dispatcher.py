"""The dispatcher: alerts leave the outbox when somebody listens, oldest first, each once.

Any number of replicas may run; one holds the lease and delivers, so that the order is kept. Publishing and acking
are one script, fenced by the lease. If the process dies before that script, the alert is still pending and the next
holder delivers it; after it, the alert is acked and nobody delivers it again.
"""

import asyncio
import json
from collections import deque

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.clock import Clock
from redis_agent.log import Throttle
from redis_agent.store.lease import Leadership
from redis_agent.store.outbox import FENCED, NOT_PENDING, Delivery, OutboxEntry
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.telemetry import Liveness, Telemetry

# Alerts held in memory at once; the rest waits in the outbox.
_READ_COUNT = 100
_BLOCK_MS = 500
# While nobody listens, the oldest alert is offered again after these many seconds, doubling to the second.
_OFFER_SECONDS = (0.1, 1.0)
_TYPES = frozenset(
    {"success_threshold", "failure_threshold", "error", "anomaly", "periodic_summary"} | {"experiment_completed"}
)


class Dispatcher:
    """Delivers alerts to the Orchestrator's channel.

    Args:
        delivery: the outbox as this process sees it.
        leadership: of the dispatcher's lease.
        ttl_seconds: an alert that nobody listened to for so long is given up.
    """

    def __init__(
        self,
        *,
        delivery: Delivery,
        leadership: Leadership,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        ttl_seconds: float,
    ) -> None:
        self._delivery = delivery
        self._leadership = leadership
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._ttl_ms = int(ttl_seconds * 1000)
        self._log = log.get("dispatcher")
        self._throttle = Throttle(300.0)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until told to stop; what is not delivered stays in the outbox."""
        released = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leadership.run(released))
            await self._deliver_all(stop)
            released.set()

    async def _deliver_all(self, stop: asyncio.Event) -> None:
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        waiting: deque[OutboxEntry] = deque()
        pending_first = True
        while not stop.is_set():
            self._liveness.beat("dispatcher")
            lease = self._leadership.value
            if lease is None:
                waiting.clear()
                pending_first = True
                await self._leadership.held(timeout=0.5)
                continue
            try:
                if pending_first:
                    await self._delivery.ensure_group()
                    waiting = deque(await self._delivery.take_over(_READ_COUNT))
                    # As long as anything was pending there may be more of it.
                    pending_first = bool(waiting)
                if not waiting and not pending_first:
                    read = await self._delivery.read(count=_READ_COUNT, block_ms=_BLOCK_MS)
                    waiting = deque(read)
                if waiting and not await self._deliver_in_order(lease, waiting, stop):
                    pending_first = True
                recovery.succeeded()
            except (RedisError, OSError) as error:
                # A reply may be lost: what is still pending says what was not delivered.
                waiting.clear()
                pending_first = True
                await recovery.after(error, "deliver")

    async def _deliver_in_order(self, lease: str, waiting: deque[OutboxEntry], stop: asyncio.Event) -> bool:
        """Deliver the alerts held, oldest first; False when the lease is not ours any more."""
        wait = _OFFER_SECONDS[0]
        while waiting and not stop.is_set():
            self._liveness.beat("dispatcher")
            if self._leadership.value != lease:
                return False
            entry = waiting[0]
            receivers = await self._delivery.deliver(lease, entry.id, entry.data)
            if receivers == FENCED:
                self._leadership.lose("fenced")
                return False
            if receivers == 0:
                if self._age_ms(entry) > self._ttl_ms:
                    await self._give_up(lease, entry)
                    waiting.popleft()
                    continue
                if self._throttle.due("nobody_listens", asyncio.get_running_loop().time()):
                    self._log.warning("nobody_listens", alerts_waiting=len(waiting))
                await sleep_unless(stop, wait)
                wait = min(2 * wait, _OFFER_SECONDS[1])
                continue
            waiting.popleft()
            wait = _OFFER_SECONDS[0]
            if receivers != NOT_PENDING:
                self._throttle.reset()
                self._delivered(entry, receivers)
        return True

    def _age_ms(self, entry: OutboxEntry) -> int:
        return self._clock.now_ms() - int(entry.id.partition("-")[0])

    def _delivered(self, entry: OutboxEntry, receivers: int) -> None:
        alert_id = self._count(entry, "sent")
        if entry.at_ms:
            latency = (self._clock.now_ms() - entry.at_ms) / 1000
            self._telemetry.alert_latency.observe(max(0.0, latency))
        self._log.info("alert_delivered", alert_id=alert_id, receivers=receivers)

    async def _give_up(self, lease: str, entry: OutboxEntry) -> None:
        if await self._delivery.give_up(lease, entry.id) == 1:
            alert_id = self._count(entry, "undelivered")
            self._log.error("alert_undelivered", alert_id=alert_id, waited_ms=self._age_ms(entry))

    def _count(self, entry: OutboxEntry, outcome: str) -> str:
        """Count an alert by what it says of itself; its id."""
        try:
            alert = json.loads(entry.data)
            kind, severity = str(alert.get("type")), str(alert.get("severity"))
            alert_id = str(alert.get("alert_id"))
        except (ValueError, AttributeError, RecursionError):  # not ours: somebody else wrote to the outbox
            kind, severity, alert_id = "other", "other", entry.id
        kind = kind if kind in _TYPES else "other"
        severity = severity if severity in ("info", "medium", "high") else "other"
        self._telemetry.alerts.labels(kind, severity, outcome).inc()
        return alert_id
