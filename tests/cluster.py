"""A Redis Cluster of local servers: three primaries and a replica of each, as real processes on loopback.

`async with Cluster() as cluster` starts it in a few seconds. Its nodes are `EmbeddedServer`s, so nothing of it
outlives the process that started it, and the kill of a node leaves its files for `restart`.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from redis_agent.embedded import EmbeddedServer, ServerBinary, _unused_port
from redis_agent.errors import ServerError
from tests.waiting import eventually

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000

# A failover takes the node timeout, up to a second of waiting for the election, and the votes; a stopped server
# that comes back makes it longer.
_CHANGE_SECONDS = 30.0
_POLL_SECONDS = 0.02
_START_ATTEMPTS = 3

_CONFIG = {
    "cluster-enabled": "yes",
    "cluster-announce-ip": "127.0.0.1",
    # A replica may always take over, however long its primary has been away, and stays with its shard.
    "cluster-replica-validity-factor": "0",
    "cluster-allow-replica-migration": "no",
    "repl-diskless-sync-delay": "0",
}

_TLS = {
    "tls-cluster": "yes",
    "tls-replication": "yes",
    # Certificates are made out to names.
    "cluster-announce-hostname": "localhost",
}


def slot_of(key: str) -> int:
    """The slot of a key."""
    return int(key_slot(key.encode()))


def over_tls(certificates: Path) -> dict[str, str]:
    """The configuration of a server with a `tls-port`, of a directory with what `deploy/prepare --tls` makes."""
    files = {"ca-cert": "ca.crt", "cert": "server.crt", "key": "server.key"}
    return {f"tls-{kind}-file": str(certificates / name) for kind, name in files.items()}


class Node:
    """One server of the cluster.

    Attributes:
        server: the process.
        id: its name in the cluster, the same after a restart.
        bus_port: where the other nodes speak to it.
        tls_port: where clients speak TLS with it; 0 where they cannot.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.id = str(self.send("CLUSTER", "MYID"))
        self.bus_port, self.tls_port = (
            int(self.send("CONFIG", "GET", name)[1]) for name in ("cluster-port", "tls-port")
        )
        self._killed = False
        self._stopped = False

    def __repr__(self) -> str:
        return f"<Node {self.server.port} {self.id[:8]}>"

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def alive(self) -> bool:
        """Whether it runs and is not stopped."""
        return not (self._killed or self._stopped)

    def send(self, *command: Any, timeout: float = 5.0) -> Any:
        """Run one command on this very node, over a connection of its own, sent once; replies are text."""
        with redis.Redis(
            host="127.0.0.1",
            port=self.server.port,
            protocol=2,
            socket_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        ) as connection:
            return connection.execute_command(*command)

    def facts(self) -> dict[str, str]:
        """What it says of the cluster."""
        return dict(line.split(":", 1) for line in self.send("CLUSTER", "INFO").splitlines())

    def replication(self) -> dict[str, Any]:
        """What it says of replication."""
        return dict(self.send("INFO", "replication"))

    def kill(self) -> None:
        """End it as a crash does: SIGKILL."""
        self.server.kill()
        self._killed, self._stopped = True, False

    def restart(self) -> None:
        """Start it again with its files, after `kill`."""
        self.server.restart()
        self._killed = self._stopped = False

    def stop(self) -> None:
        """Freeze it: SIGSTOP."""
        os.kill(self.server.pid, signal.SIGSTOP)
        self._stopped = True

    def cont(self) -> None:
        """Let it go on: SIGCONT."""
        os.kill(self.server.pid, signal.SIGCONT)
        self._stopped = False


