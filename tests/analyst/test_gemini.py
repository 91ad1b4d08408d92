"""Whatever Gemini does, a question ends in time: with a checked answer, or with the right reason."""

import asyncio
import gc
import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from redis.asyncio import Redis

from redis_agent.analyst.answers import AlertAnalysis
from redis_agent.analyst.gemini import Access, Answer, Gemini, NoAnswer
from redis_agent.app import gemini_for
from redis_agent.config import load_settings
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.spending import Breaker
from redis_agent.telemetry import Telemetry
from tests.analyst.conftest import FACTS, MODELS, Making, ask, came
from tests.gemini_stub import GOOD, KEY, GeminiStub, answer, cutting, error, hanging, html, modes, response
from tests.waiting import eventually

# By the stub's mode: what comes of a question, and how many calls it makes.
OUTCOMES: dict[str, tuple[str, int]] = {
    "good": ("answer", 1),
    "fenced JSON": ("answer", 1),
    "400": ("bad_request", 2),
    "400, key invalid": ("forbidden", 1),
    "401": ("forbidden", 1),
    "403": ("forbidden", 1),
    "404": ("no_model", 3),
    "429": ("rate_limited", 1),
    "429, Retry-After: 1": ("rate_limited", 2),
    "429, Retry-After: 60": ("rate_limited", 1),
    "429, RetryInfo 34.5s": ("rate_limited", 1),
    "500": ("server_error", 3),
    "503 as HTML": ("server_error", 3),
    "hanging": ("timeout", 1),
    "trickling, a byte a second": ("timeout", 1),
    "cutting before the reply": ("unreachable", 3),
    "cutting within the reply": ("unreachable", 3),
    "truncated JSON": ("not_json", 1),
    "truncated (MAX_TOKENS)": ("truncated", 1),
    "not JSON": ("not_json", 1),
    "wrong schema": ("wrong_schema", 1),
    "invented number": ("ungrounded", 1),
    "blocked prompt": ("blocked", 1),
    "blocked answer": ("blocked", 1),
    "empty candidates": ("not_json", 1),
    "no text": ("not_json", 1),
}


def counted(telemetry: Telemetry, name: str, **labels: str) -> float:
    return telemetry.registry.get_sample_value(f"redis_agent_llm_{name}_total", labels) or 0.0


@pytest.mark.parametrize("mode", modes())
async def test_every_case_ends_within_the_deadline_with_its_reason_and_calls(
    stub: GeminiStub, making: Making, mode: str
) -> None:
    telemetry = Telemetry()
    gemini = making(telemetry=telemetry)
    await ask(making(), {**FACTS, "warm": "up"})  # the import of the SDK is not what is measured
    stub.asked.clear()
    stub.standing = modes()[mode]

    # Full jitter: with three tries in two seconds, two of them can only be missed on a machine that stands still.
    seconds = 2.5 if OUTCOMES[mode][0] == "timeout" else 10.0
    began = time.monotonic()
    found = await ask(gemini, seconds=seconds)

    assert time.monotonic() - began < seconds + 3.0
    assert (came(found), stub.calls) == OUTCOMES[mode]
    outcome = "ok" if isinstance(found, Answer) else found.reason
    assert counted(telemetry, "requests", outcome=outcome) == 1
    assert counted(telemetry, "calls") == stub.calls


async def test_good_answer_has_its_model_and_tokens(stub: GeminiStub, making: Making) -> None:
    telemetry = Telemetry()
    found = await ask(making(telemetry=telemetry))
    assert found == Answer(AlertAnalysis(**GOOD), MODELS[0], 100, 25, cached=False)
    assert {kind: counted(telemetry, "tokens", kind=kind) for kind in ("input", "output", "thinking")} == {
        "input": 100,
        "output": 20,
        "thinking": 5,
    }


