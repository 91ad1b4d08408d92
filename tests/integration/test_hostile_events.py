"""What is not an event costs only itself: a dead letter with its reason and its bytes, and nothing stops."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from tests.integration.hostile import ANY, payloads
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

STREAM, DEAD, GROUP = "fullsend:metrics:stream", "fullsend:metrics:dead", "redis_agent"


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url, protocol=2)
    yield client
    await client.aclose()


async def publish(client: Redis, event: bytes | dict[str, object]) -> None:
    data = event if isinstance(event, bytes) else json.dumps(event).encode()
    assert await client.publish("fullsend:metrics", data) == 1, "the bridge has gone"


async def all_applied(client: Redis, entries: int) -> None:
    async def settled() -> bool:
        written = await client.xlen(STREAM)  # first: what is written between the two is not yet in the lag
        (group,) = await client.xinfo_groups(STREAM)
        return written == entries and group["pending"] == 0 and group["lag"] == 0

    await eventually(settled, 30, what=f"{entries} entries are applied")


def scraped(agent: AgentProcess) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urlopen(f"http://127.0.0.1:{agent.port}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def dead_by_reason(metrics: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Counter[str]:
    name = "redis_agent_dead_letters_total"
    return Counter({labels[0][1]: int(value) for (n, labels), value in metrics.items() if n == name})


async def test_hostile_events_become_dead_letters_and_the_good_ones_among_them_are_exact(
    agents: Agents, raw: Redis, tmp_path: Path
) -> None:
    marker = tmp_path / "run by the reader"
    agent = await agents.start(http=True).ready()
    hostile = [(data.replace(b"{marker}", bytes(marker)), reason) for data, reason in payloads()]
    assert len(hostile) >= 100

    for number, (data, _) in enumerate(hostile, 1):
        await publish(raw, data)
        await publish(raw, {"experiment_id": "good", "event": "tick", "count": number, "level": 0.1})
        if len(data) > 1_000_000:  # else the server cuts the bridge off, for what waits to be read by it
            await all_applied(raw, 2 * number)
    await all_applied(raw, 2 * len(hostile))

    letters = await raw.xrange(DEAD)
    assert [e[b"data"] for _, e in letters] == [data for data, _ in hostile]
    for (data, expected), (_, entry) in zip(hostile, letters, strict=True):
        reason, _, detail = entry[b"reason"].decode().partition(": ")
        assert reason == (expected or reason), (data[:80], entry[b"reason"])
        assert reason not in (ANY, "not_applied", "max_deliveries")
        assert detail
        assert len(entry[b"reason"]) < 400
        assert int(entry[b"deliveries"]) == 1
        assert entry[b"at"].isdigit()
    ids = [i for i, _ in await raw.xrange(STREAM)]
    assert [e[b"source_id"] for _, e in letters] == ids[::2]

    n = len(hostile)
    good = {k.decode(): v.decode() for k, v in (await raw.hgetall("metrics_aggregated:good")).items()}
    assert (good["tick_count"], good["events_total"]) == (str(n * (n + 1) // 2), str(n))
    assert (good["level_sum"], good["level_samples"]) == (f"{n // 10}.{n % 10}".removesuffix(".0"), str(n))
    assert await raw.keys("metrics_aggregated:*") == [b"metrics_aggregated:good"]
    assert not marker.exists()

    metrics = scraped(agent)
    assert metrics["redis_agent_events_total", (("result", "applied"),)] == n
    assert metrics["redis_agent_events_total", (("result", "dead_letter"),)] == n
    assert metrics["redis_agent_bridge_received_total", ()] == 2 * n
    assert dead_by_reason(metrics) == Counter(e[b"reason"].decode().partition(":")[0] for _, e in letters)
    assert metrics["redis_agent_stream_lag", ()] == metrics["redis_agent_pending_entries", ()] == 0
    assert metrics["redis_agent_stream_lag_known", ()] == 1
    stray = [line for line in agent.log_text().splitlines() if not line.startswith("{")]
    assert not stray, "nothing writes past the log"


async def test_odd_but_readable_events_are_kept(agents: Agents, raw: Redis) -> None:
    await agents.start().ready()
    odd = [
        b'{"experiment_id":"odd","__class__":1,"model_fields":2,"model_extra":3,"gauges":4,"text":5,"is_error":true}',
        b"{'experiment_id': 'odd', 'metric': 'emails_sent', 'value': 20, 'note': None, 'ok': True}",
        b'{"experiment_id":"odd","event":"first","experiment_id":"odd"}',
        '{"experiment_id":"größe 🎉","event":"öffnen","größe":1}'.encode(),
        b'{"experiment_id":"a:b:c","event":"x"}',
        b'  {"experiment_id":"odd","event":"x","count":3.0,"timestamp":"2026-01-01T00:00:00","tags":["a"],"o":{}}\n',
    ]
    for data in odd:
        await publish(raw, data)
    await all_applied(raw, len(odd))

    assert await raw.xlen(DEAD) == 0
    fields = {k.decode(): v.decode() for k, v in (await raw.hgetall("metrics_aggregated:odd")).items()}
    assert fields["__class___latest"] == fields["is_error_latest"] == fields["ok_latest"] == "1"
    assert (fields["emails_sent_latest"], fields["x_count"], fields["first_count"]) == ("20", "3", "1")
    assert await raw.hget("metrics_aggregated:größe 🎉", "öffnen_count") == b"1"
    assert await raw.hget("metrics_aggregated:a:b:c", "x_count") == b"1"
    for kept in await raw.lrange("metrics:odd", 0, -1):
        assert json.loads(kept)["experiment_id"] == "odd"


@pytest.mark.parametrize("key", ["metrics_aggregated:bad", "metrics:bad", "redis_agent:fold_state:bad"])
async def test_key_of_the_wrong_type_costs_only_its_own_experiment(agents: Agents, raw: Redis, key: str) -> None:
    await raw.set(key, "x")
    agent = await agents.start(http=True).ready()
    for _ in range(20):
        await publish(raw, {"experiment_id": "bad", "event": "tick", "level": 1})
        await publish(raw, {"experiment_id": "good", "event": "tick"})
    await all_applied(raw, 40)

    assert await raw.hget("metrics_aggregated:good", "tick_count") == b"20"
    letters = [e for _, e in await raw.xrange(DEAD)]
    assert len(letters) == 20
    assert all(e[b"reason"].startswith(b"wrong_type: " + key.encode()) for e in letters)
    assert await raw.get(key) == b"x"
    assert dead_by_reason(scraped(agent)) == {"wrong_type": 20}
    await raw.delete(key)
    await publish(raw, {"experiment_id": "bad", "event": "tick"})
    await all_applied(raw, 41)
    assert await raw.hget("metrics_aggregated:bad", "tick_count") == b"1", "it works again once the key is gone"


async def test_wrong_types_around_judging_cost_only_their_own_experiment(agents: Agents, raw: Redis) -> None:
    criteria = {"success_criteria": '["level > 1"]', "metrics": '[{"name":"twice","formula":"ticks * 2"}]'}
    for experiment in ("good", "bad_state", "bad_specs"):
        await raw.hset(f"experiments:{experiment}", mapping=criteria)
    await raw.rpush("experiments:bad2", "x")
    await raw.rpush("metrics_specs:bad_specs", "x")
    await raw.rpush("redis_agent:alert_state:bad_state", "x")
    await raw.set("experiments:bad_json", "{")
    await raw.hset("experiments:bad_criteria", mapping={"success_criteria": "[[[", "failure_criteria": '{"a":[1]}'})
    agent = await agents.start(THRESHOLD_CHECK_INTERVAL_SECONDS=0.2).ready()

    experiments = ("bad2", "bad_state", "bad_specs", "bad_json", "bad_criteria", "good")
    for experiment in experiments:
        await publish(raw, {"experiment_id": experiment, "event": "tick", "level": 2})
    await all_applied(raw, len(experiments))

    async def told() -> bool:
        alerts = [json.loads(e[b"data"])["experiment_id"] for _, e in await raw.xrange("fullsend:alerts")]
        return set(alerts) == {"good", "bad_state", "bad_specs"}

    await eventually(told, what="those that can be judged are told of")
    assert await raw.hget("metrics_aggregated:good", "twice") == b"2"
    assert await raw.xlen(DEAD) == 0
    await swept_again(raw)
    assert not [e for e in agent.log() if e["event"] == "redis_failure"]


async def swept_again(client: Redis) -> None:
    """The scheduler completes a sweep that begins now."""
    before = await client.hget("redis_agent:scheduler", "swept_ms") or b"0"

    async def swept() -> bool:
        return int(await client.hget("redis_agent:scheduler", "swept_ms") or 0) > int(before)

    await eventually(swept, what="a sweep is completed")


async def test_names_beyond_the_limit_are_refused_and_said_while_what_is_there_goes_on(
    agents: Agents, raw: Redis
) -> None:
    agent = await agents.start(http=True).ready()
    for first in range(0, 1200, 100):
        for n in range(first, first + 100):
            await publish(raw, {"experiment_id": "wide", "event": f"e{n}"})
    await publish(raw, {"experiment_id": "wide", "event": "e5", "late": 1})
    await publish(raw, {"experiment_id": "other", "event": "e5", "late": 1})
    await all_applied(raw, 1202)

    fields = await raw.hgetall("metrics_aggregated:wide")
    assert len([f for f in fields if f.endswith(b"_count")]) == 997
    assert (fields[b"events_total"], fields[b"e5_count"]) == (b"1201", b"2")
    assert b"late_latest" not in fields
    assert await raw.hget("metrics_aggregated:other", "late_latest") == b"1"
    assert await raw.xlen(DEAD) == 0
    assert await agent.logged("name_refused", experiment_id="wide")
    refused = scraped(agent)["redis_agent_names_refused_total", ()]
    assert refused >= 201


async def test_event_with_the_most_gauges_allowed_is_applied(agents: Agents, raw: Redis) -> None:
    await agents.start().ready()
    await publish(raw, {"experiment_id": "many", **{f"g{n}": n for n in range(199)}})
    await all_applied(raw, 1)
    assert await raw.xlen(DEAD) == 0
    assert await raw.hget("metrics_aggregated:many", "g198_sum") == b"198"


async def test_entries_that_others_wrote_into_the_stream_do_not_stop_the_worker(agents: Agents, raw: Redis) -> None:
    await agents.start().ready()
    await raw.xadd(STREAM, {"other": "x"})
    await raw.xadd(STREAM, {"data": b'{"experiment_id":"good","event":"x"}', "at": b"soon"})
    await raw.xadd(STREAM, {"data": b'{"experiment_id":"good","event":"x"}', "at": b"9" * 30})
    await raw.xadd(STREAM, {"data": b'{"experiment_id":"good","event":"x"}'}, id=f"{2**62}-1")
    await raw.xadd(STREAM, {"data": b'{"experiment_id":"good","event":"x"}'}, id=f"{2**62}-2")
    await all_applied(raw, 5)
    assert [e[b"reason"].partition(b":")[0] for _, e in await raw.xrange(DEAD)] == [b"no_data"]
    assert await raw.hget("metrics_aggregated:good", "x_count") == b"4"
