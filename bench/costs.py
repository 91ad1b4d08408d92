"""`python -m bench.costs [--json PATH]`: what one event costs each process on its way, alone and in a cluster.

CPU time of the servers' main threads (`INFO cpu`) and of the agent's processes, divided by the events that passed; what
an idle node spends meanwhile is taken off. Each is the least of three rounds: whoever else uses the machine makes the
same work cost more, never less. `bench.scaling` makes a plan of these figures. Five to eight minutes.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import redis

from bench import partitions
from bench.machine import busy_seconds, describe, process_seconds, resident_bytes, revision
from bench.meter import Listener, Meter, Services, least, rest, send, wait_for
from bench.processes import Agent, Child
from bench.workload import Workload, applied, events, fill, rewind
from redis_agent.config import Settings
from redis_agent.embedded import EmbeddedServer, find_server_binary
from redis_agent.store import keys
from tests.cluster import Cluster, Node, slot_of

_CHANNEL = "bench:costs"
_PUBLISHED = 30_000
_PATIENCE_MS = 20_000
# A node that only is slow, because the machine is, must not count as failed.
_NODE_TIMEOUT_MS = 15_000
_NODES = (1, 2, 3, 6)
_PILED_BYTES = 200_000
# Messages that a publisher sends before it waits, where others are to have as much to do as they can.
_AT_ONCE = 20
_FEW, _MANY = 20, 500
_WORKED = 40_000
_ROUNDS = 3
_WHOLE_SECONDS = 4.0
# More are sent when fewer are on their way: the worker is to have full batches.
_WHOLE_WINDOW = 40_000


def main() -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.costs", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures as JSON")
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, help="measure this part (repeatable); the file keeps the others"
    )
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if options.only and options.json is not None and options.json.exists():
        figures = json.loads(options.json.read_text("utf-8"))
    figures["machine"] = describe(find_server_binary())
    sections = figures["sections"] = dict(figures.get("sections", {}))
    for section in options.only or SECTIONS:
        _say(section)
        # How busy the machine was before: whoever reads the figures wants to know.
        sections[section] = {
            "date": time.strftime("%Y-%m-%d"),
            "revision": revision(),
            "load_before": round(os.getloadavg()[0], 1),
        }
        figures |= asyncio.run(SECTIONS[section]())
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", "utf-8")
    return 0


async def _bus() -> dict[str, Any]:
    sample = _sample()
    return {
        "event_bytes": round(sum(map(len, sample)) / len(sample)),
        "publish": [await _published(nodes, sample) for nodes in _NODES],
        "spublish": await _sharded(sample),
    }


async def _listeners() -> dict[str, Any]:
    return {"subscribers": [await _heard(count, _sample()) for count in (0, 1, 2)]}


async def _agent() -> dict[str, Any]:
    sample = _sample()
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        replica = stack.enter_context(EmbeddedServer(config={"replicaof": f"127.0.0.1 {server.port}"}))
        pair = Pair(server, replica)
        return {
            "replicated_publish": _replicated(pair, sample),
            "publish_at_once": _replicated(pair, sample, at_once=_AT_ONCE),
            "bridges": [_bridged(pair, count, sample) for count in (1, 2)],
            "worker": [_worked(pair, experiments) for experiments in (_FEW, _MANY)],
            "whole": _whole(pair, sample),
        }


async def _partitions() -> dict[str, Any]:
    return {"partitions": await partitions.measure()}


SECTIONS = {"bus": _bus, "listeners": _listeners, "agent": _agent, "partitions": _partitions}


def _sample() -> list[bytes]:
    return list(events(Workload("publish", 500, _FEW)))


# What publishing costs


def _received(node: Node, kind: str) -> int:
    return int(node.facts().get(f"cluster_stats_messages_{kind}_received", 0))


async def _published(nodes: int, sample: Sequence[bytes]) -> dict[str, Any]:
    """PUBLISH on one node of a cluster that nobody subscribes to: its cost there, and at each other node."""
    replicas = 1 if nodes == 6 else 0
    async with Cluster(
        primaries=nodes // (1 + replicas), replicas=replicas, node_timeout_ms=_NODE_TIMEOUT_MS
    ) as cluster:
        first, *others = cluster.nodes
        with Services(first.port, b"PUBLISH", _CHANNEL, sample) as services:
            services.publish(1_000)

            def round_trip() -> None:
                before = [_received(node, "publish") for node in others]
                services.publish(_PUBLISHED)
                for node, seen in zip(others, before, strict=True):
                    wait_for(lambda node=node, seen=seen: _received(node, "publish") - seen >= _PUBLISHED, "the bus")

            costs = least([node.port for node in cluster.nodes], round_trip, _PUBLISHED)
        bus = _bus_bytes(cluster, sample) if others else None
    return {
        "nodes": nodes,
        "publisher_us": costs[0],
        "other_us": round(median(costs[1:]), 2) if others else None,
        "bus_bytes": bus,
    }


def _bus_bytes(cluster: Cluster, sample: Sequence[bytes]) -> float:
    """Bytes of one message on the bus: what piles up for a node that does not read."""
    first, other, *_ = cluster.nodes
    other.stop()

    def piled() -> int:
        rows = send(first.port, "CLUSTER", "LINKS")
        links = [row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
        return next(
            int(link["send-buffer-used"]) for link in links if (link["direction"], link["node"]) == ("to", other.id)
        )

    try:
        with Services(first.port, b"PUBLISH", _CHANNEL, sample) as services:
            # Until the sockets' own buffers are full, and what is piled is not merely on its way.
            deadline = time.monotonic() + _NODE_TIMEOUT_MS / 2000
            while (before := piled()) < _PILED_BYTES:
                services.publish(2_000)
                if time.monotonic() > deadline:
                    raise RuntimeError("nothing piles up on the bus")
            sent = services.sent
            services.publish(2_000)
            return round((piled() - before) / (services.sent - sent), 1)
    finally:
        other.cont()


async def _sharded(sample: Sequence[bytes]) -> dict[str, Any]:
    """SPUBLISH in a cluster of three shards of two: at the slot's primary, its replica, and the others."""
    async with Cluster(node_timeout_ms=_NODE_TIMEOUT_MS) as cluster:
        primary = cluster.primary_of(slot_of(_CHANNEL))
        (replica,) = cluster.replicas_of(primary)
        rest = [node for node in cluster.nodes if node not in (primary, replica)]
        with Services(primary.port, b"SPUBLISH", _CHANNEL, sample) as services:
            services.publish(1_000)

            def round_trip() -> None:
                before = _received(replica, "publishshard")
                services.publish(_PUBLISHED)
                wait_for(lambda: _received(replica, "publishshard") - before >= _PUBLISHED, "the bus")

            costs = least([node.port for node in (primary, replica, *rest)], round_trip, _PUBLISHED)
    return {"publisher_us": costs[0], "replica_us": costs[1], "other_us": round(median(costs[2:]), 2)}


