"""What all partitions hold, read as if it were one: each experiment in its own, lists merged by the times of entries.

With one partition, what is sent is what the reader of that partition sends. Nothing is written from here.
"""

import asyncio
import contextlib
import heapq
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from redis.exceptions import (
    ClusterDownError,
    ConnectionError,  # noqa: A004 - what redis-py raises here
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from redis_agent.clock import stream_id
from redis_agent.store import keys
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.dead_letters import BuriedEvent, DeadLetters
from redis_agent.store.flow import Flow, together
from redis_agent.store.inspection import AlertCounts, BridgeState, Inspection, OutboxAlert, Replica
from redis_agent.store.partitions import Partition, Partitions
from redis_agent.store.pending import Consumer, PendingEntries, PendingEntry
from redis_agent.store.windows import Windows
from redis_agent.windows import Window, WindowSums


class Entry(Protocol):
    """What stands in a stream."""

    @property
    def id(self) -> str:
        """Of the stream; its first part is a time."""


_T = TypeVar("_T")
_Entry = TypeVar("_Entry", bound=Entry)


async def each(partitions: Sequence[Partition], reading: Callable[[Partition], Awaitable[_T]]) -> list[_T]:
    """The same read in each partition, at the same time; in their order."""
    return list(await asyncio.gather(*(reading(partition) for partition in partitions)))


async def answering(partitions: Sequence[Partition]) -> tuple[list[Partition], dict[int, Exception]]:
    """The partitions that have a primary that answers, whatever it answers, and what became of the others."""

    async def asked(partition: Partition) -> Exception | None:
        try:
            await partition.client.exists(keys.FLOOR)
        except (ConnectionError, RedisTimeoutError, ClusterDownError, OSError) as error:
            return error
        except ResponseError:
            pass
        return None

    found = dict(zip(partitions, await each(partitions, asked), strict=True))
    silent = {partition.number: error for partition, error in found.items() if error is not None}
    return [partition for partition in partitions if partition.number not in silent], silent


async def merged(
    partitions: Sequence[Partition], listing: Callable[[Partition], AsyncIterator[_Entry]], *, newest_first: bool
) -> AsyncIterator[tuple[Partition, _Entry]]:
    """The entries of a stream of each partition in the order of their ids, as far as somebody wants them.

    Args:
        partitions: which.
        listing: their entries, in this order.
        newest_first: or else oldest first.
    """
    sign = -1 if newest_first else 1
    sources = [listing(partition) for partition in partitions]
    heads: list[tuple[int, int, int, _Entry]] = []

    async def next_of(n: int) -> None:
        entry = await anext(sources[n], None)
        if entry is not None:
            ms, seq = stream_id(entry.id)
            heapq.heappush(heads, (sign * ms, sign * seq, n, entry))

    for n in range(len(sources)):
        await next_of(n)
    while heads:
        *_, n, entry = heapq.heappop(heads)
        yield partitions[n], entry
        await next_of(n)


def _sorted(
    partitions: Sequence[Partition], lists: Sequence[Sequence[_Entry]], *, newest_first: bool
) -> list[tuple[Partition, _Entry]]:
    found = [(partition, entry) for partition, some in zip(partitions, lists, strict=True) for entry in some]
    return sorted(found, key=lambda placed: stream_id(placed[1].id), reverse=newest_first)


class AllAggregates:
    """The aggregates of all experiments, and the index of them."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    async def read(self, experiment_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """See `Aggregates.read`."""
        divided = self._partitions.divided(experiment_ids)
        found: dict[str, dict[str, str]] = {}
        for some in await each(list(divided), lambda p: Aggregates(p.client).read(divided[p])):
            found |= some
        return {i: found[i] for i in experiment_ids if i in found}

    async def page(self, first: int, count: int) -> dict[str, int]:
        """See `Aggregates.page`."""
        if not self._partitions.several:
            return await Aggregates(self._partitions.home.client).page(first, count)
        found = await each(self._partitions.all, lambda p: Aggregates(p.client).page(0, first + count))
        return dict(list(_latest_first(found).items())[first : first + count])

    async def all(self) -> dict[str, int]:
        """See `Aggregates.all`."""
        return _latest_first(await each(self._partitions.all, lambda p: Aggregates(p.client).all()))


def _latest_first(found: Sequence[dict[str, int]]) -> dict[str, int]:
    """Experiments of several indexes by their last event; each index has them so already."""
    if len(found) == 1:
        return found[0]
    merged_ids = {i: ms for some in found for i, ms in some.items()}
    return dict(sorted(merged_ids.items(), key=lambda last: last[::-1], reverse=True))


class AllWindows(Windows):
    """The windows of all experiments."""

    def __init__(self, partitions: Partitions) -> None:
        super().__init__(partitions.home.client)
        self._partitions = partitions

    async def some(self, wanted: Sequence[tuple[str, Window, Sequence[str]]]) -> list[WindowSums]:
        """See `Windows.some`."""
        return await self._each(wanted, lambda windows, some: windows.some(some))

    async def sums(self, wanted: Sequence[tuple[str, Iterable[Window]]]) -> list[WindowSums]:
        """See `Windows.sums`."""
        return await self._each(wanted, lambda windows, some: windows.sums(some))

    async def _each(
        self, wanted: Sequence[Any], reading: Callable[[Windows, list[Any]], Awaitable[list[WindowSums]]]
    ) -> list[WindowSums]:
        """What is wanted, each of its experiment's partition, in the order given."""
        places: dict[Partition, list[int]] = defaultdict(list)
        for n, (experiment_id, *_) in enumerate(wanted):
            places[self._partitions.of(experiment_id)].append(n)
        found: dict[int, WindowSums] = {}
        read = await each(list(places), lambda p: reading(Windows(p.client), [wanted[n] for n in places[p]]))
        for numbers, sums in zip(places.values(), read, strict=True):
            found |= zip(numbers, sums, strict=True)
        return [found[n] for n in range(len(wanted))]


class AllInspection:
    """The state of the agent in some partitions.

    Args:
        partitions: which; what there is once is read in the first.
    """

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._partitions = partitions
        self._first = Inspection(partitions[0].client)

    async def server(self) -> dict[str, Any]:
        """INFO of the server that the first partition is on."""
        return await self._first.server()

    async def now_ms(self) -> int:
        """The clock of the first server that answers."""
        *others, last = self._partitions
        for partition in others:
            with contextlib.suppress(RedisError, OSError):
                return await Inspection(partition.client).now_ms()
        return await Inspection(last.client).now_ms()

    async def replicas(self, now_ms: int) -> list[Replica]:
        """See `Inspection.replicas`."""
        return await self._first.replicas(now_ms)

    async def group(self) -> Flow:
        """The streams of events and their groups."""
        return together(await self._each(lambda i: i.group()))

    async def groups(self) -> list[Flow]:
        """The stream of each partition and its group."""
        return await self._each(lambda i: i.group())

    async def entries_added(self) -> int:
        """Entries that were ever added to the streams."""
        return sum(await self._each(lambda i: i.entries_added()))

    async def leaders(self, lease: str) -> list[str | None]:
        """Who holds a lease in each partition."""
        return await self._each(lambda i: i.leader(lease))

    async def bridges_in_step(self, now_ms: int) -> list[str]:
        """The names of processes whose bridge is in step in every partition."""
        found = await self._each(lambda i: i.bridges_in_step(now_ms))
        return sorted(found[0]) if len(found) == 1 else sorted(set(found[0]).intersection(*found[1:]))

    async def bridge(self) -> BridgeState:
        """What the bridges have written down, added up; `at_ms` is the oldest of the last signs of life."""
        found = await self._each(lambda i: i.bridge())
        return BridgeState(
            written=sum(state.written for state in found),
            given_up=sum(state.given_up for state in found),
            gaps=sum(state.gaps for state in found),
            gap_ms=sum(state.gap_ms for state in found),
            at_ms=min(state.at_ms for state in found),
        )

    async def experiment_count(self) -> int:
        """Experiments that ever had an event."""
        return sum(await self._each(lambda i: i.experiment_count()))

    async def alert_counts(self) -> AlertCounts:
        """How many alerts there are, and how many nobody has received yet."""
        found = await self._each(lambda i: i.alert_counts())
        return AlertCounts(total=sum(c.total for c in found), waiting=sum(c.waiting for c in found))

    async def undelivered(self) -> int:
        """Alerts that were given up, or superseded by a newer summary."""
        return sum(await self._each(lambda i: i.undelivered()))

    async def recent_alerts(self, count: int) -> list[tuple[Partition, OutboxAlert]]:
        """The newest alerts, the very newest first."""
        found = await self._each(lambda i: i.recent_alerts(count))
        return _sorted(self._partitions, found, newest_first=True)[:count]

    async def dead_letters(self) -> int:
        """How many dead letters there are."""
        return sum(await each(self._partitions, lambda p: DeadLetters(p.client).total()))

    def newest_dead_letters(self, *, page: int | None = None) -> AsyncIterator[tuple[Partition, BuriedEvent]]:
        """All of them, newest first; of each partition so many are held at once."""

        def listing(partition: Partition) -> AsyncIterator[BuriedEvent]:
            letters = DeadLetters(partition.client)
            return letters.newest() if page is None else letters.newest(page=page)

        return merged(self._partitions, listing, newest_first=True)

    async def consumers(self) -> list[Consumer]:
        """The consumers of the groups; one that reads several streams is one of them."""
        found: dict[str, Consumer] = {}
        for some in await each(self._partitions, lambda p: PendingEntries(p.client).consumers()):
            for consumer in some:
                known = found.get(consumer.name, Consumer(consumer.name, 0, consumer.idle_ms))
                found[consumer.name] = Consumer(
                    consumer.name, known.pending + consumer.pending, min(known.idle_ms, consumer.idle_ms)
                )
        return list(found.values())

    def pending(self, *, idle_ms: int, consumer: str | None) -> AsyncIterator[tuple[Partition, PendingEntry]]:
        """All that is pending, oldest first: see `PendingEntries.all`."""
        return merged(
            self._partitions,
            lambda p: PendingEntries(p.client).all(idle_ms=idle_ms, consumer=consumer),
            newest_first=False,
        )

    async def oldest_pending(self, count: int) -> list[tuple[Partition, PendingEntry]]:
        """The oldest that are pending: see `PendingEntries.oldest`."""
        found = await each(self._partitions, lambda p: PendingEntries(p.client).oldest(count))
        return _sorted(self._partitions, found, newest_first=False)[:count]

    async def _each(self, reading: Callable[[Inspection], Awaitable[_T]]) -> list[_T]:
        return await each(self._partitions, lambda p: reading(Inspection(p.client)))
