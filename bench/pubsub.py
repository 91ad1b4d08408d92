"""Pub/sub: the highest rate of PUBLISH that reaches the stream, and at which the server does not cut the subscription.

`python -m bench.pubsub [--seconds 10] [--long 60] [--sizes 100,300,2000,16000] [--json PATH]`. Per size of event and
reader: first a closed loop finds how fast the reader takes what is published while no more than a window is on its way;
then a publisher keeps a share of that rate, whatever the reader does, for `--seconds`, less and less until the reader
keeps up: the server never cut the subscription, its buffer stayed below the soft limit, the bridge counted no gap, and
all was in the stream half a second after the last message. The bridge's rate is then kept for `--long` seconds, because
the soft limit of Redis is 8 MB for 60 seconds.

Beside the bridge, in the same minutes: redis-py's `listen()`, and a bare loop of `recv` and hiredis, which only count.
"""

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis

from bench.machine import busy_seconds, describe, process_seconds
from bench.processes import Agent, Child
from bench.readers import CHANNEL, port_of
from redis_agent.config import Settings
from redis_agent.embedded import EmbeddedServer
from redis_agent.store import keys

SIZES = (100, 300, 2_000, 16_000)
READERS = ("bridge", "listen", "raw")
# Of client-output-buffer-limit pubsub 32mb 8mb 60.
SOFT_LIMIT_BYTES = 8 * 1024 * 1024
_SHARES = (1.4, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
_CEILING_SECONDS = 3.0
_WINDOW_BYTES = 3_000_000
_TICK_SECONDS = 0.01
_WATCH_SECONDS = 0.1
# All must have arrived so long after the last message, and the publisher have taken no longer than this share more.
_BEHIND_SECONDS = 0.5
_LATE = 0.05
_PATIENCE_SECONDS = 10.0
_KEPT_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """One rate that was tried.

    Attributes:
        size: bytes of an event.
        omem: the most that the server held for the subscriber, bytes.
        others: cores that other processes of the machine used meanwhile; None where the system does not say.
        problem: why it was too much; "" when the reader kept up.
    """

    reader: str
    size: int
    per_second: int
    seconds: float
    omem: int
    others: float | None
    problem: str

    def __str__(self) -> str:
        megabytes = self.per_second * self.size / 1e6
        rate = f"{self.size:6} B  {self.reader:7} {self.per_second:8,} /s {megabytes:7.1f} MB/s  {self.seconds:3.0f} s"
        others = "?" if self.others is None else f"{self.others:.1f}"
        return f"{rate}  omem {self.omem / 1e6:5.1f} MB  others {others:>4}  {self.problem or 'kept up'}"


class Watch:
    """Looks at the subscriber's output buffer ten times a second, and keeps the stream short."""

    def __init__(self, client: redis.Redis, size: int) -> None:
        self._client = client
        self._keep = max(1_000, _KEPT_BYTES // size)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.before = self._subscribers()
        self.omem = 0
        self.cut = False

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _subscribers(self) -> dict[str, int]:
        found: list[dict[str, str]] = self._client.client_list(_type="pubsub")  # type: ignore[assignment]
        return {one["id"]: int(one["omem"]) for one in found}

    def _run(self) -> None:
        while not self._over.wait(_WATCH_SECONDS):
            now = self._subscribers()
            self.omem = max(self.omem, *now.values(), 0)
            self.cut = self.cut or now.keys() != self.before.keys()
            self._client.xtrim(keys.STREAM, maxlen=self._keep, approximate=True)


class Publisher:
    """Pipelines PUBLISH over a bare socket; the replies are read and thrown away."""

    def __init__(self, url: str, channel: str, size: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port_of(url)))
        self._commands = [_command(channel, size, n) for n in range(1_000)]
        self._answered = threading.Thread(target=self._drain, daemon=True)
        self._answered.start()
        self.sent = 0

    def send(self, count: int) -> None:
        at = self.sent % len(self._commands)
        while count:
            part = self._commands[at : at + count]
            self._socket.sendall(b"".join(part))
            self.sent += len(part)
            count -= len(part)
            at = 0

    def close(self) -> None:
        """Wait until the server has answered all."""
        self._socket.shutdown(socket.SHUT_WR)
        self._answered.join()
        self._socket.close()

    def _drain(self) -> None:
        while self._socket.recv(1 << 20):
            pass


def _command(channel: str, size: int, number: int) -> bytes:
    event = {"experiment_id": f"exp_{number % 20:04d}", "event": "email_sent", "count": 1, "run_id": number}
    bare = len(json.dumps(event | {"note": ""}))
    data = json.dumps(event | {"note": "x" * max(0, size - bare)}).encode()
    name = channel.encode()
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(data), data)


