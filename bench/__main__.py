"""`python -m bench [--quick | --full] [--only SECTION] [--json PATH]`: one run against one fresh private server."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import redis

from bench import crews, growth, latency, page, pubsub, rates
from bench.machine import describe
from bench.peers import harness
from bench.rates import Loop
from bench.report import as_markdown
from bench.run import Compared, Run
from bench.workload import Workload
from redis_agent.embedded import EmbeddedServer

# Rewriting the append-only file takes a core for a while, at moments that nobody chose.
_SERVER = {"auto-aof-rewrite-percentage": "0"}
# More entries than any stream has: all of it.
_ALL = 1_000_000_000
_SLOW = 600


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured.

    Attributes:
        sections: those of a run that is not told otherwise.
        events: in the main workload.
        rounds: of it; one or two less of the others.
        peers: whether they are measured beside the worker.
        latencies: events a second, of which `timed` have a clock.
        sizes: bytes of an event that the bridge is tried with, `bridge_seconds` a step.
    """

    sections: tuple[str, ...]
    events: int
    rounds: int
    peers: bool
    latencies: tuple[int, ...]
    samples: int
    timed: int
    sizes: tuple[int, ...]
    bridge_seconds: float
    backlog: tuple[int, ...] = growth.BACKLOG


QUICK = Extent(
    sections=("main", "latency"),
    events=25_000,
    rounds=2,
    peers=False,
    latencies=(50,),
    samples=100,
    timed=50,
    sizes=(300,),
    bridge_seconds=1.0,
)
SHORT = Extent(
    sections=("main", "workloads", "latency", "bridge"),
    events=80_000,
    rounds=5,
    peers=False,
    latencies=(50,),
    samples=400,
    timed=50,
    sizes=(300,),
    bridge_seconds=1.0,
)
FULL = Extent(
    sections=("main", "workloads", "processes", "growth", "latency", "bridge"),
    events=160_000,
    rounds=5,
    peers=True,
    latencies=(100, 1_000, 10_000),
    samples=1_000,
    timed=25,
    sizes=(100, 300, 2_000, 16_000),
    bridge_seconds=3.0,
    backlog=growth.LONG_BACKLOG,
)


class Bench:
    """Measures section by section, each into its part of the run."""

    def __init__(self, server: EmbeddedServer, client: redis.Redis, extent: Extent, rounds: int | None) -> None:
        self._client = client
        self._url = server.url
        self._extent = extent
        self._rounds = rounds or extent.rounds
        self._fewer = max(2, self._rounds - 2)
        self.run = Run(describe(server.binary))

    def measure(self, sections: Sequence[str], save: Callable[[Run], None]) -> None:
        """The sections, one after the other; what there is so far is saved after each."""
        by_name: dict[str, Callable[[], None]] = {
            "main": self._main,
            "workloads": self._workloads,
            "processes": self._processes,
            "growth": self._growth,
            "latency": self._latency,
            "bridge": self._bridge,
        }
        begin = time.monotonic()
        for name in sections:
            print(f"{time.monotonic() - begin:5.0f} s: {name}", file=sys.stderr, flush=True)
            by_name[name]()
            self.run.seconds = time.monotonic() - begin
            save(self.run)

    def _main(self) -> None:
        loops = [*map(_whole, ("api", "api_large", "bare", "bare_large", "by_hand", "worker", "no_windows"))]
        loops += [Loop("naive", _SLOW), Loop("naive_full", _SLOW)]
        if self._extent.peers:
            loops += harness.peers()
            self.run.machine["peers"] = harness.versions()
        self._compare(Workload("main", self._extent.events, 20), loops, self._rounds)

    def _workloads(self) -> None:
        events = self._extent.events // 2
        loops = [*map(_whole, ("api", "bare", "worker", "no_windows"))]
        for workload in (
            Workload("one", events, 1),
            Workload("many", events, 500),
            Workload("judged", events, 20, criteria=4),
        ):
            self._compare(workload, loops, self._fewer)

    def _compare(self, workload: Workload, loops: list[Loop], rounds: int) -> None:
        found = rates.measure(self._client, self._url, workload, loops, rounds)
        self.run.compared[workload.name] = Compared(workload, found)

    def _processes(self) -> None:
        workload = Workload("processes", 2 * self._extent.events, 20)
        self.run.crews = crews.measure(self._client, self._url, workload, (1, 2, 4), self._fewer)

    def _growth(self) -> None:
        backlog = self._extent.backlog
        self.run.growth += growth.Growth(self._client, self._url, backlog=backlog, rounds=self._fewer).points()

    def _latency(self) -> None:
        extent = self._extent
        for per_second in extent.latencies:
            timed = min(extent.timed, per_second)
            # Nobody is judged where no agent runs: more samples take less time.
            alone = latency.alone(
                self._client, self._url, samples=extent.samples, timed=min(100, per_second), per_second=per_second
            )
            ways = latency.measure(self._client, self._url, samples=extent.samples, timed=timed, per_second=per_second)
            self.run.latency += [alone, *ways.values()]

    def _bridge(self) -> None:
        extent = self._extent
        for step in pubsub.measure(self._url, self._client, sizes=extent.sizes, seconds=extent.bridge_seconds, long=0):
            self.run.bridge.append(step)


def _whole(name: str) -> Loop:
    return Loop(name, _ALL)


def main() -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    extents = parser.add_mutually_exclusive_group()
    extents.add_argument("--quick", action="store_true", help="half a minute: fewer events and sections")
    extents.add_argument("--full", action="store_true", help="everything, with the peers: about twenty minutes")
    parser.add_argument(
        "--only", action="append", choices=FULL.sections, metavar="SECTION", help=", ".join(FULL.sections)
    )
    parser.add_argument("--rounds", type=int, default=None, help="rounds of each loop (5; 2 with --quick)")
    parser.add_argument("--backlog", type=int, default=None, metavar="N", help="the longest backlog (1e7 with --full)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures, with every round, as JSON")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write docs/benchmarks.json and what is made of it, unless only a part is measured; needs matplotlib",
    )
    options = parser.parse_args()
    extent = QUICK if options.quick else FULL if options.full else SHORT
    if options.backlog is not None:
        extent = replace(extent, backlog=tuple(n for n in growth.LONG_BACKLOG if n <= options.backlog))
    publish = options.publish and not options.only
    written = [path for path in (options.json, page.DOCS / "benchmarks.json" if publish else None) if path is not None]

    def save(run: Run) -> None:
        for path in written:
            path.write_text(json.dumps(run.as_json(), indent=1) + "\n", "utf-8")

    with EmbeddedServer(config=_SERVER) as server, redis.Redis.from_url(server.url, protocol=2) as client:
        bench = Bench(server, client, extent, options.rounds)
        bench.measure(options.only or extent.sections, save)
    print(as_markdown(bench.run))
    if publish:
        page.write(bench.run, page.DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