async def _heard(count: int, sample: Sequence[bytes]) -> dict[str, Any]:
    """PUBLISH on a node that some subscribe to."""
    async with Cluster(primaries=1, replicas=0) as cluster:
        (node,) = cluster.nodes
        with ExitStack() as stack:
            listeners = [stack.enter_context(Listener(node.port, _CHANNEL)) for _ in range(count)]
            services = stack.enter_context(Services(node.port, b"PUBLISH", _CHANNEL, sample))
            services.publish(1_000)

            def round_trip() -> None:
                services.publish(_PUBLISHED)
                for listener in listeners:
                    wait_for(lambda listener=listener: listener.heard >= services.sent, "the listeners")

            (server,) = least([node.port], round_trip, _PUBLISHED)
    return {"subscribers": count, "server_us": server}


# What the agent costs


class Pair:
    """A server and its replica."""

    def __init__(self, server: EmbeddedServer, replica: EmbeddedServer) -> None:
        self.url = server.url
        self.ports = (server.port, replica.port)
        self.client = redis.Redis.from_url(server.url, protocol=2)
        wait_for(lambda: send(replica.port, "INFO", "replication")["master_link_status"] == "up", "the replica")

    def settle(self) -> None:
        """Wait until the replica has everything."""
        self.client.execute_command("SET", "bench:settled", "1")
        if not self.client.wait(1, _PATIENCE_MS):
            raise RuntimeError("the replica has fallen behind")
        self.client.delete("bench:settled")

    def bytes(self) -> dict[str, int]:
        """What the server has read and sent so far; to replicas apart."""
        facts: dict[str, int] = self.client.info("stats")
        names = ("total_net_input_bytes", "total_net_output_bytes", "total_net_repl_output_bytes")
        return {name: int(facts[name]) for name in names}

    @contextmanager
    def traffic(self, events: Callable[[], int]) -> Iterator[dict[str, float]]:
        """Bytes per event that went in and out."""
        found: dict[str, float] = {}
        before = self.bytes()
        yield found
        after = self.bytes()
        found |= {name.removeprefix("total_net_"): round((after[name] - before[name]) / events(), 1) for name in before}


