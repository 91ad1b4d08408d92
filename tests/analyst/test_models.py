"""Which models are asked, and what is sent to each."""

import pytest

from redis_agent.analyst.models import DEFAULT, NOTHING, Tuning, chain, is_retired, tuning
from redis_agent.config import Settings


@pytest.mark.parametrize(
    "name",
    [
        "gemini-2.0-flash-exp",
        "gemini-2.0-flash",
        "gemini-2.0-flash-lite-001",
        "gemini-1.5-pro",
        "gemini-1.5-flash-8b-latest",
        "gemini-1.0-pro",
        "gemini-pro",
        "gemini-pro-vision",
        "gemini-exp-1206",
        "models/gemini-2.0-pro-exp-02-05",
        "text-bison-001",
    ],
)
def test_retired_model_is_replaced_by_the_default(name: str) -> None:
    found = chain(name, ["gemini-3.6-flash"])
    assert found.models == (DEFAULT, "gemini-3.6-flash")
    assert found.retired == (name.removeprefix("models/"),)


@pytest.mark.parametrize(
    "name", ["gemini-3.5-flash-lite", "gemini-2.5-flash", "gemini-flash-lite-latest", "gemini-pro-latest"]
)
def test_other_model_is_taken_as_it_is(name: str) -> None:
    assert not is_retired(name)
    assert chain(name, []).models == (name,)


def test_each_model_is_asked_once_and_retired_fallbacks_not_at_all() -> None:
    found = chain("gemini-2.0-flash", [DEFAULT, " gemini-3.6-flash ", "", "gemini-1.5-pro", "gemini-3.6-flash"])
    assert found.models == (DEFAULT, "gemini-3.6-flash")
    assert found.retired == ("gemini-2.0-flash", "gemini-1.5-pro")


def test_settings_have_the_same_default() -> None:
    assert Settings().model == DEFAULT


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gemini-3.5-flash-lite", Tuning(thinking_level="minimal")),
        ("models/gemini-3.6-flash", Tuning(thinking_level="minimal")),
        ("gemini-3-flash-preview", Tuning(thinking_level="minimal")),
        ("gemini-3.1-pro-preview", Tuning(thinking_level="low")),
        ("gemini-2.5-flash-lite", Tuning(temperature=0.2, thinking_budget=0)),
        ("gemini-2.5-pro", Tuning(temperature=0.2)),
        ("publishers/google/models/gemini-2.5-flash", Tuning(temperature=0.2, thinking_budget=0)),
        ("gemini-flash-latest", Tuning(thinking_level="minimal")),
        ("gemini-pro-latest", Tuning(thinking_level="low")),
        ("gemma-3-27b-it", NOTHING),
    ],
)
def test_model_is_sent_what_it_takes(name: str, expected: Tuning) -> None:
    assert tuning(name) == expected
