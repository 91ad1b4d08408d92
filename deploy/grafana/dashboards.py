"""Writes the dashboards in deploy/grafana/dashboards/; `--check` says if they are up to date.

A dashboard is a list of rows, a row a list of panels, a panel a question, its expressions and its unit. What stands
where follows from the order: twenty-four columns, filled from left to right.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
JOB = '{job="$job"}'

GREEN, ORANGE, RED = "green", "orange", "red"
# From so much on a value has that colour; the first colour is that of everything below.
Steps = Sequence[tuple[float | None, str]]
GOOD_IF_ZERO: Steps = ((None, GREEN), (1, RED))
GOOD_IF_ONE: Steps = ((None, RED), (1, GREEN))
AGE: Steps = ((None, GREEN), (30, ORANGE), (300, RED))


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: what it answers.
        queries: legend to expression.
        about: how to read it, shown at the title.
        kind: timeseries, stat, state-timeline or table.
        unit: in Grafana's names.
        width: of 24 columns.
        steps: thresholds and their colours.
        stacked: whether the lines add up to something.
    """

    title: str
    queries: dict[str, str]
    about: str = ""
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    steps: Steps = ((None, GREEN),)
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under one heading, all of one height."""

    title: str
    panels: list[Panel]
    height: int = 7


@dataclass(frozen=True)
class Dashboard:
    """One file; `name` is the file's and, after `redis-agent-`, the uid."""

    name: str
    title: str
    about: str
    rows: list[Row] = field(default_factory=list)


def counted(metric: str, *by: str, where: str = "", seconds: int | None = None) -> str:
    """How much a counter (without `_total`) grew in so many seconds, or in the range that is shown.

    First increments count, too: see deploy/prometheus/recording.yml.
    """
    labels = "{" + ", ".join(filter(None, ['job="$job"', where])) + "}"
    window, length = ("$__range", "$__range_s") if seconds is None else (f"{seconds}s", str(seconds))
    total, created = f"{metric}_total{labels}[{window}]", f"{metric}_created{labels}[{window}]"
    new = f"(last_over_time({total}) and time() - last_over_time({created}) < {length})"
    return f"sum by ({', '.join(by)}) ({new} or increase({total}))"


def total(metric: str, where: str = "") -> str:
    """The same as one number; 0 where it never happened, nothing where no process is seen."""
    return f"{counted(metric, 'job', where=where)} or on (job) 0 * max by (job) (redis_agent_redis_up{JOB})"


def rate(metric: str, *by: str, function: str = "sum", where: str = "") -> str:
    """A counter's increments a second."""
    labels = "{" + ", ".join(filter(None, ['job="$job"', where])) + "}"
    return f"{function} by ({', '.join(by)}) (rate({metric}_total{labels}[$__rate_interval]))"


def quantiles(recorded: str) -> dict[str, str]:
    """Median, 90 and 99 of 100 of a histogram whose buckets' rates are recorded."""
    return {f"p{q}": f"histogram_quantile(0.{q}, {recorded}{JOB})" for q in (50, 90, 99)}


FIRING = Panel(
    "What is firing",
    {"": 'ALERTS{job="$job", alertname=~"RedisAgent.*"} or ALERTS{alertname="RedisAgentAbsent"}'},
    about="Each rule has its section in docs/runbook.md.",
    kind="table",
    width=24,
)