def _replicated(pair: Pair, sample: Sequence[bytes], *, at_once: int = 1) -> dict[str, float]:
    """PUBLISH on a server without a cluster, which hands it on to its replica."""
    with Services(pair.ports[0], b"PUBLISH", _CHANNEL, sample, at_once=at_once) as services:
        services.publish(1_000)

        def round_trip() -> None:
            services.publish(_PUBLISHED)
            pair.settle()

        server, replica = least(pair.ports, round_trip, _PUBLISHED)
    return {"server_us": server, "replica_us": replica}


def _bridged(pair: Pair, count: int, sample: Sequence[bytes]) -> dict[str, Any]:
    """One or two bridges with as much to do as they can: at the server, its replica, the leader and a follower."""
    client, channel = pair.client, Settings().metrics_channel
    client.flushall()
    with ExitStack() as stack:
        agents = []
        for n in range(count):
            agent = stack.enter_context(Agent(pair.url, "bridge"))
            agent.wait_until(lambda n=n: client.pubsub_numsub(channel)[0][1] > n, "no subscription")
            agent.wait_until(lambda: client.exists(keys.LEASE_BRIDGE), "no leader")
            agents.append(agent)
        if count > 1:
            agents[-1].wait_until(lambda: client.zcard(keys.BRIDGE_READY) >= count, "not in step")
        services = stack.enter_context(Services(pair.ports[0], b"PUBLISH", channel, sample, at_once=_AT_ONCE))
        services.publish(1_000)
        rounds = [_bridged_once(pair, services, [agent.pid for agent in agents]) for _ in range(_ROUNDS)]
    return {"bridges": count, **_least_of(rounds)}


def _bridged_once(pair: Pair, services: Services, pids: Sequence[int]) -> dict[str, Any]:
    rest()
    already, services.sent = _length(pair), 0
    before = [process_seconds(pid) for pid in pids]
    with pair.traffic(lambda: services.sent) as traffic, Meter(pair.ports) as meter:
        services.publish(_PUBLISHED)
        wait_for(lambda: _length(pair) >= already + services.sent, "the stream")
    spent = [process_seconds(pid) - b for pid, b in zip(pids, before, strict=True)]
    server, replica = meter.per(services.sent)
    return {
        "server_us": server,
        "replica_us": replica,
        "leader_us": round(spent[0] / services.sent * 1e6, 2),
        "follower_us": round(spent[1] / services.sent * 1e6, 2) if len(pids) > 1 else None,
        "bytes": traffic,
    }


def _length(pair: Pair) -> int:
    return int(pair.client.xlen(keys.STREAM))


