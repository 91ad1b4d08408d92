"""The agent under the ACL file of deploy/: each role as its own user does all its work, and nothing beyond it.

The server keeps what it refused (ACL LOG). After the whole way of events, with sweeps, summaries, trimming and
commands, it must be empty: scripts that ask with pcall would otherwise hide that a right is missing.
"""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from redis_agent.embedded import find_server_binary
from tests.cli.conftest import run_cli
from tests.gemini_stub import KEY, running
from tests.integration.flow import METRICS, ORCHESTRATOR, OUTBOX, STREAM, answered
from tests.processes import ROOT, AgentProcess, Agents, unused_port
from tests.waiting import eventually

SETTINGS = {
    "THRESHOLD_CHECK_INTERVAL_SECONDS": "0.5",
    "SUMMARY_INTERVAL_SECONDS": "3",
    "REDIS_AGENT_STREAM_MAX_LENGTH": "1000",
    "REDIS_AGENT_ALERTS_MAX_LENGTH": "100",
    "REDIS_AGENT_ANOMALY_WINDOW_SECONDS": "60",
    "REDIS_AGENT_CONSUMER_EXPIRY_SECONDS": "10",
    "REDIS_AGENT_MATURITY_SECONDS": "60",
}


class Deployment:
    """A server with the configuration and the users of deploy/, and clients as any of them."""

    def __init__(self, secrets: Path, directory: Path) -> None:
        self._secrets = secrets
        self._directory = directory
        self._binary = find_server_binary().path
        self.port = unused_port()

    def __enter__(self) -> "Deployment":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        data = self._directory / "data"
        data.mkdir(exist_ok=True)
        changed = {"--port": self.port, "--bind": "127.0.0.1", "--aclfile": self._secrets / "users.acl"}
        words = [str(word) for pair in changed.items() for word in pair]
        with (self._directory / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._binary, ROOT / "deploy" / "redis" / "redis.conf", *words],
                cwd=data,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            said = (self._directory / "server.log").read_text()
            assert self._server.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(20)

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, username="probe", password="none", protocol=2) as probe:
                return bool(probe.execute_command("PING"))
        except redis.RedisError:
            return False

    def url(self, user: str) -> str:
        password = (self._secrets / f"password_{user}").read_text()
        return f"redis://{user}:{password}@127.0.0.1:{self.port}/0"

    def client(self, user: str) -> Redis:
        return Redis.from_url(self.url(user), decode_responses=True, protocol=2)

    def refused(self) -> list[tuple[Any, ...]]:
        """What the server has refused: user, why, what, where; but to the probe, which is this test."""
        with redis.Redis.from_url(self.url("admin"), decode_responses=True, protocol=2) as admin:
            entries = [(e["username"], e["reason"], e["object"], e["context"]) for e in admin.acl_log()]
        return [entry for entry in entries if entry[0] != "probe"]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    secrets = tmp_path / "secrets"
    subprocess.run([ROOT / "deploy" / "prepare", "--into", secrets], check=True, capture_output=True)
    with Deployment(secrets, tmp_path) as running:
        yield running
        print("refused:", *running.refused(), sep="\n")  # shown where the test failed


@pytest.fixture
def agents(deployment: Deployment, tmp_path: Path) -> Iterator[Agents]:
    started = Agents("", tmp_path)
    yield started
    started.end()
    for log in started.logs():
        print(log)


def start(agents: Agents, deployment: Deployment, role: str, **settings: str) -> AgentProcess:
    return agents.start(role, url=deployment.url(role), http=True, **{**SETTINGS, **settings})


async def publish(publisher: Redis, experiment: str, times: int, **event: Any) -> None:
    async with publisher.pipeline(transaction=False) as pipe:
        for _ in range(times):
            pipe.publish(METRICS, json.dumps({"experiment_id": experiment, **event}))
        assert all(receivers >= 1 for receivers in await pipe.execute())


async def test_every_role_does_all_its_work_as_its_own_user(deployment: Deployment, agents: Agents) -> None:
    async with running() as gemini:
        asked = {"GOOGLE_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": gemini.url}
        await everything(deployment, agents, asked)
        assert gemini.asked


