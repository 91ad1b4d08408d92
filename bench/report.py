"""What a run found, for people and for programs. The ratios come first: they travel between machines."""

from dataclasses import dataclass, field
from typing import Any

from bench.latency import Latency
from bench.mirror import Mirrored
from bench.rates import QUIET_CORES, Rate
from bench.workload import Workload

WORKER_TO_BARE = 0.5
WORKER_TO_NAIVE = 20.0
SERVER_CPU_TO_BARE = 3.0

LOOPS = {
    "api": "bare loop (redis-py)",
    "bare": "bare loop, raw replies",
    "worker": "redis-agent worker",
    "no_windows": "the same without windows",
    "naive": "a round trip per write, fewest",
    "naive_full": "a round trip per write, same fields",
}


@dataclass(slots=True)
class Run:
    """Everything that one run measured."""

    machine: dict[str, Any]
    rates: list[tuple[Workload, list[Rate]]] = field(default_factory=list)
    latency: list[Latency] = field(default_factory=list)
    mirrored: list[Mirrored] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio and what it should be: at least, or at most."""

    name: str
    ratio: float
    goal: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{self.name:58} {self.ratio:8.2f}   goal {sign} {self.goal:<5g} {'met' if self.met else 'NOT MET'}"


def goals(run: Run) -> list[Goal]:
    """The goals, on the first workload."""
    rates = {rate.loop: rate for rate in run.rates[0][1]}
    worker, bare, naive = rates["worker"], rates["api"], rates["naive_full"]
    return [
        Goal("worker / bare loop, events a second", worker.per_second / bare.per_second, WORKER_TO_BARE, at_least=True),
        Goal(
            "worker / bare loop with raw replies, events a second",
            worker.per_second / rates["bare"].per_second,
            WORKER_TO_BARE,
            at_least=True,
        ),
        Goal("worker / a round trip per write", worker.per_second / naive.per_second, WORKER_TO_NAIVE, at_least=True),
        Goal(
            "server CPU per event, worker / bare loop",
            worker.server_us / bare.server_us,
            SERVER_CPU_TO_BARE,
            at_least=False,
        ),
    ]


def as_text(run: Run) -> str:
    """The table."""
    machine = run.machine
    lines = [
        f"{machine['cores']} cores, {machine['cpu']}; {machine['system']}",
        f"Python {machine['python']}, redis-py {machine['redis']}, hiredis {machine['hiredis']}, {machine['server']}",
    ]
    if any(rate.others >= QUIET_CORES for _, rates in run.rates for rate in rates):
        lines.append("! others used this machine meanwhile (column `others`, in cores): those rates are too low")
    lines += ["", *map(str, goals(run)), ""]
    for workload, rates in run.rates:
        lines += _rates(workload, rates)
    lines += _latency(run.latency)
    lines += [f"{m.reader:8} mirrors {m.per_second:>8,} PUBLISH a second without loss; {m.limit}" for m in run.mirrored]
    lines += ["", f"took {run.seconds:.0f} s"]
    return "\n".join(lines)


def _rates(workload: Workload, rates: list[Rate]) -> list[str]:
    judged = ", all judged" if workload.criteria else ""
    head = f"{'/ bare':>7} {'/ raw':>6} {'events/s':>9} {'server us':>10} {'/ bare':>7} {'client us':>10} {'others':>6}"
    lines = [
        f"{workload.events:,} events, {workload.experiments} experiment{'s' * (workload.experiments != 1)}{judged}",
        f"  {'':36} {head}",
    ]
    by_loop = {rate.loop: rate for rate in rates}
    bare, raw = by_loop["api"], by_loop["bare"]
    lines += [
        f"  {LOOPS[rate.loop]:36} {rate.per_second / bare.per_second:7.3f} {rate.per_second / raw.per_second:6.3f} "
        f"{rate.per_second:9,.0f} {rate.server_us:10.2f} {rate.server_us / bare.server_us:7.2f} "
        f"{rate.client_us:10.2f} {rate.others:6.1f}"
        for rate in rates
    ]
    return [*lines, ""]


def _latency(latencies: list[Latency]) -> list[str]:
    names = {"alert": "PUBLISH to alert", "bare": "PUBLISH to subscriber, bare"}
    lines = [f"  {'':36} {'p50 ms':>8} {'p99 ms':>8} {'longest':>8} {'samples':>8} {'lost':>5}"]
    lines += [
        f"  {names[one.way]:36} {one.p50:8.2f} {one.p99:8.2f} {one.longest:8.2f} {one.samples:8d} {one.lost:5d}"
        for one in latencies
    ]
    return [*lines, ""]


def as_json(run: Run) -> dict[str, Any]:
    """The same for programs."""
    return {
        "machine": run.machine,
        "goals": [{"name": g.name, "ratio": g.ratio, "goal": g.goal, "met": g.met} for g in goals(run)],
        "rates": [
            {
                "workload": w.name,
                "events": w.events,
                "experiments": w.experiments,
                "criteria": w.criteria,
                "loops": [rate.as_json() for rate in rates],
            }
            for w, rates in run.rates
        ],
        "latency_ms": [one.as_json() for one in run.latency],
        "bridge": [one.as_json() for one in run.mirrored],
        "seconds": run.seconds,
    }
