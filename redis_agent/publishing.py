"""Publishing as services do, by the kind of pub/sub that the bridges hear."""

from collections.abc import Sequence

from redis_agent.routing import router
from redis_agent.store import keys
from redis_agent.store.audience import publish
from redis_agent.store.listening import compare_pubsub, recorded_pubsub
from redis_agent.store.partitions import Partitions


class Publishing:
    """Publishes events where the bridges listen.

    Args:
        partitions: which there are.
        channel: that services publish on; with sharded pub/sub each partition has one of its own.
        pubsub: "plain" or "sharded".
        max_event_bytes: longest event that is read to find its partition.
    """

    def __init__(self, partitions: Partitions, *, channel: str, pubsub: str, max_event_bytes: int) -> None:
        self._partitions = partitions
        self._channel = channel
        self._pubsub = pubsub
        self._route = router(len(partitions.all), max_event_bytes=max_event_bytes)

    @property
    def where(self) -> str:
        """On which channels, for people."""
        return self._channel if self._pubsub == "plain" else keys.shard_channel(self._channel, "{redis_agent-N}:")

    async def check(self) -> None:
        """Whether bridges hear this kind of pub/sub, and of how many partitions, where it matters.

        Raises:
            PubsubError: they hear another.
            PartitionsError: there are others.
            RedisError, OSError: as the server or the connection reports it.
        """
        if self._pubsub == "sharded":
            await self._partitions.compare()
        if self._partitions.topology is not None:
            compare_pubsub(await recorded_pubsub(self._partitions.home.client), self._pubsub)

    async def publish(self, events: Sequence[bytes]) -> list[int]:
        """Publish these; how many received each, as far as that can be known.

        Raises:
            RedisError, OSError: as the server or the connection reports it.
        """
        partitions = self._partitions
        if self._pubsub == "plain":
            return await publish(partitions.home.client, partitions.audience(self._channel), self._channel, events)
        receivers = [0] * len(events)
        places: dict[int, list[int]] = {}
        for place, event in enumerate(events):
            places.setdefault(self._route(event), []).append(place)
        for number, there in places.items():
            partition = partitions.all[number]
            channel = keys.shard_channel(self._channel, partition.namespace)
            audience = partitions.audience(channel, sharded=True)
            heard = await publish(
                partition.client, audience, channel, [events[place] for place in there], command="SPUBLISH"
            )
            for place, times in zip(there, heard, strict=True):
                receivers[place] = times
        return receivers
