"""What was hoped for, and whether a run came up to it."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.growth import Point
from bench.latency import Latency
from bench.run import Run

WORKER_TO_BARE = 0.7
SERVER_CPU_TO_BARE = 2.0
WORKER_TO_NAIVE = 20.0
WORKER_TO_BATCH = 5.0
WORKER_TO_SINGLE = 30.0
BRIDGE_TO_RAW = 0.5
TWO_PROCESSES = 1.6
FLAT = 1.2
# An alert may take so many times a bare message, and so many milliseconds more.
ALERT_TIMES = 3.0
ALERT_MILLISECONDS = 5.0
_ALERT_PER_SECOND = 1_000


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio and what it should be: at least, or at most; None where it is shown for comparison alone."""

    name: str
    ratio: float
    goal: float | None = None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    @property
    def wanted(self) -> str:
        return "" if self.goal is None else f"{'>=' if self.at_least else '<='} {self.goal:.3g}"

    @property
    def verdict(self) -> str:
        return {True: "met", False: "NOT MET", None: ""}[self.met]


def goals(run: Run) -> list[Goal]:
    """Those that the run measured something for."""
    return [*_rates(run), *_processes(run), *_growth(run.growth), *_latency(run.latency), *_bridge(run)]


def _rates(run: Run) -> Iterator[Goal]:
    main = run.compared.get("main")
    if main is None:
        return
    rates = {rate.loop: rate for rate in main.rates}
    worker = rates["worker"]

    def faster(*than: str) -> float:
        return worker.per_second / max(rates[name].per_second for name in than)

    # A larger batch may make a bare loop faster or slower: the goals are held against the better.
    yield Goal("worker / bare loop, events a second", faster("api", "api_large"), WORKER_TO_BARE)
    yield Goal("worker / bare loop with raw replies", faster("bare", "bare_large"), WORKER_TO_BARE)
    server = worker.server_us / min(rates[name].server_us for name in ("api", "api_large"))
    yield Goal("server CPU per event, worker / bare loop", server, SERVER_CPU_TO_BARE, at_least=False)
    yield Goal("worker / a round trip per write", faster("naive_full"), WORKER_TO_NAIVE)
    yield Goal("worker / the same sums by hand, no guarantees", faster("by_hand"))
    if "faststream_batch" in rates:
        yield Goal("worker / FastStream, batches", faster("faststream_batch"), WORKER_TO_BATCH)
        yield Goal("worker / FastStream, batches summed by hand", faster("faststream_folded"))
        yield Goal("worker / FastStream, one at a time", faster("faststream_single"), WORKER_TO_SINGLE)
        for name, called in (("taskiq", "taskiq-redis"), ("streaq", "streaQ"), ("docket", "Docket")):
            yield Goal(f"worker / {called}", faster(name))


def _processes(run: Run) -> Iterator[Goal]:
    rates = {(crew.rate.loop, crew.processes): crew.rate.per_second for crew in run.crews}
    if not rates:
        return
    bare = rates["api", 2] / rates["api", 1]
    # Where two bare loops gain less, nobody can ask for more.
    wanted = min(TWO_PROCESSES, bare)
    yield Goal("two workers / one", rates["worker", 2] / rates["worker", 1], wanted)
    yield Goal("two bare loops / one", bare)


def _growth(points: list[Point]) -> Iterator[Goal]:
    for kind, called in (
        ("experiments", "events spread over 1 to {:,} experiments"),
        ("defined", "20 to {:,} experiments defined, events of 20"),
        ("criteria", "1 to {:,} criteria an experiment"),
    ):
        these = [point for point in points if point.kind == kind]
        if these:
            costs = [point.worker.cost_us for point in these]
            name = f"highest / lowest CPU per event: {called.format(max(p.size for p in these))}"
            yield Goal(name, max(costs) / min(costs), FLAT, at_least=False)


def _latency(latencies: list[Latency]) -> Iterator[Goal]:
    these = {one.way: one for one in latencies if one.per_second == _ALERT_PER_SECOND}
    if these.keys() >= {"alert", "alone"}:
        allowed = ALERT_TIMES * these["alone"].p99 + ALERT_MILLISECONDS
        name = f"p99 publish to alert at 1,000/s / {allowed:.1f} ms (3 x a bare message + 5 ms)"
        yield Goal(name, these["alert"].p99 / allowed, 1.0, at_least=False)


def _bridge(run: Run) -> Iterator[Goal]:
    for size in sorted({step.size for step in run.bridge}):
        kept = {step.reader: step.per_second for step in reversed(run.bridge) if step.size == size and not step.problem}
        if "raw" in kept:
            yield Goal(f"bridge / raw reader, {size:,} B", kept.get("bridge", 0) / kept["raw"], BRIDGE_TO_RAW)
        if "listen" in kept:
            yield Goal(f"bridge / listen(), {size:,} B", kept.get("bridge", 0) / kept["listen"])
