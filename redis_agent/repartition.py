"""Changes the number of partitions, with all that is known of the experiments: while no agent runs.

What is there is only read until all that will be has been copied, compared and recorded as complete:

1. *Look.* Nobody runs, and nothing is under way: else it is said what is in the way, and nothing is changed.
2. *Copy.* `redis_agent:partitions` says from how many to how many: from now on no agent starts, and no command looks.
   Keys of experiments are copied to where they belong; what each partition has of its own is prepared beside it.
3. *Settle.* Everything is compared, and looked at once more; then the record says that the new state counts.
4. *Arrive and clear.* What was prepared is put into its place, one step a partition; what is left of the old goes.

Killed in step 2 the old state is whole: the next run begins the copying anew, or takes it back. Killed in step 4 the
new state is whole: the next run puts into its place what is not there yet, and deletes what is left. Step 3 is one
write. Of two runs at once the second takes over, and the first finds the record changed. With REDIS_AGENT_DURABILITY a
failover between the steps forgets nothing: each is durable before the next one begins. One within a step ends the run.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from redis.asyncio import Redis

from redis_agent import dividing
from redis_agent.belongings import is_copied, is_ours, is_passing, places
from redis_agent.config import Settings
from redis_agent.errors import PartitionsError
from redis_agent.obstacles import STREAMS, Obstacle, at_work, left_over, under_way
from redis_agent.store import division, keys
from redis_agent.store.durability import BARRIER, Durability
from redis_agent.store.partitions import Partition, Partitions, Recorded, change_record, recorded_again
from redis_agent.store.relocation import Relocation, clear
from redis_agent.store.stream import text
from redis_agent.telemetry import Telemetry

# Times, of about a second each, that what was written is waited for to be durable.
_PATIENCE = 30

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a change, or would.

    Attributes:
        outcome: "changed", "unchanged" (there are as many already), "taken_back", "blocked", "possible" (a dry run).
        before, after: numbers of partitions.
        experiments: of the index.
        keys: copied to another partition; 0 where an earlier run has done it.
        events, dead_letters, alerts: entries of the streams.
        events_left_out: entries of the history older than what some partition has; as `keys`.
        renumbered: entries of the streams that got another id; as `keys`.
        obstacles: what is in the way.
    """

    outcome: str
    before: int
    after: int
    experiments: int = 0
    keys: int = 0
    events: int = 0
    dead_letters: int = 0
    alerts: int = 0
    events_left_out: int = 0
    renumbered: int = 0
    obstacles: list[Obstacle] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


async def repartition(settings: Settings, to: int, *, dry_run: bool, say: Say) -> Report:
    """Change the number of partitions, end a change that was begun, or take it back.

    Args:
        settings: of the agent; its number of partitions does not count here.
        to: how many there will be; while a change is under way, how many it was to be, or how many there were.
        dry_run: only look.
        say: hears what is done.

    Raises:
        PartitionsError: it cannot be done, in words.
        DurabilityError: the server cannot promise the durability asked for.
        RedisError, OSError: it was interrupted; run again, it goes on.
    """
    async with _opened(settings, to) as wanted:
        recorded = await wanted.recorded()
        if recorded is None:
            if wanted.topology is not None:
                raise PartitionsError("nothing is recorded of a number of partitions: no agent has run in this cluster")
            recorded = Recorded(1)
        before, becoming = recorded.partitions, recorded.becoming
        if becoming is None:
            if before == to:
                return Report("unchanged", before, to)
        elif to not in (before, becoming) or (recorded.settled and to != becoming):
            raise PartitionsError(
                f"a change from {before} to {becoming} partitions is under way: end it first, with --to {becoming}"
                + ("" if recorded.settled else f", or take it back with --to {before}")
            )
        async with _opened(settings, before) as old, _opened(settings, becoming or to) as new:
            change = _Change(settings, old, new, say)
            if dry_run:
                return await change.look(recorded)
            return await change.run(recorded, back=becoming is not None and to == before)


@asynccontextmanager
async def _opened(settings: Settings, count: int) -> AsyncIterator[Partitions]:
    partitions = Partitions(settings.address, count, name="redis-agent:repartition")
    try:
        yield partitions
    finally:
        await partitions.aclose()


