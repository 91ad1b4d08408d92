"""Criteria of whole experiments are read as by hand: with their own metrics, in their own words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from redis_agent.experiments import Experiment, judge, parse_experiment

START = datetime(2026, 2, 1, 10, tzinfo=UTC)

EXPERIMENTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("experiments.yaml").read_text("utf-8"))


def parsed(name: str) -> Experiment:
    written = EXPERIMENTS[name]
    document = {
        "metrics": written["metrics"],
        "success_criteria": list(written.get("success", ())),
        "failure_criteria": list(written.get("failure", ())),
    }
    return parse_experiment(name, json.dumps(document))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_criterion_is_read_as_by_hand(name: str) -> None:
    expected = {**EXPERIMENTS[name].get("success", {}), **EXPERIMENTS[name].get("failure", {})}
    listed = [entry for entry in parsed(name).criteria if entry.listed]
    read = {entry.text: "unsupported" if entry.criterion is None else entry.criterion.text for entry in listed}
    assert read == expected


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_failure_is_met_when_an_experiment_has_just_begun(name: str) -> None:
    """A failure that is something missing waits: what counts from 0 is below any number at first."""
    experiment = parsed(name)
    first = next(spec.name for spec in experiment.metrics if spec.type in ("counter", "gauge"))
    fields = {f"{first}_count": "1", "events_total": "1", "first_event_at": START.isoformat()}
    verdicts = judge(experiment, fields, now=START + timedelta(hours=1))
    assert [verdict.text for verdict in verdicts if verdict.kind == "failure" and verdict.state == "met"] == []
