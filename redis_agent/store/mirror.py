"""The bridge's writes: published events into the durable stream."""

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from redis_agent.store import keys, scripts
from redis_agent.store.stream import whole


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch.

    Attributes:
        outcome: "written"; "fenced" (the lease is not ours); "hole" (the server lost its state).
        position: how many events have ever been mirrored, as the server has it.
    """

    outcome: str
    position: int


class Mirror:
    """Writes batches as the holder of the bridge's lease. Positions count mirrored events from 1."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def position(self) -> tuple[int, int]:
        """How far the stream has been written, and when a leader was last alive (ms); zeros at the very start."""
        written, at = await self._client.hmget(keys.BRIDGE, ["written", "at"])
        return whole(written), whole(at)

    async def write(
        self,
        lease_value: str,
        *,
        first_position: int,
        now_ms: int,
        events: Sequence[tuple[int, bytes]],
    ) -> Written:
        """Append (received ms, event) to the stream, each position once, as long as the lease is ours.

        Without events it is the leader's sign of life.
        """
        pairs = [part for event in events for part in event]
        reply = await scripts.run(
            self._client,
            "mirror_write",
            [keys.LEASE_BRIDGE, keys.STREAM, keys.BRIDGE],
            [lease_value, first_position, now_ms, *pairs],
        )
        return Written(reply[0].decode(), int(reply[1]))

    async def count_gap(self, length_ms: int) -> None:
        """Keep a gap where operators see it, also after this process is gone."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hincrby(keys.BRIDGE, "gaps", 1)
            pipe.hincrby(keys.BRIDGE, "gap_ms", length_ms)
            await pipe.execute()
