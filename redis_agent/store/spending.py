"""What the calls of the language model may cost, shared by all replicas: budget, circuit breaker, and known answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis

from redis_agent.store import keys, scripts

Outcome = Literal["ok", "failed", "limited"]
RefusedBy = Literal["minute", "day", "open"]

# What the script calls them.
_REFUSED_BY: dict[bytes, RefusedBy] = {b"minute": "minute", b"day": "day", b"open": "open"}

# Commands under way at once. A storm of questions must not take the connections that the other roles of the process
# share with it.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Breaker:
    """When the circuit opens, and for how long.

    Attributes:
        threshold: failures in a row, of all replicas. Few enough that an outage costs little of the budget; enough that
            one bad minute of one connection does not silence everybody.
        open_ms: how long it stays open the first time; each further time in a row twice as long.
        most_ms: the longest that it stays open, also when the service asks for more.
        trial_ms: after that one call at a time is let through; for so long others wait for what comes of it.
    """

    threshold: int = 5
    open_ms: int = 30_000
    most_ms: int = 900_000
    trial_ms: int = 15_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no call may be made now.

    Attributes:
        by: the budget of the minute or of the day, or the open circuit.
        left_ms: until it may be worth asking again.
    """

    by: RefusedBy
    left_ms: int


class Spending:
    """The budget, the breaker and the answers that are known.

    Every method raises what redis-py raises: without Redis nobody knows what was spent, and no call is made.

    Args:
        client: of the server.
        per_minute: calls within any minute; 0 for none at all.
        per_day: calls within a day (UTC).
        breaker: of the circuit.
    """

    def __init__(self, client: Redis, *, per_minute: int, per_day: int, breaker: Breaker | None = None) -> None:
        self._client = client
        self._per_minute = per_minute
        self._per_day = per_day
        self._breaker = breaker or Breaker()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def admit(self) -> Refusal | None:
        """Take one call out of the budget (see `lua/llm_admit.lua`); None when it may be made."""
        names = [keys.LLM, keys.LLM_CALLS]
        args: Sequence[int] = (self._per_minute, self._per_day, self._breaker.trial_ms)
        async with self._turns:
            by, left_ms = await scripts.run(self._client, "llm_admit", names, [*args])
        return Refusal(_REFUSED_BY[by], int(left_ms)) if by else None

    async def settle(
        self, outcome: Outcome, *, tokens_in: int = 0, tokens_out: int = 0, asked_seconds: float = 0.0
    ) -> float:
        """Report what became of a call that was admitted (see `lua/llm_settle.lua`).

        Args:
            outcome: `ok` when the service answered, whatever it said; `limited` when it says that it is too much.
            tokens_in: what it read.
            tokens_out: what it wrote and thought.
            asked_seconds: how long it asked us to wait.

        Returns:
            Seconds for which this opened the circuit; 0 when it did not.
        """
        breaker = self._breaker
        args = [outcome, tokens_in, tokens_out, breaker.threshold, breaker.open_ms, breaker.most_ms]
        asked_ms = min(int(asked_seconds * 1000), breaker.most_ms)
        async with self._turns:
            return int(await scripts.run(self._client, "llm_settle", [keys.LLM], [*args, asked_ms])) / 1000

    async def known(self, fingerprint: str) -> bytes | None:
        """The answer that was kept under this fingerprint."""
        async with self._turns:
            found: Any = await self._client.get(keys.llm_answer(fingerprint))
        return None if found is None else bytes(found)

    async def keep(self, fingerprint: str, answer: str, *, seconds: int) -> None:
        """Keep an answer for so long."""
        async with self._turns:
            await self._client.set(keys.llm_answer(fingerprint), answer, ex=seconds)