class _Change:
    """From some partitions to others."""

    def __init__(self, settings: Settings, old: Partitions, new: Partitions, say: Say) -> None:
        self._settings = settings
        self._old = old
        self._new = new
        self._say = say
        self._relocation = Relocation(old.all, new.all, self._places)
        self._telemetry = Telemetry()

    def _places(self, key: bytes) -> frozenset[int]:
        # Somebody else's list stays where it is.
        if not self._settings.metrics_list and key.startswith(keys.raw_events("").encode()):
            return frozenset()
        return places(key, len(self._new.all))

    # The steps ---------------------------------------------------------------------------------------------

    async def look(self, recorded: Recorded) -> Report:
        """What would be done."""
        obstacles = await self._obstacles(reads=not recorded.settled, begins=recorded.becoming is None)
        report = self._report("blocked" if obstacles else "possible", obstacles=obstacles)
        if recorded.settled:
            return report
        return replace(await self._counted(report, self._old), keys=await self._relocation.count())

    async def run(self, recorded: Recorded, *, back: bool) -> Report:
        """Do what is left to do."""
        reads = not (recorded.settled or back)
        obstacles = await self._obstacles(reads=reads, begins=recorded.becoming is None)
        if obstacles:
            return self._report("blocked", obstacles=obstacles)
        for partition in self._new.all:
            await self._durability(partition.client, BARRIER).check()
        own = Recorded(len(self._old.all), len(self._new.all), recorded.settled, uuid.uuid4().hex[:8])
        await self._record(self._as_written(recorded), own)
        if back:
            await self._take_back(own)
            return self._report("taken_back")
        report = self._report("changed")
        if not recorded.settled:
            report = await self._copy(report)
            settled = replace(own, settled=True)
            await self._record(own, settled)
            own = settled
        await self._arrive(own)
        return await self._counted(report, self._new)

    async def _copy(self, report: Report) -> Report:
        """Step 2 and what is looked at in step 3."""
        sources, targets = self._old.all, self._new.all
        lines = await _lines(self._new)
        await self._clear(self._new, self._old)
        before = [await _written(partition) for partition in sources]
        self._say("copying what belongs to experiments")
        moved = await self._relocation.copy()
        self._say("preparing streams and indexes")
        divided = await dividing.prepare(sources, targets, max_event_bytes=self._settings.max_event_bytes)
        await self._durable(self._new)
        self._say("comparing")
        await self._relocation.verify()
        for stream, found in divided.items():
            there = sum([int(await target.client.xlen(keys.arriving(stream))) for target in targets])
            if there != sum(found.lengths):
                raise PartitionsError(f"{stream} has changed while it was copied: run this again")
        if await self._obstacles(reads=True) or before != [await _written(partition) for partition in sources]:
            raise PartitionsError(
                "somebody has written to the old partitions meanwhile: stop all agents and run this again"
            )
        for target in targets:
            await division.complete(target)
        await self._durable(self._new)
        await _still(lines, self._new)
        return replace(
            report,
            keys=moved,
            events_left_out=divided[keys.STREAM].dropped,
            renumbered=sum(found.renumbered for found in divided.values()),
        )

    async def _arrive(self, own: Recorded) -> None:
        """Step 4."""
        both = (self._old, self._new)
        lines = [await _lines(partitions) for partitions in both]
        self._say("putting what was prepared into its place")
        for target in self._new.all:
            await division.arrive(target)
        self._say("deleting what is left")
        await self._clear(self._old, self._new)
        if self._new.plain:
            await self._forget_copies()
        for line, partitions in zip(lines, both, strict=True):
            await self._durable(partitions)
            await _still(line, partitions)
        await self._forget_barriers()
        await self._record(own, self._as_written(Recorded(len(self._new.all))))

    async def _take_back(self, own: Recorded) -> None:
        self._say("deleting what was copied")
        await self._clear(self._new, self._old)
        await self._durable(self._old)
        await self._record(own, self._as_written(Recorded(len(self._old.all))))

    def _is_state(self, key: bytes) -> bool:
        if self._new.plain:
            return is_ours(key) and not (is_copied(key) or is_passing(key))
        return not is_passing(key)

    def _as_written(self, recorded: Recorded) -> Recorded | None:
        """As it is recorded: with one partition without a namespace nothing is."""
        plain = {len(p.all) for p in (self._old, self._new) if p.plain}
        return None if recorded.becoming is None and recorded.partitions in plain else recorded

    async def _clear(self, doomed: Partitions, kept: Partitions) -> None:
        """Delete what is of some partitions and not of the others that count, copies of which others read stay."""
        namespaces = {partition.namespace: partition for partition in kept.all}
        for partition in doomed.all:
            same = namespaces.get(partition.namespace)
            if same is not None:
                if doomed is self._new:
                    await division.give_up(partition)
                await clear(partition, _stays_in(same.number, len(kept.all)))
            elif partition.namespace:
                await clear(partition, lambda _: False)
            else:
                await clear(partition, lambda key: not is_ours(key) or is_copied(key))

    async def _forget_copies(self) -> None:
        """Nothing is copied any more: how far that was done says nothing."""
        async for member, _ in self._new.home.client.zscan_iter(keys.EXPERIMENTS):
            version = keys.copied(text(member))
            if version is not None:
                await self._new.wide.unlink(version)

    async def _forget_barriers(self) -> None:
        namespaces = {partition.namespace for partition in self._new.all}
        for partition in self._old.all:
            if partition.namespace not in namespaces:
                await partition.client.unlink(keys.BARRIER)

    async def _obstacles(self, *, reads: bool, begins: bool = False) -> list[Obstacle]:
        """What is in the way: who is at work, what is under way in a state that is read, what stands in a new place."""
        found = await at_work(self._old)
        if begins:
            apart = [p for p in self._new.all if p.namespace not in {one.namespace for one in self._old.all}]
            found += await left_over(apart, self._is_state)
        if reads:
            found += await under_way(self._old, channel=self._settings.orchestrator_channel)
        return found

    # The record, and what is relied on ---------------------------------------------------------------------

    async def _record(self, expected: Recorded | None, new: Recorded | None) -> None:
        """Record how far it is, durably.

        Raises:
            PartitionsError: somebody else has recorded something meanwhile.
        """
        wide = self._new.wide
        recorded = await change_record(wide, expected, new)
        if recorded:
            await self._reached(await self._new.node_of_record(), barrier=recorded_again(new))
            recorded = await change_record(wide, new, new)  # a server that took over may have forgotten it
        if not recorded:
            raise PartitionsError("what is recorded has changed: somebody else changes the number of partitions, too")

    async def _durable(self, partitions: Partitions) -> None:
        """Wait until what was written to these partitions is as durable as asked for."""
        for partition in partitions.all:
            await self._reached(partition.client)

    async def _reached(self, client: Redis, *, barrier: tuple[str, ...] = BARRIER) -> None:
        durability = self._durability(client, barrier)
        for _ in range(_PATIENCE):
            if await durability.reached() is not None:
                return
        level = self._settings.durability
        raise PartitionsError(f"REDIS_AGENT_DURABILITY={level} was not reached: see to it, and run this again")

    def _durability(self, client: Redis, barrier: tuple[str, ...]) -> Durability:
        level, replicas = self._settings.durability, self._settings.durability_replicas
        return Durability(client, level=level, replicas=replicas, telemetry=self._telemetry, barrier=barrier)

    def _report(self, outcome: str, *, obstacles: Sequence[Obstacle] = ()) -> Report:
        return Report(outcome, len(self._old.all), len(self._new.all), obstacles=list(obstacles))

    async def _counted(self, report: Report, partitions: Partitions) -> Report:
        """What there is in all partitions."""
        counts = [await _lengths(partition.client) for partition in partitions.all]
        events, dead_letters, alerts, experiments = map(sum, zip(*counts, strict=True))
        return replace(report, experiments=experiments, events=events, dead_letters=dead_letters, alerts=alerts)


