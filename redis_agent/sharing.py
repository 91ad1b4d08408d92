"""A role in several partitions at once: in each of them, or in those that are this process's share.

Of the live processes with workers each reads the partitions that a hash gives it (rendezvous hashing: when a process
comes or goes, only its own partitions change hands). Nothing depends on who reads what but how the work is divided: two
that read one partition do so as two workers of one consumer group.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

import structlog
from redis.exceptions import RedisError

from redis_agent import log
from redis_agent.store.inspection import Inspection
from redis_agent.store.recovery import Recovery, sleep_unless
from redis_agent.telemetry import Liveness, Telemetry

# Seconds between two looks at who is there.
_LOOK_SECONDS = 1.0


class Role(Protocol):
    """What runs until told to stop, and then finishes what it has begun."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until told to stop."""


def share_of(name: str, others: Sequence[str], partitions: int) -> frozenset[int]:
    """The partitions that belong to a process, by its name and those of the others that are there."""

    def weight(of: str, partition: int) -> bytes:
        return blake2b(f"{partition}|{of}".encode("utf-8", "replace"), digest_size=8).digest()

    names = {name, *others}
    return frozenset(n for n in range(partitions) if max(names, key=lambda of: (weight(of, n), of)) == name)


def hindrances_of(role: object) -> list[str]:
    """What keeps a role from its work, in words; of a role that does not say, nothing."""
    say: Callable[[], list[str]] | None = getattr(role, "hindrances", None)
    return [] if say is None else say()


async def _run(role: Role, partition: int, stop: asyncio.Event) -> None:
    """Run it in a task of its own: what it logs says of which partition it is."""
    structlog.contextvars.bind_contextvars(partition=partition)
    await role.run(stop)


class Alongside:
    """A role in each partition; when one ends, all do."""

    def __init__(self, roles: Mapping[int, Role]) -> None:
        self._roles = roles

    def hindrances(self) -> list[str]:
        """What keeps them from their work, in words; nothing when all is well."""
        return [f"partition {n}: {problem}" for n, role in self._roles.items() for problem in hindrances_of(role)]

    async def run(self, stop: asyncio.Event) -> None:
        """Run all of them until told to stop."""

        async def until_one_ends(number: int, role: Role) -> None:
            try:
                await _run(role, number, stop)
            finally:
                stop.set()

        async with asyncio.TaskGroup() as tasks:
            for number, role in self._roles.items():
                tasks.create_task(until_one_ends(number, role))


class Shared:
    """The worker's role in the partitions that are this process's share, as processes come and go.

    Args:
        make: makes the role in one partition.
        partitions: how many there are.
        name: this process among the replicas.
        inspection: of the home partition, which has the roster.
        alive_seconds: a process that gave no sign of life for so long counts as gone.
        liveness: of one partition's loops.
    """

    def __init__(
        self,
        *,
        make: Callable[[int], Role],
        partitions: int,
        name: str,
        inspection: Inspection,
        alive_seconds: float,
        liveness: Callable[[int], Liveness],
        telemetry: Telemetry,
    ) -> None:
        self._make = make
        self._partitions = partitions
        self._name = name
        self._inspection = inspection
        self._alive_seconds = alive_seconds
        self._liveness = liveness
        self._telemetry = telemetry
        self._log = log.get("worker")
        self._roles: dict[int, Role] = {}
        self._tasks: dict[int, tuple[asyncio.Task[None], asyncio.Event]] = {}

    def hindrances(self) -> list[str]:
        """What keeps them from their work, in words; nothing when all is well."""
        return [f"partition {n}: {problem}" for n, role in self._roles.items() for problem in hindrances_of(role)]

    async def run(self, stop: asyncio.Event) -> None:
        """Work in the share, whatever it is by then, until told to stop."""
        recovery = Recovery(log=self._log, telemetry=self._telemetry, stop=stop)
        share = frozenset[int]()
        heard = asyncio.get_running_loop().time()
        try:
            while not stop.is_set():
                try:
                    share = await self._share()
                    heard = asyncio.get_running_loop().time()
                    recovery.succeeded()
                except (RedisError, OSError) as error:
                    recovery.note(error, "share")
                    if asyncio.get_running_loop().time() - heard > self._alive_seconds:
                        share = frozenset(range(self._partitions))  # who knows who is still there
                await self._change(share)
                await sleep_unless(stop, _LOOK_SECONDS)
        finally:
            await self._change(frozenset())
            await asyncio.gather(*(task for task, _ in self._tasks.values()))

    async def _share(self) -> frozenset[int]:
        now_ms = await self._inspection.now_ms()
        replicas = await self._inspection.replicas(now_ms, within_ms=int(1000 * self._alive_seconds))
        return share_of(
            self._name, [replica.name for replica in replicas if "worker" in replica.roles], self._partitions
        )

    async def _change(self, share: frozenset[int]) -> None:
        """Begin in what is new in the share, end in what is no more; what has ended by itself has failed."""
        for number, (task, ending) in list(self._tasks.items()):
            if task.done():
                del self._tasks[number], self._roles[number]
                self._liveness(number).end("worker")
                task.result()
            elif number not in share:
                ending.set()  # it finishes what it has read, and is taken up again only after that
        new = sorted(share - self._tasks.keys())
        if new:
            self._log.info("partitions_taken", partitions=new, share=sorted(share))
        for number in new:
            ending = asyncio.Event()
            role = self._roles[number] = self._make(number)
            self._tasks[number] = asyncio.create_task(_run(role, number, ending)), ending
