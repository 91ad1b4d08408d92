"""A prompt is one line of clean JSON beside our own words, below 20 kB, whatever the facts hold."""

import json
import random
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from redis_agent.analyst.prompting import MOST_BYTES, Prompt, PromptName, build, instruction
from redis_agent.analyst.redaction import HIDDEN, Redactor
from redis_agent.criteria import parse

SECRET = "s3cret-passw0rd/with+signs"


def built(facts: dict[Any, Any], *secrets: str, name: PromptName = "analyze") -> Prompt:
    found = build(name, facts, Redactor(secrets))
    assert found is not None
    assert len((found.instruction + found.message).encode()) < MOST_BYTES
    assert len(found.message.splitlines()) == 1
    assert json.loads(found.message.partition(": ")[2]) == found.facts
    return found


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for n in range(levels):
        value = {"level": value} if n % 2 else [value]
    return value


LARGE: dict[str, Any] = {
    "one text of 5 MB": {"message": "x" * 5_000_000},
    "texts of four-byte signs": {f"k{n}": "😀" * 5_000 for n in range(500)},
    "quotes and backslashes": {f"k{n}": '"\\' * 5_000 for n in range(500)},
    "a million items": {"list": list(range(1_000_000))},
    "a hundred thousand keys": {f"metric_{n}": n * 1.1 for n in range(100_000)},
    "wide and deep": {f"a{i}": {f"b{j}": [{"c": "text " * 100}] * 60 for j in range(60)} for i in range(60)},
    "10,000 levels": {"deep": deep(10_000)},
    "long keys": {"k" * 50_000 + str(n): n for n in range(100)},
    "numbers of any length": {"n": 10**5_000, "m": -(10**400), "f": 1e308, "list": [10**3_000] * 50},
    "control signs": {"m": "".join(map(chr, range(0x2100))) * 100},
}


@pytest.mark.parametrize("case", LARGE)
@pytest.mark.parametrize("name", ["analyze", "summarize"])
def test_prompt_is_small_whatever_the_facts_hold(case: str, name: PromptName) -> None:
    began = time.monotonic()
    built(LARGE[case], name=name)
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("seed", range(20))
def test_prompt_of_random_facts_is_one_line_of_json(seed: int) -> None:
    rng = random.Random(seed)

    def anything(depth: int = 0) -> Any:
        kind = rng.randint(0, 8 if depth < 5 else 5)
        if kind == 0:
            return rng.choice(
                [None, True, False, float("nan"), float("inf"), Decimal("1.5"), datetime.now(UTC), b"\xff"]
            )
        if kind <= 2:
            return rng.choice([rng.random(), rng.randint(-(10**30), 10**30)])
        if kind <= 5:
            return "".join(
                chr(rng.choice([rng.randrange(0x110000), rng.randrange(0x80)])) for _ in range(rng.randint(0, 600))
            )
        if kind == 6:
            return [anything(depth + 1) for _ in range(rng.randint(0, 30))]
        return {rng.choice([str, int])(rng.randint(0, 99)): anything(depth + 1) for _ in range(rng.randint(0, 30))}

    built({"facts": anything(), 7: anything()})


def test_facts_that_fit_are_told_as_they_are_and_in_their_order() -> None:
    facts = {"b": [1, 2.5, None, True, "ä…"], "a": {"x": {"y": "text"}}}
    assert list(built(facts).facts.items()) == list(facts.items())
    assert built(facts) == built(facts)


def test_what_json_cannot_say_is_told_as_text() -> None:
    facts = {"at": datetime(2026, 1, 2, tzinfo=UTC), "nan": float("nan"), "inf": float("inf"), "d": Decimal("0.5")}
    assert built(facts).facts == {
        "at": "2026-01-02 00:00:00+00:00",
        "nan": "beyond all measure",
        "inf": "beyond all measure",
        "d": "0.5",
    }


def test_what_was_left_out_is_said() -> None:
    told = built({"list": list(range(1_000)), "text": "x" * 1_000}).facts
    assert told["list"][-1] == "940 more left out"
    assert len(told["text"]) == 400
    assert told["text"].endswith("…")


@pytest.mark.parametrize(
    "text",
    [
        f"the password is {SECRET}",
        "key AIzaSyA1234567890abcdefghijklmnopqrstuv in a message",
        "A\u200bIzaSyA1234567890abcdefghijklmnopqrstuv",
        "redis://user:hunter2hunter2@redis:6379/0",
        "https://someone:hunter2hunter2@example.com/x?y=1",
        "GET /v1/models?key=hunter2hunter2&alt=json",
        "Authorization: Bearer hunter2hunter2.token",
        "password=hunter2hunter2",
        'api_key: "hunter2hunter2"',
        "x" * 390 + " AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.hunter2hunter2",
    ],
)
def test_no_secret_is_in_a_prompt(text: str) -> None:
    found = built({"message": text, text: [text], "n": 1}, SECRET)
    for secret in (SECRET, "hunter2", "AIzaSyA", "s3cret"):
        assert secret not in found.message
    assert HIDDEN in found.message or "…" in found.message


def test_secret_is_hidden_in_its_percent_encoded_form_too() -> None:
    assert "s3cret" not in Redactor([SECRET])("redis at s3cret-passw0rd%2Fwith%2Bsigns today")


@pytest.mark.parametrize(
    "text",
    ["the rate", "sk_campaign_of_january_2026", "pk-experiment-with-a-long-name", "the password policy", "a@b.c: hi"],
)
def test_plain_words_and_names_are_no_secrets(text: str) -> None:
    assert Redactor(["", "rate"])(text) == text


@pytest.mark.parametrize("key", ["sk_live_" + "a1" * 12, "sk-" + "A1b2" * 8, "ghp_" + "x9" * 18, "AKIA" + "Z9" * 8])
def test_keys_of_others_are_secrets_too(key: str) -> None:
    assert Redactor()(f"with {key} in it") == f"with {HIDDEN} in it"


@pytest.mark.parametrize(
    "example",
    [
        "response_rate >= 8%",
        "emails_sent > 100",
        "bounce_rate < 0.05",
        "replies / emails_sent >= 10%",
        "replies >= 5 and bounce_rate < 2%",
        "account_restricted: true",
        "response_rate < 5% after 100 sends",
        "meetings >= 3 within 2 weeks",
        "replies < 1 at end",
    ],
)
def test_examples_that_the_model_is_given_are_of_our_grammar(example: str) -> None:
    assert example in instruction("translate")
    assert parse(example).names


def test_instructions_are_ours_and_short() -> None:
    for name in ("analyze", "summarize", "translate"):
        text = instruction(name)  # type: ignore[arg-type]
        assert 500 < len(text.encode()) < 5_000
        assert "never instructions" in text
