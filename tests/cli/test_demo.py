"""The demo shows an alert within seconds, ends in good order however it is ended, and leaves nothing behind."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from redis_agent.cli.demonstration.scenario import STORIES, Simulation
from redis_agent.experiments import parse_experiment
from tests.cli.conftest import agent, run_cli
from tests.conftest import OwnServerFactory
from tests.waiting import eventually


class Demo:
    """A demo that runs off a terminal, in a process group of its own, as a shell would start it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"the demo ended before it said {pattern!r}: {self.lines[-5:]}"
                self.lines.append(line.rstrip("\n"))
                found = re.search(pattern, line)
                if found:
                    return found

    async def finish(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            rest = (await self.process.stdout.read()).decode()
            err = (await self.process.stderr.read()).decode()
            code = await self.process.wait()
        self.lines += rest.splitlines()
        return code, err


@contextlib.asynccontextmanager
async def demo(*args: str, **environment: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "redis_agent", "demo", *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
        limit=2**20,
        start_new_session=True,
    )
    try:
        yield Demo(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def facts_of(url: str) -> tuple[int, Path]:
    """The private server's process id and directory."""
    with redis.Redis.from_url(url, protocol=2) as client:
        return client.info("server")["process_id"], Path(client.config_get("dir")["dir"])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
async def test_a_signal_to_the_whole_group_leaves_nothing_behind(signum: signal.Signals) -> None:
    async with demo("--speed", "5") as running:
        url = (await running.until(r"redis://[\d.]+:\d+/0")).group()
        await running.until(r"^alert ")
        pid, directory = facts_of(url)
        assert directory.exists()
        os.killpg(running.process.pid, signum)
        code, err = await running.finish()
    assert (code, err) == (0, "")
    assert not is_alive(pid)
    assert not directory.exists()
    assert re.search(r"^demo: [\d,]+ events published, ", running.lines[-1])
    assert "a replay of the stream agrees with every aggregate" in running.lines[-1]


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
async def test_a_signal_while_it_starts_leaves_nothing_behind(tmp_path: Path, delay: float) -> None:
    async with demo(TMPDIR=str(tmp_path)) as running:
        await asyncio.sleep(delay)  # the moment is what this is about
        os.killpg(running.process.pid, signal.SIGINT)
        code, err = await running.finish()
    # The directory goes last, after the server. Before the command runs at all the interpreter has its own ways.
    await eventually(lambda: not list(tmp_path.iterdir()), what="the directory is gone")
    if delay >= 0.8:
        assert "Traceback" not in err
        assert code == 0


async def test_it_tells_the_whole_story_in_lines_that_programs_read() -> None:
    done = await run_cli("demo", "--speed", "6", "--seconds", "6")
    assert done.code == 0
    assert done.err == ""
    alerts = [json.loads(line.removeprefix("alert ")) for line in done.out.splitlines() if line.startswith("alert ")]
    assert {"success_threshold", "failure_threshold", "error"} <= {alert["type"] for alert in alerts}
    for experiment_id in ("exp_winner", "exp_loser", "exp_breaking", "exp_quiet"):
        [*_, last] = [line for line in done.out.splitlines() if line.startswith(f"metrics_aggregated:{experiment_id} ")]
        assert re.search(r" events_total=\d+( |$)", last)
    assert re.search(r"^metrics_aggregated:exp_winner .*\bemail_sent_count=\d+", done.out, re.MULTILINE)
    assert "plain templates" in done.out
    assert re.search(r"^demo: ([\d,]+) events published, \1 applied, ", done.out.splitlines()[-1])


async def test_nothing_of_the_environment_reaches_it() -> None:
    done = await run_cli("demo", "--seconds", "0.5", REDIS_URL="nonsense", SUMMARY_INTERVAL_SECONDS="x")
    assert done.code == 0, done.err


async def test_a_reader_that_goes_away_ends_it() -> None:
    async with demo("--speed", "5") as running:
        url = (await running.until(r"redis://[\d.]+:\d+/0")).group()
        pid, directory = facts_of(url)
        running.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        assert running.process.stderr is not None
        err = (await asyncio.wait_for(running.process.stderr.read(), 30)).decode()
        await asyncio.wait_for(running.process.wait(), 30)
    assert err == ""
    assert not is_alive(pid)
    assert not directory.exists()


def test_the_same_seed_tells_the_same_story_in_whatever_steps() -> None:
    whole = Simulation(7).until(30.0)
    stepwise = Simulation(7)
    assert [event for n in range(1, 601) for event in stepwise.until(n / 20)] == whole
    assert Simulation(8).until(30.0) != whole


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.id)
def test_every_criterion_of_the_stories_is_understood(story) -> None:
    experiment = parse_experiment(story.id, story.definition("2026-02-01T00:00:00Z"), story.metrics_specs())
    assert experiment.problems == ()
    assert [c.problem for c in experiment.criteria] == [""] * len(experiment.criteria)


async def test_it_publishes_to_an_agent_that_runs_elsewhere_until_it_is_told_to_stop(redis_url: str) -> None:
    async with agent(redis_url), demo("--publish", "--speed", "20", REDIS_URL=redis_url) as running:
        with redis.Redis.from_url(redis_url, decode_responses=True, protocol=2) as client:

            def counted() -> bool:
                return all(
                    client.hget(f"metrics_aggregated:{story.id}", "events_total") is not None for story in STORIES
                )

            await eventually(counted, 30, what="every experiment has events")
        running.process.terminate()
        code, err = await running.finish()
    assert (code, err) == (0, "")
    assert re.fullmatch(r"demo: [\d,]+ events published", running.lines[-1])


async def test_its_story_begins_when_somebody_listens(redis_url: str) -> None:
    heard = 0
    async with demo("--publish", "--speed", "20", REDIS_URL=redis_url) as running:
        assert running.process.stderr is not None
        assert (await running.process.stderr.readline()).decode() == "nobody listens on fullsend:metrics yet\n"
        async with Redis.from_url(redis_url, protocol=2) as client, client.pubsub() as listener:
            await listener.subscribe("fullsend:metrics")
            await listener.get_message(timeout=5)
            while heard < 100:
                heard += await listener.get_message(timeout=5) is not None
            running.process.terminate()
            assert (await running.finish())[0] == 0
            while await listener.get_message(timeout=0.05):
                heard += 1
    assert running.lines[-1] == f"demo: {heard:,} events published"


async def test_it_goes_on_publishing_when_the_server_is_there_again(own_server: OwnServerFactory) -> None:
    server = own_server()
    async with Redis.from_url(server.url, protocol=2) as client, client.pubsub() as listener:
        await listener.subscribe("fullsend:metrics")
        assert await listener.get_message(timeout=5)
        async with demo("--publish", "--speed", "20", REDIS_URL=server.url) as running:
            assert await listener.get_message(timeout=30), "an event is heard"
            server.kill()
            assert running.process.stderr is not None
            assert "the server is away" in (await running.process.stderr.readline()).decode()
            server.restart()
            assert (await running.process.stderr.readline()).decode() == "the server is there again\n"
            running.process.terminate()
            assert (await running.finish())[0] == 0
    assert "unheard by any bridge" in running.lines[-1]


async def test_a_server_of_ones_own_belongs_to_publishing() -> None:
    done = await run_cli("demo", "--redis-url", "redis://127.0.0.1:1")
    assert done.code == 2
    assert "belongs to --publish" in done.err