async def everything(deployment: Deployment, agents: Agents, asked: dict[str, str]) -> None:
    bridges = [start(agents, deployment, "bridge") for _ in range(2)]
    workers = [start(agents, deployment, "worker", **asked) for _ in range(3)]
    others = [start(agents, deployment, role, **asked) for role in ("dispatcher", "scheduler")]
    for agent in (*bridges, *workers, *others):
        await agent.ready()
        await answered(agent, "/metrics", 200)
    async with (
        deployment.client("admin") as admin,
        deployment.client("publisher") as publisher,
        deployment.client("orchestrator") as orchestrator,
        orchestrator.pubsub(ignore_subscribe_messages=True) as heard,
    ):
        await heard.subscribe(ORCHESTRATOR)
        await publisher.hset(
            "experiments:exp",
            mapping={
                # The second is for a model to translate.
                "success_criteria": '["replies >= 10", "People are by and large delighted with what they get"]',
                "failure_criteria": '["reply_rate < 1% after 50 sends"]',
            },
        )
        await publisher.hset(
            "metrics_specs:exp",
            mapping={
                "metrics": '[{"name": "reply_rate", "type": "percentage", "formula": "replies / emails_sent"},'
                '{"name": "replies", "type": "counter"}]'
            },
        )

        # Events of an hour ago, so that windows have closed; a gauge; an error; what cannot be read.
        await publish(publisher, "exp", 1500, event="email_sent", timestamp=time.time() - 3600)
        await publish(publisher, "exp", 30, event="reply")
        await publish(publisher, "exp", 5, latency_seconds=1.5)
        await publish(publisher, "exp", 1, event="error", message="it broke")
        await publish(publisher, "done", 1, event="tick")
        await publisher.publish(METRICS, "neither JSON nor anything else")
        await publisher.hset("experiments:done", mapping={"state": "completed"})

        types: set[str] = set()

        async def told() -> bool:
            message = await heard.get_message(timeout=0.2)
            if message is not None:
                types.add(json.loads(message["data"])["type"])
            return types >= {"success_threshold", "error", "periodic_summary", "experiment_completed"}

        await eventually(told, 40, what="every kind of alert is delivered")
        assert await orchestrator.hget("metrics_aggregated:exp", "email_sent_count") == "1500"

        async def trimmed() -> bool:
            return int(await admin.xlen(STREAM)) <= 1100

        await eventually(trimmed, 20, what="the stream is trimmed")
        # Another one takes over, and examines at once what has closed.
        assert await others[-1].terminate() == 0
        others.append(await start(agents, deployment, "scheduler", **asked).ready())
        await eventually(lambda: admin.hget("redis_agent:anomalies:exp", "upto"), 30, what="windows are examined")

        # One worker is killed with entries in hand, others take them over; a bridge and the rest stop in good order.
        workers[0].signal(signal.SIGSTOP)
        await publish(publisher, "exp", 300, event="email_sent")
        workers[0].kill()

        async def all_applied() -> bool:
            return await orchestrator.hget("metrics_aggregated:exp", "email_sent_count") == "1800"

        await eventually(all_applied, 20, what="what a killed worker held is applied")
        await page_of(others[-1])
        await commands(deployment, admin)
        for agent in (*bridges, *workers[1:], others[0], others[-1]):
            assert await agent.terminate() == 0
        assert {line["event"] for agent in agents._started for line in agent.log()} & {"redis_failure"} == set()
    assert deployment.refused() == []


async def page_of(scheduler: AgentProcess) -> None:
    """What people see who open the published port: the scheduler's page, read with the scheduler's rights."""
    assert "<title>" in await answered(scheduler, "/", 200)
    document = json.loads(await answered(scheduler, "/status.json", 200))
    assert document["problem"] == ""
    assert {"exp", "done"} <= {experiment["id"] for experiment in document["data"]["experiments"]["shown"]}
    assert "unreadable" not in json.dumps(document)


