"""How often the anomaly detectors cry wolf and how soon they see a fault: `python -m bench.anomaly_suite`.

Simulated, seeded series of closed windows (`bench.anomaly_series`) go through the product's own `CountSeries`,
`RateSeries` and `GaugeSeries`. Clean ones count alerts per series and week, from the first event on, warm-up included;
faults are planted after two weeks of history. What the figures mean: docs/anomalies-series.md.
"""

import argparse
import json
import math
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.anomaly_series import (
    CLEAN,
    CLEAN_GAUGES,
    CLEAN_RATES,
    DAY_MS,
    FAULTS,
    MEANS,
    RATE_FAULTS,
    WINDOW,
    Clean,
    CleanGauge,
    CleanRate,
    Fault,
    beginnings,
    binomial,
    office,
    poisson,
    windows,
)
from redis_agent.anomaly import CountSeries, GaugeSeries, RateSeries, Verdict

SERIES = 40
FAULT_SERIES = 24
HISTORY_DAYS = 14
GOAL = 1 / 50
SEED = 20_261_126
# A burst must be told while it lasts or within an hour.
GRACE = 6
# What is drawn cannot be sent to another process; its number can.
KINDS: tuple[Clean | CleanRate | CleanGauge, ...] = (*CLEAN, *CLEAN_RATES, *CLEAN_GAUGES)


@dataclass(frozen=True, slots=True)
class Calm:
    """What a kind of clean series led to."""

    name: str
    series: int
    weeks: int
    alerts: int
    kinds: dict[str, int]
    microseconds: float

    @property
    def rate(self) -> float:
        return self.alerts / self.weeks

    @property
    def interval(self) -> tuple[float, float]:
        low, high = poisson_interval(self.alerts)
        return low / self.weeks, high / self.weeks


