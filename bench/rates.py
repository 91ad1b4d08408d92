"""How fast a filled stream is worked off: the bare loop, the worker and the PRD's loop, in turns."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import redis

from bench.processes import Child
from bench.workload import Workload, applied, fill, rewind

# A round in which others used less than this is undisturbed.
QUIET_CORES = 0.25


@dataclass(frozen=True, slots=True)
class Rate:
    """One loop's figures: medians over the rounds in which nobody else used the machine, if there are such.

    Attributes:
        loop: which.
        events: entries in each round.
        per_second: events a second.
        server_us: server CPU per event, microseconds.
        client_us: CPU of the measured process per event, microseconds.
        others: cores that others used in those rounds; 0.1 is the noise of this figure.
        rounds: events a second of each round.
    """

    loop: str
    events: int
    per_second: float
    server_us: float
    client_us: float
    others: float
    rounds: list[float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    client: redis.Redis, url: str, workload: Workload, loops: Sequence[tuple[str, int]], rounds: int
) -> list[Rate]:
    """Run every loop in every round on the same stream.

    Args:
        loops: (loop of `bench.loops`, entries it is given); the slow ones get fewer.
        rounds: how often each runs; the order turns around from one round to the next.
    """
    fill(client, workload)
    figures: dict[str, list[dict[str, float]]] = {loop: [] for loop, _ in loops}
    for n in range(rounds):
        for loop, events in loops if n % 2 == 0 else reversed(loops):
            figures[loop].append(_once(client, url, loop, min(events, workload.events)))
    return [_rate(loop, min(events, workload.events), figures[loop]) for loop, events in loops]


def _once(client: redis.Redis, url: str, loop: str, events: int) -> dict[str, float]:
    rewind(client)
    with Child("bench.loops", loop, url, str(events)) as child:
        child.go()
        result = child.result()
    if loop in ("worker", "no_windows", "naive_full") and applied(client) != events:
        raise RuntimeError(f"{loop}: {applied(client)} of {events} events are in the aggregates")
    return result


def _rate(loop: str, events: int, figures: list[dict[str, float]]) -> Rate:
    quiet = [f for f in figures if f.get("others", 0.0) < QUIET_CORES] or figures
    return Rate(
        loop=loop,
        events=events,
        per_second=median(events / f["seconds"] for f in quiet),
        server_us=median(f["server_cpu"] for f in quiet) / events * 1e6,
        client_us=median(f["client_cpu"] for f in quiet) / events * 1e6,
        others=median(f.get("others", 0.0) for f in quiet),
        rounds=[round(events / f["seconds"]) for f in figures],
    )