def _least_of(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The least of each figure; of what is no figure of its own the last."""
    return {
        name: min(row[name] for row in rounds) if isinstance(value, float) else value
        for name, value in rounds[-1].items()
    }


def _worked(pair: Pair, experiments: int) -> dict[str, Any]:
    """A filled stream worked off: at the server, its replica and the worker; and what is kept of it."""
    workload = Workload("worked", _WORKED, experiments)
    fill(pair.client, workload)
    found: list[dict[str, Any]] = []
    for _ in range(_ROUNDS):
        rewind(pair.client)
        pair.settle()
        with (
            Child("bench.loops", "worker", pair.url, str(_WORKED)) as child,
            pair.traffic(lambda: _WORKED) as traffic,
            Meter(pair.ports) as meter,
        ):
            child.go()
            result = child.result()
            pair.settle()
        if applied(pair.client) != _WORKED:
            raise RuntimeError(f"{applied(pair.client)} of {_WORKED} events are in the aggregates")
        server, replica = meter.per(_WORKED)
        client = result["client_cpu"] / _WORKED * 1e6
        found.append({"server_us": server, "replica_us": replica, "worker_us": round(client, 2), "bytes": traffic})
    stream = pair.client.memory_usage(keys.STREAM, samples=0) or 0
    lists = list(pair.client.scan_iter("metrics:*", count=1000, _type="list"))
    listed = sum(pair.client.memory_usage(name, samples=0) or 0 for name in lists)
    items = sum(pair.client.llen(name) for name in lists)
    return {
        "experiments": experiments,
        **_least_of(found),
        "stream_bytes": round(stream / _WORKED, 1),
        "list_bytes": round(listed / items, 1),
    }


def _whole(pair: Pair, sample: Sequence[bytes]) -> dict[str, Any]:
    """From PUBLISH to the aggregate as fast as this machine can: what the plan is checked against.

    Publishers send many messages at once, so that bridge and worker have as much to do as they can.
    """
    client, channel = pair.client, Settings().metrics_channel
    client.flushall()
    with ExitStack() as stack:
        bridge, worker = (stack.enter_context(Agent(pair.url, role)) for role in ("bridge", "worker"))
        bridge.wait_until(lambda: client.pubsub_numsub(channel)[0][1], "no subscription")
        bridge.wait_until(lambda: client.exists(keys.LEASE_BRIDGE), "no leader")
        worker.wait_until(lambda: client.exists(keys.STREAM), "no group")
        services = Services(pair.ports[0], b"PUBLISH", channel, sample, at_once=_AT_ONCE)
        stack.enter_context(services)
        services.publish(2_000)
        wait_for(lambda: _acked(client) >= services.sent, "the worker")
        already, pids = services.sent, (bridge.pid, worker.pid)
        before = [process_seconds(pid) for pid in pids]
        busy, own = busy_seconds(), time.process_time()
        with Meter(pair.ports) as meter:
            begin = time.perf_counter()
            while time.perf_counter() - begin < _WHOLE_SECONDS:
                if services.sent - _acked(client) < _WHOLE_WINDOW:
                    services.publish(_WHOLE_WINDOW // 2)
                else:
                    time.sleep(0.005)
            wait_for(lambda: _acked(client) >= services.sent, "the worker")
            seconds = time.perf_counter() - begin
            own = time.process_time() - own
            spent = [process_seconds(pid) - b for pid, b in zip(pids, before, strict=True)]
            all_spent = None if busy is None else (busy_seconds() or busy) - busy
        resident = [round(resident_bytes(pid) / 1e6, 1) for pid in pids]
    passed = services.sent - already
    server, replica = meter.per(passed)
    ours = own + sum(spent) + sum(meter.spent)
    return {
        "experiments": _FEW,
        "per_second": round(passed / seconds),
        "publisher_us": round(own / passed * 1e6, 2),
        "server_us": server,
        "replica_us": replica,
        "bridge_us": round(spent[0] / passed * 1e6, 2),
        "worker_us": round(spent[1] / passed * 1e6, 2),
        "bridge_megabytes": resident[0],
        "worker_megabytes": resident[1],
        "others_cores": None if all_spent is None else round(max(0.0, all_spent - ours) / seconds, 2),
    }


def _acked(client: redis.Redis) -> int:
    """Entries of the stream that have been applied."""
    facts = client.xinfo_groups(keys.STREAM)[0]
    return int(client.xlen(keys.STREAM)) - int(facts["lag"] or 0) - int(facts["pending"])


def _say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
