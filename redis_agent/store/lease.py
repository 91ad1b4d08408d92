"""Leases with fencing tokens: at most one holder acts, and a late one is refused inside the script."""

import asyncio
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_agent.store import keys, scripts
from redis_agent.store.recovery import Recovery
from redis_agent.telemetry import Level, Telemetry


class Lease:
    """One named lease, as one owner sees it.

    The value that scripts compare is "token:owner". A token is never given twice, so a holder that was
    stopped and comes back after its lease ran out cannot be mistaken for the present one.
    """

    def __init__(self, client: Redis, *, name: str, owner: str, ttl_ms: int) -> None:
        self._client = client
        self._name = name
        self._owner = owner
        self._ttl_ms = ttl_ms

    @property
    def name(self) -> str:
        """The lease's key."""
        return self._name

    async def acquire(self) -> str | None:
        """Take the lease if it is free (or still ours); its value, or None while another holds it."""
        holder: bytes = await scripts.run(
            self._client, "lease_acquire", [self._name, keys.fence(self._name)], [self._owner, self._ttl_ms]
        )
        value = holder.decode()
        return value if value.partition(":")[2] == self._owner else None

    async def renew(self, value: str) -> bool:
        """Prolong the lease; False when it has passed to another or run out."""
        args = [value, self._ttl_ms]
        return bool(await scripts.run(self._client, "lease_renew", [self._name], args))

    async def release(self, value: str) -> None:
        """Give the lease back at once, so that the next holder need not wait for it to run out."""
        await scripts.run(self._client, "lease_release", [self._name], [value])


class Tenure(Protocol):
    """What `Leadership` keeps: a lease as one owner sees it (see `Lease`)."""

    @property
    def name(self) -> str:
        """The lease's key."""

    async def acquire(self) -> str | None:
        """Take the lease if it may be taken; its value, or None."""

    async def renew(self, value: str) -> bool:
        """Prolong the lease; False when it is held no more."""

    async def release(self, value: str) -> None:
        """Give the lease back."""


class Leadership:
    """Keeps a lease for as long as it can, and says at every moment whether it is held.

    Locally the lease counts as held for its time to live after the last renewal was *sent*, never longer than
    the server thinks; what matters is fenced in the scripts all the same.

    Args:
        lease: the lease.
        ttl_seconds: its time to live.
        log: the role's logger.
        telemetry: counts errors.
        gauge: set to 1 while the lease is held.
    """

    def __init__(self, *, lease: Tenure, ttl_seconds: float, log: Any, telemetry: Telemetry, gauge: Level) -> None:
        self._lease = lease
        self._ttl_seconds = ttl_seconds
        self._log = log
        self._telemetry = telemetry
        self._gauge = gauge
        self._value: str | None = None
        self._until = 0.0
        self._changed = asyncio.Event()
        self._again = asyncio.Event()
        self._resigned: str | None = None
        self._held_by_other = False

    @property
    def held_by_other(self) -> bool:
        """Whether another was seen to hold the lease when it was last asked for."""
        return self._held_by_other

    @property
    def value(self) -> str | None:
        """The lease's value while it is held, else None."""
        if self._value is not None and asyncio.get_running_loop().time() >= self._until:
            self.lose("expired")
        return self._value

    def lose(self, why: str) -> None:
        """A script said that the lease is not ours: stop acting on it at once and try to get it again."""
        if self._value is not None:
            self._log.warning("lease_lost", lease=self._lease.name, why=why)
        self._set(None, 0.0)
        self._again.set()

    def resign(self) -> None:
        """Give the lease back at once, and take part anew."""
        self._resigned = self._value
        self.lose("resigned")

    def hurry(self) -> None:
        """Something has changed: ask for the lease, or prolong it, at once."""
        self._again.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Acquire and renew until told to stop; then give the lease back."""
        # Whoever waits for longer than this after an outage loses what it could have kept, to one that knows less.
        longest = self._ttl_seconds / 5
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop, longest_seconds=longest)
        while not stop.is_set():
            try:
                await self._keep()
                recovery.succeeded()
            except (RedisError, OSError) as error:
                await recovery.after(error, f"lease {self._lease.name}")
                continue
            await self._pause(stop)
        await self._give_back()

    async def _keep(self) -> None:
        self._again.clear()
        if self._resigned is not None:
            await self._lease.release(self._resigned)
            self._resigned = None
        asked = asyncio.get_running_loop().time()
        held = self.value
        if held is not None and await self._lease.renew(held):
            self._set(held, asked + self._ttl_seconds)
            return
        if held is not None:
            self.lose("taken over or run out")
            self._again.clear()
        value = await self._lease.acquire()
        self._held_by_other = value is None
        if value is not None:
            self._log.info("lease_acquired", lease=self._lease.name, token=value.partition(":")[0])
            self._set(value, asked + self._ttl_seconds)

    async def _pause(self, stop: asyncio.Event) -> None:
        """A fifth of the time to live, or until there is reason to hurry or the role stops."""
        waits = [asyncio.ensure_future(e.wait()) for e in (stop, self._again)]
        try:
            await asyncio.wait(waits, timeout=self._ttl_seconds / 5, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _give_back(self) -> None:
        value = self._value
        self._set(None, 0.0)
        if value is None:
            return
        try:
            await self._lease.release(value)
            self._log.info("lease_released", lease=self._lease.name)
        except (RedisError, OSError) as error:
            self._log.warning("lease_not_released", lease=self._lease.name, error=str(error)[:200])

    def _set(self, value: str | None, until: float) -> None:
        self._value, self._until = value, until
        self._gauge.set(0 if value is None else 1)
        if value is not None:
            self._changed.set()
        else:
            self._changed.clear()

    async def held(self, timeout: float) -> str | None:
        """Wait up to `timeout` seconds for the lease; its value, or None."""
        if self.value is None:
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                return None
        return self.value