@dataclass(frozen=True, slots=True)
class Detection:
    """What a planted fault led to."""

    series: str
    fault: str
    planted: int
    found: int
    median: float | None
    p90: float | None
    alerts: float
    """Per fault that was found, in the time it was watched."""


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact bounds of the mean (Garwood 1936), by bisection."""

    def at_most(number: int, mean: float) -> float:
        return sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(number + 1))

    def solve(number: int, target: float) -> float:
        low, high = 1e-9, 10.0 * count + 20.0
        for _ in range(60):
            middle = (low + high) / 2.0
            low, high = (middle, high) if at_most(number, middle) > target else (low, middle)
        return high

    tail = (1.0 - level) / 2.0
    return (solve(count - 1, 1.0 - tail) if count else 0.0), solve(count, tail)


def verdicts_of(kind: Clean | CleanRate | CleanGauge, rng: random.Random) -> Iterable[Verdict]:
    begin_ms = beginnings(rng)
    seconds = kind.seconds if isinstance(kind, Clean) else WINDOW
    number = kind.weeks * 7 * 86_400 // seconds
    if isinstance(kind, Clean):
        counts, starts = CountSeries(), windows(begin_ms, number, seconds)
        return (counts.examine(at, seconds, kind.draw(rng, at, days)) for at, days in starts)
    if isinstance(kind, CleanRate):
        rates = RateSeries()
        return (rates.examine(at, seconds, *kind.draw(rng, at, days)) for at, days in windows(begin_ms, number))
    gauge = GaugeSeries()
    values = kind.values(rng)
    return (
        gauge.examine(at, seconds, value, value, value, 1)
        for (at, _), value in zip(windows(begin_ms, number), values, strict=False)
    )


def calm(index: int, series: int) -> Calm:
    kind = KINDS[index]
    kinds: dict[str, int] = {}
    looked, begin = 0, time.process_time()
    for number in range(series):
        for verdict in verdicts_of(kind, random.Random(f"{SEED} {kind.name} {number}")):
            looked += 1
            if verdict.phase == "opened" and verdict.episode is not None:
                kinds[verdict.episode.kind] = kinds.get(verdict.episode.kind, 0) + 1
    microseconds = (time.process_time() - begin) / looked * 1e6
    return Calm(kind.name, series, series * kind.weeks, sum(kinds.values()), kinds, round(microseconds, 1))


def detections(shape: str, mean: float, series: int) -> list[Detection]:
    """Every fault, planted into the same histories."""

    def usually(at_ms: int) -> float:
        return mean if shape == "constant" else mean * office(at_ms)

    hits: dict[str, list[tuple[int | None, int]]] = {fault.name: [] for fault in FAULTS}
    for number in range(series):
        rng = random.Random(f"{SEED} {shape} {mean} {number}")
        at_ms, history = beginnings(rng), CountSeries()
        ends_ms = at_ms + HISTORY_DAYS * DAY_MS + rng.randrange(7 * 144) * WINDOW * 1000
        while at_ms < ends_ms or (shape != "constant" and office(at_ms) < 0.5):
            history.examine(at_ms, WINDOW, poisson(rng, usually(at_ms)))
            at_ms += WINDOW * 1000
        kept = history.state()
        for fault in FAULTS:
            hits[fault.name].append(planted(CountSeries.restore(kept), fault, at_ms, rng, usually))
    name = f"{'constant' if shape == 'constant' else 'office hours'}, mean {mean:g}"
    return [summed(name, fault.name, hits[fault.name]) for fault in FAULTS]


def planted(
    series: CountSeries, fault: Fault, begin_ms: int, rng: random.Random, usually: Callable[[int], float]
) -> tuple[int | None, int]:
    """The window in which the fault was told, and how many alerts there were."""
    found, alerts = None, 0
    within = fault.windows + GRACE if fault.windows is not None else fault.watched
    for index, (at_ms, _) in enumerate(windows(begin_ms, fault.watched)):
        faulty = fault.windows is None or index < fault.windows
        mean = usually(at_ms) * (fault.factor if faulty else 1.0)
        verdict = series.examine(at_ms, WINDOW, poisson(rng, mean))
        if verdict.phase == "opened":
            alerts += 1
            if found is None and index < within:
                found = index + 1
    return found, alerts


def rate_detections(series: int) -> list[Detection]:
    results = []
    for before, after, least, most in RATE_FAULTS:
        hits: list[tuple[int | None, int]] = []
        for number in range(series):
            rng = random.Random(f"{SEED} {before} {after} {least} {most} {number}")
            begin_ms, watcher = beginnings(rng), RateSeries()
            found, alerts = None, 0
            for index, (at_ms, _) in enumerate(windows(begin_ms, (HISTORY_DAYS + 3) * 144)):
                since = index - HISTORY_DAYS * 144
                trials = rng.randint(least, most)
                verdict = watcher.examine(at_ms, WINDOW, binomial(rng, trials, before if since < 0 else after), trials)
                if verdict.phase == "opened" and since >= 0:
                    alerts += 1
                    found = since + 1 if found is None else found
            hits.append((found, alerts))
        trials_text = f"{least} to {most}" if least != most else f"{most}"
        results.append(summed(f"{before:.0%} of {trials_text}", f"to {after:.0%}", hits))
    return results


def summed(series: str, fault: str, hits: Sequence[tuple[int | None, int]]) -> Detection:
    delays = sorted(found for found, _ in hits if found is not None)
    alerts = [alerts for found, alerts in hits if found is not None]
    return Detection(
        series,
        fault,
        len(hits),
        len(delays),
        delays[(len(delays) - 1) // 2] if delays else None,
        delays[min(len(delays) - 1, math.ceil(0.9 * len(delays)) - 1)] if delays else None,
        round(sum(alerts) / len(alerts), 2) if alerts else 0.0,
    )


def run(series: int, fault_series: int, workers: int) -> tuple[list[Calm], list[Detection]]:
    """Everything, on several processors; the figures do not depend on how many."""
    with ProcessPoolExecutor(workers) as pool:
        calms = [pool.submit(calm, index, series) for index in range(len(KINDS))]
        counts = [
            pool.submit(detections, shape, mean, fault_series) for shape in ("constant", "office") for mean in MEANS
        ]
        rates = pool.submit(rate_detections, fault_series)
        found = [detection for future in counts for detection in future.result()]
        return [future.result() for future in calms], found + rates.result()


def print_calms(calms: Sequence[Calm]) -> None:
    print(f"{'clean series':44} {'weeks':>6} {'alerts':>6} {'per series and week':>26}   told as")
    for entry in calms:
        low, high = entry.interval
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(entry.kinds.items()))
        mark = " " if entry.rate <= GOAL else "!"
        rate = f"{entry.rate:10.4f} ({low:.4f} to {high:.4f}) {mark}"
        print(f"{entry.name:44} {entry.weeks:6} {entry.alerts:6} {rate} {kinds}")
    weeks, alerts = sum(entry.weeks for entry in calms), sum(entry.alerts for entry in calms)
    low, high = poisson_interval(alerts)
    print(f"{'all':44} {weeks:6} {alerts:6} {alerts / weeks:10.4f} ({low / weeks:.4f} to {high / weeks:.4f})")
    slowest = max(entry.microseconds for entry in calms)
    print(f"goal: under {GOAL:.4f}; intervals hold 95 %; a window took {slowest:.0f} µs at most, drawing it included")


def print_detections(found: Sequence[Detection]) -> None:
    print(f"\n{'planted into':28} {'fault':20} {'found':>6} {'delay: median':>14} {'90 %':>6} {'alerts':>7}")
    for entry in found:
        share = f"{entry.found / entry.planted:.0%}"
        delays = (f"{delay:g}" if delay is not None else "-" for delay in (entry.median, entry.p90))
        print("{:28} {:20} {:>6} {:>14} {:>6} {:>7.2f}".format(entry.series, entry.fault, share, *delays, entry.alerts))
    print("delays in windows of 10 minutes, the window of the alert included; alerts per fault found")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.anomaly_suite", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the series")
    parser.add_argument("--series", type=int, default=None, help=f"of each clean kind ({SERIES})")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="also draw some series (needs matplotlib)")
    options = parser.parse_args()
    begin = time.monotonic()
    series = options.series or (SERIES // 10 if options.quick else SERIES)
    calms, found = run(series, FAULT_SERIES // 10 if options.quick else FAULT_SERIES, options.workers)
    print_calms(calms)
    print_detections(found)
    print(f"\nPython {platform.python_version()}, {time.monotonic() - begin:.0f} s")
    if options.json is not None:
        document = {
            "clean": [asdict(entry) | {"rate": entry.rate, "interval": entry.interval} for entry in calms],
            "faults": [asdict(entry) for entry in found],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    if options.plot is not None:
        from bench import anomaly_plots  # noqa: PLC0415 - needs matplotlib

        anomaly_plots.draw(options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