async def commands(deployment: Deployment, admin: Redis) -> None:
    """What people do, those who look and those who repair."""
    looking = deployment.url("readonly")
    for args in (
        ("status",),
        ("experiments",),
        ("experiments", "exp", "--history"),
        ("alerts",),
        ("pending",),
        ("dead-letters", "list"),
        ("check", "exp"),
        ("silence", "--list"),
        ("replay",),
    ):
        done = await run_cli(*args, REDIS_URL=looking)
        assert done.code == 0, (args, done)
        assert "unreadable" not in done.out, (args, done)

    repairing = deployment.url("operator")
    letters = json.loads((await run_cli("dead-letters", "list", "--json", REDIS_URL=repairing)).out)
    letter = letters["entries"][0]["id"]
    assert (await run_cli("dead-letters", "show", letter, REDIS_URL=repairing)).code == 0
    replayed = await run_cli("dead-letters", "replay", letter, REDIS_URL=repairing)
    assert "dead letter again: not_json" in replayed.out
    for args in (
        ("dead-letters", "drop", "--all", "--yes"),
        ("silence", "exp", "--for", "1h"),
        ("silence", "exp", "--remove"),
        ("publish", "--experiment", "exp", "--event", "email_sent"),
        ("status",),
    ):
        done = await run_cli(*args, REDIS_URL=repairing)
        assert done.code == 0, (args, done)


FORBIDDEN = [
    *[
        (user, *command)
        for user in ("bridge", "worker", "dispatcher", "scheduler", "publisher", "orchestrator", "readonly", "operator")
        for command in (
            ("CONFIG", "GET", "*"),
            ("CONFIG", "SET", "appendonly", "no"),
            ("FLUSHALL",),
            ("FLUSHDB",),
            ("SHUTDOWN", "NOSAVE"),
            ("ACL", "SETUSER", "worker", "+@all"),
            ("ACL", "LIST"),
            ("MONITOR",),
            ("CLIENT", "LIST"),
            ("CLIENT", "KILL", "TYPE", "normal"),
            ("CLIENT", "PAUSE", "1"),
            ("KEYS", "*") if user not in ("orchestrator", "operator") else ("SAVE",),
            ("REPLICAOF", "NO", "ONE"),
            ("FUNCTION", "LIST"),
            ("GET", "somebody_elses"),
            ("SET", "somebody_elses", "x"),
            ("EVAL", "return redis.call('GET', 'somebody_elses')", "0"),
        )
    ],
    ("bridge", "PUBLISH", ORCHESTRATOR, "{}"),
    ("bridge", "PUBLISH", METRICS, "{}"),
    ("bridge", "DEL", STREAM),
    ("bridge", "XADD", OUTBOX, "*", "data", "{}"),
    ("bridge", "HGETALL", "metrics_aggregated:exp"),
    ("worker", "PUBLISH", ORCHESTRATOR, "{}"),
    ("worker", "SUBSCRIBE", METRICS),
    ("worker", "HSET", "experiments:exp", "state", "running"),
    ("worker", "DEL", "metrics_aggregated:exp"),
    ("worker", "DEL", STREAM),
    ("worker", "XTRIM", STREAM, "MAXLEN", "0"),
    ("worker", "XGROUP", "DESTROY", STREAM, "redis_agent"),
    ("worker", "SET", "redis_agent:lease:bridge", "x"),
    ("worker", "EVAL", "return redis.call('DEL', KEYS[1])", "1", STREAM),
    ("dispatcher", "PUBLISH", METRICS, "{}"),
    ("dispatcher", "XADD", STREAM, "*", "data", "{}"),
    ("dispatcher", "DEL", OUTBOX),
    ("dispatcher", "HSET", "metrics_aggregated:exp", "x", "1"),
    ("scheduler", "PUBLISH", ORCHESTRATOR, "{}"),
    ("scheduler", "XACK", "fullsend:metrics:dead", "redis_agent", "1-1"),
    ("scheduler", "HSET", "experiments:exp", "state", "running"),
    ("scheduler", "SET", "redis_agent:lease:bridge", "x"),
    ("scheduler", "DEL", STREAM),
    ("publisher", "PUBLISH", ORCHESTRATOR, "{}"),
    ("publisher", "XADD", STREAM, "*", "data", "{}"),
    ("publisher", "HSET", "metrics_aggregated:exp", "x", "1"),
    ("orchestrator", "PUBLISH", ORCHESTRATOR, "{}"),
    ("orchestrator", "HGETALL", "experiments:exp"),
    ("readonly", "PUBLISH", METRICS, "{}"),
    ("readonly", "HSET", "metrics_aggregated:exp", "x", "1"),
    ("readonly", "EVAL", "return redis.call('DEL', KEYS[1])", "1", STREAM),
    ("readonly", "XACK", STREAM, "redis_agent", "1-1"),
    ("operator", "HSET", "experiments:exp", "state", "running"),
    ("operator", "PUBLISH", ORCHESTRATOR, "{}"),
]


