"""Writes the pages that are made from code; `--check` says if they are up to date.

A page whose source is not there, as ../shared is not everywhere, is left as it is and said so.
"""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from criteria_pages import EXAMPLES, criteria_page, examples_page

from redis_agent.alerts import AlertType, Severity
from redis_agent.analyst.failures import Reason as NoAnswerReason
from redis_agent.config import markdown_table
from redis_agent.events import Reason
from redis_agent.store import failures
from redis_agent.telemetry import Telemetry

FOLDER = Path(__file__).parent

CONFIGURATION = """\
# Configuration

<!-- Generated from redis_agent/config.py by `make fmt`. Change it there. -->

Every setting is an environment variable. A wrong value stops the start with one line that names
the variable and says what is allowed. An empty variable counts as one that is not set. A variable
that begins with `REDIS_AGENT_` and is none of these is warned about at the start.

A secret may stand in a file, as Docker and Kubernetes hand them out: name the file in the variable
with `_FILE` at its end, and leave the other unset.

"""

ERRORS = """\
# Errors of Redis and the network

<!-- Generated from redis_agent/store/failures.py by `make fmt`. Change it there. -->

What the agent does about each error that a Redis or Valkey server, redis-py or the network can come up with. `kind`
stands in the log line `redis_failure` and in `redis_agent_redis_errors_total{kind}`. Every wait between two
tries is drawn at random between 0 and an upper bound (full jitter) that doubles with each failure in a row:

| remedy | what the agent does | upper bound of a wait |
|---|---|---|
| retry | the same again | 0.05 s to 2 s |
| reconnect | the same again, on a new connection | 0.05 s to 2 s |
| recreate | creates stream and group anew at their floor, at once | 0.05 s to 2 s from the second time on |
| pause | the server cannot do it for now: the same again, later | 0.5 s to 5 s |
| fatal | says what is wrong, and looks whether somebody has repaired it; at the start the process ends | 2 s to 15 s |

Leases are asked for again within a fifth of their time, whatever the error.

An error that every command meets is said once a minute by all loops of a process together, with what the first was
doing; one of a single command or key once a minute by each loop that meets it, with the command or key. `failures`
counts those since it was last said. `recovered` says once for each of these lines that it is over. Of what comes and
goes (a lease lost, a subscription made) a process says four lines of each event about one subject at once, and then two
a minute; `unsaid` counts what was left out. Lines about an alert are never left out.

"""

METRICS = """\
# Metrics

<!-- Generated from redis_agent/telemetry.py by `make fmt`. Change it there. -->

What `/metrics` of every process exports (`REDIS_AGENT_HTTP_PORT`, 9464), whatever its roles: counters of what another
role does stay at 0. A counter with labels appears with its first increment. Beside each counter and histogram, but for
`redis_agent_event_latency_seconds`, stands `_created`, in the place of `_total`: when it began. The rules in
`deploy/prometheus/` use it, so that a first increment is not missed. A histogram has `_bucket` (label `le`), `_sum` and
`_count`. No label holds an experiment's id or anything else without a bound.

Gauges about the stream, its group and the outbox (`stream_*`, `pending_entries`, `oldest_*`, `alerts_waiting`) are
asked of Redis at the scrape, at most twice a second: every process shows the same, so take `max`, not `sum`. They are
NaN while Redis does not say, never 0. Counters and the other gauges are the process's own: take `sum`.

What each alert rule means and what to do: [runbook.md](runbook.md).

"""

# Which values the labels have, where the meaning of the metric does not say all of them.
LABELS = {
    "`type` of alerts": [*AlertType],
    "`severity` of alerts": [*Severity],
    "`reason` of dead letters ([redis.md](redis.md#how-events-are-read))": [*Reason],
    "`outcome` of questions to the model ([analyst.md](analyst.md))": ["ok", "cached", *get_args(NoAnswerReason)],
    "`kind` of Redis errors ([errors.md](errors.md))": [*failures.FAILURES],
}


def metrics() -> str:
    """A line for each metric, in the order in which telemetry.py has them."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in Telemetry().exported():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    lines += ["", "## Values of labels", ""]
    lines += [f"- {label}: {', '.join(f'`{value}`' for value in values)}" for label, values in LABELS.items()]
    return "\n".join(lines) + "\n"


def errors() -> str:
    """A line for each kind of failure: what says it, what is done, what it means."""
    said_by: dict[str, list[str]] = {kind: [] for kind in failures.FAILURES}
    for code, kind in failures.CODES.items():
        said_by[kind].append(f"`{code}`")
    for code, phrase, kind in failures.PHRASES:
        said_by[kind].append(f"`{code} …{phrase}…`")
    for number, kind in failures.OS_CODES.items():
        said_by[kind].append(errno.errorcode[number])
    for cls, kind in (*failures.OS_CLASSES, *failures.CLASSES):
        name = f"{cls.__module__.removesuffix('.exceptions')}.{cls.__name__}".removeprefix("builtins.")
        if name not in said_by[kind]:
            said_by[kind].append(name)
    lines = ["| kind | remedy | met by | what it means, what helps | said by |", "|---|---|---|---|---|"]
    for kind, failure in failures.FAILURES.items():
        met_by = "every command" if failure.of_server else "one command or key"
        sources = ", ".join(said_by[kind]) or "anything else"
        lines.append(f"| `{kind}` | {failure.remedy} | {met_by} | {failure.meaning} | {sources} |")
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str | None]] = {
    "configuration.md": lambda: CONFIGURATION + markdown_table(),
    "criteria.md": criteria_page,
    "criteria-examples.md": examples_page,
    "errors.md": lambda: ERRORS + errors(),
    "metrics.md": lambda: METRICS + metrics(),
}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        page = FOLDER / name
        text = make()
        if text is None:
            print(f"docs/{name} is left as it is: {EXAMPLES} is not there", file=sys.stderr)
        elif "--check" not in sys.argv[1:]:
            page.write_text(text, encoding="utf-8")
        elif not page.exists() or page.read_text(encoding="utf-8") != text:
            stale.append(f"docs/{name}")
    if stale:
        print(f"{', '.join(stale)} not up to date: run `make fmt`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
