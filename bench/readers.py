"""Bare readers of a channel, beside which the bridge is measured: `python -m bench.readers listen|raw URL`.

Each only counts, and says how many when it is sent a line.
"""

import asyncio
import contextlib
import json
import socket
import sys
import threading

import hiredis
import redis
import redis.asyncio

CHANNEL = "bench:readers"


def port_of(url: str) -> int:
    """The port in a URL of a server on this machine."""
    return int(url.rpartition(":")[2].partition("/")[0])


async def listen(url: str) -> None:
    """`listen()` of redis-py."""
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, protocol=2)
    count = 0
    async with client.pubsub(ignore_subscribe_messages=True) as subscriber:
        await subscriber.subscribe(CHANNEL)
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
        connection.sendall(b"SUBSCRIBE " + CHANNEL.encode() + b"\r\n")
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
