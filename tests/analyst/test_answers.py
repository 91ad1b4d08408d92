"""Answers are checked as strictly as input from anybody else."""

from typing import Any

import pytest
from pydantic import ValidationError

from redis_agent.analyst.answers import AlertAnalysis, SummaryAnalysis
from redis_agent.analyst.failures import Failure
from redis_agent.analyst.grounding import Facts
from redis_agent.analyst.reading import answer_in
from redis_agent.analyst.sdk import json_schema
from tests.gemini_stub import GOOD

SUMMARY: dict[str, Any] = {
    "headline": "All is well.",
    "wins": ["It works."],
    "concerns": [],
    "changes": [],
    "quiet": [],
}


@pytest.mark.parametrize(
    "change",
    [
        {"status": "great"},
        {"status": "FAILING"},
        {"status": None},
        {"key_metric": ""},
        {"key_metric": 7},
        {"insight": "x" * 401},
        {"insight": "   "},
        {"insight": "First. Second sentence."},
        {"insight": "a\nb"},
        {"insight": "a\u202eb"},
        {"insight": "a\u200bb"},
        {"action": "See https://example.com"},
        {"action": "See www.example"},
        {"action": "Open example.com"},
        {"action": "Run `ls`"},
        {"action": "a && b"},
        {"action": "<b>now</b>"},
        {"action": ["none"]},
        {"more": 1},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AlertAnalysis.model_validate({**GOOD, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"action": "none"},
        {"insight": "  The rate, e.g. of replies vs. plans, is low – and falling.  "},
        {"insight": "It is 4.2 % of 1,250 emails; no more."},
        {"action": "Stop sending e-mails to list A/B until bounces are understood!"},
        {"key_metric": "latency.p99"},
        {"insight": "The rate of 4.2 % does not reach >= 8 %; replies - 52 | bounces < 5."},
        {"insight": "Die Antwortquote ist zu niedrig."},
    ],
)
def test_plain_words_fit(change: dict[str, Any]) -> None:
    assert AlertAnalysis.model_validate({**GOOD, **change})


def test_summary_has_its_lists_and_their_bounds() -> None:
    assert SummaryAnalysis.model_validate(SUMMARY).wins == ["It works."]
    for change in ({"wins": ["x"] * 13}, {"quiet": "x"}, {"concerns": ["x" * 241]}, {"changes": [""]}):
        with pytest.raises(ValidationError):
            SummaryAnalysis.model_validate({**SUMMARY, **change})


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"status": "at_risk"', "```json\n{}\n```", "{}" * 2, "\x00"])
def test_text_that_is_no_answer_is_a_failure(text: str) -> None:
    found = answer_in(text, AlertAnalysis, Facts({}))
    assert isinstance(found, Failure)
    assert found.reason in ("not_json", "wrong_schema")


def test_deeply_nested_text_is_a_failure() -> None:
    assert isinstance(answer_in("[" * 200_000, AlertAnalysis, Facts({})), Failure)


def test_schema_as_gemini_is_told_it_has_names_types_choices_and_purposes_only() -> None:
    told = json_schema(AlertAnalysis)
    assert set(told) == {"type", "properties", "required"}
    assert told["required"] == ["status", "key_metric", "insight", "action"]
    assert all(set(part) <= {"type", "enum", "description", "items"} for part in told["properties"].values())
    assert json_schema(SummaryAnalysis)["properties"]["wins"]["items"] == {"type": "string"}


@pytest.mark.parametrize("action", ["none", "None", "None.", "NONE"])
def test_no_action_is_one_word(action: str) -> None:
    assert AlertAnalysis.model_validate({**GOOD, "action": action}).action == "none"
