"""`python -m bench.partitions [--json PATH]`: partitions in a cluster of one, two and three primaries, on this machine.

Events a second say little where all servers share the cores of one machine: what an event costs the servers together,
and how evenly it is spread over them, says more. Six partitions; the worker is `redis-agent run --roles worker` with
streams that are filled, the bridges hear what is published on one node as fast as it goes.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench.machine import busy_seconds, describe, process_seconds
from bench.meter import Meter, Services, least, wait_for
from bench.processes import Agent
from bench.workload import _FILL, _FILL_CHUNK, Workload, events
from redis_agent.config import Settings
from redis_agent.embedded import find_server_binary
from redis_agent.store import keys
from redis_agent.store.partitions import partition_of
from tests.cluster import Cluster

PARTITIONS = 6
_PRIMARIES = (1, 2, 3)
_EXPERIMENTS = 120
_EVENTS = 120_000
_PUBLISHED = 60_000
_AT_ONCE = 20
_ROUNDS = 4
# A look asks every partition, which costs the servers something, too.
_LOOK_SECONDS = 0.05
_NODE_TIMEOUT_MS = 15_000


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a running cluster: its keys' namespace, and a client of its primary."""

    namespace: str
    client: redis.Redis

    def fill(self, entries: Sequence[bytes]) -> None:
        """Write events to its stream as the bridge does."""
        at = str(int(time.time() * 1000)).encode()
        for n in range(0, len(entries), _FILL_CHUNK):
            pairs = [part for event in entries[n : n + _FILL_CHUNK] for part in (at, event)]
            self.client.eval(_FILL, 1, self.namespace + keys.STREAM, *pairs)

    def applied(self) -> int:
        """Entries of its stream that a worker has applied."""
        stream = self.namespace + keys.STREAM
        groups = self.client.xinfo_groups(stream) if self.client.exists(stream) else []
        if not groups:
            return 0
        return int(self.client.xlen(stream)) - int(groups[0]["lag"] or 0) - int(groups[0]["pending"])


