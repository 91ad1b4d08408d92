"""Which metrics and labels a PromQL expression names, and which of them exist.

No parser of PromQL (Prometheus itself reads every expression, in `make deploy-check` and in the integration test): only
what begins with the agent's prefix, the selectors behind it, and the labels that are grouped by.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import yaml

from redis_agent.alerts import AlertType, Severity
from redis_agent.analyst import failures as failures_of_model
from redis_agent.events import Reason
from redis_agent.store import failures
from redis_agent.telemetry import Telemetry

ROOT = Path(__file__).resolve().parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"

# What Prometheus adds to every series; `role` by the relabelling in prometheus.yml.
OF_TARGET = {"job", "instance", "role"}
# Series of Prometheus itself.
FOREIGN = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}

# What is not listed here may have any value.
VALUES: dict[tuple[str, str], set[str]] = {
    ("redis_agent_redis_errors", "kind"): set(failures.FAILURES),
    ("redis_agent_dead_letters", "reason"): set(Reason),
    ("redis_agent_alerts", "type"): set(AlertType),
    ("redis_agent_alerts", "severity"): set(Severity),
    ("redis_agent_alerts", "outcome"): {"sent", "cooldown", "silenced", "undelivered", "superseded"},
    ("redis_agent_llm_requests", "outcome"): {"ok", "cached", *get_args(failures_of_model.Reason)},
}

_RECORDED = r"(?:[a-z_]+:)"
_NAME = re.compile(rf"\b{_RECORDED}?redis_agent_\w+(?::\w+)?|\b(?:up|ALERTS)\b(?=\{{)")
_SELECTOR = re.compile(r"\s*\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Use:
    """One series in an expression: its name, and its matchers."""

    name: str
    matchers: list[tuple[str, str, str]] = field(default_factory=list)


def uses(expression: str) -> Iterator[Use]:
    """Every series that the expression names."""
    for found in _NAME.finditer(expression):
        selector = _SELECTOR.match(expression, found.end())
        yield Use(found[0], _MATCHER.findall(selector[1]) if selector else [])


def exported() -> dict[str, set[str]]:
    """Every series that a scrape may find, and its labels."""
    series: dict[str, set[str]] = {}
    for metric in Telemetry().exported():
        labels = set(metric.labels)
        if metric.kind == "histogram":
            series |= {f"{metric.name}_bucket": labels | {"le"}}
            series |= {f"{metric.name}_{part}": labels for part in ("sum", "count", "created")}
        else:
            series[metric.name] = labels
        if metric.kind == "counter":
            series[metric.name.removesuffix("_total") + "_created"] = labels
    return series


def recording_rules() -> list[dict[str, object]]:
    return _rules("recording.yml")


def alert_rules() -> list[dict[str, object]]:
    return _rules("alerts.yml")


def _rules(name: str) -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load((PROMETHEUS / name).read_text())["groups"] for rule in group["rules"]]


def recorded() -> dict[str, set[str]]:
    """Every series that the recording rules make, and its labels: those of its name's first part."""
    series = {}
    for rule in recording_rules():
        name = str(rule["record"])
        series[name] = set(name.partition(":")[0].split("_"))
    return series


def problems(expression: str) -> list[str]:
    """What the expression names and does not exist."""
    known = exported() | recorded() | FOREIGN
    found, labels = [], set(OF_TARGET)
    for use in uses(expression):
        if use.name not in known:
            found.append(f"there is no {use.name}")
            continue
        labels |= known[use.name]
        for label, operator, value in use.matchers:
            if label not in known[use.name] | OF_TARGET:
                found.append(f"{use.name} has no label {label}")
            allowed = VALUES.get((re.sub(r"_(total|created)$", "", use.name), label))
            named = set(value.split("|")) if operator in ("=~", "!~") else {value}
            if allowed is not None and not named <= allowed:
                found.append(f"{label} of {use.name} is never {named - allowed}")
    for group in _GROUPED.findall(expression):
        unknown = {name.strip() for name in group.split(",")} - labels
        found += [f"nothing in it has the label {name}" for name in unknown]
    return found
