"""A small TCP proxy between one agent and its server that loses what networks lose, and knows what it carries.

It reads the requests that pass (RESP), so that the reply of a certain kind of command can be lost after the server has
executed it: `EVALSHA` goes by the name of the script. Loopback only.
"""

import asyncio
import contextlib
from collections import Counter
from functools import cache
from importlib import resources
from typing import Any

import hiredis

from redis_agent.store import scripts


@cache
def script_names() -> dict[bytes, str]:
    """Digest -> name of each of the agent's scripts."""
    folder = resources.files("redis_agent.store") / "lua"
    names = [entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua")]
    return {scripts.digest(name).encode(): name for name in names}


def kind_of(request: list[bytes]) -> str:
    """The kind of a command: its name, or the script's."""
    name = request[0].decode(errors="replace").upper()
    if name == "EVALSHA":
        return script_names().get(request[1], "EVALSHA")
    return name


class Connection:
    """One connection that passes through; `mute` swallows what the server says and then cuts it."""

    def __init__(self, down: asyncio.StreamWriter, up: asyncio.StreamWriter) -> None:
        self.down = down
        self.up = up
        self.mute = False

    def cut(self) -> None:
        """End both sides at once, as a reset does."""
        for side in (self.down, self.up):
            side.transport.abort()


class Proxy:
    """Listens on a port of its own; use it as an async context manager.

    Attributes:
        seen: how often each kind of command passed.
        lost: how many replies of each kind were lost.
        delay: seconds that every reply waits.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._to_lose: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.seen: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.delay = 0.0
        self._passing = asyncio.Event()
        self._passing.set()

    @property
    def url(self) -> str:
        """The server as seen through the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> "Proxy":
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lead_to(self, server_port: int) -> None:
        """New connections go to another server."""
        self._server_port = server_port

    def lose_replies(self, kind: str, times: int = 1) -> None:
        """The next replies to this kind of command are lost: executed, never heard of, and the connection is cut."""
        self._to_lose[kind] += times

    def forgive(self) -> None:
        """Lose nothing more."""
        self._to_lose.clear()

    def hang(self) -> None:
        """Nothing passes in either direction, and nothing is ended, until `pass_on`."""
        self._passing.clear()

    def pass_on(self) -> None:
        """What was held up goes on."""
        self._passing.set()

    def cut(self) -> None:
        """Cut every connection."""
        for connection in list(self._connections):
            connection.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server, up = await asyncio.open_connection("127.0.0.1", self._server_port, limit=1 << 20)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(writer, up)
        self._connections.add(connection)
        pumps = [
            asyncio.create_task(self._carry_requests(reader, connection)),
            asyncio.create_task(self._carry_replies(server, connection)),
        ]
        self._tasks.update(pumps)
        for pump in pumps:
            pump.add_done_callback(self._tasks.discard)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        self._connections.discard(connection)
        connection.cut()

    async def _carry_requests(self, reader: asyncio.StreamReader, connection: Connection) -> None:
        parser: Any = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 18):
                await self._passing.wait()
                parser.feed(data)
                while (request := parser.gets()) is not False:
                    self._look_at(request, connection)
                connection.up.write(data)
                await connection.up.drain()

    def _look_at(self, request: Any, connection: Connection) -> None:
        if not isinstance(request, list) or not request:
            return
        kind = kind_of(request)
        self.seen[kind] += 1
        if self._to_lose[kind] > 0:
            self._to_lose[kind] -= 1
            self.lost[kind] += 1
            connection.mute = True

    async def _carry_replies(self, server: asyncio.StreamReader, connection: Connection) -> None:
        with contextlib.suppress(OSError):
            while data := await server.read(1 << 18):
                await self._passing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if connection.mute:
                    return  # executed; the connection is cut
                connection.down.write(data)
                await connection.down.drain()
