"""What is measured with: a realistic mix of events, and a stream filled with it."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import redis

from redis_agent.store import keys

# Sent with EVAL, 500 entries a call: filling must not take longer than what it is for.
_FILL = """
for n = 1, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '*', 'data', ARGV[n + 1], 'at', ARGV[n])
end
"""
_FILL_CHUNK = 500

COUNTERS = ("email_sent", "email_opened", "reply_received", "link_clicked", "demo_booked", "unsubscribed")
GAUGES = ("response_rate", "bounce_rate", "latency_seconds", "cost_per_lead")
GAUGE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Workload:
    """A stream to measure on.

    Attributes:
        name: for the report.
        events: how many entries.
        experiments: over how many experiments they are spread, evenly and in random order.
        criteria: whether the experiments are defined, so that every batch is judged.
    """

    name: str
    events: int
    experiments: int
    criteria: bool = False


def events(workload: Workload) -> Iterator[bytes]:
    """The events: the same for the same workload."""
    rng = random.Random(20260201)
    now = time.time()
    for n in range(workload.events):
        experiment = rng.randrange(workload.experiments)
        event: dict[str, object] = {"experiment_id": f"exp_{experiment:04d}"}
        if rng.random() < GAUGE_SHARE:
            if rng.random() < 0.5:
                event |= {"metric": rng.choice(GAUGES), "value": round(rng.uniform(0, 1), 4)}
            else:
                event[rng.choice(GAUGES)] = round(rng.uniform(0, 1), 4)
        else:
            event |= {"event": rng.choice(COUNTERS), "count": 1 if rng.random() < 0.9 else rng.randrange(2, 50)}
        event["timestamp"] = round(now + n / 1000, 3)
        event["run_id"] = f"exp_{experiment:04d}:{int(now)}"
        yield json.dumps(event).encode()


def fill(client: redis.Redis, workload: Workload) -> None:
    """Empty the database; then write the stream and, where wanted, the definitions."""
    client.flushall()
    at = str(int(time.time() * 1000)).encode()
    chunk: list[bytes] = []
    for event in events(workload):
        chunk += (at, event)
        if len(chunk) == 2 * _FILL_CHUNK:
            client.eval(_FILL, 1, keys.STREAM, *chunk)
            chunk.clear()
    if chunk:
        client.eval(_FILL, 1, keys.STREAM, *chunk)
    if workload.criteria:
        for n in range(workload.experiments):
            define(client, f"exp_{n:04d}")


def define(client: redis.Redis, experiment_id: str) -> None:
    """An experiment as people define them: derived rates, four criteria, one of them met early on."""
    document = {
        "hypothesis": "Short mails are answered more often",
        "state": "running",
        "success_criteria": json.dumps(["reply_rate >= 40%", "demos_booked >= 1000000"]),
        "failure_criteria": json.dumps(["unsubscribe_rate > 60% after 100 sends", "bounce_rate > 2"]),
    }
    metrics = [
        {"name": "reply_rate", "type": "percentage", "formula": "replies_received / emails_sent"},
        {"name": "unsubscribe_rate", "type": "percentage", "formula": "unsubscribed / emails_sent"},
    ]
    client.hset(keys.experiment(experiment_id), mapping=document)
    client.hset(keys.metrics_specs(experiment_id), mapping={"metrics": json.dumps(metrics)})


def rewind(client: redis.Redis) -> None:
    """Undo what a run did: the group is at the start of the stream again, aggregates and alerts are gone."""
    kept = (b"experiments:", b"metrics_specs:", keys.STREAM.encode())
    used = [name for name in client.scan_iter(count=10_000) if not name.startswith(kept)]
    for n in range(0, len(used), 500):
        client.delete(*used[n : n + 500])
    client.execute_command("XGROUP", "DESTROY", keys.STREAM, keys.GROUP)
    client.xgroup_create(keys.STREAM, keys.GROUP, id="0")


def applied(client: redis.Redis) -> int:
    """How many events the aggregates hold: what a run claims must be true."""
    return sum(
        int(client.hget(name, "events_total") or 0)
        for name in client.scan_iter(keys.AGGREGATE_PREFIX + "*", count=1000)
    )
