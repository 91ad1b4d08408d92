"""Wall time, CPU time of both sides and memory of one measured loop, taken in the process that runs it."""

import os
import sys
import time
from collections.abc import Mapping

from redis.asyncio import Redis

from bench.machine import busy_seconds, resident_bytes


def server_seconds(info: Mapping[str, float]) -> float:
    """CPU time in INFO cpu: of the main thread where it is said, without what fsyncs in the background."""
    if "used_cpu_user_main_thread" in info:
        return info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"]
    return info["used_cpu_user"] + info["used_cpu_sys"]


class Stopwatch:
    """Wall time and CPU time of both sides, and what others of this machine used meanwhile.

    Attributes:
        figures: `seconds`, `client_cpu`, `server_cpu`, `rss`, and `others` where the system says it.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.figures: dict[str, float] = {}

    async def __aenter__(self) -> "Stopwatch":
        self._server = server_seconds(await self._client.info("cpu"))
        self._busy = busy_seconds()
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        return self

    def stop(self) -> None:
        """The last event is applied: what follows is tidying up."""
        if not self.figures:
            self.figures["seconds"] = time.perf_counter() - self._wall
            self.figures["client_cpu"] = time.process_time() - self._cpu
            self._busy_after = busy_seconds()

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        self.figures["server_cpu"] = server_seconds(await self._client.info("cpu")) - self._server
        self.figures["rss"] = resident_bytes(os.getpid())
        if self._busy is not None and self._busy_after is not None:
            ours = self.figures["client_cpu"] + self.figures["server_cpu"]
            others = (self._busy_after - self._busy - ours) / self.figures["seconds"]
            self.figures["others"] = max(0.0, others)


def wait_for_go() -> None:
    """Say that all is prepared, and wait for the word to begin."""
    print("ready", flush=True)
    sys.stdin.readline()
