"""Partitions: streams, each with its state in one slot, so that what is one atomic step on one server still is.

An experiment belongs to one partition, by a hash of its id. To whoever works on a partition it is a server of its own:
its client puts the partition's namespace in front of every key. What belongs to others, the definitions and what the
Orchestrator reads, has no namespace, and is reached by the wide client.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from redis_agent.errors import PartitionsError
from redis_agent.store import keys, scripts
from redis_agent.store.address import Address
from redis_agent.store.audience import Audience
from redis_agent.store.client import connect, topology_of, wide_client
from redis_agent.store.cluster import WideClient
from redis_agent.store.stream import text


def partition_of(experiment_id: str, partitions: int) -> int:
    """The partition that an experiment belongs to: the CRC-32 of its id in UTF-8, modulo their number."""
    return partition_of_bytes(experiment_id.encode("utf-8", "surrogatepass"), partitions)


def partition_of_bytes(data: bytes, partitions: int) -> int:
    """The partition of what is no event: it has no experiment, and ends as a dead letter there."""
    return crc32(data) % partitions


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded of the number of partitions.

    Attributes:
        partitions: how many there are; while that is changed, how many there were.
        becoming: how many there will be; None while that is not changed.
        settled: whether what is of the new number is complete: then the change can only be ended.
        token: of who changes it; whoever begins to takes over from who did.
    """

    partitions: int
    becoming: int | None = None
    settled: bool = False
    token: str = ""

    @classmethod
    def loads(cls, raw: bytes | str) -> "Recorded":
        """Read it; what somebody else put there is no number of partitions, 0."""
        found = _CHANGE.fullmatch(text(raw))
        if found is None:
            return cls(int(raw) if raw.isdigit() else 0)
        return cls(int(found[1]), int(found[2]), found[3] == "settled", found[4])

    def __str__(self) -> str:
        """As it is recorded."""
        if self.becoming is None:
            return str(self.partitions)
        return f"{self.partitions}>{self.becoming} {'settled' if self.settled else 'copying'} {self.token}"


# A record while the number is changed: "4>6 copying 1f9c0a2b".
_CHANGE = re.compile(r"(\d+)>(\d+) (copying|settled) (\w+)")


async def record(client: Redis, partitions: int, *, state: Sequence[str]) -> Recorded:
    """Record how many partitions there are, unless it is known already (see `lua/partitions.lua`); what is recorded.

    Args:
        client: of the whole server, or cluster.
        partitions: how many are asked for.
        state: keys that stand where there is one partition without a namespace.
    """
    return Recorded.loads(await scripts.run(client, "partitions", [keys.PARTITIONS, *state], [partitions]))


async def change_record(client: Redis, expected: Recorded | None, new: Recorded | None) -> bool:
    """Record something else (see `lua/partitions_change.lua`); False where it is not what was expected.

    None is no record.
    """
    args = ["" if one is None else str(one) for one in (expected, new)]
    return bool(await scripts.run(client, "partitions_change", [keys.PARTITIONS], args))


