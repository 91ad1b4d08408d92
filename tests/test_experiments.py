"""Experiments are read in the forms they have, and nothing broken costs the rest."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_agent.experiments import (
    Experiment,
    ExperimentError,
    derived,
    judge,
    metrics_of,
    parse_experiment,
    parse_experiment_file,
    parse_moment,
)

NOW = datetime(2026, 2, 3, tzinfo=UTC)
PRD = {
    "hypothesis": "Stargazers reply",
    "target": json.dumps({"who": "stargazers"}),
    "success_criteria": json.dumps(["response_rate > 0.10", "meetings_booked >= 3"]),
    "failure_criteria": json.dumps(
        ["response_rate < 0.02 after 100 sends", {"account_restricted": True}, "make people happy"]
    ),
    "state": "running",
    "created_at": "2026-02-01T10:00:00",
}
SPECS = [
    {"name": "emails_sent", "type": "counter"},
    {"name": "replies", "type": "counter"},
    {
        "name": "response_rate",
        "type": "percentage",
        "formula": "replies / emails_sent",
        "success_threshold": 0.1,
    },
]


def test_the_hash_form_is_read() -> None:
    experiment = parse_experiment("exp_test", PRD, {"metrics": json.dumps(SPECS)})
    assert experiment.id == "exp_test"
    assert experiment.hypothesis == "Stargazers reply"
    assert experiment.created_at == datetime(2026, 2, 1, 10, tzinfo=UTC)
    assert [(entry.kind, entry.text) for entry in experiment.criteria] == [
        ("success", "response_rate > 0.10"),
        ("success", "meetings_booked >= 3"),
        ("failure", "response_rate < 0.02 after 100 sends"),
        ("failure", "account_restricted: true"),
        ("failure", "make people happy"),
        ("success", "response_rate >= 0.1 (success_threshold)"),
    ]
    assert [entry.criterion is not None for entry in experiment.criteria] == [True] * 4 + [False, True]
    assert [spec.name for spec in experiment.metrics] == ["emails_sent", "replies", "response_rate"]
    assert experiment.problems == ()


def test_the_json_form_is_the_same_experiment() -> None:
    native = {
        **PRD,
        "success_criteria": json.loads(PRD["success_criteria"]),
        "failure_criteria": json.loads(PRD["failure_criteria"]),
        "metrics": SPECS,
    }
    by_hash = parse_experiment("exp_test", PRD, json.dumps(SPECS))
    assert parse_experiment("exp_test", json.dumps(native)) == by_hash
    assert parse_experiment("exp_test", json.dumps({"experiment": native})) == by_hash
    assert parse_experiment_file(json.dumps({**native, "id": "exp_test"})) == by_hash


def test_a_yaml_file_is_read() -> None:
    experiment = parse_experiment_file(
        """
experiment:
  id: exp_yaml
  created_at: 2026-02-01T10:00:00Z
  metrics:
    - name: reply_rate
      type: percentage
      calculation: (replies / emails_sent) * 100
  success_criteria:
    - reply_rate >= 8%
  failure_criteria:
    - account_restricted: true
