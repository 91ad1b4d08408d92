"""Confirming: a batch counts as applied when the server has executed it, and that is as durable as asked for.

Batches are not held up by it: the next one is applied meanwhile, and one wait stands for all that were applied before
it. Sums and ack are one script, so a server that forgets a batch forgets both, and the events are handed out again:
nothing is lost and nothing twice while a batch waits here. What waits is only what is said and counted of it, and its
judgement.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.folding import Folded
from redis_agent.holding import first_of
from redis_agent.log import Throttle
from redis_agent.store.durability import Durability
from redis_agent.store.recovery import Recovery
from redis_agent.store.stream import Applied
from redis_agent.telemetry import Telemetry

# A batch that waits for longer than this is a hindrance.
LATE_SECONDS = 5.0
# Batches that may wait at once. More are not applied: the server is behind.
_MOST_BATCHES = 256


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A batch that was applied.

    Attributes:
        size: bytes of its events.
        server: the run of the server that was known then, "" for none.
        since: when, on the event loop's clock.
    """

    folded: Folded
    outcome: Applied
    size: int
    server: str
    since: float


class Confirming:
    """Says that batches are applied, in their order, each when it is durable.

    Args:
        tell: what is done when a batch counts as applied.
        most_bytes: of events in batches that wait.
    """

    def __init__(
        self,
        *,
        durability: Durability,
        telemetry: Telemetry,
        tell: Callable[[Folded, Applied], None],
        most_bytes: int,
    ) -> None:
        self._durability = durability
        self._telemetry = telemetry
        self._tell = tell
        self._most_bytes = most_bytes
        self._log = log.get("worker")
        self._throttle = Throttle()
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        self._server = ""
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def applied(self, folded: Folded, outcome: Applied) -> None:
        """The server has executed a batch. Returns when there is room for another one."""
        if not self._durability.waits:
            self._tell(folded, outcome)
            return
        size = sum(len(entry.data or b"") for entry in folded.entries)
        self._waiting.append(_Waiting(folded, outcome, size, self._server, asyncio.get_running_loop().time()))
        self._size += size
        self._arrived.set()
        while len(self._waiting) >= _MOST_BATCHES or self._size > self._most_bytes:
            self._room.clear()
            await self._room.wait()

    def hindrances(self) -> list[str]:
        """What keeps batches from counting as applied, in words; nothing when all is well."""
        late = asyncio.get_running_loop().time() - self._waiting[0].since if self._waiting else 0.0
        if late <= LATE_SECONDS:
            return []
        return [f"what is applied was not durable for {late:.0f} s: {len(self._waiting)} batches wait"]

    async def run(self, finished: asyncio.Event) -> None:
        """Confirm until the worker has finished and nothing waits any more."""
        # Waits are not cut short by the end: what was applied is still to be confirmed, and asking must not spin.
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=asyncio.Event())
        while self._waiting or not finished.is_set():
            if not self._waiting:
                self._arrived.clear()
                await first_of(self._arrived, finished)
                continue
            count = len(self._waiting)
            try:
                answers = await self._durability.reached(("INFO", "server"))
                recovery.succeeded()
            except (RedisError, OSError) as error:
                await recovery.after(error, "confirm")
                continue
            if answers is not None:
                self._confirm(count, _run_of(answers[0]))

    def _confirm(self, count: int, server: str) -> None:
        """The oldest batches are durable, as far as this server was the one that applied them."""
        doubtful = 0
        for _ in range(count):
            batch = self._waiting.popleft()
            self._size -= batch.size
            if batch.server in ("", server):
                self._tell(batch.folded, batch.outcome)
            else:
                # It may have them or not. What it does not have is applied again, and told then; what it has is
                # judged with the experiment's next event, or by the next sweep.
                doubtful += len(batch.folded.entries)
        self._server = server
        self._room.set()
        if doubtful:
            self._telemetry.events.labels("unconfirmed").inc(doubtful)
            if self._throttle.due("unconfirmed", asyncio.get_running_loop().time()):
                self._log.warning("batches_unconfirmed", entries=doubtful, why="the server was replaced or restarted")


def _run_of(info: Any) -> str:
    """The id of the server's run; "" where it does not say."""
    return str(info.get("run_id", "")) if isinstance(info, dict) else ""
