"""What was published, and whether the aggregates, the dead letters and the alerts are what must come of it."""

import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from redis.asyncio import Redis

from tests.processes import ROOT

EXPERIMENTS = [f"exp_{n}" for n in range(5)]
# The one that may have criteria, and the rate that it may have.
JUDGED, RATE = EXPERIMENTS[0], "reply_rate"


class Ledger:
    """What was published, and what must come of it.

    Args:
        rng: of the events.
        error_types: how many different errors an experiment may have.
        criteria: of JUDGED: each with the number of emails sent from which it is met.
    """

    def __init__(
        self, rng: random.Random, *, error_types: int = 2, criteria: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._rng = rng
        self._error_types = error_types
        self._criteria = criteria
        self.events: list[bytes] = []
        self.hostile: list[bytes] = []
        self.raw: dict[str, list[bytes]] = defaultdict(list)
        self.counters: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.gauges: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.errors: set[tuple[str, str]] = set()

    @property
    def published(self) -> int:
        return len(self.events)

    def next_event(self) -> bytes:
        """An event, written down before it is published; none is like another."""
        self.events.append(self._event(len(self.events) + 1))
        return self.events[-1]

    def _event(self, number: int) -> bytes:
        rng = self._rng
        if rng.random() < 0.01:
            self.hostile.append(rng.choice([b"junk %d", b'{"experiment_id":%d}', b'{"a":%d}', b"\xff%d"]) % number)
            return self.hostile[-1]
        experiment = rng.choice(EXPERIMENTS)
        fields = [f'"experiment_id":"{experiment}"', f'"n":"{number}"']
        kind = rng.random()
        if kind < 0.7:
            name, count = rng.choice(["email_sent", "reply", "bounce"]), rng.randint(1, 40)
            fields += [f'"event":"{name}"', f'"count":{count}']
            self.counters[experiment][name] += count
        elif kind < 0.72:
            error_type = f"type {rng.randrange(self._error_types)}"
            fields += ['"event":"error"', f'"error_type":"{error_type}"', '"message":"m"']
            self.counters[experiment]["error"] += 1
            self.errors.add((experiment, error_type))
        if kind > 0.6 and '"event":"error"' not in fields:
            for name in rng.sample(["rate", "cost", "delta"], rng.randint(1, 2)):
                value = rng.choice([f"0.{rng.randint(0, 10**6):06d}", f"{rng.uniform(-1e4, 1e4):.9f}", "0.1", "-7"])
                fields.append(f'"{name}":{value}')
                self.gauges[experiment][name].append(value)
        event = "{" + ",".join(fields) + "}"
        self.raw[experiment].append(event.encode())
        return event.encode()

    @property
    def met(self) -> set[str]:
        """The criteria that are met by all that was published."""
        sent = self.counters[JUDGED]["email_sent"]
        return {criterion for criterion, needed in self._criteria.items() if sent >= needed}

    def aggregate(self, experiment: str) -> dict[str, str]:
        """The aggregate hash without its times."""
        fields = {"events_total": str(len(self.raw[experiment]))}
        fields |= {f"{name}_count": str(total) for name, total in self.counters[experiment].items()}
        for name, texts in self.gauges[experiment].items():
            values = [float(t) for t in texts]
            fields |= {
                f"{name}_samples": str(len(texts)),
                f"{name}_sum": f"{sum(map(Decimal, texts)).normalize():f}",
                f"{name}_min": repr(min(values)).removesuffix(".0"),
                f"{name}_max": repr(max(values)).removesuffix(".0"),
                f"{name}_latest": repr(values[-1]).removesuffix(".0"),
            }
        return fields


@dataclass(frozen=True)
class Account:
    """What became of the events, one by one.

    Attributes:
        lost: events, by their number in the order of publishing, that are not in the stream or were not applied.
        twice: those that are in the stream, or were applied, more than once.
        alerts_lost: errors, and criteria that are met, that were not told.
        alerts_twice: those that were told more than once within their cooldown.
    """

    lost: list[int]
    twice: list[int]
    alerts_lost: int
    alerts_twice: int


async def account(client: Redis, ledger: Ledger) -> Account:
    """Compare the ledger with the stream, the lists of events, the dead letters and the outbox; all untrimmed."""
    stream = Counter([fields[b"data"] for _, fields in await client.xrange("fullsend:metrics:stream")])
    applied = Counter([fields[b"data"] for _, fields in await client.xrange("fullsend:metrics:dead")])
    for experiment in EXPERIMENTS:
        applied.update(await client.lrange(f"metrics:{experiment}", 0, -1))
    told = Counter(await errors_told(client)) + Counter(await criteria_told(client))
    owed = ledger.errors | {(JUDGED, criterion) for criterion in ledger.met}
    return Account(
        lost=[n for n, event in enumerate(ledger.events, 1) if not (stream[event] and applied[event])],
        twice=[n for n, event in enumerate(ledger.events, 1) if stream[event] > 1 or applied[event] > 1],
        alerts_lost=len(owed - told.keys()),
        alerts_twice=(told - Counter(owed)).total(),
    )


async def errors_told(client: Redis) -> list[tuple[str, str]]:
    return [(a["experiment_id"], a["error_type"]) for a in await _alerts(client) if a["type"] == "error"]


async def criteria_told(client: Redis) -> list[tuple[str, str]]:
    return [(a["experiment_id"], a["criterion"]) for a in await _alerts(client) if a["type"] == "success_threshold"]


async def _alerts(client: Redis) -> list[dict[str, Any]]:
    return [json.loads(fields[b"data"]) for _, fields in await client.xrange("fullsend:alerts")]


def replay(url: str) -> tuple[int, dict[str, Any]]:
    """`redis-agent replay --json`: its exit code and document."""
    done = subprocess.run(
        [sys.executable, "-m", "redis_agent", "replay", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": url},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


async def compare(client: Redis, ledger: Ledger) -> None:
    for experiment in EXPERIMENTS:
        found = await client.hgetall(f"metrics_aggregated:{experiment}")
        fields = {f.decode(): v.decode() for f, v in found.items()}
        assert fields.pop("first_event_at") <= fields.pop("last_updated")
        fields.pop(RATE, None)
        assert fields == ledger.aggregate(experiment)
        assert sorted(await client.lrange(f"metrics:{experiment}", 0, -1)) == sorted(ledger.raw[experiment])
    dead = await client.xrange("fullsend:metrics:dead")
    assert sorted(e[b"data"] for _, e in dead) == sorted(ledger.hostile)
    assert sorted(await errors_told(client)) == sorted(ledger.errors), "each error is told once within its cooldown"


async def check_replay(url: str, client: Redis) -> None:
    code, document = replay(url)
    assert (code, document["agree"], document["differences"]) == (0, True, [])
    assert document["experiments"] == len(EXPERIMENTS)

    await client.hincrby("metrics_aggregated:exp_1", "reply_count", 1)
    code, document = replay(url)
    assert (code, document["agree"]) == (1, False)
    assert [(d["experiment_id"], d["field"]) for d in document["differences"]] == [("exp_1", "reply_count")]
