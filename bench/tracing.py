"""What traces cost: `python -m bench.tracing`. CPU of a bridge and of a worker per event: off, on, every event traced.

Two processes of the real program, a publisher that keeps its rate, and a collector that throws away what it is sent.
The ways take turns.
"""

import argparse
import http.server
import statistics
import threading
import time

import redis

from bench.machine import describe, process_seconds, revision
from bench.processes import Agent, Child
from redis_agent.embedded import EmbeddedServer, find_server_binary
from redis_agent.store import keys

CHANNEL = "fullsend:metrics"
RATE = 4_000
_SETTLED_SECONDS = 60.0


class _Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def measure(url: str, seconds: float, settings: dict[str, str]) -> dict[str, float]:
    """CPU of both in microseconds an event, and the share of events that were traced."""
    with redis.Redis.from_url(url, protocol=2) as client:
        client.flushall()
    with (
        redis.Redis.from_url(url, protocol=2) as client,
        Agent(url, "bridge", **settings) as bridge,
        Agent(url, "worker", **settings) as worker,
        Child("bench.publishing", url, CHANNEL, str(RATE)) as publisher,
    ):
        bridge.wait_until(lambda: client.zcard(keys.BRIDGE_READY), "a bridge in step")
        worker.wait_until(lambda: client.exists(keys.STREAM), "a worker with its group")
        before = [process_seconds(agent.pid) for agent in (bridge, worker)]
        publisher.go()
        time.sleep(seconds)
        publisher.end()
        deadline = time.monotonic() + _SETTLED_SECONDS
        while not _settled(client) and time.monotonic() < deadline:
            time.sleep(0.05)
        spent = [process_seconds(agent.pid) - was for agent, was in zip((bridge, worker), before, strict=True)]
        rows = client.xrange(keys.STREAM)
    traced = sum(b"trace" in fields for _, fields in rows)
    return {
        "bridge": spent[0] / len(rows) * 1e6,
        "worker": spent[1] / len(rows) * 1e6,
        "traced": traced / len(rows),
        "events": len(rows),
    }


def _settled(client: redis.Redis) -> bool:
    length = client.xlen(keys.STREAM)
    (group,) = client.xinfo_groups(keys.STREAM)
    time.sleep(0.2)
    return bool((length, group["pending"], group["lag"]) == (client.xlen(keys.STREAM), 0, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of publishing, each time (5)")
    parser.add_argument("--rounds", type=int, default=3, help="medians over so many (3)")
    asked = parser.parse_args()
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_address[1]}"}
    ways = {"off": {}, "on": on, "every event": on | {"OTEL_TRACES_SAMPLER": "always_on"}}
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with EmbeddedServer() as server:
        for _ in range(asked.rounds):
            for way, settings in ways.items():
                rounds[way].append(measure(server.url, asked.seconds, settings))
    collector.shutdown()
    print(revision(), describe(find_server_binary()), f"{RATE:,} events a second, {asked.rounds} rounds", sep="\n")
    print(f"{'':12} {'bridge us':>10} {'worker us':>10} {'traced':>8} {'events':>8}")
    for way, found in rounds.items():
        bridge, worker, traced, events = (
            statistics.median(one[name] for one in found) for name in ("bridge", "worker", "traced", "events")
        )
        print(f"{way:12} {bridge:10.1f} {worker:10.1f} {traced:8.2%} {events:8,.0f}")


if __name__ == "__main__":
    main()
