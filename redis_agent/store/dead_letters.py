"""The dead letters: what could not be applied, and what people do about it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from redis_agent.clock import stream_id
from redis_agent.store import keys, scripts
from redis_agent.store.stream import text, whole

# So long it is remembered that a letter of another partition was taken over.
_ADOPTED_MS = 7 * 86_400_000
# A letter may be megabytes long: few are held at once.
_PAGE = 20


@dataclass(frozen=True, slots=True)
class BuriedEvent:
    """A dead letter as it stands in its stream."""

    id: str
    reason: str
    source_id: str
    deliveries: int
    at_ms: int
    data: bytes


class DeadLetters:
    """What could not be applied, and what people do about it."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client

    async def total(self) -> int:
        """How many there are."""
        return int(await self._client.xlen(keys.DEAD_LETTERS))

    async def all(self, *, after: str | None = None) -> AsyncIterator[BuriedEvent]:
        """All of them, oldest first; or those after an id."""
        first = "-" if after is None else "(" + after
        while rows := await self._client.xrange(keys.DEAD_LETTERS, min=first, count=_PAGE):
            for row in rows:
                yield _buried(row)
            first = "(" + text(rows[-1][0])

    async def newest(self, *, page: int = _PAGE) -> AsyncIterator[BuriedEvent]:
        """All of them, newest first; so many are held at once."""
        last = "+"
        while rows := await self._client.xrevrange(keys.DEAD_LETTERS, max=last, count=page):
            for row in rows:
                yield _buried(row)
            last = "(" + text(rows[-1][0])

    async def ids(self) -> list[str]:
        """The ids of all there are now, oldest first."""
        return [letter.id async for letter in self.all()]

    async def get(self, entry_id: str) -> BuriedEvent | None:
        """One of them; None when there is no such id.

        Raises:
            ResponseError: this is no id of a stream.
        """
        rows = await self._client.xrange(keys.DEAD_LETTERS, min=entry_id, max=entry_id)
        return _buried(rows[0]) if rows else None

    async def replay(self, entry_id: str, *, now_ms: int) -> str | None:
        """Put one back into the stream; its new id there, or None when there is no such letter."""
        reply = await scripts.run(
            self._client,
            "dead_letter_replay",
            [keys.DEAD_LETTERS, keys.STREAM, keys.ACCOUNT],
            [entry_id, now_ms],
        )
        return text(reply) or None

    async def move(self, letter: BuriedEvent, *, number: int, to: Redis, now_ms: int) -> str:
        """Put one into the stream of the partition that it belongs to; its new id there.

        In two steps, of which each may be done again: a crash between them neither doubles nor loses it.

        Args:
            letter: one of these.
            number: of the partition that these are of.
            to: client of the other one.
            now_ms: when.
        """
        names = [keys.adopted(number, letter.id, letter.data), keys.STREAM, keys.ACCOUNT]
        entry = text(await scripts.run(to, "dead_letter_adopt", names, [letter.data, now_ms, _ADOPTED_MS]))
        await self.drop([letter.id])
        return entry

    async def newest_id(self) -> str:
        """The id of the newest; "0-0" when there is none."""
        rows = await self._client.xrevrange(keys.DEAD_LETTERS, count=1)
        return text(rows[0][0]) if rows else "0-0"

    async def drop(self, ids: Sequence[str]) -> int:
        """Delete some; how many there were."""
        return int(await self._client.xdel(keys.DEAD_LETTERS, *ids))

    async def drop_all(self) -> int:
        """Delete all that there are now; how many there were."""
        ms, seq = stream_id(await self.newest_id())
        after = f"{ms}-{seq + 1}"
        return int(await self._client.xtrim(keys.DEAD_LETTERS, minid=after, approximate=False))


def _buried(row: Any) -> BuriedEvent:
    entry_id, fields = row
    return BuriedEvent(
        id=text(entry_id),
        reason=text(fields.get(b"reason", b"")),
        source_id=text(fields.get(b"source_id", b"")),
        deliveries=whole(fields.get(b"deliveries")),
        at_ms=whole(fields.get(b"at")),
        data=fields.get(b"data", b""),
    )
