"""`redis-agent health` says whether the process beside it lives, as a container's health check asks it."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.cli.conftest import agent, run_cli
from tests.processes import unused_port
from tests.waiting import eventually


async def test_an_agent_that_lives_is_said_to(redis_url: str) -> None:
    port = str(unused_port())
    async with agent(redis_url, REDIS_AGENT_HTTP_PORT=port):
        done = await run_cli("health", REDIS_AGENT_HTTP_PORT=port)
        assert (done.code, done.out, done.err) == (0, "ok\n", "")

        async def ready() -> bool:
            return (await run_cli("health", "--ready", REDIS_AGENT_HTTP_PORT=port)).code == 0

        await eventually(ready, 20, interval=0.5, what="it is ready")


async def test_an_agent_without_redis_lives_and_is_not_ready() -> None:
    port, away = str(unused_port()), "redis://127.0.0.1:1/0"
    # Told to stop before Redis has answered, it ends without having begun.
    async with agent(away, "worker", REDIS_AGENT_HTTP_PORT=port):

        async def lives() -> bool:
            return (await run_cli("health", REDIS_AGENT_HTTP_PORT=port)).code == 0

        await eventually(lives, 20, interval=0.2, what="it lives")
        done = await run_cli("health", "--ready", REDIS_AGENT_HTTP_PORT=port)
    assert done.code == 1
    assert f"127.0.0.1:{port}/readyz answers 503: " in done.err
    assert "Redis does not answer" in done.err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
async def test_where_nobody_listens_is_one_line(host: str) -> None:
    done = await run_cli("health", REDIS_AGENT_HTTP_HOST=host, REDIS_AGENT_HTTP_PORT="1")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: no answer from ")
    assert done.err.count("\n") == 1


async def test_no_endpoint_is_one_line() -> None:
    done = await run_cli("health", REDIS_AGENT_HTTP_PORT="0")
    assert (done.code, done.err) == (1, "Error: there is no endpoint to ask: REDIS_AGENT_HTTP_PORT is 0\n")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Somebody listens and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        accepted: list[socket.socket] = []
        thread = threading.Thread(target=lambda: accepted.append(listener.accept()[0]), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        for one in accepted:
            one.close()


async def test_who_says_nothing_does_not_live(silent_port: int) -> None:
    done = await run_cli("health", "--timeout", "0.2", REDIS_AGENT_HTTP_PORT=str(silent_port))
    assert done.code == 1
    assert "timed out" in done.err
