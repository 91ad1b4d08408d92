"""`python -m bench [--quick] [--json PATH] [--rounds N]`: one run against one fresh private server."""

import argparse
import json
import sys
import time
from pathlib import Path

import redis

from bench import latency, mirror, rates
from bench.machine import describe
from bench.report import Run, as_json, as_text
from bench.workload import Workload
from redis_agent.embedded import EmbeddedServer

# More entries than any stream here has: all of it.
_ALL = 1_000_000_000


def main() -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under half a minute: fewer events, one workload")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures as JSON")
    parser.add_argument("--rounds", type=int, default=None, help="rounds of each loop (5; 2 with --quick)")
    options = parser.parse_args()
    with EmbeddedServer() as server, redis.Redis.from_url(server.url, protocol=2) as client:
        run = measure(server, client, quick=options.quick, rounds=options.rounds)
    print(as_text(run))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(run), indent=2) + "\n", "utf-8")
    return 0


def measure(server: EmbeddedServer, client: redis.Redis, *, quick: bool, rounds: int | None) -> Run:
    """Everything, one after the other."""
    begin = time.monotonic()
    run = Run(describe(server.binary))
    events = 25_000 if quick else 80_000
    main_rounds = rounds or (2 if quick else 5)
    workloads = [Workload("main", events, 20)]
    if not quick:
        workloads += [
            Workload("one", events // 2, 1),
            Workload("many", events // 2, 500),
            Workload("judged", events // 2, 20, criteria=True),
        ]
    for workload in workloads:
        loops = [("api", _ALL), ("bare", _ALL), ("worker", _ALL), ("no_windows", _ALL)]
        if workload.name == "main":
            loops += [("naive", 600), ("naive_full", 600)]
        these = main_rounds if workload.name == "main" else max(1, main_rounds - 2)
        _say(f"{workload.name}: {these} rounds of {len(loops)} loops")
        run.rates.append((workload, rates.measure(client, server.url, workload, loops, these)))
    _say("latency")
    run.latency = latency.measure(client, server.url, samples=100 if quick else 400, per_second=50)
    _say("bridge")
    run.mirrored = mirror.measure(client, server.url, seconds=0.4 if quick else 1.0)
    run.seconds = time.monotonic() - begin
    return run


def _say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