OPERATIONS = Dashboard(
    "operations",
    "Redis Agent: operations",
    "Is it keeping up, is anything stuck, who leads, how long does it take, what goes wrong.",
    [
        Row(
            "Now",
            [
                Panel(
                    "Redis answers", {"": f"max(redis_agent_redis_up{JOB})"}, kind="stat", width=3, steps=GOOD_IF_ONE
                ),
                Panel(
                    "Oldest unread",
                    {"": f"job:redis_agent_oldest_unread_seconds:max{JOB}"},
                    about="The age of the oldest event that no worker has read.",
                    kind="stat",
                    unit="s",
                    width=3,
                    steps=AGE,
                ),
                Panel(
                    "Oldest pending",
                    {"": f"job:redis_agent_oldest_pending_seconds:max{JOB}"},
                    about="The age of the oldest event that was read and is not acked.",
                    kind="stat",
                    unit="s",
                    width=3,
                    steps=AGE,
                ),
                Panel(
                    "Oldest alert",
                    {"": f"job:redis_agent_oldest_alert_seconds:max{JOB}"},
                    about="The age of the oldest alert that nobody has received.",
                    kind="stat",
                    unit="s",
                    width=3,
                    steps=AGE,
                ),
                Panel(
                    "Without a bridge",
                    {
                        "": f"job:redis_agent_partitions:max{JOB} "
                        f"- on (job) sum by (job) (redis_agent_bridge_leader{JOB})"
                    },
                    about="Partitions that no bridge writes; without partitions 1 when nobody writes the stream.",
                    kind="stat",
                    width=3,
                    steps=GOOD_IF_ZERO,
                ),
                Panel(
                    "Bridges in step",
                    {
                        "": f"sum(redis_agent_bridge_in_step{JOB} >= bool on (job) group_left () "
                        f"job:redis_agent_partitions:max{JOB})"
                    },
                    about="Those that lead, or could take over, in every partition: of fewer than two none could.",
                    kind="stat",
                    width=3,
                    steps=((None, ORANGE), (2, GREEN)),
                ),
                Panel(
                    "Gaps",
                    {"": total("redis_agent_bridge_gaps")},
                    about="Times in which events may have been missed, in the range shown.",
                    kind="stat",
                    width=3,
                    steps=GOOD_IF_ZERO,
                ),
                Panel(
                    "Dead letters",
                    {"": total("redis_agent_dead_letters")},
                    about="In the range shown.",
                    kind="stat",
                    width=3,
                    steps=((None, GREEN), (1, ORANGE)),
                ),
            ],
            height=4,
        ),
        Row("Alerts about the agent", [FIRING], height=5),
        Row(
            "Is it keeping up?",
            [
                Panel(
                    "Events a second",
                    {
                        "received by a bridge": rate("redis_agent_bridge_received", "job", function="max"),
                        "written to the stream": rate("redis_agent_bridge_written", "job"),
                        "{{result}}": f"job_result:redis_agent_events:rate5m{JOB}",
                    },
                    about="Every bridge receives every event; one writes it.",
                    unit="cps",
                ),
                Panel(
                    "Unread",
                    {
                        "lag": f"job:redis_agent_stream_lag:max{JOB}",
                        "known by": f"sum(redis_agent_stream_lag_known{JOB})",
                    },
                    about="Entries that no worker has read, and how many processes know it: an unknown lag is no 0.",
                ),
                Panel(
                    "Age of the oldest",
                    {
                        "unread": f"job:redis_agent_oldest_unread_seconds:max{JOB}",
                        "pending": f"job:redis_agent_oldest_pending_seconds:max{JOB}",
                    },
                    unit="s",
                ),
            ],
        ),
        Row(
            "Is anything stuck?",
            [
                Panel(
                    "Pending and taken over",
                    {
                        "pending": f"job:redis_agent_pending_entries:max{JOB}",
                        "taken over a second": rate("redis_agent_reclaimed", "job"),
                    },
                    about="Entries that were read and are not acked, and how many of another consumer are taken over.",
                ),
                Panel(
                    "Held in memory",
                    {
                        "bridge {{instance}}": f"redis_agent_bridge_buffer_bytes{JOB} > 0",
                        "worker {{instance}}": f"redis_agent_in_hand_bytes{JOB} > 0",
                    },
                    about="A bridge that follows holds what it has not heard to be written.",
                    unit="bytes",
                ),
                Panel(
                    "Length of the stream",
                    {"entries": f"max(redis_agent_stream_length{JOB})"},
                    about="It is trimmed to REDIS_AGENT_STREAM_MAX_LENGTH, never what some group has not acked.",
                ),
                Panel(
                    "Copies of what partitions have",
                    {
                        "a second": rate("redis_agent_projected", "job"),
                        "lag, s": f"max(redis_agent_projection_lag_seconds{JOB})",
                    },
                    about="With partitions: experiments whose copies, which the Orchestrator reads, were renewed.",
                ),
            ],
        ),
        Row(
            "Who leads?",
            [
                Panel(
                    "Leaders",
                    {
                        "bridge {{instance}}": f"redis_agent_bridge_leader{JOB} > 0",
                        "dispatcher {{instance}}": f"redis_agent_dispatcher_leader{JOB} > 0",
                        "scheduler {{instance}}": f"redis_agent_scheduler_leader{JOB} > 0",
                    },
                    kind="state-timeline",
                    width=12,
                    steps=GOOD_IF_ONE,
                ),
                Panel(
                    "Processes that answer",
                    {"{{role}}": 'sum by (role) (up{job="$job"})'},
                    width=6,
                ),
                Panel(
                    "Bridges out of step",
                    {
                        "a second": rate("redis_agent_bridge_resyncs", "job"),
                        "links of the cluster's bus made anew": rate("redis_agent_bridge_links_renewed", "job"),
                        "published plainly beside sharded": rate("redis_agent_bridge_published_plainly", "job"),
                    },
                    about="Times that a bridge waited for the leader's next mark.",
                    width=6,
                ),
            ],
        ),
        Row(
            "How long does it take?",
            [
                Panel(
                    "Receipt to applied",
                    quantiles("job_le:redis_agent_event_latency_seconds_bucket:rate5m"),
                    unit="s",
                ),
                Panel(
                    "Receipt to alert delivered",
                    quantiles("job_le:redis_agent_alert_latency_seconds_bucket:rate30m"),
                    about="Half an hour at a time: alerts are rare.",
                    unit="s",
                ),
                Panel(
                    "One batch on the server",
                    quantiles("job_le:redis_agent_batch_seconds_bucket:rate5m"),
                    unit="s",
                ),
            ],
        ),
        Row(
            "What goes wrong?",
            [
                Panel(
                    "Errors of Redis and the network",
                    {"{{kind}}": rate("redis_agent_redis_errors", "kind")},
                    about="What each kind means stands in docs/errors.md.",
                    unit="cps",
                ),
                Panel(
                    "Dead letters in ten minutes",
                    {"{{reason}}": f"job_reason:redis_agent_dead_letters:increase10m{JOB}"},
                    stacked=True,
                ),
                Panel(
                    "Lost in ten minutes",
                    {
                        "{{where}}": f"job_where:redis_agent_lost:increase10m{JOB}",
                        "gaps": f"job:redis_agent_bridge_gaps:increase10m{JOB}",
                    },
                ),
                Panel(
                    "Refused or not understood, a second",
                    {
                        "names": rate("redis_agent_names_refused", "job"),
                        "windows": rate("redis_agent_windows_unwritten", "job"),
                        "definitions": rate("redis_agent_definition_errors", "job"),
                    },
                ),
                Panel(
                    "Durable after",
                    {
                        "p99": "histogram_quantile(0.99, sum by (le) "
                        f"(rate(redis_agent_durable_seconds_bucket{JOB}[$__rate_interval])))",
                        "not reached, a second": rate("redis_agent_durability_unreached", "job"),
                    },
                    about="Empty with REDIS_AGENT_DURABILITY=memory.",
                    unit="s",
                ),
                Panel(
                    "The language model, a second",
                    {
                        "{{outcome}}": rate("redis_agent_llm_requests", "outcome"),
                        "calls": rate("redis_agent_llm_calls", "job"),
                        "tokens: {{kind}}": rate("redis_agent_llm_tokens", "kind"),
                    },
                    about="Questions by what came of them; docs/analyst.md.",
                ),
            ],
        ),
    ],
)

