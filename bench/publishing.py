"""`python -m bench.publishing URL CHANNEL RATE`: publishes events at a steady rate until its input ends."""

import socket
import sys
import threading
import time

from bench.readers import port_of
from bench.stopwatch import wait_for_go
from bench.workload import Workload, events

_TICK_SECONDS = 0.001
_DISTINCT = 1_000
EXPERIMENTS = 20


def main(url: str, channel: str, rate: int) -> None:
    """Publish over a bare socket, as many in each millisecond as are due."""
    name = channel.encode()
    commands = [
        b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(event), event)
        for event in events(Workload("publish", _DISTINCT, EXPERIMENTS))
    ]
    over = threading.Event()
    with socket.create_connection(("127.0.0.1", port_of(url))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_drain, args=(connection,), daemon=True).start()
        wait_for_go()
        threading.Thread(target=_set_at_end, args=(over,), daemon=True).start()
        begin, sent = time.perf_counter(), 0
        while not over.wait(_TICK_SECONDS):
            due = int(rate * (time.perf_counter() - begin))
            connection.sendall(b"".join(commands[n % _DISTINCT] for n in range(sent, due)))
            sent = due


def _set_at_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _drain(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
