"""The bridge: the highest rate of PUBLISH that reaches the stream without loss and without falling behind.

Next to it a bare pub/sub reader of redis-py, which only counts. The publisher, the server and the reader share the
machine, so both figures are those of the machine as a whole.
"""

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import hiredis
import redis
import redis.asyncio

from bench.processes import Agent, Child
from bench.workload import Workload, events
from redis_agent.config import Settings
from redis_agent.store import keys

_RATES = (10_000, 15_000, 20_000, 30_000, 40_000, 50_000, 60_000, 80_000, 100_000, 120_000, 150_000, 200_000, 300_000)
_TICK_SECONDS = 0.01
# What is still on its way after this share of a step's time means that the reader has fallen behind.
_BEHIND = 0.1
_PATIENCE_SECONDS = 5.0
BARE_CHANNEL = "bench:mirror"


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Attributes: what reads, the highest rate it kept up with, and why the next one was too much."""

    reader: str
    per_second: int
    limit: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(client: redis.Redis, url: str, *, seconds: float) -> list[Mirrored]:
    """Raise the rate step by step until one cannot keep up; each step lasts `seconds`."""
    client.flushall()
    settings = Settings()
    with Agent(url, "bridge") as agent:
        agent.wait_until(lambda: client.pubsub_numsub(settings.metrics_channel)[0][1], "no subscription")
        agent.wait_until(lambda: client.exists(keys.LEASE_BRIDGE), "no leader")
        bridge = _climb("bridge", url, settings.metrics_channel, seconds, lambda: int(client.xlen(keys.STREAM)))
    client.flushall()
    with Child("bench.mirror", "listen", url) as reader:

        def counted() -> int:
            reader.say("count")
            return int(reader.result()["count"])

        bare = _climb("bare", url, BARE_CHANNEL, seconds, counted)
    return [bare, bridge]


def _climb(name: str, url: str, channel: str, seconds: float, arrived: Callable[[], int]) -> Mirrored:
    kept_up = 0
    for rate in _RATES:
        before = arrived()
        sent, took = _publish(url, channel, rate, seconds)
        if took > (1 + _BEHIND) * seconds:
            return Mirrored(name, kept_up, f"{rate}/s is more than the publisher and the server manage here")
        time.sleep(_BEHIND * seconds)
        if arrived() - before < sent:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while arrived() - before < sent and time.monotonic() < deadline:
                time.sleep(0.05)
            lost = sent - (arrived() - before)
            return Mirrored(name, kept_up, f"at {rate}/s " + (f"{lost} of {sent} lost" if lost else "it falls behind"))
        kept_up = rate
    return Mirrored(name, kept_up, "no higher rate was tried")


def _publish(url: str, channel: str, rate: int, seconds: float) -> tuple[int, float]:
    """Publish at a steady rate over a bare socket; how many, and how long it took in the end."""
    size = int(rate * _TICK_SECONDS)
    ticks = int(seconds / _TICK_SECONDS)
    name = channel.encode()
    commands = b"".join(
        b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(event), event)
        for event in events(Workload("publish", size, 20))
    )
    replies = size * ticks
    with socket.create_connection(("127.0.0.1", port_of(url))) as connection:
        drained = threading.Thread(target=_drain, args=(connection, replies), daemon=True)
        drained.start()
        begin = time.perf_counter()
        for tick in range(ticks):
            time.sleep(max(0.0, begin + tick * _TICK_SECONDS - time.perf_counter()))
            connection.sendall(commands)
        drained.join(timeout=10 * seconds)
        return replies, time.perf_counter() - begin


def _drain(connection: socket.socket, replies: int) -> None:
    while replies > 0:
        replies -= connection.recv(1 << 20).count(b"\n")


def port_of(url: str) -> int:
    """The port in a URL of a server on this machine."""
    return int(url.rpartition(":")[2].partition("/")[0])


async def listen(url: str) -> None:
    """The bare reader of redis-py: counts messages, and says how many when asked."""
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, protocol=2)
    count = 0
    async with client.pubsub(ignore_subscribe_messages=True) as subscriber:
        await subscriber.subscribe(BARE_CHANNEL)
        await subscriber.get_message(timeout=1)

        async def read() -> None:
            nonlocal count
            while True:
                with contextlib.suppress(redis.RedisError, OSError):  # cut; it subscribes again by itself
                    async for _ in subscriber.listen():
                        count += 1

        listening = asyncio.create_task(read())
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps({"count": count}), flush=True)
        listening.cancel()
        await asyncio.wait({listening})
    await client.aclose()


def read_raw(url: str) -> None:
    """The barest reader: what the socket has, through hiredis, counted."""
    count = 0

    def subscribe() -> tuple[socket.socket, hiredis.Reader]:
        connection, parser = socket.create_connection(("127.0.0.1", port_of(url))), hiredis.Reader()
        connection.sendall(b"SUBSCRIBE " + BARE_CHANNEL.encode() + b"\r\n")
        parser.feed(connection.recv(1 << 20))
        parser.gets()  # the confirmation
        return connection, parser

    def read(connection: socket.socket, parser: hiredis.Reader) -> None:
        nonlocal count
        while True:
            try:
                data = connection.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                connection, parser = subscribe()  # cut; what is missing is seen by the count
                continue
            parser.feed(data)
            while parser.gets() is not False:
                count += 1

    threading.Thread(target=read, args=subscribe(), daemon=True).start()
    print("ready", flush=True)
    while sys.stdin.readline():
        print(json.dumps({"count": count}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "raw":
        read_raw(sys.argv[2])
    else:
        asyncio.run(listen(sys.argv[2]))