async def test_what_is_sent_is_what_the_model_takes(stub: GeminiStub, making: Making) -> None:
    stub.queue.append(error(404, "NOT_FOUND", "gone"))
    stub.queue.append(error(404, "NOT_FOUND", "gone"))
    await ask(making())
    first, _, third = stub.asked
    assert (first.version, first.model, third.model) == ("v1", MODELS[0], MODELS[2])
    assert "temperature" not in first.config
    assert list(first.config["thinkingConfig"].values()) == ["MINIMAL"]
    assert third.config["temperature"] == 0.2
    assert list(third.config["thinkingConfig"].values()) == [0]
    assert first.config["maxOutputTokens"] >= 4_096
    assert first.config["responseMimeType"] == "application/json"
    assert first.config["responseJsonSchema"]["properties"]["status"]["enum"] == [
        "on_track",
        "at_risk",
        "failing",
        "succeeded",
    ]
    assert first.headers["x-goog-api-key"] == KEY
    assert json.loads(first.message.partition(": ")[2]) == FACTS
    assert "exp_cold_email" not in first.instruction


async def test_without_a_key_nothing_is_asked(stub: GeminiStub, making: Making) -> None:
    gemini = making(access=Access(base_url=stub.url))
    assert not gemini.available
    assert came(await ask(gemini)) == "no_key"
    assert stub.calls == 0


