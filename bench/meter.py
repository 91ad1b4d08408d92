"""Tools of the measurements: CPU of servers during a block, and services that publish."""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis

_SERVICES = 50
_IDLE_SECONDS = 0.5
_PATIENCE_SECONDS = 20.0
_ROUNDS = 3


def send(port: int, *command: object) -> Any:
    with redis.Redis(port=port, protocol=2, decode_responses=True) as client:
        return client.execute_command(*command)


def _cpu(port: int) -> float:
    """CPU seconds of a server's main thread."""
    facts = send(port, "INFO", "cpu")
    return float(facts["used_cpu_user_main_thread"]) + float(facts["used_cpu_sys_main_thread"])


class Meter:
    """CPU of some servers during a block, without what they spend when nothing is asked of them.

    Attributes:
        spent: seconds of each, in their order.
        seconds: how long the block took.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self.spent: list[float] = []
        self.seconds = 0.0

    def __enter__(self) -> "Meter":
        before = [_cpu(port) for port in self._ports]
        time.sleep(_IDLE_SECONDS)
        self._before = [_cpu(port) for port in self._ports]
        self._idle = [(b - a) / _IDLE_SECONDS for a, b in zip(before, self._before, strict=True)]
        self._begin = time.perf_counter()
        return self

    def stop(self) -> None:
        """The last event has passed: what follows is tidying up."""
        if self.spent:
            return
        after = [_cpu(port) for port in self._ports]
        self.seconds = time.perf_counter() - self._begin
        both = zip(self._before, after, self._idle, strict=True)
        self.spent = [max(0.0, b - a - idle * self.seconds) for a, b, idle in both]

    def __exit__(self, *_: object) -> None:
        self.stop()

    def per(self, events: int) -> list[float]:
        """Microseconds per event."""
        return [round(spent / events * 1e6, 2) for spent in self.spent]


def least(ports: Sequence[int], round_trip: Callable[[], None], events: int) -> list[float]:
    """The least that so many events cost each server in any of three rounds, microseconds per event."""
    rounds = []
    for _ in range(_ROUNDS):
        rest()
        with Meter(ports) as meter:
            round_trip()
        rounds.append(meter.per(events))
    return [min(column) for column in zip(*rounds, strict=True)]


class Services:
    """Publishers as services are: each sends its message, and the next when it has its answer.

    Args:
        port: of the server.
        command: PUBLISH or SPUBLISH.
        channel: where to.
        sample: the messages, over and over.
        at_once: how many messages each sends before it waits for their answers.
    """

    def __init__(self, port: int, command: bytes, channel: str, sample: Sequence[bytes], *, at_once: int = 1) -> None:
        name = channel.encode()
        self._at_once = at_once
        self._commands = [
            b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
            % (len(command), command, len(name), name, len(event), event)
            for event in sample
        ]
        self._connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(_SERVICES)]
        for connection in self._connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def publish(self, count: int) -> None:
        """So many messages, or a few more."""
        for _ in range(-(-count // (_SERVICES * self._at_once))):
            for connection in self._connections:
                first = self.sent % len(self._commands)
                connection.sendall(b"".join(self._commands[first : first + self._at_once]))
                self.sent += self._at_once
            for connection in self._connections:
                self._await_answers(connection)

    def _await_answers(self, connection: socket.socket) -> None:
        answered = 0
        while answered < self._at_once:
            answers = connection.recv(65_536)
            if not answers.startswith(b":") or b"-" in answers:
                raise RuntimeError(f"a message was not accepted: {answers!r}")
            answered += answers.count(b"\n")


def wait_for(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {_PATIENCE_SECONDS:g} s: {what}")
        time.sleep(0.005)


class Listener:
    """A subscriber that counts, in a thread of this process.

    Attributes:
        heard: messages so far.
    """

    def __init__(self, port: int, channel: str) -> None:
        self.heard = 0
        self._parser = hiredis.Reader()
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.sendall(f"SUBSCRIBE {channel}\r\n".encode())
        while self._parser.gets() is False:  # the confirmation
            self._parser.feed(self._connection.recv(65_536))
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _listen(self) -> None:
        while data := self._connection.recv(1 << 20):
            self._parser.feed(data)
            while self._parser.gets() is not False:
                self.heard += 1


def rest() -> None:
    """Let what was begun come to an end before an idle node is looked at."""
    time.sleep(_IDLE_SECONDS)
