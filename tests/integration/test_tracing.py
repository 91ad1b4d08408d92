"""Traces: one from the bridge to the delivered alert, across processes; nothing of them unless asked for."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.collector import Exported, collecting
from tests.integration.flow import METRICS, ORCHESTRATOR, OUTBOX, STREAM, mirror, publish, settled, ticks, ticks_are
from tests.processes import ROOT, Agents, unused_port
from tests.waiting import eventually


@contextlib.asynccontextmanager
async def told(client: Redis, count: int) -> AsyncIterator[list[dict[str, Any]]]:
    """So many alerts arrive before this is left."""
    found: list[dict[str, Any]] = []
    async with client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(ORCHESTRATOR)
        yield found
        while len(found) < count:
            message = await eventually(lambda: listener.get_message(timeout=1), what="an alert arrives")
            found.append(json.loads(message["data"]))


def follows(trace: dict[str, Exported], *steps: str) -> bool:
    """Whether each step is the parent of the next, and begins no earlier (the bridge knows its time to the ms)."""
    pairs = [(trace[before], trace[after]) for before, after in pairwise(steps)]
    return all(
        after.parent_id == before.span_id and after.start_ns >= before.start_ns and before.end_ns >= before.start_ns
        for before, after in pairs
    )


async def test_an_event_and_the_alert_it_led_to_are_one_trace_across_processes(agents: Agents, client: Redis) -> None:
    await client.hset("experiments:exp", "success_criteria", '["response_rate > 0.10"]')
    async with collecting() as collector:
        # Nothing but the drain exports: what came about is there when the processes have ended.
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": 60_000}
        running = [
            agents.start("bridge", OTEL_SERVICE_NAME="mine", **env),
            agents.start("worker", **env),
            agents.start("dispatcher", **env),
        ]
        for agent in running:
            await agent.ready()
        async with told(client, 2) as alerts:
            await publish(client, response_rate=0.15)
            await publish(client, experiment_id="other", event="error", message="broken")
        await publish(client, experiment_id="other", event="error", message="broken")
        await client.publish(METRICS, "no event")
        await settled(client, 4)
        assert [await agent.terminate() for agent in running] == [0, 0, 0]
    by_id = {trace["mirror"].trace_id.hex(): trace for trace in collector.traces()}
    entries = await client.xrange(STREAM)
    threshold, error, held_back, unreadable = [by_id[fields["trace"].split("-")[1]] for _, fields in entries]

    assert len(by_id) == 4
    assert set(threshold) == {"mirror", "apply", "judge", "raise", "analyse", "deliver"}
    assert follows(threshold, "mirror", "apply", "judge", "raise", "deliver")
    assert follows(threshold, "raise", "analyse")
    assert threshold["analyse"].end_ns <= threshold["deliver"].start_ns
    assert set(error) == {"mirror", "apply", "raise", "deliver"}
    assert follows(error, "mirror", "apply", "raise", "deliver")
    assert set(held_back) == set(unreadable) == {"mirror", "apply"}
    assert unreadable["apply"].attributes["error.type"] == "not_json"
    for (entry_id, _), trace in zip(entries, (threshold, error, held_back, unreadable), strict=True):
        assert trace["mirror"].parent_id == b""
        assert trace["apply"].attributes["messaging.message.id"] == entry_id
    for trace in (threshold, error):
        processes = {step: span.resource["service.instance.id"] for step, span in trace.items()}
        assert processes["mirror"] != processes["apply"] == processes["raise"] != processes["deliver"]
        services = [trace[step].resource["service.name"] for step in ("mirror", "apply", "deliver")]
        assert services == ["mine", "redis-agent", "redis-agent"]
    assert threshold["mirror"].name == f"mirror {STREAM}"
    assert threshold["apply"].attributes["redis_agent.experiment.id"] == "exp"
    assert threshold["apply"].attributes["messaging.system"] == "redis"
    assert threshold["deliver"].attributes["messaging.destination.name"] == ORCHESTRATOR
    assert threshold["deliver"].attributes["redis_agent.receivers"] == 1
    by_type = {alert["type"]: alert["alert_id"] for alert in alerts}
    assert threshold["raise"].attributes["redis_agent.alert.id"] == by_type["success_threshold"]
    assert error["raise"].attributes["redis_agent.alert.id"] == by_type["error"]


async def test_without_the_variables_entries_are_as_ever_and_a_trace_that_others_wrote_is_left_alone(
    agents: Agents, client: Redis
) -> None:
    await agents.start().ready()
    async with told(client, 1):
        await publish(client, event="error", message="broken")
    data = json.dumps({"experiment_id": "exp", "event": "error", "message": "another"})
    async with told(client, 1):
        await client.xadd(STREAM, {"data": data, "at": 1, "trace": f"00-{1:032x}-{1:016x}-01"})

    (_, written), _ = await client.xrange(STREAM)
    assert set(written) == {"data", "at"}
    assert [set(fields) for _, fields in await client.xrange(OUTBOX)] == [{"data", "at"}] * 2


_WHAT_IS_IMPORTED = """
import sys
from redis_agent import app, cli
from redis_agent.config import Settings
from redis_agent.tracing import OFF
assert app.tracing_of(Settings(), "name") is OFF
ours = ("redis_agent.otel", "opentelemetry.sdk.trace", "opentelemetry.exporter", "google.protobuf")
print([name for name in sys.modules if name.startswith(ours)])
"""


def test_what_traces_is_not_imported_unless_asked_for() -> None:
    imported = subprocess.run(
        [sys.executable, "-c", _WHAT_IS_IMPORTED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported.stdout.strip() == "[]"


async def test_traces_without_what_exports_them_are_said_once_and_the_agent_runs(
    agents: Agents, client: Redis, tmp_path: Path
) -> None:
    missing = tmp_path / "missing" / "opentelemetry"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ModuleNotFoundError('No module named opentelemetry')\n")
    agent = agents.start(OTEL_TRACES_EXPORTER="otlp", PYTHONPATH=os.pathsep.join([str(missing.parent), str(ROOT)]))
    await agent.ready()
    async with told(client, 1):
        await publish(client, event="error", message="broken")

    (said,) = [line for line in agent.log() if line["event"] == "not_traced"]
    assert "redis-agent[tracing]" in said["remedy"]
    assert [set(fields) for _, fields in await client.xrange(STREAM)] == [{"data", "at"}]


async def test_collector_that_is_down_holds_nothing_up_and_no_secret_is_said(agents: Agents, client: Redis) -> None:
    agent = await agents.start(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://user:hidden1@127.0.0.1:{unused_port()}",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=hidden2,hidden3",
        OTEL_BSP_SCHEDULE_DELAY=20,
        OTEL_TRACES_SAMPLER="always_on",
    ).ready()
    started = time.monotonic()
    async with told(client, 1):
        await publish(client, event="error", message="broken")
    assert time.monotonic() - started < 2
    await mirror(client, 300)
    await eventually(lambda: ticks_are(client, 300), 20)
    await agent.logged("traces_not_exported")
    for _ in range(10):
        await publish(client, event="tick")
    await settled(client, 311)

    stopping = time.monotonic()
    assert await agent.terminate() == 0
    assert time.monotonic() - stopping < 6
    assert await ticks(client) == 310
    lines = [line["event"] for line in agent.log()]
    assert lines.count("traces_not_exported") == 1
    assert "hidden" not in agent.log_text()
    assert len(agent.log()) == len(agent.log_text().splitlines()), "something else writes to stderr"