@pytest.mark.parametrize("mode", ["400, key invalid", "401", "403"])
async def test_refused_key_is_said_once_and_not_used_again(
    stub: GeminiStub, making: Making, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.standing = modes()[mode]
    gemini = making()
    assert gemini.available
    found = [came(await ask(gemini, {**FACTS, "n": n})) for n in range(4)]
    assert found == ["forbidden", "off", "off", "off"]
    assert not gemini.available
    assert stub.calls == 1
    printed = "".join(capsys.readouterr())
    assert printed.count("llm_off") == 1
    assert KEY not in printed


async def test_missing_model_is_remembered(stub: GeminiStub, making: Making) -> None:
    stub.queue.append(error(404, "NOT_FOUND", "models/gemini-3.5-flash-lite is not found"))
    gemini = making()
    found = [await ask(gemini, {**FACTS, "n": n}) for n in range(3)]
    assert [answer.model for answer in found if isinstance(answer, Answer)] == [MODELS[1]] * 3
    assert [asked.model for asked in stub.asked] == [MODELS[0], MODELS[1], MODELS[1], MODELS[1]]


async def test_model_that_does_not_take_its_tuning_is_asked_without_from_then_on(
    stub: GeminiStub, making: Making
) -> None:
    stub.queue.append(error(400, "INVALID_ARGUMENT", "Thinking level MINIMAL is not supported for this model."))
    gemini = making()
    assert [came(await ask(gemini, {**FACTS, "n": n})) for n in range(2)] == ["answer", "answer"]
    assert ["thinkingConfig" in asked.config for asked in stub.asked] == [True, False, False]


async def test_service_that_comes_back_within_the_deadline_is_asked_again(stub: GeminiStub, making: Making) -> None:
    stub.queue.extend([html(503), cutting()])
    assert came(await ask(making(), seconds=20)) == "answer"
    assert stub.calls == 3


async def test_short_retry_after_is_waited_for(stub: GeminiStub, making: Making) -> None:
    stub.queue.append(error(429, "RESOURCE_EXHAUSTED", "quota", Retry_After="1"))
    assert came(await ask(making(), seconds=20)) == "answer"
    first, second = stub.asked
    assert second.at - first.at >= 1.0


async def test_long_retry_after_keeps_all_replicas_from_asking(stub: GeminiStub, making: Making, raw: Redis) -> None:
    stub.queue.append(error(429, "RESOURCE_EXHAUSTED", "quota", Retry_After="77"))
    ann, bob = making(), making()
    assert came(await ask(ann)) == "rate_limited"
    assert [came(await ask(one, {**FACTS, "n": 1})) for one in (ann, bob)] == ["circuit_open"] * 2
    assert stub.calls == 1
    open_until_ms = int(await raw.hget(keys.LLM, "open_until") or 0)
    assert 60_000 < open_until_ms - time.time() * 1000 <= 77_000


async def test_circuit_opens_for_all_replicas_and_closes_when_the_service_is_back(
    stub: GeminiStub, making: Making
) -> None:
    breaker = Breaker(threshold=4, open_ms=3_000, most_ms=6_000, trial_ms=3_000)
    ann, bob = making(breaker=breaker), making(breaker=breaker)
    stub.standing = html(503)
    for n in range(3):
        await ask(ann, {**FACTS, "n": n}, seconds=10)
    calls = stub.calls
    assert calls == 4
    assert came(await ask(bob)) == "circuit_open"
    assert stub.calls == calls

    stub.standing = answer(GOOD)

    async def is_answered() -> bool:
        return isinstance(await ask(bob), Answer)

    await eventually(is_answered, timeout=30)
    assert stub.calls == calls + 1
    assert came(await ask(ann, {**FACTS, "n": 9})) == "answer"


async def test_three_replicas_never_spend_more_than_one_budget(stub: GeminiStub, making: Making) -> None:
    replicas = [making(per_minute=10) for _ in range(3)]
    facts = [{**FACTS, "n": n} for n in range(150)]
    found = await asyncio.gather(*(ask(replicas[n % 3], one, seconds=20) for n, one in enumerate(facts)))
    outcomes = [came(one) for one in found]
    assert stub.calls == 10
    assert (outcomes.count("answer"), outcomes.count("budget")) == (10, 140)


async def test_every_try_is_taken_out_of_the_budget(stub: GeminiStub, making: Making) -> None:
    stub.standing = html(503)
    assert came(await ask(making(per_minute=2), seconds=20)) == "budget"
    assert stub.calls == 2


async def test_equal_facts_are_asked_once_by_all_replicas(stub: GeminiStub, making: Making) -> None:
    ann, bob = making(), making()
    found = await asyncio.gather(*(ask(ann) for _ in range(5)))
    assert sorted(came(one) for one in found) == ["answer", *["known"] * 4]
    known = await ask(bob)
    assert isinstance(known, Answer)
    assert (known.value, known.model, known.cached) == (AlertAnalysis(**GOOD), MODELS[0], True)
    assert stub.calls == 1
    assert came(await ask(bob, {**FACTS, "n": 1})) == "answer", "other facts are asked"
    assert came(await ask(making(models=MODELS[1:]))) == "answer", "so are other models"


async def test_known_answer_that_somebody_else_has_written_is_checked_too(
    stub: GeminiStub, making: Making, raw: Redis
) -> None:
    assert came(await ask(making())) == "answer"
    (key,) = [key async for key in raw.scan_iter(match=keys.llm_answer("*"))]
    evil: list[Any] = [b"\xff", "[]", "7", json.dumps({"value": {**GOOD, "insight": "It is 99 %."}, "model": "m"})]
    evil.append(json.dumps({"value": {**GOOD, "status": "x"}, "model": "m", "in": 1, "out": 1}))
    for value in evil:
        await raw.set(key, value)
        assert came(await ask(making())) == "answer"
    assert stub.calls == 1 + len(evil)


async def test_failures_are_not_remembered_as_answers(stub: GeminiStub, making: Making) -> None:
    stub.queue.append(answer({**GOOD, "status": "great"}))
    gemini = making()
    assert [came(await ask(gemini)) for _ in range(3)] == ["wrong_schema", "answer", "known"]


async def test_without_redis_no_call_is_made(stub: GeminiStub, making: Making) -> None:
    nowhere = connect(Address("redis://127.0.0.1:1/0"), name="nowhere")
    assert came(await ask(making(client=nowhere))) == "budget"
    assert stub.calls == 0
    await nowhere.aclose()


async def test_key_of_the_wrong_type_costs_the_answer_and_nothing_else(
    stub: GeminiStub, making: Making, raw: Redis
) -> None:
    await raw.set(keys.LLM_CALLS, "in the way")
    assert came(await ask(making())) == "budget"
    assert stub.calls == 0


async def test_server_that_does_not_answer_does_not_delay_anybody(making: Making, raw: Redis) -> None:
    gemini = making()
    await raw.client_pause(3_000)  # type: ignore[no-untyped-call]
    began = time.monotonic()
    assert came(await ask(gemini, seconds=0.7)) == "budget"
    assert time.monotonic() - began < 2.7
    await raw.execute_command("CLIENT", "UNPAUSE")


async def test_deadline_that_has_passed_makes_no_call(stub: GeminiStub, making: Making) -> None:
    gemini = making()
    assert isinstance(await ask(gemini, seconds=-1), NoAnswer)
    assert isinstance(await ask(gemini, seconds=0.3), NoAnswer)
    assert stub.calls == 0


async def test_hanging_service_opens_the_circuit(stub: GeminiStub, making: Making) -> None:
    stub.standing = hanging()
    breaker = Breaker(threshold=3, open_ms=60_000)
    gemini = making(breaker=breaker)
    began = time.monotonic()
    found = await asyncio.gather(*(ask(gemini, {**FACTS, "n": n}, seconds=1.5) for n in range(4)))
    assert [came(one) for one in found] == ["timeout"] * 4
    assert time.monotonic() - began < 10.0

    async def is_open() -> bool:
        return came(await ask(gemini, {**FACTS, "n": 9}, seconds=1.5)) == "circuit_open"

    await eventually(is_open)


async def test_cancelled_question_is_cancelled(stub: GeminiStub, making: Making) -> None:
    stub.standing = hanging()
    task = asyncio.create_task(ask(making(), seconds=60))
    await eventually(lambda: stub.calls, timeout=20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_retired_model_is_replaced_and_said(
    stub: GeminiStub, making: Making, capsys: pytest.CaptureFixture[str]
) -> None:
    await ask(making(models=("gemini-2.0-flash-exp", *MODELS[1:])))
    assert stub.asked[0].model == MODELS[0]
    assert "model_retired" in "".join(capsys.readouterr())


async def test_alias_of_the_newest_model_is_asked_where_the_api_knows_it(stub: GeminiStub, making: Making) -> None:
    await ask(making(models=("gemini-flash-latest",)))
    await ask(making())
    assert [asked.version for asked in stub.asked] == ["v1beta", "v1"]


async def test_vertex_ai_is_asked_with_a_key_in_express_mode(
    stub: GeminiStub, making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", stub.url)
    assert came(await ask(making(access=Access(api_key=KEY, vertexai=True)))) == "answer"
    assert stub.asked[0].version == "v1beta1"


async def test_vertex_ai_is_asked_with_a_project_and_the_credentials_of_the_environment(
    stub: GeminiStub, raw: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": pem}
    account |= {"client_email": "a@p.test", "client_id": "1", "token_uri": f"{stub.url}/token"}
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", stub.url)
    settings = load_settings(
        {
            "GOOGLE_GENAI_USE_VERTEXAI": "True",
            "GOOGLE_CLOUD_PROJECT": "my-project",
            "GOOGLE_CLOUD_LOCATION": "europe-west1",
            "GOOGLE_API_KEY": KEY,
        }
    )
    gemini = gemini_for(settings, raw, Telemetry())
    assert came(await ask(gemini, seconds=20)) == "answer"
    (asked,) = stub.asked
    assert asked.path.startswith("/v1beta1/projects/my-project/locations/europe-west1/publishers/google/models/")
    assert asked.headers["Authorization"] == "Bearer ya29.token-of-the-stub"
    assert KEY not in str(asked.headers), "a project stands above the key, as in the SDK"
    await gemini.aclose()


async def test_vertex_ai_without_credentials_is_asked_again_as_they_may_come(
    making: Making, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/at-all.json")
    gemini = making(access=Access(vertexai=True))
    assert [came(await ask(gemini)) for _ in range(2)] == ["forbidden"] * 2
    assert gemini.available
    gemini = making(access=Access(vertexai=True, project="a-project", location="global"))
    assert came(await ask(gemini)) == "forbidden"
    assert "DefaultCredentialsError" in "".join(capsys.readouterr())


async def test_question_that_waits_for_an_equal_one_says_that_time_ran_out(stub: GeminiStub, making: Making) -> None:
    stub.standing = hanging()
    gemini = making()
    found = await asyncio.gather(ask(gemini, seconds=3), ask(gemini, seconds=1.5))
    assert [came(one) for one in found] == ["timeout", "timeout"]
    assert stub.calls == 1


async def test_check_of_the_caller_counts(stub: GeminiStub, making: Making) -> None:
    def fault_of(analysis: AlertAnalysis) -> str:
        return "" if analysis.status == "failing" else f"it is failing, not {analysis.status}"

    gemini: Gemini = making()
    deadline = asyncio.get_running_loop().time() + 5
    found = await gemini.ask("analyze", FACTS, AlertAnalysis, deadline=deadline, fault_of=fault_of)
    assert came(found) == "ungrounded"
    stub.queue.append(answer({**GOOD, "status": "failing"}))
    found = await gemini.ask("analyze", FACTS, AlertAnalysis, deadline=deadline, fault_of=fault_of)
    assert came(found) == "answer"


async def test_what_the_model_thinks_is_not_taken_for_its_answer(stub: GeminiStub, making: Making) -> None:
    parts = [{"text": "Let me think: 99 %?", "thought": True}, {"text": json.dumps(GOOD)}]
    stub.queue.append(response({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}))
    assert came(await ask(making())) == "answer"


async def test_continuation_is_not_followed_behind_our_back(stub: GeminiStub, making: Making) -> None:
    stub.standing = answer(json.dumps(GOOD)[:50], finish="CONTINUATION")
    assert came(await ask(making())) == "truncated"
    assert stub.calls == 1


ODD_BODIES: list[Any] = [
    [],
    "text",
    7,
    None,
    {},
    {"candidates": None},
    {"candidates": "x"},
    {"candidates": [{}]},
    {"candidates": [None]},
    {"candidates": [{"content": None, "finishReason": "STOP"}]},
    {"candidates": [{"content": {"parts": None}}]},
    {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {}}}]}}]},
    {"candidates": [{"content": {"parts": [{"text": 5}]}}]},
    {"candidates": [{"content": {"parts": [{"text": "{}"}]}, "finishReason": "NEVER_HEARD_OF"}]},
    {"candidates": [{"content": {"parts": [{"text": "[" * 50_000}]}}]},
    {"candidates": [], "usageMetadata": {"promptTokenCount": -5, "candidatesTokenCount": 10**30}},
    {"error": {"code": 200}},
]


