"""Child processes of a measurement: started, spoken to over pipes, and never left behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

_START_SECONDS = 20.0


class Child:
    """`python -m <module> <args>`, which says "ready" and then waits for a line.

    Args:
        module: what is run; with a path before it, by the Python of another environment: `/env/bin/python:module`.
    """

    def __init__(self, module: str, *args: str) -> None:
        python, _, name = module.rpartition(":")
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", name, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        self.expect("ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def expect(self, word: str) -> None:
        """Wait for a line of one word."""
        line = self._line()
        if line != word:
            raise RuntimeError(f"{self._process.args} said {line!r}, expected {word!r}")

    def go(self) -> None:
        """Let it begin."""
        self.say("go")

    def end(self) -> None:
        """Let its input end."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def say(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """What it measured."""
        result: dict[str, Any] = json.loads(self._line())
        return result

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended: its reason is on stderr")
        return line.strip()


class Agent:
    """The real program with some roles, as `redis-agent run` starts it; settings by their variables' names."""

    def __init__(self, url: str, roles: str, **settings: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_AGENT_")}
        env |= {"REDIS_URL": url, "REDIS_AGENT_HTTP_PORT": "0", "REDIS_AGENT_LOG_LEVEL": "error"}
        env.pop("GOOGLE_API_KEY", None)
        env |= settings
        self._process = subprocess.Popen([sys.executable, "-m", "redis_agent", "run", "--roles", roles], env=env)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds while the program lives."""
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the agent does not come up: {what}")
            time.sleep(0.02)
