"""What is in the way of changing the number of partitions: who is at work, and what is under way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis_agent.store import keys
from redis_agent.store.division import state_of
from redis_agent.store.flow import Flow, flow, outbox_flow
from redis_agent.store.inspection import REPLICA_EXPIRY_MS, Inspection
from redis_agent.store.partitions import Partition, Partitions
from redis_agent.store.stream import text

STREAMS = (keys.STREAM, keys.DEAD_LETTERS, keys.OUTBOX)
_LEASES = {"bridge": keys.LEASE_BRIDGE, "scheduler": keys.LEASE_SCHEDULER, "dispatcher": keys.LEASE_DISPATCHER}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What is in the way.

    Attributes:
        partition: where; None for the agent as a whole.
        what: it is.
        remedy: what to do about it.
    """

    partition: int | None
    what: str
    remedy: str


async def at_work(partitions: Partitions) -> list[Obstacle]:
    """Agents that run, or did a moment ago, and leases that are held.

    Raises:
        RedisError, OSError: as the server or the connection reports it.
    """
    inspection = Inspection(partitions.home.client)
    found = [
        Obstacle(
            None,
            f"the agent {one.name} runs ({', '.join(one.roles)})",
            f"stop it; if it was killed, wait {REPLICA_EXPIRY_MS // 1000} seconds",
        )
        for one in await inspection.replicas(await inspection.now_ms())
    ]
    for partition in partitions.all:
        for role, lease in _LEASES.items():
            holder = await Inspection(partition.client).leader(lease)
            if holder is not None:
                what = f"{holder} holds the lease of the {role}"
                found.append(Obstacle(partition.number, what, "stop it, or wait until the lease runs out"))
    return found


async def under_way(partitions: Partitions, *, channel: str) -> list[Obstacle]:
    """What somebody still has to do with the streams.

    Args:
        partitions: of which nobody is at work.
        channel: to which the Orchestrator listens.

    Raises:
        RedisError, OSError: as the server or the connection reports it.
    """
    run = f"run agents with REDIS_AGENT_PARTITIONS={len(partitions.all)}"
    found = []
    for partition in partitions.all:
        events = await flow(partition.client)
        if _moves(events):
            unread = "some" if events.lag is None else events.lag
            what = f"events are not applied: {unread} unread, {events.pending} pending"
            found.append(Obstacle(partition.number, what, f"{run} until they are; meanwhile publish nothing"))
        if _moves(await outbox_flow(partition.client)):
            remedy = f"{run} until somebody has listened to {channel}"
            found.append(Obstacle(partition.number, "alerts wait for somebody who receives them", remedy))
        for stream in STREAMS:
            for group in sorted((await state_of(partition.client, stream)).groups):
                ours = group in (keys.GROUP, keys.DISPATCHER_GROUP)
                if not ours and _moves(await flow(partition.client, stream=stream, group=group)):
                    what = f"the group {group}, which is not the agent's, has not acked all of {stream}"
                    found.append(Obstacle(partition.number, what, "let it finish, or destroy it"))
    return found


async def left_over(partitions: Sequence[Partition], is_state: Callable[[bytes], bool]) -> list[Obstacle]:
    """Keys where nothing should be yet: whoever goes on as if nothing were would delete them.

    Raises:
        RedisError, OSError: as the server or the connection reports it.
    """
    found = []
    for partition in partitions:
        async for key in partition.client.scan_iter(count=1_000):
            if is_state(key):
                what = f"there is something already, such as {partition.namespace}{text(key)}"
                remedy = f"if {keys.PARTITIONS} was lost, set it to how many partitions there are; else delete that"
                found.append(Obstacle(partition.number, what, remedy))
                break
    return found


def _moves(stream: Flow) -> bool:
    return stream.oldest_unread is not None or stream.pending > 0
