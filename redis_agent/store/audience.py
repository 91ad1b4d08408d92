"""Who listens to a channel.

On one server the reply of PUBLISH says it. In a cluster PUBLISH reaches the subscribers of every node, and its reply
counts those of the node that ran it; so all nodes are asked before.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError  # noqa: A004 - what redis-py raises here
from redis.exceptions import TimeoutError as RedisTimeoutError

from redis_agent.store.address import HostPort
from redis_agent.store.topology import Topology

# A node that does not answer sooner counts as one that nobody listens on: an alert waits rather than be lost.
_ANSWER_SECONDS = 0.5


class _Asked:
    """One node, over a connection that is kept."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._turn = asyncio.Lock()

    async def subscribers(self, question: str, channel: str) -> int:
        """Those of this node, by NUMSUB or SHARDNUMSUB; 0 where it does not answer in time.

        Raises:
            ResponseError: it does not let this user ask.
        """
        async with self._turn:
            for _ in range(2):  # a connection that was idle for long may have been closed by the node
                kept = self.connection.is_connected
                try:
                    async with asyncio.timeout(_ANSWER_SECONDS):
                        await self.connection.connect()
                        await self.connection.send_command("PUBSUB", question, channel)
                        reply: list[Any] = await self.connection.read_response()
                    return int(reply[1])
                except (TimeoutError, RedisTimeoutError):
                    await self.connection.disconnect(nowait=True)
                    break
                except (ConnectionError, OSError):
                    await self.connection.disconnect(nowait=True)
                    if not kept:
                        break
                except BaseException:
                    await self.connection.disconnect(nowait=True)  # an answer may still come
                    raise
        return 0


class Audience:
    """Who listens to a channel on the nodes of a cluster. Subscribers to patterns are not seen: no node says theirs.

    Args:
        topology: of the cluster.
        channel: which.
        sharded: whether that is a channel of sharded pub/sub.
    """

    def __init__(self, topology: Topology, channel: str, *, sharded: bool = False) -> None:
        self._topology = topology
        self._channel = channel
        self._question = "SHARDNUMSUB" if sharded else "NUMSUB"
        self._nodes: dict[HostPort, _Asked] = {}

    async def size(self, publisher: Redis) -> int:
        """How many subscribers a message would reach now.

        A node that the publishing one has no link to does not count: nothing would reach it.

        Args:
            publisher: client of the node that is going to publish.

        Raises:
            RedisError, OSError: that node does not answer, or one does not let this user ask.
        """
        reached = await self._topology.linked_to(publisher)
        asked = (self._at(node.address).subscribers(self._question, self._channel) for node in reached)
        return sum(await asyncio.gather(*asked))

    def _at(self, address: HostPort) -> _Asked:
        if address not in self._nodes:
            self._nodes[address] = _Asked(self._topology.connect(address))
        return self._nodes[address]

    async def aclose(self) -> None:
        """Close the connections."""
        for asked in self._nodes.values():
            await asked.connection.disconnect(nowait=True)


async def publish(
    client: Redis, audience: Audience | None, channel: str, messages: Sequence[bytes], *, command: str = "PUBLISH"
) -> list[int]:
    """Publish as services do; how many received each, as far as that can be known.

    Args:
        client: of whichever node; for SPUBLISH of the channel's slot.
        audience: in a cluster, of the channel.
        channel: which.
        messages: in their order.
        command: PUBLISH or SPUBLISH.
    """
    heard = 0 if audience is None else await audience.size(client)
    async with client.pipeline(transaction=False) as pipe:
        for message in messages:
            pipe.execute_command(command, channel, message)
        receivers: list[int] = await pipe.execute()
    return [max(heard, times) for times in receivers]