async def test_no_user_can_do_what_is_not_its_work(deployment: Deployment) -> None:
    permitted = []
    for user, *command in FORBIDDEN:
        async with deployment.client(user) as client:
            try:
                await client.execute_command(*command)
            except NoPermissionError:
                continue
            except ResponseError as error:
                # From inside a script the error has another beginning.
                if "ACL failure" in str(error) or "permission" in str(error).lower():
                    continue
                permitted.append((user, *command, str(error)))
            else:
                permitted.append((user, *command))
    assert permitted == []


async def test_what_was_written_in_scripts_and_transactions_is_there_after_a_restart(
    deployment: Deployment, agents: Agents
) -> None:
    for role in ("bridge", "worker"):
        await start(agents, deployment, role).ready()
    async with deployment.client("publisher") as publisher:
        await publish(publisher, "exp", 50, event="email_sent")

    async def applied() -> bool:
        async with deployment.client("orchestrator") as orchestrator:
            return await orchestrator.hget("metrics_aggregated:exp", "email_sent_count") == "50"

    await eventually(applied, 20, what="all is applied")
    agents.end()
    deployment.stop()
    deployment.start()
    assert await applied()
    async with deployment.client("admin") as admin:
        assert await admin.xlen(STREAM) == 50
    assert deployment.refused() == []


async def test_nobody_gets_in_without_a_password_but_who_asks_for_a_sign_of_life(deployment: Deployment) -> None:
    async with Redis(port=deployment.port, protocol=2) as nobody:
        with pytest.raises(AuthenticationError):
            await nobody.ping()
    async with Redis(port=deployment.port, username="probe", password="any", protocol=2) as probe:
        assert await probe.execute_command("PING")
        with pytest.raises(NoPermissionError):
            await probe.execute_command("INFO")


async def test_a_worker_that_lacks_a_right_says_so_and_does_not_start(deployment: Deployment, agents: Agents) -> None:
    async with deployment.client("admin") as admin:
        await admin.execute_command("ACL", "SETUSER", "worker", "clearselectors")
    agent = start(agents, deployment, "worker")
    await eventually(lambda: not agent.alive, 20, what="the agent has ended")
    assert agent.exit_code == 1
    assert "does not let this user run" in agent.log_text()


def test_the_secrets_are_made_once_and_each_user_has_another(tmp_path: Path) -> None:
    prepare, secrets = ROOT / "deploy" / "prepare", tmp_path / "secrets"
    subprocess.run([prepare, "--into", secrets], check=True, capture_output=True)
    first = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run([prepare, "--into", secrets], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == first
    passwords = [text for name, text in first.items() if name.startswith("password_")]
    assert len(set(passwords)) == len(passwords) == 9
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords)
    assert secrets.stat().st_mode & 0o077 == 0
    assert "@password@" not in first["users.acl"]
    # Redis 7.0 reads its append-only file with the rights of this user, and leaves out what it may not do.
    assert first["users.acl"].splitlines()[0] == "user default off resetpass ~* &* +@all"
