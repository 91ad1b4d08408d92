"""Connections, pools and clients of redis-py without what costs more than the command itself.

A worker that keeps up applies a few events at a time, so that what it does is mostly commands. Of redis-py's 40
microseconds for one, half are lookups for metrics that nobody collects, two timers, and coroutines around them.
"""

import asyncio
import builtins
import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import hiredis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - what redis-py raises here
    InvalidResponse,
    ResponseError,
    TimeoutError,  # noqa: A004 - the same
)

# Replies of a pipeline that are taken before others in the process get their turn.
_SLICE = 256
# A batch must leave in one go: what does not fit the socket's buffer waits for the event loop, which is busy folding
# the next batch meanwhile, and the server idles.
_SEND_BUFFER_BYTES = 2_097_152


class Tuned(AbstractConnection):
    """What redis-py's asyncio connections lack: commands packed in C, room for a whole batch, and few timers."""

    _timer: asyncio.TimerHandle | None = None
    # Until when the reply that is waited for must have come, on the event loop's clock.
    _until: float | None = None
    _held: Any = NOT_ENOUGH_DATA

    @property
    def is_ready(self) -> bool:
        """Whether it is connected, and nothing is left of what was asked before."""
        if not self.is_connected:
            return False
        # redis-py looks there, too: there is no public way to see it.
        stream: Any = self._reader
        parser: Any = self._parser
        return not (stream._buffer or stream.at_eof() or parser._reader.has_data())  # noqa: SLF001

    def pack_command(self, *args: Any) -> list[bytes]:
        """Pack one command; redis-py does this in Python, at a quarter of a worker's time."""
        first = args[0]
        if isinstance(first, str) and " " in first:  # "XGROUP CREATE" is two words
            args = (*first.split(), *args[1:])
        return [hiredis.pack_command(args)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """Pack many."""
        return [packed for command in commands for packed in self.pack_command(*command)]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Send at once, in this step of the event loop.

        redis-py sends from a task of its own (asyncio.wait_for): the event loop may fold a whole batch before that
        runs, and on Python 3.11 wait_for can swallow a cancellation, so that a task would not end.
        """
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]
        if check_health and self.health_check_interval:
            await self.check_health()  # type: ignore[no-untyped-call]
        if isinstance(command, str):
            command = command.encode()
        try:
            writer = self._writer
            if writer is None:
                raise ConnectionError("the connection is closed")  # noqa: TRY301
            writer.writelines([command] if isinstance(command, bytes) else command)
            # Nearly always all of it has left by now.
            if writer.transport.get_write_buffer_size() or writer.transport.is_closing():
                async with asyncio.timeout(self.socket_timeout):
                    await writer.drain()
        except builtins.TimeoutError:
            await self.disconnect(nowait=True)
            raise TimeoutError("Timeout writing to socket") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            raise ConnectionError(f"Error while writing to socket: {error}") from error
        except BaseException:
            # Half a command may have been sent.
            await self.disconnect(nowait=True)
            raise

    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,
        *,
        disconnect_on_error: bool = True,
        push_request: bool | None = False,
    ) -> Any:
        """Read a reply: at once where it has arrived with the one before it, else within the socket's timeout."""
        reply = self.arrived()
        if reply is not NOT_ENOUGH_DATA:
            return reply
        if timeout is None and self.socket_timeout is not None:
            self._watch(self.socket_timeout)
            timeout = math.inf
        try:
            return await super().read_response(
                disable_decoding,
                timeout,
                disconnect_on_error=disconnect_on_error,
                push_request=push_request,
            )
        finally:
            self._until = None

    async def _read_response_from_parser(self, *args: Any, **options: Any) -> Any:
        reply, self._held = self._held, NOT_ENOUGH_DATA
        if reply is NOT_ENOUGH_DATA:
            return await super()._read_response_from_parser(*args, **options)
        if isinstance(reply, list):
            raise reply[0]
        if isinstance(reply, ResponseError):
            return reply
        raise reply

    def arrived(self) -> Any:
        """A reply that has arrived with the one before it.

        NOT_ENOUGH_DATA where there is none, or one that `read_response` is to raise.
        """
        if self._held is not NOT_ENOUGH_DATA or not self.is_connected:
            return NOT_ENOUGH_DATA
        parser: Any = self._parser
        try:
            reply = parser._reader.gets()  # noqa: SLF001 - redis-py has no other way to what it has read already
        except InvalidResponse as error:
            reply = error
        if isinstance(reply, Exception) or (isinstance(reply, list) and _begins_with_failure(reply)):
            # What becomes of a failure is said by the classes behind this one.
            self._held, reply = reply, NOT_ENOUGH_DATA
        return reply

    def _watch(self, seconds: float) -> None:
        """One timer serves all reads of a connection: each of its own would cost more than the read."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + seconds
        if self._timer is None:
            self._timer = loop.call_at(self._until, self._look)

    def _look(self) -> None:
        """End the read that has waited for too long; look again later if one waits now."""
        self._timer = None
        if self._until is None:
            return
        loop = asyncio.get_running_loop()
        reader: Any = self._reader
        if loop.time() < self._until:
            self._timer = loop.call_at(self._until, self._look)
        elif reader is not None and not reader._buffer:  # noqa: SLF001 - a reply that has come is about to be read
            reader.set_exception(TimeoutError(f"Timeout reading from {self._host_error()}"))

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Widen the socket's send buffer, then greet the server."""
        if self._timer is not None:
            self._timer.cancel()  # of another event loop, perhaps
            self._timer = None
        self._held = NOT_ENOUGH_DATA
        sock = self._writer.get_extra_info("socket") if self._writer is not None else None
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        await super().on_connect_check_health(check_health)


def _begins_with_failure(reply: list[Any]) -> bool:
    return bool(reply) and isinstance(reply[0], ConnectionError)


class TunedPool(ConnectionPool):
    """A pool of tuned connections that counts nothing, and looks at a connection only where that is needed."""

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """A connection that is ready for a command."""
        connection: Any = self.get_available_connection()  # type: ignore[no-untyped-call]
        if not connection.is_ready:
            try:
                await self.ensure_connection(connection)
            except BaseException:
                await self.release(connection)
                raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back."""
        self._in_use_connections.remove(connection)
        if connection.should_reconnect():
            await connection.disconnect()
        self._available_connections.append(connection)


class TunedClient(Redis):
    """A client that sends a command once, on a connection of its pool."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command; a connection that fails, or is left without its reply, ends."""
        pool = self.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(connection.pack_command(*args))
            return await self.parse_response(connection, args[0], **options)
        finally:
            await pool.release(connection)


class TunedPipeline(Pipeline):
    """A pipeline that sends its commands once, and takes their replies without a detour for each."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the commands; where an error is not raised, it stands among the replies."""
        commands = self.command_stack
        if not commands or self.is_transaction or self.explicit_transaction or self.watching or self.scripts:
            return await super().execute(raise_on_error)
        connection = await self.connection_pool.get_connection()
        try:
            await connection.send_packed_command(connection.pack_commands(args for args, _ in commands))
            replies = await self._replies(connection, [(args[0], options) for args, options in commands])
        except BaseException:
            # What is still to come must not be taken for another command's reply.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self.connection_pool.release(connection)
            await self.reset()  # type: ignore[no-untyped-call]
        if raise_on_error:
            self.raise_first_error(commands, replies)
        return replies

    async def _replies(self, connection: Any, commands: Sequence[tuple[str | bytes, Mapping[str, Any]]]) -> list[Any]:
        arrived, read, replies = connection.arrived, connection.read_response, []
        callbacks = {name: self.response_callbacks.get(name) for name in {name for name, _ in commands}}
        for n, (name, options) in enumerate(commands):
            if n % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            try:
                reply = arrived()
                if reply is NOT_ENOUGH_DATA:
                    reply = await read()
            except ResponseError as error:
                reply = error
            else:
                callback = callbacks[name]
                if callback is not None:
                    # Keys are for a cache of replies, which there is none of here.
                    reply = callback(reply, **{o: value for o, value in options.items() if o != "keys"})
            replies.append(reply)
        return replies
