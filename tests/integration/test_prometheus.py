"""A real Prometheus scrapes three replicas under the shipped rules: what it knows is what Redis says."""

import contextlib
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from redis.asyncio import Redis

from tests.deploy.expressions import PROMETHEUS, ROOT, alert_rules, recording_rules
from tests.integration.flow import DEAD, METRICS, ORCHESTRATOR, STREAM, alerts, group, publish, settled
from tests.processes import Agents, unused_port
from tests.waiting import eventually

EVENTS = 40
ERRORS = ("route", "quota", "login", "template", "recipient", "sender", "reply", "time")
JUNK = 3
# What Grafana puts in the place of its variables.
GRAFANA = {"$job": "redis-agent", "$__range_s": "600", "$__range": "10m", "$__rate_interval": "1m"}


class Prometheus:
    """The HTTP API of the Prometheus of this test."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}"

    async def ready(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            async with self._session.get(f"{self._url}/-/ready") as answer:
                return answer.status == 200
        return False

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query finds."""
        async with self._session.get(f"{self._url}/api/v1/query", params={"query": query}) as answer:
            body = await answer.json()
        assert body["status"] == "success", f"{query}: {body}"
        found: list[dict[str, Any]] = body["data"]["result"]
        return found

    async def value(self, query: str) -> float | None:
        """The value of the one series that a query finds."""
        found = await self.ask(query)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    async def says(self, wanted: float, query: str) -> None:
        async def right() -> bool:
            found = await self.value(query)
            assert found == wanted, f"{query} is {found}, not {wanted}"
            return True

        await eventually(right, 10, interval=0.1, what=query)

    async def says_by(self, label: str, wanted: dict[str, float], query: str) -> None:
        async def right() -> bool:
            found = {series["metric"][label]: float(series["value"][1]) for series in await self.ask(query)}
            assert found == wanted, f"{query} is {found}, not {wanted}"
            return True

        await eventually(right, 10, interval=0.1, what=query)


@pytest.fixture
def program() -> str:
    """Debian's `prometheus`."""
    found = shutil.which("prometheus")
    if found is None:
        reason = "prometheus is not on PATH (Debian and Ubuntu: apt-get install --no-install-recommends prometheus)"
        if os.environ.get("REDIS_AGENT_TEST_REQUIRE_SERVER") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


