"""What a role does after a failure of Redis: count it, say it now and then, wait with jitter, go on."""

import asyncio
import math
from typing import Any

from tenacity import RetryCallState, wait_random_exponential

from redis_agent.store.failures import Failure, Remedy, classify
from redis_agent.telemetry import Telemetry

# Seconds: the upper bound of the wait doubles from the first to the second with every failure in a row.
_RETRY_WAIT = (0.05, 2.0)
_PAUSE_WAIT = (0.5, 5.0)
_FATAL_WAIT = (2.0, 15.0)


# A condition of the whole server is over when no loop of the process has met it for so long.
_QUIET_SECONDS = 5.0


class Recovery:
    """The failures in a row of one loop.

    What a process says of failures is bounded, however many of its loops meet one: a condition of the server as a whole
    is said once a minute by all of them together, one of a single command or key once a minute by each loop that meets
    it, and that it is over at most as often.

    Args:
        log: the role's logger.
        telemetry: counts errors by kind, and knows what the other loops have said.
        stop: ends a wait early.
        longest_seconds: no wait is longer than this, whatever the error.
    """

    def __init__(
        self, *, log: Any, telemetry: Telemetry, stop: asyncio.Event, longest_seconds: float = math.inf
    ) -> None:
        self._log = log
        self._telemetry = telemetry
        self._stop = stop
        self._longest_seconds = longest_seconds
        self._failures = 0
        self._met: dict[str, tuple[str, str, float]] = {}

    def succeeded(self) -> None:
        """The loop works (again)."""
        self._failures = 0
        if not self._met:
            return
        now = asyncio.get_running_loop().time()
        for name, (doing, kind, quiet_seconds) in list(self._met.items()):
            to_say = self._telemetry.conditions.over(name, now, quiet_seconds)
            if to_say is not None:
                del self._met[name]
            if to_say:
                self._log.info("recovered", doing=doing, kind=kind)

    async def after(self, error: Exception, doing: str) -> Failure:
        """Note an error (see `note`) and wait: full jitter, longer each time."""
        failure = self.note(error, doing)
        if failure.remedy is not Remedy.RECREATE or self._failures > 1:
            await sleep_unless(self._stop, self.wait_seconds(failure))
        return failure

    def note(self, error: Exception, doing: str) -> Failure:
        """Sort an error, count it, and say it if that is due.

        Args:
            error: what happened.
            doing: what failed, in a constant word or two.
        """
        failure = classify(error)
        self._telemetry.redis_errors.labels(failure.kind).inc()
        self._failures += 1
        name = failure.kind if failure.of_server else f"{doing}:{failure.kind}"
        self._met[name] = doing, failure.kind, _QUIET_SECONDS if failure.of_server else 0.0
        times = self._telemetry.conditions.met(name, asyncio.get_running_loop().time())
        if times:
            self._log.warning(
                "redis_failure",
                doing=doing,
                kind=failure.kind,
                remedy=failure.remedy.value,
                meaning=failure.meaning,
                error=f"{type(error).__name__}: {error}"[:300],
                failures=times,
            )
        return failure

    def wait_seconds(self, failure: Failure) -> float:
        """How long to wait after this failure, given how many there were in a row: full jitter, doubling."""
        first, longest = {Remedy.PAUSE: _PAUSE_WAIT, Remedy.FATAL: _FATAL_WAIT}.get(failure.remedy, _RETRY_WAIT)
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = max(1, self._failures)
        return max(0.01, min(wait_random_exponential(multiplier=first, max=longest)(state), self._longest_seconds))


async def sleep_unless(stop: asyncio.Event, seconds: float) -> bool:
    """Sleep, but wake at once when `stop` is set; whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return stop.is_set()
    return True
