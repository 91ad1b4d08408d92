"""The status page over HTTP: who may see it, what the document holds, and what it never does."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from redis_agent.clock import Clock
from redis_agent.experiments import parse_experiment
from redis_agent.maturity import Maturity
from redis_agent.overview import KnownExperiments
from redis_agent.page import document, site
from redis_agent.store.address import Address
from redis_agent.store.partitions import Partitions
from redis_agent.store.translations import Translations
from redis_agent.store.union import AllWindows
from tests.conftest import OwnServerFactory
from tests.integration.flow import DEAD, METRICS, OUTBOX, answered, http, mirror, publish, settled
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

TOKEN = "a-token-of-the-tests-0123456789"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\u202egnp.exe\u2066\u200f",
    "q" * 10_000,
    "__proto__",
    "constructor",
    "a\u0000b\u001b[31m",
    "\u05e9\u05dc\u05d5\u05dd",
]


async def status(agent: AgentProcess) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await answered(agent, "/status.json", 200))
    return answer


async def asked(
    agent: AgentProcess, path: str, headers: dict[str, str] | None = None
) -> tuple[int, str, "aiohttp.typedefs.LooseHeaders"]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{agent.port}{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


# Who may see it --------------------------------------------------------------------------------------------------


async def test_the_page_lets_the_browser_run_nothing_but_its_own_script(agents: Agents) -> None:
    agent = await agents.start(http=True).ready()

    code, html, headers = await asked(agent, "/")

    assert code == 200
    found = dict(headers)
    policy = found["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert found["X-Content-Type-Options"] == "nosniff"
    assert found["Referrer-Policy"] == "no-referrer"
    assert found["Cache-Control"] == "no-store"
    assert "aiohttp" not in found["Server"]
    # Nothing comes from elsewhere, and nothing is written in a place that a policy must be loosened for.
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", html)
    assert not re.search(r"<[^>]+\s(on\w+|style)=", html)
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "cookie"):
        assert sink not in html
    _, _, of_document = await asked(agent, "/status.json")
    assert dict(of_document)["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in of_document


async def test_with_a_token_only_who_names_it_sees_the_page_while_metrics_and_health_stay_open(agents: Agents) -> None:
    agent = await agents.start(http=True, REDIS_AGENT_HTTP_TOKEN=TOKEN).ready()

    for path in ("/", "/status.json"):
        for wrong in ("", "?token=", f"?token={TOKEN}x", f"?token={TOKEN[:-1]}"):
            code, text, headers = await asked(agent, path + wrong)
            assert code == 401
            assert dict(headers)["WWW-Authenticate"].startswith("Bearer")
            assert TOKEN not in text
        assert (await asked(agent, path, {"Authorization": f"Basic {TOKEN}"}))[0] == 401
        assert (await asked(agent, path, {"Authorization": f"Bearer {TOKEN}"}))[0] == 200
        assert (await asked(agent, f"{path}?token={TOKEN}"))[0] == 200
    for path in ("/metrics", "/healthz", "/readyz"):
        assert await answered(agent, path, 200)
    assert TOKEN not in (await asked(agent, f"/?token={TOKEN}"))[1]
    assert TOKEN not in agent.log_text()


async def test_a_name_that_somebody_made_mean_this_machine_gets_nothing(agents: Agents) -> None:
    agent = await agents.start(http=True).ready()

    for host in ("evil.example", f"evil.example:{agent.port}", "127.0.0.1.evil.example", ""):
        assert (await asked(agent, "/status.json", {"Host": host}))[0] == 403
    for host in ("localhost", f"localhost:{agent.port}", f"127.0.0.1:{agent.port}", f"[::1]:{agent.port}"):
        assert (await asked(agent, "/status.json", {"Host": host}))[0] == 200


async def test_the_page_is_read_only(agents: Agents) -> None:
    agent = await agents.start(http=True).ready()
    async with aiohttp.ClientSession() as session:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for path in ("/", "/status.json"):
                async with session.request(method, f"http://127.0.0.1:{agent.port}{path}") as answer:
                    assert answer.status == 405


# What it holds ---------------------------------------------------------------------------------------------------


async def test_the_document_says_what_the_agent_does_and_knows(agents: Agents, client: Redis) -> None:
    agent = await agents.start(http=True).ready()
    await client.hset(
        "experiments:exp",
        mapping={"hypothesis": "it works", "failure_criteria": '["bounces / emails_sent > 5%", "replies > 9"]'},
    )
    for _ in range(40):
        await publish(client, event="email_sent", count=1)
    for _ in range(30):
        await publish(client, event="bounce", count=1)
    await client.publish(METRICS, "no event")
    await settled(client, 71)

    async def complete() -> dict[str, Any] | None:
        found = (await status(agent))["data"]
        return found if found["dead_letters"] and found["alerts_shown"] else None

    data = await eventually(complete, 25, interval=0.5, what="the document has it all")

    assert data is not None
    assert data["problems"] == {}
    assert data["stream"]["lag"] == data["stream"]["pending"] == 0
    assert data["stream"]["added"] == 71
    (replica,) = data["replicas"]
    assert replica["in_step"] is True
    for role in ("bridge", "scheduler", "dispatcher"):
        assert data[role]["leader"].startswith(replica["name"])
    (experiment,) = data["experiments"]["shown"]
    assert experiment["id"] == "exp"
    assert experiment["hypothesis"] == "it works"
    assert experiment["events"] == 70
    bounces, replies = experiment["criteria"]
    assert (bounces["state"], bounces["evidence"], bounces["samples"]) == ("met", "confirmed", 40)
    assert bounces["interval"][0] > bounces["threshold"]
    assert replies["state"] == "unknown"
    assert len(experiment["hours"]["events"]) == 24
    assert sum(experiment["hours"]["events"]) == 70
    assert {series["name"]: sum(series["values"]) for series in experiment["hours"]["counts"]} == {
        "bounce": 30,
        "email_sent": 40,
    }
    assert any(alert["type"] == "failure_threshold" for alert in data["alerts_shown"])
    assert all(alert["delivered"] is False for alert in data["alerts_shown"])
    assert data["dead_letters"][0]["excerpt"] == "no event"
    assert data["pending"]["consumers"][0]["pending"] == 0


async def test_what_does_not_change_is_not_judged_again_and_what_does_is(client: Redis, redis_url: str) -> None:
    partitions = Partitions(Address(redis_url), 1, name="test")
    known = KnownExperiments(
        partitions, maturity=Maturity(AllWindows(partitions), Clock(), 0), alpha=0.05, min_samples=20, translate=True
    )
    now = Clock().now()
    await client.hset("experiments:exp", mapping={"success_criteria": '["score > 3"]'})
    await client.hset("metrics_aggregated:exp", mapping={"score_latest": "2", "events_total": "1"})

    first = (await known.read(["exp"], now))["exp"]["criteria"]
    again = (await known.read(["exp"], now))["exp"]["criteria"]
    await client.hset("metrics_aggregated:exp", "score_latest", "4")
    later = (await known.read(["exp"], now))["exp"]["criteria"]
    await client.hset("experiments:exp", "success_criteria", '["score > 5"]')
    other = (await known.read(["exp"], now))["exp"]["criteria"]
    await partitions.aclose()

    assert again is first
    assert [c[0]["state"] for c in (first, later, other)] == ["not_met", "met", "not_met"]


async def test_a_criterion_that_a_model_has_translated_is_judged_as_check_judges_it(
    client: Redis, redis_url: str
) -> None:
    partitions = Partitions(Address(redis_url), 1, name="test")
    text = "somebody somewhere ought to be rather pleased with the score"
    definition = {"success_criteria": json.dumps([text]), "metrics": '[{"name": "score", "type": "gauge"}]'}
    await client.hset("experiments:exp", mapping=definition)
    await client.hset("metrics_aggregated:exp", mapping={"score_latest": "4", "events_total": "1"})
    (key,) = parse_experiment("exp", definition).untranslated
    known = KnownExperiments(
        partitions, maturity=Maturity(AllWindows(partitions), Clock(), 0), alpha=0.05, min_samples=20, translate=True
    )

    before = (await known.read(["exp"], Clock().now()))["exp"]["criteria"]
    await Translations(partitions.home.client).keep(key, text, "score > 3")
    after = (await known.read(["exp"], Clock().now()))["exp"]["criteria"]
    await partitions.aclose()

    assert [c[0]["state"] for c in (before, after)] == ["unsupported", "met"]
    assert after[0]["translated"] is True


async def test_every_list_has_its_bound_and_the_newest_experiments_are_shown(agents: Agents, client: Redis) -> None:
    many = document.MAX_EXPERIMENTS + 15
    criteria = json.dumps([f"metric_{n} > 1" for n in range(90)])
    async with client.pipeline() as pipe:
        for n in range(many):
            pipe.hset(f"experiments:e{n}", mapping={"success_criteria": criteria, "hypothesis": "h" * 5_000})
            pipe.hset(f"metrics_aggregated:e{n}", mapping={f"rate_{k}": "1" for k in range(400)})
            pipe.zadd("redis_agent:experiments", {f"e{n}": 1_000_000 + n})
        for n in range(300):
            pipe.xadd(OUTBOX, {"data": json.dumps({"type": "error", "message": "m" * 20_000, "severity": "high"})})
            pipe.xadd(DEAD, {"data": "d" * 200_000 if n > 290 else "d", "reason": "not_json"})
        await pipe.execute()
    agent = await agents.start("bridge", http=True).ready()

    answer = await status(agent)

    data = answer["data"]
    shown = data["experiments"]["shown"]
    assert [e["id"] for e in shown] == [f"e{n}" for n in range(many - 1, 14, -1)]
    assert data["experiments_total"] == many
    assert {len(e["criteria"]) for e in shown} == {document.MAX_CRITERIA}
    assert {e["criteria_total"] for e in shown} == {90}
    assert {len(e["rates"]) for e in shown} == {document.MAX_RATES}
    assert len(data["alerts_shown"]) == document.MAX_ALERTS
    assert 0 < len(data["dead_letters"]) <= document.MAX_DEAD_LETTERS
    assert max(len(letter["excerpt"]) for letter in data["dead_letters"]) <= 160
    assert len(json.dumps(answer)) < 1_000_000


async def test_it_is_read_once_for_all_who_look(agents: Agents, client: Redis) -> None:
    agent = await agents.start("bridge", http=True).ready()
    await status(agent)

    async def calls() -> int:
        info = await client.info("commandstats")
        return int(info.get("cmdstat_xinfo|consumers", {}).get("calls", 0))

    before, began = await calls(), asyncio.get_running_loop().time()
    seen = [
        json.loads(text)["at_ms"] for _, text in await asyncio.gather(*(http(agent, "/status.json") for _ in range(50)))
    ]
    took = asyncio.get_running_loop().time() - began

    assert len(set(seen)) <= 1 + took / site.FRESH_SECONDS + 1
    assert await calls() - before <= 1 + took / site.FRESH_SECONDS + 1


async def test_names_from_outside_are_cut_and_lose_what_turns_text_around(agents: Agents, client: Redis) -> None:
    agent = await agents.start(http=True).ready()
    for n, text in enumerate(HOSTILE):
        await client.zadd("redis_agent:experiments", {text: 1_000 + n})
        await client.hset(f"experiments:{text}", mapping={"hypothesis": text, "success_criteria": json.dumps([text])})
        await client.hset(f"metrics_aggregated:{text}", mapping={f"{text}_count": "3", text: text, "events_total": "3"})
        await client.xadd(DEAD, {"data": text.encode(), "reason": text})
        await client.xadd(OUTBOX, {"data": json.dumps({"type": text, "experiment_id": text, "message": text})})
    await client.xadd(OUTBOX, {"data": "[" * 100_000})
    await client.xadd(OUTBOX, {"data": '{"message": NaN, "type": [1], "severity": {"a": 1e999}}'})

    answer = await status(agent)

    assert answer["problem"] == ""
    assert answer["data"]["problems"] == {}

    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(text for item in value.values() for text in texts(item))]
        if isinstance(value, list):
            return [text for item in value for text in texts(item)]
        return [value] if isinstance(value, str) else []

    found = texts(answer)
    assert max(map(len, found)) <= 6 * document.MAX_SENTENCE
    assert not [text for text in found if re.search(r"[\x00-\x1f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)]
    assert HOSTILE[0] in found
    assert HOSTILE[-1] in found


# What goes wrong -------------------------------------------------------------------------------------------------


async def test_a_key_of_the_wrong_type_costs_only_its_part(agents: Agents, client: Redis) -> None:
    agent = await agents.start("bridge", http=True).ready()
    await mirror(client, 3)
    await client.set(DEAD, "a text")
    await client.set("redis_agent:experiments", "a text")

    async def found() -> dict[str, Any] | None:
        data: dict[str, Any] = (await status(agent))["data"]
        return data if data["experiments"] is None and data["dead_letters"] is None else None

    data = await eventually(found, 15, interval=0.5)

    assert data is not None
    assert {"experiments", "dead letters", "dead letter list"} <= set(data["problems"])
    assert data["stream"]["length"] == 3
    assert data["alerts_shown"] == []


async def test_while_redis_is_away_the_page_says_so_and_keeps_what_was_known(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    server = own_server()
    agents = Agents(server.url, tmp_path)
    try:
        agent = await agents.start(http=True).ready()
        known = await status(agent)
        assert known["problem"] == ""

        server.kill()

        async def away() -> dict[str, Any] | None:
            answer = await status(agent)
            return answer if answer["problem"] else None

        answer = await eventually(away, 20, interval=0.3)
        assert answer is not None
        assert answer["problem"] == "Redis does not answer"
        assert answer["data"]["replicas"] == known["data"]["replicas"]
        assert answer["data_ms"] >= known["data_ms"]
        assert answer["at_ms"] > answer["data_ms"]
        assert (await asked(agent, "/"))[0] == 200

        server.restart()

        async def back() -> bool:
            return not (await status(agent))["problem"]

        await eventually(back, 20, interval=0.3)
    finally:
        agents.end()


def test_a_text_is_shown_in_one_line_of_visible_letters() -> None:
    assert document.shown("a\u202eb\nc", 20) == "a\\u202eb c"
    assert document.shown("x" * 30, 10) == "x" * 9 + "…"
    assert document.shown("👩\u200d💻 שלום", 20) == "👩\u200d💻 שלום"


@pytest.mark.parametrize("token", ["short", "with a space in it 12345", "ümläute-ümläute-ümläute"])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    from redis_agent.config import load_settings
    from redis_agent.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        load_settings({"REDIS_AGENT_HTTP_TOKEN": token})
    assert "REDIS_AGENT_HTTP_TOKEN" in str(caught.value)
    assert token not in str(caught.value)