def recorded_again(recorded: Recorded | None) -> tuple[str, ...]:
    """The command that writes what is recorded once more, unless it is something else by now."""
    value = "" if recorded is None else str(recorded)
    return ("EVAL", scripts.source("partitions_change"), "1", keys.PARTITIONS, value, value)


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.

    Attributes:
        number: from 0 on.
        namespace: stands in front of its keys; "" where there is but one, on one server.
        client: short commands on its keys.
    """

    number: int
    namespace: str
    client: Redis


class Partitions:
    """All partitions, with a client of each.

    Args:
        address: of the server, or of nodes of the cluster.
        count: how many there are.
        name: of the process, shown by CLIENT LIST.
    """

    def __init__(self, address: Address, count: int, *, name: str) -> None:
        self._address = address
        self._name = name
        self._may_ask = True
        self._opened: list[Redis] = []
        self._readers: dict[tuple[int, str], Redis] = {}
        self._audiences: dict[str, Audience] = {}
        self.topology = topology_of(address, name=name)
        self.all = tuple(
            Partition(number, namespace, self._connect(namespace, name=name))
            for number, namespace in enumerate(self._namespaces(count))
        )
        self._wide: Redis | None = None

    def _namespaces(self, count: int) -> Sequence[str]:
        if count == 1 and not self._address.cluster:
            return [""]
        return [keys.namespace(number) for number in range(count)]

    def reader(self, partition: Partition, *, name: str) -> Redis:
        """One more client of a partition, for blocking reads, the same whenever it is asked for."""
        known = (partition.number, name)
        if known not in self._readers:
            self._readers[known] = self._connect(partition.namespace, name=name)
        return self._readers[known]

    def _connect(self, namespace: str, *, name: str) -> Redis:
        client = connect(self._address, name=name, namespace=namespace, topology=self.topology)
        self._opened.append(client)
        return client

    @property
    def clients(self) -> Sequence[Redis]:
        """Every client of a partition that was made so far."""
        return self._opened

    @property
    def plain(self) -> bool:
        """Whether there is but one partition, under the names that it always had."""
        return not self.all[0].namespace

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self.all) > 1

    @property
    def home(self) -> Partition:
        """The partition with what there is once: rosters, the language model's budget, summaries."""
        return self.all[0]

    @property
    def wide(self) -> Redis:
        """The client of what has no namespace, and may be in any slot: no script of several keys, no transaction."""
        if self._wide is None:
            self._wide = self.home.client if self.plain else wide_client(self._address, self.topology, name=self._name)
        return self._wide

    def of(self, experiment_id: str) -> Partition:
        """The partition that an experiment belongs to."""
        return self.all[partition_of(experiment_id, len(self.all))]

    def entry(self, partition: Partition, entry_id: str) -> str:
        """What an entry of a stream is called where people and programs tell it from others: 3:1769940000000-0."""
        return f"{partition.number}:{entry_id}" if self.several else entry_id

    def divided(self, experiment_ids: Iterable[str]) -> dict[Partition, list[str]]:
        """The partitions that these experiments belong to, each with its own, in the order given."""
        found: dict[Partition, list[str]] = {}
        for experiment_id in experiment_ids:
            found.setdefault(self.of(experiment_id), []).append(experiment_id)
        return found

    async def check(self) -> None:
        """Record how many partitions there are, where that is not recorded yet.

        Raises:
            PartitionsError: there are as many as were recorded, and not as many as are asked for.
            RedisError, OSError: as the server or the connection reports it.
        """
        if self.plain:
            recorded = await self.recorded() or Recorded(1)
        else:
            recorded = await record(self.wide, len(self.all), state=self._state)
        self._agree(recorded)

    async def compare(self) -> None:
        """As `check`, but record nothing: for who only looks.

        Raises:
            PartitionsError, RedisError, OSError: as `check`.
        """
        recorded = await self.recorded()
        if recorded is None and self._state and not self.plain and await self.wide.exists(*self._state):
            recorded = Recorded(1)
        self._agree(recorded or Recorded(len(self.all)))

    async def heed(self) -> None:
        """As `compare`, for who has begun: what is not recorded says nothing any more.

        Raises:
            PartitionsError, RedisError, OSError: as `check`.
        """
        recorded = await self.recorded()
        if recorded is not None:
            self._agree(recorded)

    @property
    def _state(self) -> Sequence[str]:
        """Keys that stand where one partition without a namespace has state."""
        return [] if self._address.cluster else [keys.STREAM, keys.FLOOR]

    def _agree(self, recorded: Recorded) -> None:
        there = recorded.partitions
        if recorded.becoming is not None:
            raise PartitionsError(
                f"the number of partitions is being changed from {there} to {recorded.becoming}: "
                f"`redis-agent repartition --to {recorded.becoming}` ends that"
                + ("" if recorded.settled else f", `--to {there}` takes it back")
            )
        if there != len(self.all):
            raise PartitionsError(
                f"the state in Redis is of {there} partition{'' if there == 1 else 's'}, and "
                f"REDIS_AGENT_PARTITIONS is {len(self.all)}: set it to {there}, or change their number with "
                f"`redis-agent repartition --to {len(self.all)}` (docs/cluster.md)"
            )

    async def recorded(self) -> Recorded | None:
        """What was recorded by those who share the server; with one partition nothing is."""
        if not self._may_ask:
            return None
        try:
            value: Any = await self.wide.get(keys.PARTITIONS)
        except NoPermissionError:
            self._may_ask = False  # a user whose rights were given before there were partitions
            return None
        found = Recorded.loads(value or b"")
        return found if found.partitions else None

    async def node_of_record(self) -> Redis:
        """A client of the server on which the number of partitions is recorded."""
        wide = self.wide
        return await wide.node_of(("GET", keys.PARTITIONS)) if isinstance(wide, WideClient) else wide

    def audience(self, channel: str) -> Audience | None:
        """Who listens to a channel in a cluster; None on one server, where the reply of PUBLISH says it."""
        if self.topology is None:
            return None
        if channel not in self._audiences:
            self._audiences[channel] = Audience(self.topology, channel)
        return self._audiences[channel]

    async def aclose(self) -> None:
        """Close every client."""
        for audience in self._audiences.values():
            await audience.aclose()
        for client in self._opened:
            await client.aclose()
        if self._wide is not None and not self.plain:
            await self._wide.aclose()