@pytest.mark.parametrize("number", range(len(ODD_BODIES)))
async def test_odd_bodies_are_no_answers_and_no_errors(stub: GeminiStub, making: Making, number: int) -> None:
    async def serve(_: web.Request) -> web.StreamResponse:
        return web.json_response(ODD_BODIES[number])

    stub.standing = serve
    assert came(await ask(making())) in ("not_json", "server_error", "wrong_schema")


@pytest.mark.parametrize(
    "reply",
    [
        {"body": b"\xff\xfe\x00", "content_type": "application/json"},
        {"body": b"not gzip", "headers": {"Content-Encoding": "gzip"}, "content_type": "application/json"},
        {"status": 204},
        {"status": 302, "headers": {"Location": "/elsewhere"}},
        {"status": 503, "text": "<html>", "content_type": "application/json"},
        {"status": 600, "text": "{}", "content_type": "application/json"},
    ],
)
async def test_odd_replies_are_no_answers_and_no_errors(
    stub: GeminiStub, making: Making, reply: dict[str, Any]
) -> None:
    async def serve(_: web.Request) -> web.StreamResponse:
        return web.Response(**reply)

    stub.standing = serve
    assert isinstance(await ask(making()), NoAnswer)


async def test_settings_lead_to_the_stub_as_the_environment_would(
    stub: GeminiStub, raw: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(
        {
            "GOOGLE_API_KEY": KEY,
            "GOOGLE_GEMINI_BASE_URL": stub.url,
            "REDIS_AGENT_MODEL": "gemini-2.0-flash-exp",
            "REDIS_AGENT_MODEL_FALLBACKS": "gemini-2.5-flash, gemini-1.5-pro",
            "REDIS_AGENT_LLM_CALLS_PER_MINUTE": "2",
            "REDIS_AGENT_LLM_CACHE_SECONDS": "0",
        }
    )
    stub.queue.append(error(404, "NOT_FOUND", "gone"))
    gemini = gemini_for(settings, raw, Telemetry())
    assert [came(await ask(gemini)) for _ in range(2)] == ["answer", "budget"]
    assert [asked.model for asked in stub.asked] == ["gemini-3.5-flash-lite", "gemini-2.5-flash"]
    assert stub.asked[0].headers["x-goog-api-key"] == KEY
    assert "".join(capsys.readouterr()).count("model_retired") == 2
    await gemini.aclose()


async def test_storm_of_questions_stays_within_the_budget_and_leaves_nothing_behind(
    stub: GeminiStub, making: Making
) -> None:
    gemini = making(per_minute=10)
    began = time.monotonic()
    found = await asyncio.gather(*(ask(gemini, {**FACTS, "n": n}, seconds=20) for n in range(1_000)))
    assert time.monotonic() - began < 30
    outcomes = [came(one) for one in found]
    assert (outcomes.count("answer"), outcomes.count("budget"), stub.calls) == (10, 990, 10)
    del found
    gc.collect()
    assert len(gemini._asking) == 0