@contextlib.asynccontextmanager
async def scraping(program: str, directory: Path, replicas: dict[str, int]) -> AsyncIterator[Prometheus]:
    """A Prometheus with the shipped configuration, in a hurry, and with ports for what DNS would find."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "redis-agent")
    del job["dns_sd_configs"]
    job["static_configs"] = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"__meta_dns_name": role}} for role, port in replicas.items()
    ]
    config["scrape_configs"] = [job]
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = unused_port()
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as session:
            prometheus = Prometheus(session, port)
            await eventually(prometheus.ready, 15, what="Prometheus is ready")
            yield prometheus
    finally:
        process.terminate()
        process.wait(10)
        print((directory / "prometheus.log").read_text(errors="replace")[-3000:])


async def test_what_prometheus_has_of_three_replicas_is_what_redis_says(
    agents: Agents, client: Redis, program: str, tmp_path: Path
) -> None:
    worker_port = unused_port()
    first = agents.start("bridge", "dispatcher", http=True)
    second = agents.start("bridge", "dispatcher", "scheduler", http=True)
    replicas = {"bridge": first.port, "scheduler": second.port, "worker": worker_port}
    await client.xgroup_create(STREAM, "redis_agent", id="0", mkstream=True)
    definition = {"success_criteria": json.dumps(["tick_count >= 1"]), "state": "running"}
    await client.hset("experiments:exp", mapping=definition)
    async with scraping(program, tmp_path, replicas) as prometheus, client.pubsub() as orchestrator:
        await orchestrator.subscribe(ORCHESTRATOR)
        await first.ready()
        await second.ready()

        # Nobody reads yet: what was published is the lag.
        for n in range(EVENTS):
            await publish(client, event="tick", n=str(n))
        for what in ERRORS:
            await publish(client, event="error", message=f"no {what}")
        for _ in range(JUNK):
            await client.publish(METRICS, "no event")
        published = EVENTS + len(ERRORS) + JUNK

        async def written() -> bool:
            return bool(await client.xlen(STREAM) == published)

        await eventually(written, 10, what="all is in the stream")
        lag = (await group(client))["lag"]
        assert lag == published
        await prometheus.says(lag, "job:redis_agent_stream_lag:max")
        await prometheus.says(published, 'max(redis_agent_bridge_received_total{job="redis-agent"})')
        await prometheus.says(published, "sum(redis_agent_bridge_written_total)")
        assert await prometheus.value("job:redis_agent_oldest_unread_seconds:max") is not None
        await prometheus.says_by("role", {"bridge": 1, "scheduler": 1, "worker": 0}, "up")

        # The third replica reads, and everything is counted in one place or another.
        worker = agents.start("worker", REDIS_AGENT_HTTP_PORT=worker_port)
        await worker.ready()
        await settled(client, published)

        async def all_heard() -> bool:
            (state,) = await client.xinfo_groups("fullsend:alerts")
            assert (state["pending"], state["lag"]) == (0, 0)
            assert len(found := await alerts(client)) >= 6, [(a["type"], a["message"]) for a in found]
            return True

        await eventually(all_heard, 15, what="every alert was delivered")
        await prometheus.says(1, "job:redis_agent_partitions:max")
        for role in ("bridge", "dispatcher", "scheduler"):
            await prometheus.says(1, f"sum(redis_agent_{role}_leader)")
        everywhere = "redis_agent_bridge_in_step >= bool on (job) group_left () job:redis_agent_partitions:max"
        await prometheus.says(2, f"sum({everywhere})")
        await prometheus.says((await group(client))["lag"], "job:redis_agent_stream_lag:max")
        await prometheus.says(0, "job:redis_agent_pending_entries:max")
        await prometheus.says(0, "job:redis_agent_alerts_waiting:max")
        dead = await client.xlen(DEAD)
        assert dead == JUNK
        await prometheus.says(dead, "sum(redis_agent_dead_letters_total)")
        await prometheus.says(published - dead, 'sum(redis_agent_events_total{result="applied"})')
        await prometheus.says(published, "sum(redis_agent_event_latency_seconds_count)")
        outbox = await alerts(client)
        by_type = Counter(alert["type"] for alert in outbox)
        assert set(by_type) == {"error", "success_threshold"}
        for kind, count in by_type.items():
            await prometheus.says(count, f'sum(redis_agent_alerts_total{{type="{kind}", outcome="sent"}})')
        held = 'sum(redis_agent_alerts_total{type="error", outcome="cooldown"})'
        await prometheus.says(len(ERRORS) - by_type["error"], held)

        # A counter that begins with what was lost fires its rule all the same, and Grafana's sum has all of it.
        await prometheus.says(1, 'ALERTS{alertname="RedisAgentDeadLetters", alertstate="firing"}')
        await prometheus.says(dead, "sum(job_reason:redis_agent_dead_letters:increase10m)")
        firing = await prometheus.ask('ALERTS{alertstate="firing"}')
        assert {series["metric"]["alertname"] for series in firing} == {"RedisAgentDeadLetters"}

        await every_expression_is_understood(prometheus)


async def every_expression_is_understood(prometheus: Prometheus) -> None:
    """Of the rules and of both dashboards; and a panel without data is one about what did not happen here."""
    for rule in recording_rules() + alert_rules():
        await prometheus.ask(str(rule["expr"]))
    panels = [
        panel
        for file in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
        for panel in json.loads(file.read_text())["panels"]
    ]

    async def shown() -> bool:
        empty = set()
        for panel in panels:
            for target in panel.get("targets", []):
                query = target["expr"]
                for variable, value in GRAFANA.items():
                    query = query.replace(variable, value)
                if not await prometheus.ask(query):
                    empty.add(panel["title"])
        assert empty <= {
            "Held in memory", "Errors of Redis and the network", "The language model, a second",
            "Last window examined for anomalies, ago",
        }  # fmt: skip
        return True

    await eventually(shown, 10, interval=0.5, what="a rate takes two scrapes")