class Site:
    """A cluster, and its partitions as the agent's processes find them."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self.ports = [node.port for node in cluster.nodes]
        self.settings = {"REDIS_AGENT_PARTITIONS": str(PARTITIONS), "REDIS_AGENT_CLUSTER_NODES": cluster.seeds}
        self.partitions = []
        for n in range(PARTITIONS):
            primary = cluster.primary_of(keys.namespace(n))
            client = stack.enter_context(redis.Redis(port=primary.port, protocol=2))
            self.partitions.append(Partition(keys.namespace(n), client))

    def agent(self, role: str) -> Agent:
        """A process of the agent with one role."""
        return Agent(self.cluster.nodes[0].url, role, **self.settings)

    def everywhere(self, name: str) -> bool:
        """Whether every partition has a key."""
        return all(partition.client.exists(partition.namespace + name) for partition in self.partitions)


def main() -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.partitions", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures as JSON")
    options = parser.parse_args()
    figures = {"machine": describe(find_server_binary()), **asyncio.run(measure())}
    print("\n".join(table(figures)))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0


async def measure() -> dict[str, Any]:
    """Workers and bridges, for each number of primaries."""
    runs = []
    for primaries in _PRIMARIES:
        print(f"measuring {primaries} primaries ...", file=sys.stderr, flush=True)
        async with Cluster(primaries=primaries, replicas=0, node_timeout_ms=_NODE_TIMEOUT_MS) as cluster:
            with ExitStack() as stack:
                site = Site(cluster, stack)
                worked = []
                for _ in range(_ROUNDS):
                    await cluster.wipe()
                    worked.append(_worked(site))
                best = min(worked, key=lambda run: sum(run["servers_us"]))
                runs.append({"primaries": primaries, **best, "bridges": await _bridged(site)})
    return {"partitions": PARTITIONS, "runs": runs}


def _worked(site: Site) -> dict[str, Any]:
    """Filled streams, worked off by one worker."""
    shares: list[list[bytes]] = [[] for _ in site.partitions]
    for event in events(Workload("partitions", _EVENTS, _EXPERIMENTS)):
        shares[partition_of(json.loads(event)["experiment_id"], PARTITIONS)].append(event)
    for partition, share in zip(site.partitions, shares, strict=True):
        partition.fill(share)

    def applied() -> int:
        return sum(partition.applied() for partition in site.partitions)

    with Meter(site.ports) as meter, site.agent("worker") as worker:
        worker.wait_until(applied, "nothing is applied")
        begin, first, cpu, busy = time.perf_counter(), applied(), process_seconds(worker.pid), busy_seconds()
        while applied() < _EVENTS:
            if time.perf_counter() - begin > 60:
                raise RuntimeError(f"{applied()} of {_EVENTS} events are applied after a minute")
            time.sleep(_LOOK_SECONDS)
        seconds, spent = time.perf_counter() - begin, process_seconds(worker.pid) - cpu
        all_spent = None if busy is None else (busy_seconds() or busy) - busy
        meter.stop()
    servers = meter.per(_EVENTS)
    ours = spent + sum(meter.spent) * (1 - first / _EVENTS)
    return {
        "per_second": round((_EVENTS - first) / seconds),
        "servers_us": servers,
        "worker_us": round(spent / (_EVENTS - first) * 1e6, 2),
        "others_cores": None if all_spent is None else round(max(0.0, all_spent - ours) / seconds, 2),
    }


async def _bridged(site: Site) -> list[dict[str, Any]]:
    """One and two bridges that hear everything, and divide it: CPU of both together, and of the servers."""
    found = []
    sample = list(events(Workload("publish", 500, _EXPERIMENTS)))
    for count in (1, 2):
        await site.cluster.wipe()
        with ExitStack() as stack:
            agents = [stack.enter_context(site.agent("bridge")) for _ in range(count)]
            agents[0].wait_until(lambda: site.everywhere(keys.LEASE_BRIDGE), "no leaders")
            agents[-1].wait_until(lambda count=count: _in_step(site) >= count, "not in step")
            services = Services(site.ports[0], b"PUBLISH", Settings().metrics_channel, sample, at_once=_AT_ONCE)
            stack.enter_context(services)
            services.publish(1_000)
            processes: list[float] = []

            def round_trip(
                services: Services = services, agents: Sequence[Agent] = agents, spent: list[float] = processes
            ) -> None:
                before = sum(process_seconds(agent.pid) for agent in agents)
                services.publish(_PUBLISHED)
                wait_for(lambda: _written(site) >= services.sent, "the streams")
                spent.append((sum(process_seconds(agent.pid) for agent in agents) - before) / _PUBLISHED * 1e6)

            servers = least(site.ports, round_trip, _PUBLISHED)
            found.append({"bridges": count, "servers_us": servers, "bridges_us": round(min(processes), 2)})
    return found


def _in_step(site: Site) -> int:
    return min(int(p.client.zcard(p.namespace + keys.BRIDGE_READY)) for p in site.partitions)


def _written(site: Site) -> int:
    return sum(int(p.client.xlen(p.namespace + keys.STREAM)) for p in site.partitions)


def table(figures: dict[str, Any]) -> list[str]:
    """The figures, as a table in Markdown."""
    heads = ("primaries", "events/s, one worker", "servers", "the busiest", "worker", "others, cores")
    lines = [f"| {' | '.join((*heads, 'one bridge', 'two together'))} |", "|---|---|---|---|---|---|---|---|"]
    for run in figures["runs"]:
        servers = run["servers_us"]
        one, two = (f"{row['bridges_us']:.1f}" for row in run["bridges"])
        lines.append(
            f"| {run['primaries']} | {run['per_second']:,} | {sum(servers):.1f} | {max(servers):.1f} "
            f"| {run['worker_us']:.1f} | {run['others_cores']} | {one} | {two} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
