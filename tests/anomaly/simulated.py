"""Simulated series for the tests of anomalies: seeded, window by window."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from redis_agent.anomaly import CountSeries, RateSeries, Verdict

WINDOW = 600
WINDOW_MS = WINDOW * 1000
DAY_MS = 86_400_000
WEEK = 7 * 144
MONDAY_MS = 1_767_571_200_000  # 5 January 2026

Mean = Callable[[int], float]


def poisson(rng: random.Random, mean: float) -> int:
    if mean > 60.0:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def binomial(rng: random.Random, trials: int, rate: float) -> int:
    return sum(rng.random() < rate for _ in range(trials))


def office(at_ms: int, peak: float) -> float:
    """Nothing at night and on weekends, most at one in the afternoon."""
    hour, day = at_ms / 3_600_000 % 24, (at_ms // DAY_MS + 3) % 7
    return peak * math.sin((hour - 8) / 10 * math.pi) if day < 5 and 8 <= hour <= 18 else 0.0


def watch(
    series: CountSeries, counts: Iterator[int] | list[int], begin_ms: int = MONDAY_MS
) -> list[tuple[int, Verdict]]:
    """Every verdict with the start of its window."""
    return [
        (begin_ms + index * WINDOW_MS, series.examine(begin_ms + index * WINDOW_MS, WINDOW, count))
        for index, count in enumerate(counts)
    ]


def told(verdicts: list[tuple[int, Verdict]], kind: str | None = None) -> list[tuple[int, Verdict]]:
    """Those that make an alert."""
    return [
        (at_ms, verdict)
        for at_ms, verdict in verdicts
        if verdict.phase == "opened" and verdict.episode is not None and kind in (None, verdict.episode.kind)
    ]


def seasoned(mean: float, *, days: int = 10, seed: int = 1) -> tuple[CountSeries, int, random.Random]:
    """A series with a history, when its next window begins, and where its numbers come from."""
    rng, series = random.Random(seed), CountSeries()
    watch(series, [poisson(rng, mean) for _ in range(days * 144)])
    return series, MONDAY_MS + days * DAY_MS, rng


def seasoned_rate(rate: float, trials: int, *, days: int = 5, seed: int = 1) -> tuple[RateSeries, int, random.Random]:
    """The same for a rate."""
    rng, series = random.Random(seed), RateSeries()
    for index in range(days * 144):
        series.examine(MONDAY_MS + index * WINDOW_MS, WINDOW, binomial(rng, trials, rate), trials)
    return series, MONDAY_MS + days * DAY_MS, rng