"""
    )
    assert experiment.id == "exp_yaml"
    assert experiment.problems == ()
    assert experiment.created_at == datetime(2026, 2, 1, 10, tzinfo=UTC)
    assert [entry.text for entry in experiment.criteria] == [
        "reply_rate >= 8%",
        "account_restricted: true",
    ]
    assert experiment.specs["reply_rate"].scale == 100.0


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2]", "just words", "{'a': [", "a: b: c", "x" * 1_000_001, "[" * 20_000, "!!python/x y"],
)
def test_a_file_that_is_no_experiment_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ExperimentError) as refused:
        parse_experiment_file(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("replies > 3", ["replies > 3"]),
        ("- replies > 3\n- bounces > 2\n", ["replies > 3", "bounces > 2"]),
        ('"replies > 3"', ["replies > 3"]),
        ('{"account_restricted": true}', ["account_restricted: true"]),
        ('[{"response_rate": "> 0.1"}]', ["response_rate: > 0.1"]),
        ("", []),
        ("[]", []),
        ("null", []),
    ],
)
def test_criteria_come_as_lists_lines_or_objects(value: str, texts: list[str]) -> None:
    experiment = parse_experiment("e", {"success_criteria": value})
    assert [entry.text for entry in experiment.criteria] == texts
    assert all(entry.criterion is not None for entry in experiment.criteria)
    assert experiment.problems == ()


@pytest.mark.parametrize(
    ("item", "parsed"),
    [
        ({"account_restricted": "yes"}, "account_restricted: true"),
        ({"account_restricted": "off"}, "account_restricted: false"),
        ({"response rate": "< 5%"}, "`response rate` < 5%"),
        ({"Refund requests": 0}, "refund_requests == 0"),
        ({"Sign-ups": "50+"}, "sign_ups >= 50"),
    ],
)
def test_a_criterion_with_a_colon_is_an_object_in_yaml_and_means_the_same(item: dict[str, object], parsed: str) -> None:
    (entry,) = parse_experiment("e", {"success_criteria": json.dumps([item])}).criteria
    assert entry.criterion is not None
    assert entry.criterion.text == parsed


def test_a_sentence_with_a_colon_is_shown_as_it_was_written() -> None:
    sentence = "Subject line 'Re: building agents' " + "generates curiosity without spam flags " * 3
    experiment = parse_experiment_file(f"success_criteria:\n  - {sentence}")
    assert experiment.criteria[0].text == sentence.strip()


def test_a_broken_part_costs_only_itself() -> None:
    document = {
        **PRD,
        "success_criteria": "[not json",
        "created_at": "yesterday",
        "state": "paused",
        "metrics": json.dumps(
            [
                {"name": "a", "formula": "b /"},
                {"name": ""},
                3,
                {"name": "c", "target": []},
                {"name": "c"},
            ]
        ),
    }
    experiment = parse_experiment("e", document)
    assert [entry.kind for entry in experiment.criteria] == ["failure"] * 3
    assert [spec.name for spec in experiment.metrics] == ["a", "3", "c"]  # YAML makes numbers of names
    told = "\n".join(experiment.problems)
    for words in (
        "success_criteria is not JSON",
        "created_at is no time: yesterday",
        "paused",
        "the formula of a",
        "metric 2",
        "the target of c",
        "declared twice",
    ):
        assert words in told
    assert experiment.judged


@pytest.mark.parametrize("item", [3, None, ["a > 1"], {"a": 1, "b": 2}, {"a": 5}, {}, ""])
def test_a_criterion_of_no_known_form_is_unsupported_with_a_reason(item: Any) -> None:
    document = {"failure_criteria": json.dumps([item, "a > 1"])}
    broken, good = judge(parse_experiment("e", document), {}, now=NOW)
    assert broken.state == "unsupported"
    assert broken.reason
    assert broken.as_json()["parsed"] is None
    assert good.state == "unknown"


def test_what_is_not_an_experiment_at_all_is_refused_by_name() -> None:
    for document, words in (
        ({"spec": "experiment: [", "state": "running"}, "spec is not YAML: line"),
        ({"spec": "- a list"}, "spec holds a list, not an object"),
        ("no json", "not JSON"),
        ("[1]", "holds a list, not an object"),
        ("[" * 100_000, "too deep"),
    ):
        with pytest.raises(ExperimentError, match=words):
            parse_experiment("e", document)


def test_a_broken_spec_is_said_and_what_stands_beside_it_is_kept() -> None:
    experiment = parse_experiment("e", {**PRD, "spec": "a: b: c"}, {"metrics_yaml": "x"})
    assert len(experiment.criteria) == 5
    assert experiment.problems[0] == "spec is not YAML: line 1: mapping values are not allowed in this context"
    assert len(experiment.problems) == 2


def test_specs_of_their_own_key_come_before_those_in_the_experiment() -> None:
    inside = {**PRD, "metrics": json.dumps([{"name": "inside"}])}
    assert parse_experiment("e", inside, "[]").metrics[0].name == "inside"
    assert parse_experiment("e", inside, '[{"name": "own"}]').metrics[0].name == "own"
    assert parse_experiment("e", inside, "[broken").metrics[0].name == "inside"


def test_everything_has_a_bound() -> None:
    document = {
        "success_criteria": json.dumps(["a > 1"] * 80),
        "failure_criteria": json.dumps(["b > 1"] * 5_000),
    }
    specs = json.dumps([{"name": f"m{index}"} for index in range(5_000)])
    experiment = parse_experiment("e", document, specs)
    assert len(experiment.criteria) == 100
    assert len(experiment.metrics) == 200
    assert len(experiment.problems) == 2
    specs = json.dumps([{"name": f"m{index}", "formula": "/", "success_threshold": 1} for index in range(150)])
    experiment = parse_experiment("e", document, specs)
    assert len(experiment.criteria) == 200
    assert len(experiment.problems) == 21
    assert experiment.problems[-1] == "and 131 problems more"


@pytest.mark.parametrize(
    ("state", "judged", "finished"),
    [
        ("", True, False),
        ("draft", True, False),
        ("running", True, False),
        ("run", True, False),
        ("Completed", True, True),
        ("failed", False, False),
        ("archived", False, False),
    ],
)
def test_the_state_decides_what_is_judged(state: str, judged: bool, finished: bool) -> None:
    experiment = parse_experiment("e", {"state": state})
    assert (experiment.judged, experiment.finished) == (judged, finished)
    assert experiment.problems == ()


@pytest.mark.parametrize(
    "value",
    [
        1769940000,
        "1769940000",
        "1769940000.0",
        1769940000000,
        "1769940000000",
        "2026-02-01T10:00:00",
        "2026-02-01 10:00:00",
        "2026-02-01T10:00:00Z",
        "2026-02-01T11:00:00+01:00",
        "2026-02-01 11:00:00 +01:00",
        "2026-02-01 10:00:00 Z",
    ],
)
def test_a_time_is_understood_in_every_form(value: object) -> None:
    assert parse_moment(value) == datetime(2026, 2, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, "", "soon", True, "nan", 1e300, -(10**400), [], "9" * 50])
def test_what_is_no_time_is_none(value: object) -> None:
    assert parse_moment(value) is None


def test_verdicts_have_the_fields_of_check() -> None:
    experiment = parse_experiment("exp_test", PRD, {"metrics": json.dumps(SPECS)})
    fields = {"email_sent_count": "250", "reply_count": "50", "events_total": "300"}
    verdicts = judge(experiment, fields, now=NOW)
    first = verdicts[0].as_json()
    assert list(first) == [
        "kind",
        "criterion",
        "parsed",
        "state",
        "evidence",
        "metric",
        "operator",
        "threshold",
        "value",
        "samples",
        "interval",
        "reason",
        "translated",
    ]
    low, high = first.pop("interval")
    assert 0.13 < low < 0.2 < high < 0.31
    assert first == {
        "kind": "success",
        "criterion": "response_rate > 0.10",
        "parsed": "response_rate > 0.1",
        "state": "met",
        "evidence": "confirmed",
        "metric": "response_rate",
        "operator": ">",
        "threshold": 0.1,
        "value": 0.2,
        "samples": 250,
        "reason": "response_rate is 0.2 (50 of 250), above 0.1; confirmed",
        "translated": False,
    }
    assert [verdict.state for verdict in verdicts] == [
        "met",
        "unknown",
        "not_met",
        "unknown",
        "unsupported",
        "met",
    ]
    json.dumps([verdict.as_json() for verdict in verdicts], allow_nan=False)


def test_a_published_gauge_is_judged_at_once_as_the_prd_expects() -> None:
    experiment = parse_experiment("exp_test", PRD, {"metrics": json.dumps(SPECS)})
    fields = {
        "response_rate_latest": "0.15",
        "response_rate_samples": "1",
        "response_rate_sum": "0.15",
        "events_total": "1",
    }
    first = judge(experiment, fields, now=NOW)[0]
    assert (first.state, first.as_json()["evidence"]) == ("met", "fact")


def test_time_counts_from_the_first_event_when_nobody_wrote_a_start() -> None:
    experiment = parse_experiment("e", {"failure_criteria": '["a < 3 after 7 days"]'})
    assert experiment.has_time_clauses
    fields = {"a_count": "1", "first_event_at": "2026-02-01T00:00:00Z"}
    waiting = judge(experiment, fields, now=NOW)[0]
    assert waiting.has_time_clause
    assert waiting.reason == "waits until 2026-02-08 00:00 UTC"
    assert judge(experiment, {"a_count": "1"}, now=NOW)[0].state == "unknown"


def test_a_completed_experiment_is_judged_on_its_final_values() -> None:
    document = {"state": "completed", "success_criteria": '["replies / emails > 0.1"]'}
    fields = {"reply_count": "2", "email_count": "10"}
    verdict = judge(parse_experiment("e", document), fields, now=NOW)[0]
    assert (verdict.state, verdict.as_json()["evidence"]) == ("met", "fact")


def test_a_fingerprint_follows_the_meaning_and_the_kind() -> None:
    def prints(success: str, failure: str) -> tuple[str, str]:
        document = {"success_criteria": success, "failure_criteria": failure}
        one, two = parse_experiment("e", document).criteria
        return one.fingerprint, two.fingerprint

    one, two = prints("a > 0.10", "a > 0.1")
    assert one != two
    assert prints("a>0.1", "a > .1") == (one, two)
    assert prints("a >= 0.1", "a > 0.1")[0] != one
    assert one == "dc92fc1f54255811"


def test_derived_metrics_are_short_decimal_text_under_their_plain_names() -> None:
    specs = [
        {"name": "rate", "formula": "replies / emails_sent"},
        {"name": "percent", "formula": "rate * 100"},
        {"name": "unseen", "formula": "nothing / emails_sent"},
        {"name": "void", "formula": "replies / zero"},
        {"name": "events_total", "formula": "replies + 1"},
        {"name": "first_event_at", "formula": "replies + 1"},
        {"name": "reply_count", "formula": "replies * 2"},
        {"name": "x_latest", "formula": "replies * 2"},
        {"name": "published", "formula": "nothing / zero"},
        {"name": "emails_sent", "type": "counter"},
    ]
    experiment = parse_experiment("e", {}, json.dumps(specs))
    fields = {
        "email_sent_count": "3",
        "replies_count": "1",
        "zero_count": "0",
        "published_latest": "0.4",
        "events_total": "4",
    }
    assert derived(experiment, metrics_of(experiment, fields)) == {"rate": "0.333333333333", "percent": "33.3333333333"}
    fields["replies_count"] = "3"
    assert derived(experiment, metrics_of(experiment, fields)) == {"rate": "1", "percent": "100"}


documents = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["a > 1", "a / b", "a: true", "x < 3% after 2 days", "percentage"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["name", "formula", "target", "a", "type", "experiment"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
names = ["success_criteria", "failure_criteria", "metrics", "state", "created_at", "hypothesis"]


@settings(max_examples=250, deadline=None)
@given(
    st.dictionaries(st.sampled_from(names), documents),
    st.booleans(),
    st.dictionaries(st.sampled_from(["a", "a_count", "b_count", "first_event_at"]), st.text()),
)
def test_no_document_and_no_fields_break_it(document: dict[str, Any], as_text: bool, fields: dict[str, str]) -> None:
    experiment: Experiment
    if as_text:
        experiment = parse_experiment("e", json.dumps(document), json.dumps(document))
    else:
        hashed = {name: value if isinstance(value, str) else json.dumps(value) for name, value in document.items()}
        experiment = parse_experiment("e", hashed, hashed)
    verdicts = judge(experiment, fields, now=NOW)
    assert len(verdicts) == len(experiment.criteria)
    for verdict in verdicts:
        json.dumps(verdict.as_json(), allow_nan=False)
        assert verdict.reason
    assert all(isinstance(value, str) for value in derived(experiment, metrics_of(experiment, fields)).values())


FILE = """experiment:
  id: e
  state: running
  created_at: 2026-02-01
  target: &who {who: [ctos]}
  metrics:
    - name: reply_rate
      type: percentage
      calculation: "(replies / emails_sent) * 100"
      success_threshold: 8.0
    - {name: bounces, type: counter, failure_threshold: "> 5"}
  success_criteria:
    - reply_rate >= 8%
  failure_criteria:
    - account_restricted: yes
    - "Zero: replies"
  again: *who
