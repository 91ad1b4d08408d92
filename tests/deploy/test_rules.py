"""The alert rules: what they watch exists, what they say leads somewhere, and each is tried by promtool both ways."""

import re
from collections import Counter
from typing import Any

import pytest
import yaml

from tests.deploy.expressions import PROMETHEUS, ROOT, alert_rules, problems, recorded, recording_rules, uses

RUNBOOK = ROOT / "docs" / "runbook.md"
ALERTS = {str(rule["alert"]): rule for rule in alert_rules()}


def tried(alert: str) -> list[dict[str, Any]]:
    """What promtool tries of this rule."""
    return [
        check
        for file in sorted((PROMETHEUS / "tests").glob("*.yml"))
        for test in yaml.safe_load(file.read_text())["tests"]
        for check in test["alert_rule_test"]
        if check["alertname"] == alert
    ]


@pytest.mark.parametrize(
    "rule", recording_rules() + alert_rules(), ids=lambda rule: rule.get("record") or rule["alert"]
)
def test_every_rule_watches_what_exists(rule: dict[str, object]) -> None:
    expression = str(rule["expr"])
    assert list(uses(expression))
    assert problems(expression) == []


def test_expressions_of_what_does_not_exist_are_found() -> None:
    assert problems("redis_agent_stream_lags > 0") == ["there is no redis_agent_stream_lags"]
    assert problems('rate(redis_agent_events_total{kind="applied"}[5m])') == [
        "redis_agent_events_total has no label kind"
    ]
    assert problems('redis_agent_redis_errors_total{kind=~"oom|ooom"}') == [
        "kind of redis_agent_redis_errors_total is never {'ooom'}"
    ]
    assert problems("sum by (reason) (redis_agent_stream_lag)") == ["nothing in it has the label reason"]
    assert problems("job:redis_agent_stream_lag:min > 1") == ["there is no job:redis_agent_stream_lag:min"]


def test_every_recorded_sum_has_the_labels_of_its_name() -> None:
    for rule in recording_rules():
        name = str(rule["record"])
        grouped = re.search(r"by \(([^)]*)\)", str(rule["expr"]))
        assert grouped is not None
        assert {label.strip() for label in grouped[1].split(",")} | set(rule.get("labels", {})) == recorded()[name]  # type: ignore[call-overload]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_and_where_its_remedy_stands(alert: str) -> None:
    rule: dict[str, Any] = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"\d+[sm]", rule["for"])
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tried_firing_and_not_firing(alert: str) -> None:
    checks = tried(alert)
    assert any(check["exp_alerts"] for check in checks), "no test in which it fires"
    assert any(not check["exp_alerts"] for check in checks), "no test in which it does not"


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_its_section_in_the_runbook(alert: str) -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    section = re.search(rf"^### {alert}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/runbook.md has no section {alert}"
    for part in ("**Means.**", "**See.**", "**Do.**", "**Over.**"):
        assert part in section[1]


def test_the_runbook_has_no_section_of_a_rule_that_is_gone() -> None:
    named = Counter(re.findall(r"^### (RedisAgent\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == Counter(list(ALERTS))


def test_a_scrape_finds_the_roles_by_the_names_of_their_services() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "redis-agent")
    assert job["dns_sd_configs"] == [
        {"names": ["bridge", "worker", "dispatcher", "scheduler"], "type": "A", "port": 9464, "refresh_interval": "10s"}
    ]
