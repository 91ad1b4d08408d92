"""Which node of a Redis Cluster is the primary of which slot, as its nodes say.

A node that was cut off goes on saying what it last knew. Every failover and every move of a slot gives some primary an
epoch later than all before; so a node that knows only earlier ones than are known already is not believed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Connection, Redis
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 - what redis-py raises here

from redis_agent.store.address import HostPort

# The nodes are not asked more often than this, whoever wants to know.
_ASK_SECONDS = 0.2
# So many times in a row only earlier epochs than are known are heard of before they are believed.
_OLDER_ANSWERS = 20
# A node that does not answer sooner is passed over for the next.
NODE_TIMEOUT_SECONDS = 1.0

Connect = Callable[[HostPort], Connection]


class SlotMovedError(ConnectionError):
    """The node that was asked is not the primary of the slot (any more): nothing was done."""


class SlotMovingError(ConnectionError):
    """The slot is on its way to another node: nothing was done, and nothing can be until it is there."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as another one sees it.

    Attributes:
        id: its name for ever.
        address: where it is.
        primary: whether it is one.
        failed: whether the cluster has found that it does not answer.
        epoch: with which it owns its slots; the later one wins.
        slots: (first, last) of each range that it owns.
        linked: whether whoever says this can send it messages over the bus.
        of: the id of its primary; "" for a primary.
    """

    id: str
    address: HostPort
    primary: bool
    failed: bool
    epoch: int
    slots: tuple[tuple[int, int], ...] = ()
    linked: bool = True
    of: str = ""

    def owns(self, slot: int) -> bool:
        """Whether it is the primary of this slot."""
        return any(first <= slot <= last for first, last in self.slots)


def slot_of(key: str | bytes) -> int:
    """The slot of a key, by its hash tag if it has one."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def read_nodes(reply: str, asked: HostPort, *, hostnames: bool = False) -> list[Node]:
    """The nodes that CLUSTER NODES lists; those that nobody can be sent to are left out.

    Args:
        reply: what it answered.
        asked: the node that was asked, which need not know its own address.
        hostnames: whether a host's name is preferred to its address: certificates are made out to names.
    """
    nodes = []
    for line in reply.splitlines():
        fields = line.split(" ")
        if len(fields) < 8:
            continue
        flags = fields[2].split(",")
        if {"noaddr", "handshake"} & set(flags):
            continue
        place, *names = fields[1].split(",")
        host, _, port = place.partition("@")[0].rpartition(":")
        if hostnames and names and names[0]:
            host = names[0]
        ranges = (part.partition("-") for part in fields[8:] if not part.startswith("["))
        nodes.append(
            Node(
                id=fields[0],
                address=(host.strip("[]") or asked[0], int(port)),
                primary="master" in flags,
                failed="fail" in flags,
                epoch=int(fields[6]),
                slots=tuple((int(first), int(last or first)) for first, _, last in ranges),
                linked=fields[7] == "connected",
                of=fields[3].strip("-"),
            )
        )
    return nodes


def _text(raw: bytes) -> str:
    """Text of a reply."""
    return raw.decode("utf-8", "replace")


def _epoch(nodes: Iterable[Node]) -> int:
    return max((node.epoch for node in nodes if node.primary), default=0)


class Topology:
    """What this process knows of a cluster, kept as new as somebody wants it.

    Args:
        seeds: nodes to ask first; any of them may be down.
        connect: makes a connection to a node.
        hostnames: see `read_nodes`.
    """

    def __init__(self, seeds: Sequence[HostPort], connect: Connect, *, hostnames: bool = False) -> None:
        self._seeds = tuple(seeds)
        self.connect = connect
        self._hostnames = hostnames
        self._nodes: tuple[Node, ...] = ()
        self._older_answers = 0
        self._to_ask: list[HostPort] = []
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes as they were last heard of."""
        return self._nodes

    def known(self, slot: int) -> HostPort | None:
        """Where the primary of a slot was last known to be."""
        owner = self._owner(slot)
        return None if owner is None else owner.address

    def shard(self, slot: int) -> list[Node]:
        """The primary of a slot and its replicas, as they were last heard of; none where nobody has it."""
        owner = self._owner(slot)
        return [] if owner is None else [node for node in self._nodes if owner.id in (node.id, node.of)]

    def _owner(self, slot: int) -> Node | None:
        owners = [node for node in self._nodes if node.primary and node.owns(slot)]
        return max(owners, key=lambda node: node.epoch, default=None)

    async def primary(self, slot: int) -> HostPort:
        """Where the primary of a slot is.

        Raises:
            ConnectionError: no node says.
        """
        if self.known(slot) is None:
            await self.refresh()
        address = self.known(slot)
        if address is None:
            raise ConnectionError(f"no node of the cluster says which one is the primary of slot {slot}")
        return address

    async def refresh(self) -> None:
        """Ask a node, a different one each time, unless one was asked a moment ago. Without an answer all stays."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at < _ASK_SECONDS:
                return
            older: list[Node] = []
            for address in self._turn():
                nodes = await self._ask(address)
                if nodes and _epoch(nodes) >= _epoch(self._nodes):
                    self._nodes, self._older_answers = tuple(nodes), 0
                    break
                older = nodes or older
            else:
                self._older_answers += bool(older)
                if self._older_answers > _OLDER_ANSWERS:
                    # Not a node that was cut off, but all of them: somebody has reset the cluster.
                    self._nodes, self._older_answers = tuple(older), 0
            self._asked_at = asyncio.get_running_loop().time()

    async def linked_to(self, client: Redis) -> list[Node]:
        """The nodes that the one that this client leads to can send messages to now, itself included.

        Raises:
            RedisError, OSError: it does not say.
        """
        reply: bytes = await client.execute_command("CLUSTER", "NODES")
        seen = read_nodes(_text(reply), ("", 0))
        linked = {node.id for node in seen if node.linked and not node.failed}
        if not linked <= {node.id for node in self._nodes}:
            await self.refresh()
        return [node for node in self._nodes if node.id in linked]

    def _turn(self) -> Iterable[HostPort]:
        """Each node once, beginning with the one after the one that was asked last."""
        known = [node.address for node in self._nodes if not node.failed]
        for _ in range(len(known) + len(self._seeds)):
            if not self._to_ask:
                self._to_ask = list(dict.fromkeys([*known, *self._seeds]))
            yield self._to_ask.pop(0)

    async def _ask(self, address: HostPort) -> list[Node]:
        try:
            reply: bytes = await self._command(address, "CLUSTER", "NODES")
            return read_nodes(_text(reply), address, hostnames=self._hostnames)
        except (RedisError, OSError, ValueError):
            return []

    async def links_to(self, address: HostPort) -> dict[str, int]:
        """By whose links of the cluster's bus a node hears the others, and when each was made (ms).

        Raises:
            RedisError, OSError: the node does not answer, or refuses.
        """
        rows = [
            dict(zip(map(_text, row[::2]), row[1::2], strict=False))
            for row in await self._command(address, "CLUSTER", "LINKS")
        ]
        return {_text(row["node"]): int(row["create-time"]) for row in rows if row.get("direction") == b"from"}

    async def _command(self, address: HostPort, *command: str) -> Any:
        """Run one command on one node, on a connection of its own.

        Raises:
            RedisError, OSError: it does not answer, or refuses.
        """
        connection = self.connect(address)
        try:
            async with asyncio.timeout(NODE_TIMEOUT_SECONDS):
                await connection.connect()
                await connection.send_command(*command)
                return await connection.read_response()
        finally:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
