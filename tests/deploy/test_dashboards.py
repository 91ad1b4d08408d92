"""The dashboards ask for what exists, and stand where Grafana puts them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.expressions import ROOT, exported, problems, uses

GRAFANA = ROOT / "deploy" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))


def dashboard(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def expressions(file: Path) -> list[str]:
    return [target["expr"] for panel in dashboard(file)["panels"] for target in panel.get("targets", [])]


def test_there_are_two() -> None:
    assert [file.stem for file in FILES] == ["alerts", "operations"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_panel_asks_for_what_exists(file: Path) -> None:
    for expression in expressions(file):
        assert list(uses(expression)), expression
        assert problems(expression) == [], expression


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_panel_lies_upon_another(file: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(file)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_panel_reads_the_data_source_that_is_provisioned(file: Path) -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    panels = [panel for panel in dashboard(file)["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    numbers = [panel["id"] for panel in dashboard(file)["panels"]]
    assert len(numbers) == len(set(numbers))


def test_every_metric_that_says_whether_work_is_done_is_on_a_dashboard() -> None:
    shown = {use.name for file in FILES for expression in expressions(file) for use in uses(expression)}
    shown |= {name.split(":")[1] for name in shown if ":" in name}
    bare = {name.removesuffix("_total") for name in shown} | shown
    elsewhere = {"redis_agent_consumer_name_shared", "redis_agent_stream_dropped_total"}
    names = {name for name in exported() if not name.endswith(("_created", "_sum", "_count"))}
    lost = {"stream_dropped_unread", "stream_lost", "alerts_lost", "bridge_dropped", "bridge_forgotten"}
    elsewhere |= {f"redis_agent_{name}_total" for name in lost}  # in redis_agent_lost, by where
    assert {name for name in names if name.removesuffix("_total") not in bare} <= elsewhere
