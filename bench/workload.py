"""What is measured with: a realistic mix of events, and a stream filled with it."""

import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

from redis_agent.store import keys

# Sent with EVAL, 500 entries a call: filling must not take longer than what it is for.
_FILL = """
for n = 1, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '*', 'data', ARGV[n + 1], 'at', ARGV[n])
end
"""
_FILL_CHUNK = 500
# A longer stream repeats its first events.
_DISTINCT = 100_000
_PIPELINE = 500

COUNTERS = ("email_sent", "email_opened", "reply_received", "link_clicked", "demo_booked", "unsubscribed")
GAUGES = ("response_rate", "bounce_rate", "latency_seconds", "cost_per_lead")
GAUGE_SHARE = 0.2
# Texts and their first thresholds, two for success and two for failure; further criteria have higher ones.
_CRITERIA = (
    ("reply_rate >= {}%", 40),
    ("demos_booked >= {}", 1_000_000),
    ("unsubscribe_rate > {}% after 100 sends", 60),
    ("bounce_rate > {}", 2),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """A stream to measure on.

    Attributes:
        name: for the report.
        events: how many entries.
        experiments: over how many experiments they are spread, evenly and in random order.
        criteria: how many each defined experiment has, so that every batch is judged; 0 where none is defined.
        defined: how many experiments are defined; where criteria are given, at least those that have events.
        size: bytes of an event; 0 for what the mix has.
    """

    name: str
    events: int
    experiments: int
    criteria: int = 0
    defined: int = 0
    size: int = 0


def events(workload: Workload) -> Iterator[bytes]:
    """The events: the same for the same workload."""
    rng = random.Random(20260201)
    now = time.time()
    for n in range(workload.events):
        experiment = rng.randrange(workload.experiments)
        event: dict[str, object] = {"experiment_id": experiment_name(experiment)}
        if rng.random() < GAUGE_SHARE:
            if rng.random() < 0.5:
                event |= {"metric": rng.choice(GAUGES), "value": round(rng.uniform(0, 1), 4)}
            else:
                event[rng.choice(GAUGES)] = round(rng.uniform(0, 1), 4)
        else:
            event |= {"event": rng.choice(COUNTERS), "count": 1 if rng.random() < 0.9 else rng.randrange(2, 50)}
        if workload.size:
            yield _padded(event, workload.size)
            continue
        event["timestamp"] = round(now + n / 1000, 3)
        event["run_id"] = f"{experiment_name(experiment)}:{int(now)}"
        yield json.dumps(event).encode()


def experiment_name(experiment: int) -> str:
    """Its id, by its number."""
    return f"exp_{experiment:04d}"


def _padded(event: dict[str, object], size: int) -> bytes:
    bare = len(json.dumps(event | {"note": ""}))
    return json.dumps(event | {"note": "x" * max(0, size - bare)}).encode()


def gauge_of(event: dict[str, Any]) -> tuple[str, float]:
    """Name and value of an event that is a gauge, in either of its forms."""
    if "metric" in event:
        return event["metric"], event["value"]
    return next((name, value) for name, value in event.items() if name in GAUGES)


def fill(client: redis.Redis, workload: Workload) -> None:
    """Empty the database; then write the stream and, where wanted, the definitions."""
    client.flushall()
    append(client, workload)
    defined = max(workload.defined, workload.experiments) if workload.criteria else workload.defined
    with client.pipeline(transaction=False) as pipe:
        for n in range(defined):
            define(pipe, experiment_name(n), criteria=workload.criteria or 4)
            if n % _PIPELINE == 0 or n == defined - 1:
                pipe.execute()


def append(client: redis.Redis, workload: Workload) -> None:
    """Write the events of a workload to the end of the stream."""
    at = str(int(time.time() * 1000)).encode()
    distinct = list(itertools.islice(events(workload), _DISTINCT))
    repeated = itertools.islice(itertools.cycle(distinct), workload.events)
    while chunk := list(itertools.islice(repeated, _FILL_CHUNK)):
        client.eval(_FILL, 1, keys.STREAM, *itertools.chain.from_iterable((at, event) for event in chunk))


def define(client: redis.Redis, experiment_id: str, *, criteria: int = 4) -> None:
    """An experiment as people define them: derived rates, and some criteria, one of the first four met early on."""
    texts = [text.format(least + n // 4) for n, (text, least) in zip(range(criteria), itertools.cycle(_CRITERIA))]
    document = {
        "hypothesis": "Short mails are answered more often",
        "state": "running",
        "success_criteria": json.dumps([text for n, text in enumerate(texts) if n % 4 < 2]),
        "failure_criteria": json.dumps([text for n, text in enumerate(texts) if n % 4 >= 2]),
    }
    metrics = [
        {"name": "reply_rate", "type": "percentage", "formula": "replies_received / emails_sent"},
        {"name": "unsubscribe_rate", "type": "percentage", "formula": "unsubscribed / emails_sent"},
    ]
    client.hset(keys.experiment(experiment_id), mapping=document)
    client.hset(keys.metrics_specs(experiment_id), mapping={"metrics": json.dumps(metrics)})


def rewind(client: redis.Redis) -> None:
    """Undo what a run did: the group is at the start of the stream again, aggregates and alerts are gone."""
    kept = (keys.EXPERIMENT_PREFIX.encode(), b"metrics_specs:", keys.STREAM.encode())
    used = [name for name in client.scan_iter(count=10_000) if not name.startswith(kept)]
    for n in range(0, len(used), _PIPELINE):
        client.unlink(*used[n : n + _PIPELINE])
    client.execute_command("XGROUP", "DESTROY", keys.STREAM, keys.GROUP)
    client.xgroup_create(keys.STREAM, keys.GROUP, id="0")


def applied(client: redis.Redis) -> int:
    """How many events the aggregates hold: what a run claims must be true."""
    names = list(client.scan_iter(keys.AGGREGATE_PREFIX + "*", count=10_000))
    total = 0
    for n in range(0, len(names), _PIPELINE):
        with client.pipeline(transaction=False) as pipe:
            for name in names[n : n + _PIPELINE]:
                pipe.hget(name, "events_total")
            total += sum(int(value or 0) for value in pipe.execute())
    return total
