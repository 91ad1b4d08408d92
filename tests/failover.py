"""A master, a replica, and three Sentinels that watch them, as real processes on loopback."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_agent.embedded import EmbeddedServer
from tests.conftest import OwnServerFactory
from tests.processes import unused_port
from tests.waiting import eventually

NAME = "themaster"
SENTINELS = 3
QUORUM = 2
DOWN_AFTER_MS = 500


async def replica_of(server: EmbeddedServer, start: OwnServerFactory) -> EmbeddedServer:
    replica = start(replicaof=f"127.0.0.1 {server.port}")
    client: Redis = Redis.from_url(replica.url)

    async def in_sync() -> bool:
        return (await client.info("replication"))["master_link_status"] == "up"

    await eventually(in_sync, 20, what="the replica is in sync")
    await client.aclose()
    return replica


class Replicated:
    """Use it as `async with`; `fail_over` in one of several ways makes the replica the master.

    Attributes:
        servers: both; which one is the master changes.
    """

    def __init__(self, directory: Path, **config: str) -> None:
        self._directory = directory
        self._config = {name.replace("_", "-"): value for name, value in config.items()}
        self._stack = contextlib.ExitStack()
        self.servers: list[EmbeddedServer] = []
        self._ports: list[int] = []
        self._sentinels: list[subprocess.Popen[bytes]] = []

    @property
    def settings(self) -> dict[str, str]:
        """The agent's settings for it."""
        addresses = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return {"REDIS_AGENT_SENTINELS": addresses, "REDIS_AGENT_SENTINEL_MASTER": NAME}

    async def __aenter__(self) -> "Replicated":
        try:
            for _ in range(2):
                self.servers.append(self._stack.enter_context(EmbeddedServer(config=self._config)))
            first, second = self.servers
            self._send(second, "REPLICAOF", "127.0.0.1", first.port)
            await eventually(lambda: self._follows(second), 20, what="the replica is in sync")
            for n in range(SENTINELS):
                self._start_sentinel(n)
            await eventually(self._watched, 30, interval=0.1, what="the Sentinels know everybody")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait(10)
        self._stack.close()

    def _start_sentinel(self, n: int) -> None:
        folder = self._directory / f"sentinel{n}"
        folder.mkdir()
        port = unused_port()
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder / 'log'}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {self.servers[0].port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {NAME} 3000\n"
        )
        # A server becomes a Sentinel by its name, or by the flag.
        binary = shutil.which(str(self.servers[0].binary.path))
        assert binary is not None
        self._ports.append(port)
        self._sentinels.append(
            subprocess.Popen(
                [binary, str(folder / "sentinel.conf"), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    @contextlib.contextmanager
    def _connection(self, port: int) -> Iterator[Any]:
        with redis.Redis(host="127.0.0.1", port=port, protocol=2, socket_timeout=2, retry=None) as connection:
            yield connection

    def _send(self, server: EmbeddedServer, *command: object) -> Any:
        with self._connection(server.port) as connection:
            return connection.execute_command(*command)

    def _follows(self, server: EmbeddedServer) -> bool:
        with self._connection(server.port) as connection:
            facts = connection.info("replication")
        return facts["role"] == "slave" and facts["master_link_status"] == "up"

    def _watched(self) -> bool:
        for port in self._ports:
            try:
                with self._connection(port) as connection:
                    (facts,) = connection.sentinel_masters().values()
            except (RedisError, ValueError):
                return False
            if facts["num-other-sentinels"] < SENTINELS - 1 or facts["num-slaves"] < 1 or facts["flags"] != "master":
                return False
        return True

    @property
    def master(self) -> EmbeddedServer:
        """Who is the master, as the Sentinels have it."""
        for port in self._ports:
            with contextlib.suppress(RedisError), self._connection(port) as connection:
                _, master_port = connection.sentinel_get_master_addr_by_name(NAME)
                return next(server for server in self.servers if server.port == int(master_port))
        raise AssertionError("no Sentinel answers")

    def ask_for_failover(self) -> None:
        """As an operator does: SENTINEL FAILOVER."""
        with self._connection(self._ports[0]) as connection:
            connection.execute_command("SENTINEL", "FAILOVER", NAME)

    async def promoted(self, server: EmbeddedServer) -> None:
        """Wait until the Sentinels agree that this one is the master, and it thinks so, too."""

        def agreed() -> bool:
            for port in self._ports:
                with self._connection(port) as connection:
                    if int(connection.sentinel_get_master_addr_by_name(NAME)[1]) != server.port:
                        return False
            with self._connection(server.port) as connection:
                return bool(connection.info("replication")["role"] == "master")

        await eventually(agreed, 60, interval=0.05, what="the replica is promoted")

    async def mended(self) -> None:
        """Both servers are up, one follows the other, and the Sentinels see that."""
        master = self.master
        other = next(server for server in self.servers if server is not master)

        def follows() -> bool:
            try:
                if not self._follows(other):
                    self._send(other, "REPLICAOF", "127.0.0.1", master.port)
                    return False
            except RedisError:
                return False
            return self._watched()

        await eventually(follows, 60, interval=0.2, what="the old master follows the new one")
