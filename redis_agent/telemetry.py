"""What the program counts about itself, under the names that operators rely on. No label is unbounded."""

import copy
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_LATENCY_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip

# A condition that lasts is said again after so many seconds.
SAY_SECONDS = 60.0


class Liveness:
    """When each loop of the process last went round, for the readiness check."""

    def __init__(self, *, suffix: str = "", last: dict[str, float] | None = None) -> None:
        self._suffix = suffix
        self._last: dict[str, float] = {} if last is None else last

    def apart(self, name: str) -> "Liveness":
        """The same for one of several parts of the process, whose loops have this name behind theirs."""
        return Liveness(suffix=f" {name}", last=self._last)

    def beat(self, loop: str) -> None:
        """The loop goes round."""
        self._last[loop + self._suffix] = time.monotonic()

    def rest(self, loop: str) -> None:
        """The loop has nothing to do, for however long."""
        self._last.pop(loop + self._suffix, None)

    def end(self, role: str) -> None:
        """The loops of a role have ended here."""
        for loop in [loop for loop in self._last if loop.startswith(role + ".") and loop.endswith(self._suffix)]:
            del self._last[loop]

    def stalled(self, limit_seconds: float) -> list[str]:
        """Loops that have not gone round for longer than the limit."""
        now = time.monotonic()
        return sorted(loop for loop, last in self._last.items() if now - last > limit_seconds)


@dataclass(slots=True)
class _Condition:
    """How often it was met, by now and when it was last said; when; and whether it lasts, as far as was said."""

    met: int = 0
    said_of: int = 0
    said_at: float = -math.inf
    met_at: float = -math.inf
    lasts: bool = False


class Conditions:
    """What the loops of the process have met and said, so that together they say a condition once.

    It is said when it begins, and again once a minute while it is met, whether it lasts or comes and goes. Its end is
    said once for each time that it was said.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Condition] = {}

    def met(self, name: str, now: float) -> int:
        """A loop has met a condition, one of a small fixed set: how often it went unsaid if it is due now, else 0."""
        condition = self._known.setdefault(name, _Condition())
        condition.met += 1
        condition.met_at = now
        if now - condition.said_at < SAY_SECONDS:
            return 0
        times, condition.said_of = condition.met - condition.said_of, condition.met
        condition.said_at, condition.lasts = now, True
        return times

    def over(self, name: str, now: float, quiet_seconds: float) -> bool | None:
        """A loop no longer meets it: whether to say so; None while others met it within these seconds."""
        condition = self._known[name]
        if now - condition.met_at < quiet_seconds:
            return None
        lasted, condition.lasts = condition.lasts, False
        return lasted


class BulkHistogram(Collector):
    """A histogram that takes many observations at once: one call a batch instead of one an event."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._counts = [0] * (len(_LATENCY_BUCKETS) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe_many(self, seconds: Sequence[float]) -> None:
        """Add observations, in seconds; what a clock's jump made negative counts as 0."""
        counts = self._counts
        for value in seconds:
            counts[bisect_left(_LATENCY_BUCKETS, value)] += 1
        self._sum += sum(value for value in seconds if value > 0)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """What it is called, without its values."""
        yield HistogramMetricFamily(self._name, self._documentation)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The buckets as Prometheus wants them, cumulative."""
        total, buckets = 0, []
        bounds = [*map(floatToGoString, _LATENCY_BUCKETS), "+Inf"]
        for bound, count in zip(bounds, self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


@dataclass(frozen=True, slots=True)
class Exported:
    """A metric as Prometheus has it.

    Attributes:
        name: as it is queried; of a histogram, what `_bucket`, `_sum` and `_count` are added to.
        kind: counter, gauge or histogram.
        labels: their names.
        meaning: one or two sentences.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Level(Protocol):
    """What a gauge is to whoever sets it."""

    def set(self, value: float) -> None:
        """It is this now."""


class _Sum:
    """A gauge that is made of what several parts of the process say: their sum, or the greatest."""

    def __init__(self, gauge: Level, of: Callable[[Iterable[float]], float]) -> None:
        self._gauge = gauge
        self._of = of
        self._values: list[float] = []

    def addend(self) -> "_Addend":
        self._values.append(0.0)
        return _Addend(self, len(self._values) - 1)

    def set(self, number: int, value: float) -> None:
        self._values[number] = value
        self._gauge.set(self._of(self._values))


@dataclass(frozen=True, slots=True)
class _Addend:
    """What one part says of it."""

    whole: _Sum
    number: int

    def set(self, value: float) -> None:
        self.whole.set(self.number, value)


# What each partition's roles say for themselves; the process says the sum, of a lag the greatest.
_SUMMED = ("in_hand", "bridge_buffer_bytes", "bridge_in_step", "bridge_leader", "scheduler_leader", "dispatcher_leader")
_GREATEST = ("projection_lag",)


