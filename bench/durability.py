"""`python -m bench.durability`: what REDIS_AGENT_DURABILITY costs, each level beside `memory` in the same minute.

Two servers: one that fsyncs each second, as most do, and has a replica; and one with `appendfsync always`. A worker
process works off a filled stream; then events are published one by one, and each raises an alert.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import redis

from bench import latency
from bench.machine import describe
from bench.processes import Agent
from bench.workload import Workload, fill, rewind
from redis_agent.embedded import EmbeddedServer
from redis_agent.store import keys

_WORKLOAD = Workload("main", 300_000, 20)
_ROUNDS = 3
_SAMPLES = 150


@dataclass(frozen=True, slots=True)
class Case:
    """A level on a server."""

    name: str
    server: str
    level: str


CASES = (
    Case("memory, appendfsync everysec", "everysec", "memory"),
    Case("replica (WAIT 1), appendfsync everysec", "everysec", "replica"),
    Case("memory, appendfsync always", "always", "memory"),
    Case("disk (WAITAOF), appendfsync always", "always", "disk"),
)


def main() -> int:
    """Measure and print."""
    with ExitStack() as stack:
        servers = {
            kind: stack.enter_context(EmbeddedServer(config={"appendfsync": kind})) for kind in ("everysec", "always")
        }
        stack.enter_context(EmbeddedServer(config={"replicaof": f"127.0.0.1 {servers['everysec'].port}"}))
        clients = {
            kind: stack.enter_context(redis.Redis.from_url(server.url, protocol=2)) for kind, server in servers.items()
        }
        rates: dict[Case, list[float]] = {case: [] for case in CASES}
        for client in clients.values():
            fill(client, _WORKLOAD)
        for n in range(_ROUNDS):
            for case in CASES if n % 2 == 0 else reversed(CASES):
                print(f"round {n + 1}: {case.name}", file=sys.stderr, flush=True)
                rates[case].append(_rate(clients[case.server], servers[case.server].url, case))
        alerts = {}
        for case in CASES:
            print(f"latency: {case.name}", file=sys.stderr, flush=True)
            ways = latency.measure(
                clients[case.server], servers[case.server].url, samples=_SAMPLES, timed=50, **_settings(case)
            )
            alerts[case] = ways["alert"]
        machine = describe(servers["always"].binary)
    print(f"{machine['cores']} cores; {machine['server']}; medians of {_ROUNDS} rounds of {_WORKLOAD.events:,} events")
    print("\n".join(_table(rates, alerts)))
    return 0


def _settings(case: Case) -> dict[str, str]:
    return {"REDIS_AGENT_DURABILITY": case.level}


def _rate(client: redis.Redis, url: str, case: Case) -> float:
    """Events a second from the first that is applied until all are acked."""
    rewind(client)
    with Agent(url, "worker", **_settings(case)) as agent:
        agent.wait_until(lambda: client.exists(keys.FLOOR), "nothing is applied")
        begin, before = time.perf_counter(), _left(client)
        while left := _left(client):
            if time.perf_counter() - begin > 120:
                raise RuntimeError(f"{left} of {_WORKLOAD.events} entries are left after two minutes")
            time.sleep(0.005)
        return before / (time.perf_counter() - begin)


def _left(client: redis.Redis) -> int:
    (group,) = client.xinfo_groups(keys.STREAM)
    return int(group["pending"]) + int(group["lag"])


def _table(rates: dict[Case, list[float]], alerts: dict[Case, latency.Latency]) -> Iterator[str]:
    yield f"{'':40} {'events/s':>9} {'ratio':>6} {'alert p50':>10} {'p99 ms':>8}"
    memory = median(rates[CASES[0]])
    for case in CASES:
        rate, alert = median(rates[case]), alerts[case]
        yield f"{case.name:40} {rate:9,.0f} {rate / memory:6.2f} {alert.p50:10.2f} {alert.p99:8.2f}"


if __name__ == "__main__":
    sys.exit(main())