ALERTS = Dashboard(
    "alerts",
    "Redis Agent: alerts of experiments",
    "What the agent told about experiments, what it held back, and whether it was heard. Which experiments: `alerts`.",
    [
        Row(
            "In the range shown",
            [
                Panel(
                    title,
                    {"": total("redis_agent_alerts", f'outcome="{outcome}"')},
                    about=about,
                    kind="stat",
                    width=4,
                    steps=steps,
                )
                for outcome, title, about, steps in (
                    ("sent", "Delivered", "Somebody received them.", ((None, GREEN),)),
                    ("cooldown", "Held back", "Told not long ago (ALERT_COOLDOWN_SECONDS).", ((None, GREEN),)),
                    ("silenced", "Silenced", "By `redis-agent silence`, or by a failure.", ((None, GREEN),)),
                    ("superseded", "Superseded", "Summaries that a newer one replaced.", ((None, GREEN),)),
                    ("undelivered", "Given up", "Nobody listened for too long.", GOOD_IF_ZERO),
                )
            ]
            + [
                Panel(
                    "Waiting now",
                    {"": f"job:redis_agent_alerts_waiting:max{JOB}"},
                    about="Alerts that nobody has received yet.",
                    kind="stat",
                    width=4,
                    steps=((None, GREEN), (1, ORANGE)),
                )
            ],
            height=4,
        ),
        Row(
            "What was told",
            [
                Panel(
                    "Delivered in ten minutes, by type",
                    {"{{type}}": counted("redis_agent_alerts", "type", where='outcome="sent"', seconds=600)},
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Delivered in ten minutes, by severity",
                    {"{{severity}}": counted("redis_agent_alerts", "severity", where='outcome="sent"', seconds=600)},
                    width=12,
                    stacked=True,
                ),
            ],
        ),
        Row(
            "What was not",
            [
                Panel(
                    "Not delivered in ten minutes, by type and outcome",
                    {
                        "{{type}} {{outcome}}": counted(
                            "redis_agent_alerts", "type", "outcome", where='outcome!="sent"', seconds=600
                        )
                    },
                    about="Mostly cooldowns: an experiment that keeps crossing, errors that repeat.",
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Waiting for somebody who listens",
                    {
                        "alerts": f"job:redis_agent_alerts_waiting:max{JOB}",
                        "age of the oldest, s": f"job:redis_agent_oldest_alert_seconds:max{JOB}",
                    },
                    width=12,
                ),
            ],
        ),
        Row(
            "How they come about",
            [
                Panel(
                    "Receipt of the event to delivery",
                    quantiles("job_le:redis_agent_alert_latency_seconds_bucket:rate30m"),
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Worded in ten minutes, by whom",
                    {"{{kind}} {{source}}": counted("redis_agent_analyses", "kind", "source", seconds=600)},
                    width=6,
                    about="Analyses of alerts and wordings of summaries: the language model or the template.",
                    stacked=True,
                ),
                Panel(
                    "Last window examined for anomalies, ago",
                    {"ago": f"time() - max(redis_agent_anomalies_examined_timestamp_seconds{JOB} > 0)"},
                    width=6,
                    about="As a rule less than eleven minutes, with windows of ten.",
                    unit="s",
                ),
                Panel(
                    "Definitions not understood in ten minutes",
                    {"definitions": counted("redis_agent_definition_errors", "job", seconds=600)},
                    width=6,
                    about="`redis-agent check ID` says what and why.",
                ),
            ],
        ),
    ],
)

