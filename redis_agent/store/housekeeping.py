"""What keeps Redis bounded, and where the scheduler remembers how far it came."""

from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.clock import stream_id
from redis_agent.store import keys, scripts
from redis_agent.store.flow import is_missing
from redis_agent.store.stream import text, whole

# Every stream that is read by a group, and the group.
_GROUPS = ((keys.STREAM, keys.GROUP), (keys.OUTBOX, keys.DISPATCHER_GROUP))


@dataclass(frozen=True, slots=True)
class SummaryMark:
    """The last interval that was summarised, when that was done (ms), and the floor of the stream then."""

    slot: int
    at_ms: int
    floor: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a hard limit has cost: entries removed, and how many of them some group had not read and acked."""

    removed: int = 0
    unread: int = 0


class Housekeeping:
    """The scheduler's writes.

    Args:
        stream_max: length the stream of events is trimmed to, as far as groups have read and acked it.
        stream_max_age_seconds: age past which its entries are trimmed, within the same bounds; 0: none.
        stream_hard: length past which it is trimmed whatever groups have read.
        consumer_expiry_seconds: a consumer that holds nothing is removed after so long.
    """

    def __init__(
        self,
        client: Redis,
        *,
        stream_max: int,
        stream_hard: int,
        consumer_expiry_seconds: float,
        stream_max_age_seconds: float = 0,
    ) -> None:
        self._client = client
        self._stream_max = stream_max
        self._stream_max_age_ms = int(stream_max_age_seconds * 1000)
        self._stream_hard = stream_hard
        self._expiry_ms = int(consumer_expiry_seconds * 1000)

    async def swept_ms(self) -> int:
        """When the last complete sweep began; 0 if there was none."""
        return whole(await self._client.hget(keys.SCHEDULER, "swept_ms"))

    async def set_swept_ms(self, at_ms: int) -> None:
        """A sweep that began then is complete."""
        await self._client.hset(keys.SCHEDULER, "swept_ms", at_ms)

    async def summary_mark(self, period: str) -> SummaryMark | None:
        """The last summary of this period; None before its first one was due."""
        slot, at_ms, floor = await self._client.hmget(keys.SCHEDULER, _mark_fields(period))
        return SummaryMark(whole(slot), whole(at_ms), text(floor or b"")) if slot else None

    async def set_summary_mark(self, period: str, mark: SummaryMark) -> None:
        """This interval is summarised."""
        slot, at_ms, floor = _mark_fields(period)
        items: list[str | int] = [slot, mark.slot, at_ms, mark.at_ms, floor, mark.floor]
        await self._client.hset(keys.SCHEDULER, items=items)

    async def floor(self) -> str:
        """The id up to which every event has been applied; it moves whenever one is."""
        return text(await self._client.get(keys.FLOOR) or b"")

    async def take_buried(self) -> int:
        """How many entries an operator has sent to the dead letters since this was asked last, by anybody."""
        if not await self._client.hexists(keys.SCHEDULER, "buried"):
            return 0
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hget(keys.SCHEDULER, "buried")
            pipe.hdel(keys.SCHEDULER, "buried")
            return whole((await pipe.execute())[0])

    async def trim(self, keep_going: Callable[[], bool]) -> int:
        """Trim the stream of events by length and age; never what a group has not read and acked. Entries removed."""
        removed = 0
        while keep_going():
            trimmed, over = await trim(self._client, self._stream_max, max_age_ms=self._stream_max_age_ms)
            removed += trimmed
            if not trimmed or not over:
                break
        if removed:
            await self._forget_before_first(keys.UNAPPLIED, keys.STREAM)
        return removed

    async def trim_hard(self, keep_going: Callable[[], bool]) -> Dropped:
        """Keep the stream of events within its hard limit."""
        dropped = Dropped()
        while keep_going():
            removed, unread = await trim_hard(self._client, self._stream_hard)
            if not removed:
                break
            dropped = Dropped(dropped.removed + removed, dropped.unread + unread)
        return dropped

    async def _forget_before_first(self, ids_key: str, stream: str) -> None:
        """Drop remembered ids of entries that are no longer in the stream."""
        oldest = await self._client.xrange(stream, count=1)
        first = text(oldest[0][0]) if oldest else None
        async for member in self._client.sscan_iter(ids_key, count=500):
            if first is None or _parts(text(member)) < _parts(first):
                await self._client.srem(ids_key, member)

    async def correct_lags(self) -> dict[str, int]:
        """Have the server say 0 where it says a lag and nothing is unread; the lags that were wrong, by stream."""
        wrong = {}
        for stream, group in _GROUPS:
            try:
                lag = int(await scripts.run(self._client, "count_read", [stream], [group]))
            except ResponseError as error:
                if is_missing(error):
                    continue
                raise
            if lag:
                wrong[stream] = lag
        return wrong

    async def remove_consumers(self) -> list[str]:
        """Remove consumers of both groups that hold nothing and were not seen for long."""
        removed = []
        for stream, group in _GROUPS:
            try:
                consumers = await self._client.xinfo_consumers(stream, group)
            except ResponseError as error:
                if is_missing(error):
                    continue
                raise
            for consumer in consumers:
                if consumer["pending"] or consumer["idle"] < self._expiry_ms:
                    continue
                args = [group, consumer["name"], self._expiry_ms]
                if await scripts.run(self._client, "remove_consumer", [stream], args):
                    removed.append(text(consumer["name"]))
        return removed


def _mark_fields(period: str) -> list[str]:
    """The fields of a mark; those of the periodic summary have their names from before there were others."""
    prefix = "summary" if period == "interval" else f"summary_{period}"
    return [f"{prefix}_slot", f"{prefix}_ms", f"{prefix}_floor"]


def _parts(entry_id: str) -> tuple[int, int]:
    """A remembered id as it compares; what somebody else put there counts as the oldest."""
    try:
        return stream_id(entry_id)
    except ValueError:
        return 0, 0


async def trim_hard(client: Redis, hard_limit: int) -> tuple[int, int]:
    """One step of trimming the stream of events past its hard limit (see `lua/trim_hard.lua`).

    Returns:
        entries removed, and how many of them some group had not read and acked; the latter is counted in Redis, too.
    """
    names = [keys.STREAM, keys.SCHEDULER, keys.FLOOR]
    removed, unread = await scripts.run(client, "trim_hard", names, [hard_limit, keys.GROUP])
    return int(removed), int(unread)


async def trim(client: Redis, max_length: int, *, max_age_ms: int = 0) -> tuple[int, int]:
    """One step of trimming the stream of events (see `lua/trim.lua`).

    Returns:
        entries removed, and 0 when nothing more is to be trimmed.
    """
    try:
        trimmed, over = await scripts.run(
            client, "trim", [keys.STREAM, keys.FLOOR], [max_length, keys.GROUP, max_age_ms]
        )
    except ResponseError as error:
        if "no such key" in str(error).lower():
            return 0, 0
        raise
    return int(trimmed), int(over)