class Cluster:
    """Use it as `async with`. Slots and roles are where the last failover or migration left them: ask.

    Args:
        primaries: how many shards.
        replicas: of each primary.
        node_timeout_ms: after which a silent node counts as failed.
        binary: the server program; the one that `EmbeddedServer` finds when None.
        config: of every node; a directive's name with hyphens or underscores.
        certificates: see `over_tls`; then the nodes, localhost by name, speak TLS with each other, and on a port of
            its own with clients.
    """

    def __init__(
        self,
        *,
        primaries: int = 3,
        replicas: int = 1,
        node_timeout_ms: int = NODE_TIMEOUT_MS,
        binary: ServerBinary | None = None,
        config: Mapping[str, str] | None = None,
        certificates: Path | None = None,
    ) -> None:
        self._primaries = primaries
        self._replicas = replicas
        self._binary = binary
        self._config = _CONFIG | {"cluster-node-timeout": str(node_timeout_ms)}
        self._config |= {name.replace("_", "-"): value for name, value in (config or {}).items()}
        self._tls = certificates is not None
        if certificates is not None:
            self._config |= _TLS | over_tls(certificates)
        self._stack = contextlib.ExitStack()
        self.nodes: list[Node] = []

    async def __aenter__(self) -> "Cluster":
        try:
            wanted = self._primaries * (1 + self._replicas)
            starting = [asyncio.create_task(asyncio.to_thread(self._start_server)) for _ in range(wanted)]
            await asyncio.wait(starting)  # for all, also when one has failed: those that run are to be stopped
            self.nodes = [Node(task.result()) for task in starting]
            await self._form()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            with contextlib.suppress(OSError, ServerError):
                node.kill()  # nobody needs what a polite end would save
        self._stack.close()

    def _start_server(self) -> EmbeddedServer:
        # The bus has a port of its own, chosen as the server's is: below those of outgoing connections. So has TLS.
        for attempt in range(1, _START_ATTEMPTS + 1):
            ports = {name: str(_unused_port()) for name in ("cluster-port", *(["tls-port"] if self._tls else []))}
            server = EmbeddedServer(binary=self._binary, config=self._config | ports)
            try:
                server.start()
            except ServerError:  # the port of the bus may have been taken meanwhile
                if attempt == _START_ATTEMPTS:
                    raise
            else:
                break
        self._stack.callback(server.stop)
        return server

    async def _form(self) -> None:
        primaries = self.nodes[: self._primaries]
        for n, node in enumerate(self.nodes):
            # Different from the start, so that no two nodes must settle whose is the greater.
            node.send("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for n, node in enumerate(primaries):
            first, last = (SLOTS * k // self._primaries for k in (n, n + 1))
            node.send("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    node.send("CLUSTER", "MEET", "127.0.0.1", other.tls_port or other.port, other.bus_port)
        await self._until(self._met, what="the nodes know each other")
        for n, replica in enumerate(self.nodes[self._primaries :]):
            primary = primaries[n % self._primaries]
            replica.send("CLUSTER", "REPLICATE", primary.id)
        await self.whole()

    def _met(self) -> bool:
        wanted = {node.id for node in self.nodes}
        return all(
            {row.id for row in table} == wanted and all(row.linked for row in table)
            for table in map(_table, self.nodes)
        )

    # What it looks like

    @property
    def seeds(self) -> str:
        """host:port of every node, comma-separated."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def living(self) -> list[Node]:
        """The nodes that are neither killed nor stopped."""
        return [node for node in self.nodes if node.alive]

    @property
    def primaries(self) -> list[Node]:
        """The nodes that own slots, as the living have it."""
        return [self._by_id[row.id] for row in self._rows() if row.slots and "fail" not in row.flags]

    def replicas_of(self, primary: Node) -> list[Node]:
        """The living replicas of a node."""
        return [node for row in self._rows() if row.primary == primary.id and (node := self._by_id[row.id]).alive]

    def primary_of(self, slot: int | str) -> Node:
        """The node that a slot, or a key's slot, is with, as the living have it.

        Raises:
            AssertionError: nobody has it.
        """
        number = slot_of(slot) if isinstance(slot, str) else slot
        for row in self._rows():
            if any(first <= number <= last for first, last in row.slots) and "fail" not in row.flags:
                return self._by_id[row.id]
        raise AssertionError(f"no node has slot {number}")

    def other_primary(self, than: Node) -> Node:
        """A primary that is not this one, such as to migrate a slot to."""
        return next(node for node in self.primaries if node is not than)

    @property
    def migrates_atomically(self) -> bool:
        """Whether the servers know CLUSTER MIGRATESLOTS (Valkey 9 and later)."""
        return any("MIGRATESLOTS" in line for line in self.living[0].send("CLUSTER", "HELP"))

    @property
    def _by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes}

    def _rows(self) -> "list[_Row]":
        """The newest view of the cluster: a node that was cut off or stopped may have an older one."""
        views = []
        for node in self.living:
            with contextlib.suppress(RedisError, OSError):
                views.append((int(node.facts()["cluster_current_epoch"]), _table(node)))
        assert views, "no node of the cluster answers"
        return max(views, key=lambda view: view[0])[1]

    # What is done to it

    def send(self, key: str, *command: Any) -> Any:
        """Run one command on the primary of a key."""
        return self.primary_of(key).send(*command)

    async def kill(self, node: Node) -> Node | None:
        """SIGKILL; if it owned slots, wait until a replica of it has them, and return that."""
        slots = _slots(self._rows(), node)
        node.kill()
        return await self.taken_over(slots[0], node) if slots else None

    async def taken_over(self, slot: int, lost: Node) -> Node:
        """Wait until every living node says that another than this one has the slot, and that all is well; who."""

        def done() -> Node | None:
            owners = {_owner(_table(node), slot) for node in self.living}
            if len(owners) != 1 or lost.id in owners or None in owners or not self._agreed():
                return None
            return self._by_id[str(owners.pop())]

        found: Node = await self._until(done, what=f"another node than {lost} has slot {slot}")
        return found

    async def fail_over(self, primary: Node) -> Node:
        """Change roles as an operator does: CLUSTER FAILOVER on a replica; the new primary."""
        slots = _slots(self._rows(), primary)
        self.replicas_of(primary)[0].send("CLUSTER", "FAILOVER")
        return await self.taken_over(slots[0], primary)

    async def whole(self) -> None:
        """Wait until all nodes agree, every slot is served, and every replica is in step with its primary."""
        await self._until(lambda: self._agreed() and self._followed(), what="the cluster is whole")

    async def mend(self) -> None:
        """Start what was killed, wake what was stopped, close what was left open; then wait for `whole`."""
        for node in self.nodes:
            if node._stopped:
                node.cont()
            if node._killed:
                node.restart()
        await self._until(self._closed, what="no slot is half-way between two nodes")
        await self.whole()

    async def wipe(self) -> None:
        """Mend it, and delete every key and script."""
        await self.mend()
        for node in self.primaries:
            node.send("FLUSHALL")
        for node in self.nodes:
            node.send("SCRIPT", "FLUSH")

    def _agreed(self) -> bool:
        """Whether all living nodes have the same owners in mind, and none thinks that something is wrong."""
        tables = [_table(node) for node in self.living]
        owners = {tuple(sorted((row.id, tuple(row.slots)) for row in table if row.slots)) for table in tables}
        return (
            len(owners) == 1
            and all(node.facts()["cluster_state"] == "ok" for node in self.living)
            and all("fail" not in row.flags for table in tables for row in table if self._by_id[row.id].alive)
        )

    def _closed(self) -> bool:
        """Close every slot that is half-way between two nodes; whether there was none."""
        found = [
            (row, slot) for node in self.nodes for row in _table(node) if "myself" in row.flags for slot in row.open
        ]
        for row, slot in found:
            # A replica is told by its primary, and may have been away when that was told.
            self._by_id[row.primary or row.id].send("CLUSTER", "SETSLOT", slot, "STABLE")
        return not found

    def _followed(self) -> bool:
        primaries = {row.id for row in self._rows() if row.slots}
        for node in self.living:
            facts = node.replication()
            if node.id in primaries:
                if facts["role"] != "master":
                    return False
            elif facts["role"] != "slave" or facts["master_link_status"] != "up":
                return False
        return True

    async def _until(self, condition: Callable[[], Any], *, what: str) -> Any:
        def asked() -> Any:
            try:
                return condition()
            except (RedisError, OSError) as error:
                raise AssertionError(f"a node does not answer: {error}") from error

        return await eventually(asked, _CHANGE_SECONDS, interval=_POLL_SECONDS, what=what)

    # Moving slots

    async def migrate(
        self,
        slot: int,
        to: Node,
        *,
        keys_at_once: int = 1,
        between: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Move a slot in the classic way, key by key, which gives clients ASK and TRYAGAIN on the way.

        Args:
            slot: which.
            to: its next primary.
            keys_at_once: keys in one MIGRATE.
            between: awaited after each MIGRATE and before the slot is given to its next primary.
        """
        begin = time.monotonic()
        self.open(slot, to)
        while self.move_keys(slot, to, keys_at_once):
            if time.monotonic() - begin > _CHANGE_SECONDS:
                raise AssertionError(f"slot {slot} still has keys at {self.primary_of(slot)}")
            await (between() if between is not None else asyncio.sleep(0))
        await self.close(slot, to)

    def open(self, slot: int, to: Node) -> None:
        """Begin a classic migration."""
        source = self.primary_of(slot)
        assert source is not to, f"{to} has slot {slot} already"
        to.send("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.send("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)

    def move_keys(self, slot: int, to: Node, count: int, names: Iterable[str] = ()) -> int:
        """Hand over some keys of an open slot, or those that are named; how many were handed over."""
        source = self.primary_of(slot)
        names = list(names) or source.send("CLUSTER", "GETKEYSINSLOT", slot, count)
        if names:
            source.send("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "REPLACE", "KEYS", *names)
        return len(names)

    async def close(self, slot: int, to: Node) -> None:
        """End a classic migration: the slot is its next primary's; wait until everybody knows."""
        source = self.primary_of(slot)
        for node in (to, source, *(other for other in self.primaries if other not in (to, source))):
            node.send("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        await self._until(lambda: self._belongs(slot, to), what=f"every node knows that {to} has slot {slot}")

    async def migrate_atomically(self, slot: int, to: Node) -> None:
        """Move a slot as a whole: CLUSTER MIGRATESLOTS, which Valkey 9 has; see `migrates_atomically`.

        Raises:
            ServerError: the source gave up, such as because one of the two died.
        """
        source = self.primary_of(slot)
        before = _migrations(source) if self.migrates_atomically else {}
        source.send("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id)

        def done() -> bool:
            if source.alive:
                for name, found in _migrations(source).items():
                    if name not in before and found["state"] in ("failed", "cancelled"):
                        raise ServerError(f"slot {slot} stays at {source}: {found['state']}, {found['message']}")
            return self._belongs(slot, to)

        await self._until(done, what=f"every node knows that {to} has slot {slot}")

    def _belongs(self, slot: int, to: Node) -> bool:
        return all(_owner(_table(node), slot) == to.id for node in self.living)


class _Row:
    """One line of CLUSTER NODES."""

    def __init__(self, line: str) -> None:
        self.id, _, flags, primary, _, _, _, link, *slots = line.split()
        self.open = [int(part[1:].partition("-")[0]) for part in slots if part.startswith("[")]
        self.flags = frozenset(flags.split(","))
        self.primary = "" if primary == "-" else primary
        self.linked = link == "connected"
        ranges = (part.partition("-") for part in slots if not part.startswith("["))
        self.slots = [(int(first), int(last or first)) for first, _, last in ranges]


def _table(node: Node) -> list[_Row]:
    return [_Row(line) for line in node.send("CLUSTER", "NODES").splitlines()]


def _migrations(node: Node) -> dict[str, dict[str, Any]]:
    """The atomic migrations that a node knows of, by name."""
    found = (dict(zip(row[::2], row[1::2], strict=True)) for row in node.send("CLUSTER", "GETSLOTMIGRATIONS"))
    return {migration["name"]: migration for migration in found}


def _slots(rows: list[_Row], node: Node) -> list[int]:
    return [first for row in rows if row.id == node.id for first, _ in row.slots]


def _owner(rows: list[_Row], slot: int) -> str | None:
    return next((row.id for row in rows for first, last in row.slots if first <= slot <= last), None)
