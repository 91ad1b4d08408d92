"""Every form that experiments and metrics have in the field is the same experiment."""

import json
from typing import Any

import pytest

from redis_agent.criteria.forms import ExperimentError, declared_metrics, experiment_fields, file_fields

FILE = """
# written by an LLM
experiment:
  id: exp_yaml
  hypothesis: "CTOs reply"
  state: draft
  created_at: 2026-02-01
  target:
    who: [ctos]
  metrics:
    - name: emails_sent
      type: counter
      success_threshold: 180
    - name: reply_rate
      type: percentage
      calculation: "(replies / emails_sent) * 100"
      success_threshold: 8.0
  success_criteria:
    - Reply rate >= 8%
  failure_criteria:
    - account_restricted: true
  schedule: {every: day}
"""
INSIDE = [
    {"name": "emails_sent", "type": "counter"},
    {
        "name": "reply_rate",
        "type": "percentage",
        "calculation": "(replies / emails_sent) * 100",
        "success_threshold": 8,
    },
]
PIECE = """  metrics:
    - name: emails_sent
      type: counter
    - name: reply_rate
      type: percentage
      calculation: "(replies / emails_sent) * 100"
      success_threshold: 8
"""


def test_a_spec_is_the_experiment_and_its_life_stands_beside_it() -> None:
    problems: list[str] = []
    beside = {
        "state": "running",
        "created_at": "2026-02-03T00:00:00",
        "updated_at": "1769940000.5",
        "hypothesis": "old",
    }
    fields = experiment_fields({**beside, "spec": FILE}, problems)
    assert fields["state"] == "running"
    assert fields["created_at"] == "2026-02-03T00:00:00"
    assert fields["hypothesis"] == "CTOs reply"
    assert fields["success_criteria"] == ["Reply rate >= 8%"]
    assert fields["failure_criteria"] == [{"account_restricted": True}]
    assert problems == []


@pytest.mark.parametrize("beside", [{}, {"state": ""}, {"state": " ", "created_at": ""}])
def test_what_is_not_said_beside_a_spec_is_taken_from_it(beside: dict[str, str]) -> None:
    fields = experiment_fields({**beside, "spec": FILE}, [])
    assert (fields["state"], fields["created_at"]) == ("draft", "2026-02-01")


def test_all_forms_are_the_same() -> None:
    inside = dict(experiment_fields({"spec": FILE}, []))
    for text in (json.dumps(inside), json.dumps({"experiment": inside}), FILE):
        assert experiment_fields(text, []) == inside
        assert file_fields(text, []) == inside
        assert file_fields("\ufeff" + text, []) == inside
        assert experiment_fields({"spec": text}, []) == inside


@pytest.mark.parametrize("spec", ["", "  ", "\n"])
def test_an_empty_spec_is_none(spec: str) -> None:
    assert experiment_fields({"spec": spec, "hypothesis": "h"}, [])["hypothesis"] == "h"


@pytest.mark.parametrize("spec", ["- a", "text", "experiment: [", "a: &a [*a]", "[" * 10_000, "{" * 10_000, "null"])
def test_a_spec_that_is_no_experiment_is_refused_by_name(spec: str) -> None:
    with pytest.raises(ExperimentError, match=r"^spec "):
        experiment_fields({"spec": spec}, [])


def metrics(document: Any, inside: object = None) -> tuple[list[str], list[str]]:
    problems: list[str] = []
    return [spec.name for spec in declared_metrics(document, inside, problems)], problems


@pytest.mark.parametrize(
    "document",
    [
        json.dumps(INSIDE),
        json.dumps({"metrics": INSIDE}),
        json.dumps({spec["name"]: {k: v for k, v in spec.items() if k != "name"} for spec in INSIDE}),
        {"metrics": json.dumps(INSIDE)},
        {"metrics": json.dumps({"metrics": INSIDE}), "updated_at": "1769940000"},
        {"metrics_yaml": PIECE},
        {"metrics_yaml": PIECE.strip() + "\n  success_criteria:\n    - x > 1\n"},
        {"metrics_yaml": PIECE + "  success_criteria:\n    - x > 1\n  fail"},
        {"metrics_yaml": FILE},
        {"metrics": "", "metrics_yaml": PIECE},
        PIECE,
    ],
)
def test_a_list_of_its_own_comes_in_any_form(document: Any) -> None:
    problems: list[str] = []
    specs = declared_metrics(document, None, problems)
    assert [spec.name for spec in specs] == ["emails_sent", "reply_rate"]
    assert specs[1].scale == 100
    assert specs[1].success_threshold is not None
    assert len(problems) <= 1


