"""`python -m bench.scaling [--events 1000000]`: what a rate of events takes, past one server.

A utilisation model. Every process here is one thread that matters (a server's main thread, a Python process), so a plan
holds when none of them needs more than a given share of a core. It adds up what one event costs each of them, as
`bench.costs` measured it (`docs/scaling.json`), and looks for the fewest nodes and processes. It knows nothing of
queues: the share that is left free is what keeps them short.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.partitions import table as partitions_table

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "scaling.json"
PAGE = FIGURES.with_suffix(".md")
BEGIN, END = "<!-- python -m bench.scaling --write -->", "<!-- end -->"

HOURS_A_MONTH = 730
# Slots are moved by whole partitions: with four on a primary there is something to move.
PARTITIONS_A_PRIMARY = 4
# Beyond a few hundred nodes a cluster's own gossip is a matter of its own.
MOST_PRIMARIES = 200
FURTHEST = 100_000_000
RATES = (10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
WAYS = ("one server", "cells", "cluster, PUBLISH", "cluster, SPUBLISH")


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of CPU that one event costs, by who spends them; bytes where it says so.

    Attributes:
        publish: the server that a service publishes to.
        hear: a server, for each subscriber.
        publish_to_replica: a replica of a server without a cluster, which hands on what is published.
        bus_send: a cluster's node that a service publishes to, for each other node.
        bus_receive: each other node of the cluster.
        publish_sharded: as `publish`, for SPUBLISH in a shard of two.
        receive_sharded: the shard's other node.
        write: the server, for the bridge's writing to the stream.
        write_at_replica: its replica, for the same.
        bridge_hear: a bridge's process, leading or following.
        bridge_write: the leader's, in addition.
        apply: the server, for reading and the gate.
        apply_at_replica: its replica, for the same.
        worker: the worker's process.
        route: a bridge's process, for telling the partition of what it hears, where the channel does not say it.
        partition_server, partition_worker: what partitions add for the servers and the worker: smaller batches, and the
            copies for those who read the contract's keys.
        publisher: the publishers of the measurement of the whole way, which send many messages at once.
        publish_at_once, publish_at_once_to_replica: as `publish` and `publish_to_replica`, for those.
        bus_bytes, server_bytes, entry_bytes, item_bytes: one message on the bus; into and out of a server; one entry
            of the stream; one event of `metrics:{id}`.
        bridge_megabytes, worker_megabytes: resident memory of a process.
    """

    publish: float
    hear: float
    publish_to_replica: float
    bus_send: float
    bus_receive: float
    publish_sharded: float
    receive_sharded: float
    write: float
    write_at_replica: float
    bridge_hear: float
    bridge_write: float
    apply: float
    apply_at_replica: float
    worker: float
    route: float
    partition_server: float
    partition_worker: float
    publisher: float
    publish_at_once: float
    publish_at_once_to_replica: float
    bus_bytes: float
    server_bytes: float
    entry_bytes: float
    item_bytes: float
    bridge_megabytes: float
    worker_megabytes: float

    @classmethod
    def measured(cls, figures: dict[str, Any], *, experiments: int) -> "Costs":
        """From what `bench.costs` wrote; with so many experiments in one stream, of those that were measured."""
        alone, *clusters = figures["publish"]
        heard = figures["subscribers"]
        one, two = figures["bridges"]
        worker = next(row for row in figures["worker"] if row["experiments"] == experiments)
        hear = max(0.0, (heard[-1]["server_us"] - heard[0]["server_us"]) / heard[-1]["subscribers"])
        at_once = figures["publish_at_once"]
        whole = figures["whole"]
        cluster, few = figures["partitions"]["runs"][-1], figures["worker"][0]
        alone_routed, both_routed = (row["bridges_us"] for row in cluster["bridges"])
        return cls(
            publish=alone["publisher_us"],
            hear=hear,
            publish_to_replica=figures["replicated_publish"]["replica_us"],
            bus_send=(clusters[-1]["publisher_us"] - alone["publisher_us"]) / (clusters[-1]["nodes"] - 1),
            bus_receive=clusters[-1]["other_us"],
            publish_sharded=figures["spublish"]["publisher_us"],
            receive_sharded=figures["spublish"]["replica_us"],
            write=max(0.0, one["server_us"] - at_once["server_us"] - hear),
            write_at_replica=max(0.0, one["replica_us"] - at_once["replica_us"]),
            bridge_hear=two["follower_us"],
            bridge_write=max(0.0, one["leader_us"] - two["follower_us"]),
            apply=worker["server_us"],
            apply_at_replica=worker["replica_us"],
            worker=worker["worker_us"],
            route=max(0.0, both_routed - alone_routed - two["follower_us"]),
            partition_server=max(0.0, sum(cluster["servers_us"]) - few["server_us"]),
            partition_worker=max(0.0, cluster["worker_us"] - few["worker_us"]),
            publisher=whole["publisher_us"],
            publish_at_once=at_once["server_us"],
            publish_at_once_to_replica=at_once["replica_us"],
            bus_bytes=clusters[-1]["bus_bytes"],
            server_bytes=sum(one["bytes"].values()) + sum(worker["bytes"].values()),
            entry_bytes=worker["stream_bytes"],
            item_bytes=worker["list_bytes"],
            bridge_megabytes=whole["bridge_megabytes"],
            worker_megabytes=whole["worker_megabytes"],
        )


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the plan takes for granted, and no measurement says.

    Attributes:
        busy: the share of a core that a process may use, by costs that were measured one by one: together they are half
            as much again (docs/scaling.md).
        replicas: of each primary.
        bridges: of each partition: one writes, the others follow.
        entries: kept in each partition's stream (`REDIS_AGENT_STREAM_MAX_LENGTH`).
        experiments: that are remembered, in all.
        items: kept in each `metrics:{id}` (`REDIS_AGENT_METRICS_LIST_LENGTH`).
        core_hour, gigabyte_hour: prices. Round numbers, no offer of anybody.
    """

    busy: float = 0.4
    replicas: int = 1
    bridges: int = 2
    entries: int = 1_000_000
    experiments: int = 10_000
    items: int = 10_000
    core_hour: float = 0.04
    gigabyte_hour: float = 0.005


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rate takes, one way.

    Attributes:
        way: one of `WAYS`.
        per_second: events.
        primaries: servers that events are written to.
        nodes: with their replicas.
        partitions: streams.
        bridges, workers: processes.
        memory: gigabytes of all nodes and processes.
        network: megabytes a second into and out of the busiest node.
        busiest: who is nearest to the limit, and how much of a core it uses.
    """

    way: str
    per_second: int
    primaries: int
    nodes: int
    partitions: int
    bridges: int
    workers: int
    memory: float
    network: float
    busiest: tuple[str, float]

    @property
    def cores(self) -> int:
        """One for each node and process."""
        return self.nodes + self.bridges + self.workers

    def a_month(self, assumed: Assumptions) -> float:
        """What it costs in a month, at the assumed prices."""
        return HOURS_A_MONTH * (self.cores * assumed.core_hour + self.memory * assumed.gigabyte_hour)