"""
edits = st.tuples(
    st.integers(0, len(FILE)),
    st.integers(0, 40),
    st.text(st.sampled_from(list(":-[]{}&*!|>'\"%@#,\n \ta1.~<")), max_size=6),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(edits, min_size=1, max_size=4), st.booleans())
def test_no_damage_to_a_file_breaks_it(damage: list[tuple[int, int, str]], of_piece: bool) -> None:
    text = FILE
    for position, length, inserted in damage:
        text = text[:position] + inserted + text[position + length :]
    piece = text[text.index("metrics:") :] if "metrics:" in text else text
    experiment: Experiment | None = None
    if of_piece:
        experiment = parse_experiment("e", PRD, {"metrics_yaml": piece})
        assert len(experiment.criteria) >= 5
    else:
        try:
            experiment = parse_experiment("e", {"spec": text})
        except ExperimentError:
            return
    for verdict in judge(experiment, {"reply_count": "3", "emails_sent_count": "9"}, now=NOW) if experiment else ():
        json.dumps(verdict.as_json(), allow_nan=False)
        assert verdict.reason


def test_what_stands_twice_in_a_file_is_said() -> None:
    experiment = parse_experiment_file("id: e\nsuccess_criteria: [a > 1]\nsuccess_criteria: [b > 1]\n")
    assert [entry.text for entry in experiment.criteria] == ["b > 1"]
    assert experiment.problems == ("the file, line 3: success_criteria stands twice; the last counts",)


@pytest.mark.parametrize(
    ("fields", "planned"),
    [
        ({}, None),
        ({"planned_runs": "3"}, 3),
        ({"execution": '{"max_runs": 2}'}, 2),
        ({"execution": '{"runs": [1, 2]}', "schedule": '{"total_runs": "4"}'}, 4),
        ({"execution": '{"max_runs": true}'}, None),
        ({"execution": "not an object {", "runs": "-1"}, None),
        ({"runs": "0", "schedule": "0 9 * * 1"}, None),
        ({"runs": "9" * 500}, None),
    ],
)
def test_planned_runs_are_read_where_the_definition_says_them_plainly(
    fields: dict[str, str], planned: int | None
) -> None:
    experiment = parse_experiment("e", fields)
    assert experiment.planned_runs == planned
    assert experiment.problems == ()
