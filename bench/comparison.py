"""What it costs to judge a comparison that is compiled: `python -m bench.comparison`, and in `make bench-judging`.

Beside it, the same comparison written out in Python on a dict. The best of many short rounds is what the code costs;
more is the machine doing something else.
"""

import math
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType

from redis_agent.criteria import Metrics, evaluate, understand

GOAL = 1.0
ROUNDS = 60
CALLS = 5_000
NOW = datetime(2026, 11, 26, tzinfo=UTC)
FIELDS = MappingProxyType({"bounce_rate_latest": "0.06", "email_sent_count": "250", "events_total": "251"})
TEXTS = ("bounce_rate > 0.05", "bounce_rate < 5%", "emails_sent >= 200")


def microseconds(call: Callable[[], object]) -> float:
    """Of one call, without the loop around it."""
    best = empty = math.inf
    for _ in range(ROUNDS):
        empty = min(empty, _round(_nothing))
        best = min(best, _round(call))
    return (best - empty) / CALLS * 1e6


def _round(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    return time.perf_counter() - begin


def _nothing() -> None:
    """What the loop around a call costs."""


def main() -> int:
    """Measure and print; 1 when a comparison costs more than the goal."""
    value = {"bounce_rate": 0.06}
    print("microseconds a call      values in hand   values from the hash")
    slowest = 0.0
    for text in TEXTS:
        criterion, metrics = understand(text), Metrics(FIELDS, {})
        known = microseconds(lambda: evaluate(criterion, metrics, now=NOW, started_at=NOW))  # noqa: B023  # called here
        fresh = microseconds(lambda: evaluate(criterion, Metrics(FIELDS, {}), now=NOW, started_at=NOW))  # noqa: B023
        print(f"{text:24} {known:14.2f} {fresh:22.2f}")
        slowest = max(slowest, known)
    print(f"{'bare: a dict, >':24} {microseconds(lambda: value['bounce_rate'] > 0.05):14.2f}")
    print(f"goal                     {GOAL:14.2f}")
    return int(slowest > GOAL)


if __name__ == "__main__":
    sys.exit(main())