def _stays_in(number: int, partitions: int) -> Callable[[bytes], bool]:
    """What stays in a partition that there is before and after: all but what belongs to others."""

    def stays(key: bytes) -> bool:
        where = places(key, partitions)
        return not where or number in where

    return stays


async def _lines(partitions: Partitions) -> list[str]:
    """The line of descent of what each partition's server holds: another one when a replica has taken over."""
    return [(await partition.client.info("replication"))["master_replid"] for partition in partitions.all]


async def _still(lines: list[str], partitions: Partitions) -> None:
    """Make sure that no server has taken over, which may lack what was written a moment before.

    Raises:
        PartitionsError: one has.
    """
    if lines != await _lines(partitions):
        raise PartitionsError("a replica has taken over meanwhile, and may lack what was written: run this again")


async def _lengths(client: Redis) -> tuple[int, int, int, int]:
    """Events, dead letters, alerts and experiments of a partition."""
    events, dead_letters, alerts = [int(await client.xlen(stream)) for stream in STREAMS]
    return events, dead_letters, alerts, int(await client.zcard(keys.EXPERIMENTS))


async def _written(partition: Partition) -> list[Any]:
    """What changes when somebody writes to a partition."""
    states = [await division.state_of(partition.client, stream) for stream in STREAMS]
    return [*states, *await division.hashes([partition], keys.BRIDGE)]