class Telemetry:
    """The process's metrics, in a registry of its own so that tests can have several.

    Attributes:
        conditions: what its loops have met.
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}
        self.conditions = Conditions()
        self.registry = CollectorRegistry()
        r = self.registry
        self.events = Counter(
            "redis_agent_events",
            "Stream entries by what became of them: applied, dead_letter, stale (another worker's by now), deleted "
            "(gone from the stream before they were applied), unconfirmed (applied, but the server was replaced or "
            "restarted before that was durable: what it lost is applied again).",
            ["result"],
            registry=r,
        )
        self.batch_seconds = Histogram(
            "redis_agent_batch_seconds",
            "Time that the server takes to apply one batch, as the worker sees it.",
            buckets=_LATENCY_BUCKETS,
            registry=r,
        )
        self.durable_seconds = Histogram(
            "redis_agent_durable_seconds",
            "Time until what was applied or written was as durable as REDIS_AGENT_DURABILITY asks for.",
            buckets=_LATENCY_BUCKETS,
            registry=r,
        )
        self.durability_unreached = Counter(
            "redis_agent_durability_unreached",
            "Waits that ended without the durability asked for; what was waited for is waited for again.",
            registry=r,
        )
        self.event_latency = BulkHistogram(
            "redis_agent_event_latency_seconds",
            "From the bridge's receipt of an event until it was applied.",
            registry=r,
        )
        self.alert_latency = Histogram(
            "redis_agent_alert_latency_seconds",
            "From the bridge's receipt of an event until its alert was delivered.",
            buckets=_LATENCY_BUCKETS,
            registry=r,
        )
        self.alerts = Counter(
            "redis_agent_alerts",
            "Alerts by outcome: sent, cooldown (held back), silenced, undelivered (nobody listened), "
            "superseded (a newer summary came before anybody listened).",
            ["type", "severity", "outcome"],
            registry=r,
        )
        self.dead_letters = Counter(
            "redis_agent_dead_letters",
            "Entries sent to the dead letters; those that an operator sent there are counted by the leading scheduler.",
            ["reason"],
            registry=r,
        )
        self.names_refused = Counter(
            "redis_agent_names_refused",
            "Metrics not kept because their experiment had its full number of names, once a batch.",
            registry=r,
        )
        self.windows_unwritten = Counter(
            "redis_agent_windows_unwritten",
            "Windows that could not take what they should, because somebody else wrote to their keys.",
            registry=r,
        )
        self.definition_errors = Counter(
            "redis_agent_definition_errors",
            "Experiment definitions found that could not be understood fully.",
            registry=r,
        )
        self.reclaimed = Counter("redis_agent_reclaimed", "Entries taken over from other consumers.", registry=r)
        self.in_hand: Level = Gauge(
            "redis_agent_in_hand_bytes", "Events read by this worker and not applied yet.", registry=r
        )
        self.name_shared = Gauge(
            "redis_agent_consumer_name_shared", "1 while another live process has this one's name.", registry=r
        )
        self.stream_dropped = Counter(
            "redis_agent_stream_dropped",
            "Entries removed from the stream past its hard limit, read or not.",
            registry=r,
        )
        self.stream_dropped_unread = Counter(
            "redis_agent_stream_dropped_unread",
            "Those among them that some consumer group had not read and acked.",
            registry=r,
        )
        self.stream_lost = Counter(
            "redis_agent_stream_lost",
            "Events that were deleted with the whole stream before they were applied.",
            registry=r,
        )
        self.alerts_lost = Counter(
            "redis_agent_alerts_lost",
            "Alerts that were deleted with the whole outbox before they were delivered.",
            registry=r,
        )
        self.bridge_received = Counter("redis_agent_bridge_received", "Events received from the channel.", registry=r)
        self.bridge_written = Counter("redis_agent_bridge_written", "Events written to the stream.", registry=r)
        self.bridge_dropped = Counter(
            "redis_agent_bridge_dropped",
            "Events dropped because they could not be written for too long.",
            registry=r,
        )
        self.bridge_buffer_bytes: Level = Gauge(
            "redis_agent_bridge_buffer_bytes", "Events received but not yet written.", registry=r
        )
        self.bridge_in_step: Level = Gauge(
            "redis_agent_bridge_in_step",
            "1 where this bridge could take over at the next event, or leads; with partitions, in how many.",
            registry=r,
        )
        self.bridge_resyncs = Counter(
            "redis_agent_bridge_resyncs",
            "Times this bridge found itself out of step and waited for the leader's next mark.",
            registry=r,
        )
        self.bridge_forgotten = Counter(
            "redis_agent_bridge_forgotten",
            "Events that the server had confirmed and later did not know any more.",
            registry=r,
        )
        self.bridge_gaps = Counter("redis_agent_bridge_gaps", "Times in which events may have been missed.", registry=r)
        self.bridge_leader: Level = Gauge(
            "redis_agent_bridge_leader",
            "1 where this process writes the stream; with partitions, of how many.",
            registry=r,
        )
        self.scheduler_leader: Level = Gauge(
            "redis_agent_scheduler_leader",
            "1 where this process runs the schedule; with partitions, of how many.",
            registry=r,
        )
        self.dispatcher_leader: Level = Gauge(
            "redis_agent_dispatcher_leader",
            "1 where this process delivers the alerts; with partitions, of how many.",
            registry=r,
        )
        self.alerts_waiting = Gauge(
            "redis_agent_alerts_waiting",
            "Alerts of the outbox that nobody has received yet, where this process is a dispatcher; NaN in others, and "
            "while it is unknown.",
            registry=r,
        )
        self.oldest_alert = Gauge(
            "redis_agent_oldest_alert_seconds",
            "Age of the oldest of these alerts; NaN as for redis_agent_alerts_waiting.",
            registry=r,
        )
        self.examined_until = Gauge(
            "redis_agent_anomalies_examined_timestamp_seconds",
            "End of the last window that was examined in every experiment, where this process runs the schedule.",
            registry=r,
        )
        self.llm_requests = Counter(
            "redis_agent_llm_requests",
            "Questions for the language model by what came of them: ok, cached (the answer was known), or why there "
            "was no answer.",
            ["outcome"],
            registry=r,
        )
        self.llm_calls = Counter(
            "redis_agent_llm_calls", "Calls of the language model, which the budget counts.", registry=r
        )
        self.llm_tokens = Counter(
            "redis_agent_llm_tokens", "Tokens of the language model: input, output, thinking.", ["kind"], registry=r
        )
        self.analyses = Counter(
            "redis_agent_analyses",
            "Analyses of alerts and wordings of summaries, by who made them: gemini or template.",
            ["kind", "source"],
            registry=r,
        )
        self.redis_errors = Counter(
            "redis_agent_redis_errors", "Errors of Redis and the network.", ["kind"], registry=r
        )
        self.stream_lag = Gauge(
            "redis_agent_stream_lag",
            "Entries the group has not read yet; NaN while it is unknown.",
            registry=r,
        )
        self.stream_lag_known = Gauge("redis_agent_stream_lag_known", "1 while the lag is known.", registry=r)
        self.stream_length = Gauge("redis_agent_stream_length", "Entries in the stream of events.", registry=r)
        self.pending_entries = Gauge("redis_agent_pending_entries", "Entries read but not acked.", registry=r)
        self.oldest_pending = Gauge(
            "redis_agent_oldest_pending_seconds", "Age of the oldest pending entry.", registry=r
        )
        self.oldest_unread = Gauge("redis_agent_oldest_unread_seconds", "Age of the oldest unread entry.", registry=r)
        self.redis_up = Gauge("redis_agent_redis_up", "1 when Redis answered the last scrape.", registry=r)
        self._of_partitions(r)

    def _of_partitions(self, r: CollectorRegistry) -> None:
        self.partitions = Gauge(
            "redis_agent_partitions",
            "How many partitions there are, REDIS_AGENT_PARTITIONS; as many bridges, dispatchers and schedulers lead.",
            registry=r,
        )
        self.projected = Counter(
            "redis_agent_projected",
            "Copies of experiments' aggregates and lists that were brought up to date, where there are partitions.",
            registry=r,
        )
        self.projection_lag: Level = Gauge(
            "redis_agent_projection_lag_seconds",
            "How long the oldest change of an experiment is known that is not copied to the names that others read; 0 "
            "without partitions.",
            registry=r,
        )
        self.bridge_links_renewed = Counter(
            "redis_agent_bridge_links_renewed",
            "In a cluster: links of its bus to the node that bridges listen to that were made anew; what was published "
            "on the other node a moment before may be missed.",
            registry=r,
        )

    def apart(self) -> "Telemetry":
        """The same metrics for one of several partitions: what its roles set goes into what all of them say."""
        part = copy.copy(self)
        for name in (*_SUMMED, *_GREATEST):
            whole = self._sums.setdefault(name, _Sum(getattr(self, name), max if name in _GREATEST else sum))
            setattr(part, name, whole.addend())
        return part

    def exported(self) -> list[Exported]:
        """Every metric as a scrape names it, in the order of this class."""
        found = []
        for collector in vars(self).values():
            if isinstance(collector, MetricWrapperBase | BulkHistogram):
                for family in collector.describe():
                    # The library shows a metric's labels nowhere else while it has no child.
                    labels = tuple(getattr(collector, "_labelnames", ()))
                    name = f"{family.name}_total" if family.type == "counter" else family.name
                    found.append(Exported(name, family.type, labels, family.documentation))
        return found