DASHBOARDS = (OPERATIONS, ALERTS)


def panel_json(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    """A panel as Grafana wants it."""
    instant = panel.kind in ("stat", "table")
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend or "__auto",
            "instant": instant,
            "range": not instant,
            **({"format": "table"} if panel.kind == "table" else {}),
        }
        for n, (legend, expression) in enumerate(panel.queries.items())
    ]
    custom: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    elif panel.kind == "stat":
        options = {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
    elif panel.kind == "state-timeline":
        options = {"showValue": "never", "legend": {"showLegend": False}}
    steps = [{"value": value, "color": colour} for value, colour in panel.steps]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": custom,
                "color": {"mode": "thresholds" if panel.kind in ("stat", "state-timeline") else "palette-classic"},
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": options,
    }


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in dashboard.rows:
        heading = {"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []}
        panels.append({**heading, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + row.height
            place = {"x": x, "y": y, "w": panel.width, "h": row.height}
            panels.append(panel_json(panel, len(panels) + 1, place))
            x += panel.width
        y += row.height
    job = {
        "name": "job",
        "label": "job",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(redis_agent_redis_up, job)", "refId": "job"},
        "refresh": 2,
        "sort": 1,
        "current": {"text": "redis-agent", "value": "redis-agent"},
    }
    return {
        "uid": f"redis-agent-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["redis-agent"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [job]},
        "links": [{"type": "dashboards", "tags": ["redis-agent"], "title": "Redis Agent", "asDropdown": False}],
        "panels": panels,
    }


def main() -> int:
    stale = []
    for dashboard in DASHBOARDS:
        file = FOLDER / f"{dashboard.name}.json"
        text = json.dumps(dashboard_json(dashboard), indent=2) + "\n"
        if "--check" not in sys.argv[1:]:
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(f"{file.parent.name}/{file.name}")
    if stale:
        print(f"{', '.join(stale)} not up to date: run `make fmt`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
