"""Real agent processes for tests: `python -m redis_agent run`, their logs, their ends.

A process writes its log as JSON lines into a file of its own; tests wait for an event of it, not for time.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.waiting import eventually

ALL_ROLES = ("bridge", "worker", "dispatcher", "scheduler")
ROOT = Path(__file__).resolve().parent.parent

# Quick hand-overs, so that tests need not wait for the defaults; no endpoint unless asked for, and no summary in the
# middle of a test that happens to run when an hour ends.
QUICK = {
    "SUMMARY_INTERVAL_SECONDS": "2592000",
    "REDIS_AGENT_LEASE_SECONDS": "1",
    "REDIS_AGENT_RECLAIM_IDLE_SECONDS": "1",
    "REDIS_AGENT_DEFINITIONS_TTL_SECONDS": "0",
    "REDIS_AGENT_HTTP_PORT": "0",
    "REDIS_AGENT_LOG_FORMAT": "json",
}


def unused_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class AgentProcess:
    """One process of the agent; `start` it again after it ended, under the same settings."""

    def __init__(self, url: str, directory: Path, *, roles: Sequence[str], env: dict[str, str]) -> None:
        self.roles = tuple(roles)
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **QUICK, **env, "REDIS_URL": url}
        self._log = directory / f"agent-{id(self):x}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def port(self) -> int:
        return int(self._env["REDIS_AGENT_HTTP_PORT"])

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._running.poll()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the agent was not started"
        return self._process

    def start(self) -> "AgentProcess":
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "redis_agent", "run", "--roles", ",".join(self.roles)],
                env=self._env,
                cwd=tempfile.gettempdir(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    async def ready(self, timeout: float = 30.0) -> "AgentProcess":
        """Wait until all its roles are at work; a bridge may lead or follow."""

        def at_work() -> bool:
            assert self.alive, f"the agent ended with {self.exit_code}:\n{self.log_text()}"
            names = {line["event"] for line in self.log()}
            leads = names & {"bridge_leads", "bridge_leads_again"} or self._follows()
            return "started" in names and ("bridge" not in self.roles or ("subscribed" in names and bool(leads)))

        await eventually(at_work, timeout, what="the agent is at work")
        return self

    def _follows(self) -> bool:
        return any(line["event"] == "bridge_follows" for line in self.log())

    def log(self) -> list[dict[str, Any]]:
        """The log lines since the last start."""
        return list(_entries(self.log_text()))

    def history(self) -> list[dict[str, Any]]:
        """The log lines since the first start."""
        return list(_entries(self._log.read_text(errors="replace")))

    def log_text(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    async def logged(self, event: str, timeout: float = 15.0, **fields: object) -> dict[str, Any]:
        """Wait for a log line with this event and these fields."""

        def found() -> dict[str, Any] | None:
            return next(
                (e for e in self.log() if e["event"] == event and fields.items() <= e.items()),
                None,
            )

        return await eventually(found, timeout, what=f"log line {event} {fields}") or {}

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        """End it as a crash does."""
        self._running.kill()
        self._running.wait(10)

    async def terminate(self, timeout: float = 20.0) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        await eventually(lambda: not self.alive, timeout, what="the agent has ended")
        code = self.exit_code
        assert code is not None
        return code


def _entries(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "event" in entry:
                yield entry


class Agents:
    """Starts agents, and ends all that are left."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self._directory = directory
        self._started: list[AgentProcess] = []

    def start(self, *roles: str, url: str = "", http: bool = False, **env: object) -> AgentProcess:
        """Start an agent with these roles (all when none is named); settings by their variables' names."""
        given = {name: str(value) for name, value in env.items()}
        if http:
            given["REDIS_AGENT_HTTP_PORT"] = str(unused_port())
        agent = AgentProcess(url or self.url, self._directory, roles=roles or ALL_ROLES, env=given)
        self._started.append(agent)
        return agent.start()

    def logs(self) -> Iterator[str]:
        for agent in self._started:
            yield f"--- {','.join(agent.roles)}\n{agent.log_text()[-6000:]}"

    def end(self) -> None:
        for agent in self._started:
            if agent.alive:
                agent.kill()