def plan(way: str, per_second: int, costs: Costs, assumed: Assumptions) -> Plan | None:
    """The fewest nodes and processes that keep everybody below the limit; None when no number of them does."""
    planners = dict(zip(WAYS, (_one_server, _cells, _broadcast, _sharded), strict=True))
    found = planners[way](per_second, costs, assumed)
    return found if found is not None and found.busiest[1] <= assumed.busy else None


def limit(way: str, costs: Costs, assumed: Assumptions) -> tuple[int, str]:
    """How far a way goes, events a second up to `FURTHEST`, and who is at the limit there."""
    good, bad = 1, FURTHEST
    if (furthest := plan(way, bad, costs, assumed)) is not None:
        return bad, furthest.busiest[0]
    while bad - good > max(1, good // 1000):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if plan(way, middle, costs, assumed) else (good, middle)
    end = plan(way, good, costs, assumed)
    return (good, end.busiest[0]) if end is not None else (0, "everybody")


def _one_server(per_second: int, costs: Costs, assumed: Assumptions) -> Plan:
    """One primary, its replicas, bridges of which one writes, and workers."""
    loads = {
        "server": per_second * (costs.publish + assumed.bridges * costs.hear + costs.write + costs.apply),
        "replica": per_second * (costs.publish_to_replica + costs.write_at_replica + costs.apply_at_replica),
        "bridge": per_second * (costs.bridge_hear + costs.bridge_write),
    }
    return _plan(
        "one server", per_second, costs, assumed, primaries=1, partitions=1, bridges=assumed.bridges, loads=loads,
        bytes_at_busiest=costs.server_bytes,
    )  # fmt: skip


def _cells(per_second: int, costs: Costs, assumed: Assumptions) -> Plan | None:
    """Several agents that know nothing of each other, each with a server and a share of the experiments."""
    cells = math.ceil(per_second / limit("one server", costs, assumed)[0])
    one = _one_server(math.ceil(per_second / cells), costs, assumed)
    return _plan(
        "cells", per_second, costs, assumed, primaries=cells, partitions=cells, bridges=cells * assumed.bridges,
        loads={one.busiest[0]: 1e6 * one.busiest[1]}, bytes_at_busiest=costs.server_bytes,
    )  # fmt: skip


def _broadcast(per_second: int, costs: Costs, assumed: Assumptions) -> Plan | None:
    """A cluster in which every node gets every message, and all bridges listen to one replica.

    Every bridge hears everything, whatever part of it it writes, and that replica says everything to each of them. To
    every primary come its own messages, which it sends to all nodes, and those of all others.
    """
    room = assumed.busy * 1e6
    hear = costs.bridge_hear + costs.route
    left = room - per_second * hear
    if left <= 0:
        return None
    bridges = max(assumed.bridges, math.ceil(per_second * costs.bridge_write / left))
    apply = costs.apply + costs.partition_server
    for primaries in range(2, MOST_PRIMARIES + 1):
        others = primaries * (1 + assumed.replicas) - 1
        own = per_second / primaries
        loads = {
            "primary": own * (costs.publish + others * costs.bus_send + costs.write + apply)
            + (per_second - own) * costs.bus_receive,
            "replica that the bridges listen to": per_second * (costs.bus_receive + bridges * costs.hear)
            + own * (costs.write_at_replica + costs.apply_at_replica),
            "bridge": per_second * (hear + costs.bridge_write / bridges),
        }
        if max(loads.values()) <= room:
            return _plan(
                "cluster, PUBLISH", per_second, costs, assumed, primaries=primaries,
                partitions=PARTITIONS_A_PRIMARY * primaries, bridges=bridges, loads=loads,
                bytes_at_busiest=costs.server_bytes + (primaries + others) * costs.bus_bytes,
            )  # fmt: skip
    return None


def _sharded(per_second: int, costs: Costs, assumed: Assumptions) -> Plan | None:
    """A cluster in which a message goes to its partition's shard alone, and bridges hear what they write or follow."""
    room = assumed.busy * 1e6
    apply = costs.apply + costs.partition_server
    primary = costs.publish_sharded + assumed.bridges * costs.hear + costs.write + apply
    replica = costs.receive_sharded + costs.write_at_replica + costs.apply_at_replica
    primaries = max(2, math.ceil(per_second * max(primary, replica) / room))
    if primaries > MOST_PRIMARIES:
        return None
    all_bridges = per_second * (assumed.bridges * costs.bridge_hear + costs.bridge_write)
    bridges = max(assumed.bridges, math.ceil(all_bridges / room))
    loads = {
        "primary": per_second / primaries * primary,
        "replica": per_second / primaries * replica,
        "bridge": all_bridges / bridges,
    }
    return _plan(
        "cluster, SPUBLISH", per_second, costs, assumed, primaries=primaries,
        partitions=PARTITIONS_A_PRIMARY * primaries, bridges=bridges, loads=loads,
        bytes_at_busiest=costs.server_bytes + assumed.replicas * costs.bus_bytes,
    )  # fmt: skip


def _plan(
    way: str, per_second: int, costs: Costs, assumed: Assumptions, *,
    primaries: int, partitions: int, bridges: int, loads: dict[str, float], bytes_at_busiest: float,
) -> Plan:  # fmt: skip
    worker = costs.worker + (costs.partition_worker if way.startswith("cluster") else 0.0)
    workers = max(1, math.ceil(per_second * worker / (assumed.busy * 1e6)))
    data = partitions * assumed.entries * costs.entry_bytes + assumed.experiments * assumed.items * costs.item_bytes
    who, load = max(loads.items(), key=lambda pair: pair[1])
    processes = 1e6 * (bridges * costs.bridge_megabytes + workers * costs.worker_megabytes)
    return Plan(
        way=way,
        per_second=per_second,
        primaries=primaries,
        nodes=primaries * (1 + assumed.replicas),
        partitions=partitions,
        bridges=bridges,
        workers=workers,
        memory=(data * (1 + assumed.replicas) + processes) / 1e9,
        network=per_second / primaries * bytes_at_busiest / 1e6,
        busiest=(who, load / 1e6),
    )


def on_this_machine(costs: Costs, cores: float) -> float:
    """Events a second when publishers, server, replica, bridge and worker share so many cores, all of them fully."""
    server = costs.publish_at_once + costs.hear + costs.write + costs.apply
    replica = costs.publish_at_once_to_replica + costs.write_at_replica + costs.apply_at_replica
    processes = (costs.publisher, server, replica, costs.bridge_hear + costs.bridge_write, costs.worker)
    return min(cores / sum(processes), 1 / max(processes)) * 1e6


# What is printed


def report(per_second: int, figures: dict[str, Any], assumed: Assumptions) -> Iterator[str]:
    """All tables, in Markdown."""
    yield from ("Microseconds of CPU that one event costs:", "", *_costs(figures), "")
    yield from ("How far each way goes:", "", *limits(figures, assumed), "")
    few = figures["worker"][0]["experiments"]
    yield from (f"Cores (primaries among them), {few} experiments in a stream:", "", *ladder(figures, assumed), "")
    yield from (f"{per_second:,} events a second:", "", *table(per_second, figures, assumed), "")
    yield from ("The model and a measured point:", "", *_check(figures), "")
    runs = figures["partitions"]
    yield from (f"{runs['partitions']} partitions on this machine, microseconds an event:", "")
    yield from (*partitions_table(runs), "")
    yield from ("Where the figures are from:", "", *_origin(figures))


def _costs(figures: dict[str, Any]) -> Iterator[str]:
    rows = [(row["experiments"], Costs.measured(figures, experiments=row["experiments"])) for row in figures["worker"]]
    _, c = rows[0]
    yield "| what | at the server | at its replica | at the agent's process |"
    yield "|---|---|---|---|"
    yield f"| `PUBLISH` by a service that waits for each answer | {c.publish:.1f} | {c.publish_to_replica:.1f} | |"
    yield f"| `PUBLISH`, twenty at a time | {c.publish_at_once:.1f} | {c.publish_at_once_to_replica:.1f} | |"
    yield f"| each other node of a cluster, for `PUBLISH` | {c.bus_send:.1f} | {c.bus_receive:.1f} (that node) | |"
    yield f"| `SPUBLISH`, as the first | {c.publish_sharded:.1f} | {c.receive_sharded:.1f} | |"
    yield f"| each bridge that hears it | {c.hear:.1f} | | {c.bridge_hear:.1f} |"
    yield f"| the same, to tell which partition's it is | | | {c.route:.1f} |"
    yield f"| the bridge's write | {c.write:.1f} | {c.write_at_replica:.1f} | {c.bridge_write:.1f} |"
    for experiments, costs in rows:
        yield (
            f"| reading and the gate, {experiments} experiments in a stream | {costs.apply:.1f} "
            f"| {costs.apply_at_replica:.1f} | {costs.worker:.1f} |"
        )
    yield f"| what partitions add to that | {c.partition_server:.1f} | | {c.partition_worker:.1f} |"


def _check(figures: dict[str, Any]) -> Iterator[str]:
    whole = figures["whole"]
    costs = Costs.measured(figures, experiments=whole["experiments"])
    cores = figures["machine"]["cores"] - (whole["others_cores"] or 0.0)
    yield "| cores that others left | predicted, events/s | measured | server, us | bridge, us | worker, us |"
    yield "|---|---|---|---|---|---|"
    yield (
        f"| {cores:.1f} of {figures['machine']['cores']} | {on_this_machine(costs, cores):,.0f} "
        f"| {whole['per_second']:,} | {whole['server_us']:.1f} | {whole['bridge_us']:.1f} | {whole['worker_us']:.1f} |"
    )


def _origin(figures: dict[str, Any]) -> Iterator[str]:
    machine = figures["machine"]
    yield (
        f"{machine['cores']} cores, {machine['cpu']}; {machine['server']}; Python {machine['python']}; events of "
        f"{figures['event_bytes']} bytes, {figures['publish'][-1]['bus_bytes']:.0f} on the bus."
    )
    yield ""
    for section, about in figures["sections"].items():
        revision = f" of {about['revision']}" if about["revision"] else ""
        yield f"- `{section}`{revision}, on {about['date']}, at a load of {about['load_before']} before it began"


def limits(figures: dict[str, Any], assumed: Assumptions) -> Iterator[str]:
    """How far each way goes, and who is in its way."""
    yield "| way | experiments in a stream | goes to, events/s | where it ends |"
    yield "|---|---|---|---|"
    for way, experiments, costs in _rows(figures):
        rate, who = limit(way, costs, assumed)
        end = f"no end up to {rate:,} |" if rate == FURTHEST else f"{rate:,} | the {who}"
        yield f"| {way} | {experiments} | {end} |"


def ladder(figures: dict[str, Any], assumed: Assumptions) -> Iterator[str]:
    """Cores by rate and way, for the first of the measured workloads."""
    yield "| events/s | " + " | ".join(WAYS) + " |"
    yield "|---|" + "---|" * len(WAYS)
    costs = Costs.measured(figures, experiments=figures["worker"][0]["experiments"])
    for rate in RATES:
        found = [plan(way, rate, costs, assumed) for way in WAYS]
        yield f"| {rate:,} | " + " | ".join(f"{p.cores:,} ({p.primaries:,})" if p else "-" for p in found) + " |"


def table(per_second: int, figures: dict[str, Any], assumed: Assumptions) -> Iterator[str]:
    """The plans for one rate, as a table in Markdown."""
    yield (
        "| way | experiments in a stream | primaries + replicas | partitions | bridges | workers | cores "
        "| memory, GB | busiest node, MB/s | $ a month |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for way, experiments, costs in _rows(figures):
        found = plan(way, per_second, costs, assumed)
        if found is None:
            yield f"| {way} | {experiments} | not at this rate | | | | | | | |"
            continue
        yield (
            f"| {way} | {experiments} | {found.primaries:,} + {found.nodes - found.primaries:,} | {found.partitions:,} "
            f"| {found.bridges:,} | {found.workers:,} | {found.cores:,} | {found.memory:,.0f} | {found.network:,.0f} "
            f"| {found.a_month(assumed):,.0f} |"
        )


def _rows(figures: dict[str, Any]) -> Iterator[tuple[str, int, Costs]]:
    for way in WAYS:
        for row in figures["worker"]:
            yield way, row["experiments"], Costs.measured(figures, experiments=row["experiments"])


def main() -> int:
    """Print the plan, or put it into the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="a second (1,000,000)")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="what bench.costs wrote (docs/scaling.json)")
    usual = Assumptions()
    parser.add_argument("--core-hour", type=float, default=usual.core_hour, help="price")
    parser.add_argument("--gigabyte-hour", type=float, default=usual.gigabyte_hour, help="price")
    parser.add_argument("--busy", type=float, default=usual.busy, help="share of a core that may be used (0.4)")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    options = parser.parse_args()
    figures = json.loads(options.figures.read_text("utf-8"))
    assumed = Assumptions(busy=options.busy, core_hour=options.core_hour, gigabyte_hour=options.gigabyte_hour)
    lines = list(report(options.events, figures, assumed))
    if options.write:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + rest.partition(END)[2], "utf-8")
    else:
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
