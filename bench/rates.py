"""How fast a filled stream is worked off: the bare loops, the worker, the PRD's loop and the peers, in turns."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import redis

from bench.processes import Child
from bench.workload import Workload, applied, fill, rewind

# A round in which others used less than this is undisturbed.
QUIET_CORES = 0.25
# What keeps `events_total`, so that it can be checked.
_COUNTED = ("by_hand", "worker", "no_windows", "naive_full")


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop over the stream.

    Attributes:
        name: of `bench.loops`, or a peer's.
        events: the most entries it is given; the slow ones get fewer.
        command: what starts a peer, but for the address and the number of events; empty for `bench.loops`.
    """

    name: str
    events: int
    command: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        """Whether the sum of `events_total` tells how many events it has folded."""
        return bool(self.command) or self.name in _COUNTED


@dataclass(frozen=True, slots=True)
class Rate:
    """One loop's figures: medians over the rounds in which nobody else used the machine, if there are such.

    Attributes:
        loop: which.
        events: entries in each round.
        per_second: events a second.
        server_us: server CPU per event, microseconds.
        client_us: CPU of the measured processes per event, microseconds.
        others: cores that others used in those rounds; 0.1 is the noise of this figure.
        megabytes: resident memory of the measured process at the end; of all where there are several.
        server_megabytes: what the server holds at the end, the stream included.
        lost: events that a peer did not fold, in all rounds.
        rounds: events a second of each round.
    """

    loop: str
    events: int
    per_second: float
    server_us: float
    client_us: float
    others: float
    megabytes: float
    server_megabytes: float
    lost: int
    rounds: list[int]

    @property
    def cost_us(self) -> float:
        """CPU per event of both sides."""
        return self.server_us + self.client_us

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    client: redis.Redis, url: str, workload: Workload, loops: Sequence[Loop], rounds: int, *, filled: bool = False
) -> list[Rate]:
    """Run every loop in every round on the same stream.

    Args:
        rounds: how often each runs; the order turns around from one round to the next.
        filled: the stream is there already.
    """
    if not filled:
        fill(client, workload)
    figures: dict[str, list[dict[str, float]]] = {loop.name: [] for loop in loops}
    for n in range(rounds):
        for loop in loops if n % 2 == 0 else reversed(loops):
            figures[loop.name].append(_once(client, url, loop, min(loop.events, workload.events)))
    rewind(client)
    return [rate_of(loop.name, figures[loop.name]) for loop in loops]


def _once(client: redis.Redis, url: str, loop: Loop, events: int) -> dict[str, float]:
    rewind(client)
    command = loop.command or ("bench.loops", loop.name)
    with Child(*command, url, str(events)) as child:
        child.go()
        result = {"events": events, **child.result(), "server_memory": client.info("memory")["used_memory"]}
    if loop.counted:
        lost = int(result.get("applied", events)) - applied(client)
        if lost and not loop.command:
            raise RuntimeError(f"{loop.name}: {lost} of {events} events are not in the aggregates")
        result["lost"] = lost
    return result


def rate_of(loop: str, figures: list[dict[str, float]]) -> Rate:
    """What some rounds come to."""
    quiet = [f for f in figures if f.get("others", 0.0) < QUIET_CORES] or figures

    def per_event(name: str) -> float:
        return median(f[name] / f["events"] for f in quiet) * 1e6

    return Rate(
        loop=loop,
        events=int(median(f["events"] for f in quiet)),
        per_second=median(f["events"] / f["seconds"] for f in quiet),
        server_us=per_event("server_cpu"),
        client_us=per_event("client_cpu"),
        others=median(f.get("others", 0.0) for f in quiet),
        megabytes=median(f["rss"] for f in quiet) / 1e6,
        server_megabytes=median(f["server_memory"] for f in quiet) / 1e6,
        lost=int(sum(f.get("lost", 0) for f in figures)),
        rounds=[round(f["events"] / f["seconds"]) for f in figures],
    )
