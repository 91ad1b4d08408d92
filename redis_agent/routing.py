"""Which partition what is published belongs to: read as the worker reads it, so that the two never disagree."""

from collections.abc import Callable

from redis_agent.events import MetricEvent, read
from redis_agent.store.partitions import partition_of, partition_of_bytes


def router(partitions: int, *, max_event_bytes: int) -> Callable[[bytes], int]:
    """From what was published to the number of its partition.

    Args:
        partitions: how many there are.
        max_event_bytes: longest event that is read.
    """

    def route(data: bytes) -> int:
        event = read(data, max_bytes=max_event_bytes)
        if isinstance(event, MetricEvent):
            return partition_of(event.experiment_id, partitions)
        return partition_of_bytes(data, partitions)

    return route