class Trial:
    """One reader, one size of event, one server.

    Args:
        arrived: how many messages the reader has done with since it began.
        pid: the reader's process.
    """

    def __init__(
        self,
        client: redis.Redis,
        url: str,
        *,
        reader: str,
        channel: str,
        size: int,
        arrived: Callable[[], int],
        pid: int,
    ) -> None:
        self._client = client
        self._url = url
        self._reader = reader
        self._channel = channel
        self._size = size
        self._arrived = arrived
        self._pid = pid

    def ceiling(self, seconds: float = _CEILING_SECONDS) -> float:
        """How many a second the reader takes while a window is on its way: an upper bound of what it can sustain."""
        window = max(16, _WINDOW_BYTES // self._size)
        chunk = max(1, window // 32)
        publisher, before = Publisher(self._url, self._channel, self._size), self._arrived()
        begin = time.perf_counter()
        with Watch(self._client, self._size):
            while time.perf_counter() < begin + seconds:
                if publisher.sent - (self._arrived() - before) < window:
                    publisher.send(chunk)
                else:
                    time.sleep(0.0005)
            done, took = self._arrived() - before, time.perf_counter() - begin
        publisher.close()
        self._wait_for(before + publisher.sent, _PATIENCE_SECONDS)
        return done / took

    def step(self, rate: int, seconds: float) -> Step:
        """Keep one rate, whatever the reader does."""
        self._rest()
        busy, ours = busy_seconds(), self._own_seconds()
        publisher, before = Publisher(self._url, self._channel, self._size), self._arrived()
        gaps = self._gaps()
        begin = time.perf_counter()
        with Watch(self._client, self._size) as watch:
            while (elapsed := time.perf_counter() - begin) < seconds:
                publisher.send(int(rate * elapsed) - publisher.sent)
                time.sleep(_TICK_SECONDS)
            publisher.close()
            took = time.perf_counter() - begin
            others = None
            if busy is not None:
                others = ((busy_seconds() or busy) - busy - (self._own_seconds() - ours)) / took
            behind = not self._wait_for(before + publisher.sent, _BEHIND_SECONDS)
            whole = self._wait_for(before + publisher.sent, _PATIENCE_SECONDS if behind and not watch.cut else 0)
        problem = ""
        if watch.cut or self._gaps() != gaps:
            problem = "the server cut the subscription"
        elif not whole:
            problem = f"{publisher.sent - (self._arrived() - before)} of {publisher.sent} lost"
        elif watch.omem > SOFT_LIMIT_BYTES:
            problem = "over the soft limit"
        elif took > (1 + _LATE) * seconds:
            problem = "more than publisher and server manage"
        elif behind:
            problem = "falls behind"
        return Step(self._reader, self._size, rate, seconds, watch.omem, others, problem)

    def _rest(self) -> None:
        """Wait until nothing more comes from the step before."""
        seen = -1
        while seen != (now := self._arrived()):
            seen = now
            time.sleep(_BEHIND_SECONDS)

    def _own_seconds(self) -> float:
        """CPU of the server, the reader and this process."""
        server: dict[str, float] = self._client.info("cpu")  # type: ignore[assignment]
        return server["used_cpu_sys"] + server["used_cpu_user"] + process_seconds(self._pid) + time.process_time()

    def _gaps(self) -> int:
        return int(self._client.hget(keys.BRIDGE, "gaps") or 0)  # type: ignore[arg-type]

    def _wait_for(self, wanted: int, seconds: float) -> bool:
        deadline = time.perf_counter() + seconds
        while self._arrived() < wanted:
            if time.perf_counter() > deadline:
                return False
            time.sleep(0.01)
        return True


def measure(url: str, client: redis.Redis, *, sizes: tuple[int, ...], seconds: float, long: float) -> Iterator[Step]:
    """Every step of every reader and size."""
    for size in sizes:
        for reader in READERS:
            client.flushall()
            with _reading(client, url, reader, size) as trial:
                top = trial.ceiling(min(_CEILING_SECONDS, seconds))
                kept = yield from _descend(trial, top, seconds)
                while reader == "bridge" and long and kept:
                    last = trial.step(kept, long)
                    yield last
                    kept = int(0.95 * kept) if last.problem else 0


def _descend(trial: Trial, top: float, seconds: float) -> Iterator[Step]:
    for share in _SHARES:
        last = trial.step(int(top * share), seconds)
        yield last
        if not last.problem:
            return last.per_second
    return 0


@contextmanager
def _reading(client: redis.Redis, url: str, reader: str, size: int) -> Iterator[Trial]:
    if reader == "bridge":
        channel = Settings().metrics_channel
        with Agent(url, "bridge") as agent:
            agent.wait_until(lambda: client.pubsub_numsub(channel)[0][1], "no subscription")
            agent.wait_until(lambda: client.exists(keys.LEASE_BRIDGE), "no leader")

            def written() -> int:
                return int(client.hget(keys.BRIDGE, "written") or 0)  # type: ignore[arg-type]

            yield Trial(client, url, reader=reader, channel=channel, size=size, arrived=written, pid=agent.pid)
        return
    with Child("bench.readers", reader, url) as child:

        def counted() -> int:
            child.say("count")
            return int(child.result()["count"])

        yield Trial(client, url, reader=reader, channel=CHANNEL, size=size, arrived=counted, pid=child.pid)


def summary(steps: list[Step]) -> list[str]:
    """The highest rate that each reader kept up with, and the bridge's as ratios."""
    heads = f"{'bridge/s':>10} {'MB/s':>7} {'/ listen()':>11} {'/ raw':>7} {'long run/s':>11} {'omem MB':>8}"
    lines = [f"{'event':>8} {heads}"]
    for size in sorted({step.size for step in steps}):
        kept: dict[str, list[Step]] = {
            reader: [s for s in steps if (s.size, s.reader, s.problem) == (size, reader, "")] for reader in READERS
        }
        if not all(kept.values()):
            lines.append(f"{size:6} B  no rate was kept up with by {[r for r in READERS if not kept[r]]}")
            continue
        bridge, listen, raw = (kept[reader][0].per_second for reader in READERS)
        last = kept["bridge"][-1]
        lines.append(
            f"{size:6} B {bridge:10,} {bridge * size / 1e6:7.1f} {bridge / listen:11.2f} {bridge / raw:7.2f} "
            f"{last.per_second:11,} {last.omem / 1e6:8.1f}"
        )
    return lines


def main() -> int:
    """Measure, print as it goes, and the summary at the end."""
    parser = argparse.ArgumentParser(prog="python -m bench.pubsub", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="each rate is kept so long (10)")
    parser.add_argument("--long", type=float, default=60.0, help="and the bridge's best rate so long (60); 0 for not")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="bytes of an event")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the steps as JSON")
    options = parser.parse_args()
    sizes = tuple(int(size) for size in options.sizes.split(","))
    steps: list[Step] = []
    with EmbeddedServer() as server, redis.Redis.from_url(server.url, protocol=2) as client:
        machine = describe(server.binary)
        print(", ".join(f"{name} {value}" for name, value in machine.items()))
        for step in measure(server.url, client, sizes=sizes, seconds=options.seconds, long=options.long):
            print(step, flush=True)
            steps.append(step)
    print("\n".join(summary(steps)))
    if options.json is not None:
        document: dict[str, Any] = {"machine": machine, "steps": [asdict(step) for step in steps]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