@pytest.mark.parametrize(
    "document", [None, {}, "[]", "null", {"metrics": "null"}, {"metrics_yaml": ""}, {"other": "x"}]
)
def test_without_a_list_of_its_own_the_one_inside_counts_and_nothing_is_wrong(document: Any) -> None:
    assert metrics(document, INSIDE) == (["emails_sent", "reply_rate"], [])
    assert metrics(document, json.dumps(INSIDE)) == (["emails_sent", "reply_rate"], [])
    assert metrics(document) == ([], [])


@pytest.mark.parametrize("end", range(len(PIECE) + 1))
def test_a_piece_that_is_cut_anywhere_gives_way_to_the_list_inside(end: int) -> None:
    problems: list[str] = []
    specs = declared_metrics({"metrics_yaml": PIECE[:end]}, INSIDE, problems)
    assert specs == declared_metrics(None, INSIDE, [])
    assert len(problems) <= 1
    assert all("the list inside the experiment counts" in problem for problem in problems)


def test_a_piece_that_is_cut_and_alone_is_read_as_far_as_it_goes() -> None:
    assert metrics({"metrics_yaml": PIECE[: PIECE.index("/ emails")]})[0] == ["emails_sent", "reply_rate"]
    names, (problem,) = metrics({"metrics_yaml": PIECE[: PIECE.index("tage")].rstrip() + "\n      succ"})
    assert names == ["emails_sent", "reply_rate"]
    assert problem.startswith("metrics_yaml is cut short or broken: line 7")
    assert problem.endswith("the 2 metrics before that count")
    assert metrics({"metrics_yaml": PIECE[: PIECE.index("e: reply_rate")]})[0] == ["emails_sent"]


def test_a_piece_that_says_more_than_the_list_inside_counts() -> None:
    assert metrics({"metrics_yaml": PIECE}, ["emails_sent"])[0] == ["emails_sent", "reply_rate"]


def test_a_list_that_is_broken_is_said_whatever_replaces_it() -> None:
    names, problems = metrics("[broken", INSIDE)
    assert (names, len(problems)) == (["emails_sent", "reply_rate"], 1)
    names, problems = metrics({"metrics": "[broken"}, INSIDE)
    assert (names, len(problems)) == (["emails_sent", "reply_rate"], 1)
    assert "metrics_specs is not JSON" in problems[0]
    assert metrics({"metrics_yaml": "a: [*b]"}, None)[0] == []


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("replies", "replies"),
        (404, "404"),
        ({"name": 2026}, "2026"),
        ({"name": True}, "True"),
        ({"replies": {"type": "counter"}}, "replies"),
        ({"replies": None}, "replies"),
        ({"name": " replies "}, "replies"),
    ],
)
def test_a_metric_has_the_name_that_is_meant(entry: object, name: str) -> None:
    assert metrics(json.dumps([entry])) == ([name], [])


@pytest.mark.parametrize(
    ("written", "unit", "value", "percent", "direction"),
    [
        (8, "", 8, False, ""),
        (0.08, "", 0.08, False, ""),
        ("8%", "", 8, True, ""),
        ("8 %", "", 8, True, ""),
        ("8 percent", "", 8, True, ""),
        ("1,000", "", 1000, False, ""),
        ("72 hours", "hours", 72, False, ""),
        ("72 hour", "hours", 72, False, ""),
        ("72 hours", "", 72, False, ""),
        ("< 5%", "", 5, True, "lower"),
        (">= 3", "", 3, False, "higher"),
        ("\u2264 3", "", 3, False, "lower"),
        ("-3", "", -3, False, ""),
        ("+3", "", 3, False, ""),
    ],
)
def test_a_threshold_is_a_number_with_what_people_write_around_it(
    written: object, unit: str, value: float, percent: bool, direction: str
) -> None:
    problems: list[str] = []
    (spec,) = declared_metrics(json.dumps([{"name": "a", "success_threshold": written, "unit": unit}]), None, problems)
    assert problems == []
    assert spec.success_threshold is not None
    assert (spec.success_threshold.value, spec.success_threshold.percent) == (value, percent)
    assert spec.direction == direction


@pytest.mark.parametrize("written", [True, "many", "3 of 10", "72 minutes", [1], "1e999", 1e300, ".", "%"])
def test_what_is_no_threshold_is_said(written: object) -> None:
    problems: list[str] = []
    (spec,) = declared_metrics(json.dumps([{"name": "a", "target": written, "unit": "hours"}]), None, problems)
    assert spec.target is None
    assert len(problems) == 1
    assert problems[0].startswith("the target of a is no number")
