"""How good the general anomaly detector is: `python -m bench.anomaly_nab`. What it shows: docs/anomalies-detector.md.

The Numenta Anomaly Benchmark and its scorer are not part of the project; they are read from `../shared/nab` beside it,
or from `--nab DIR`. Scores as in the benchmark: 0 is silence, 100 is perfection.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import util
from itertools import product
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from bench.anomaly_clean import CLEAN, WEEK, series, timed
from bench.anomaly_planted import IN_TIME, PLANTED, onset, planted
from redis_agent.anomaly import ALERT_THRESHOLD, Detector
from redis_agent.anomaly import detector as detector_module
from redis_agent.anomaly import novelty as novelty_module

ROOT = Path(__file__).resolve().parent.parent
NAB = ROOT.parent / "shared" / "nab"
PROFILE = "reward_low_FP"

# Parameters that are varied in the cross-validation, each around its default.
GRID: Mapping[str, Sequence[float]] = {
    "MARGIN": (0.03, 0.05, 0.07, 0.1),
    "TESTS": (2, 9, 32, 128),
    "MEAN_OF": (12, 24, 48),
    "MEDIAN_OF": (5, 7, 9),
}

# What the plots show: a name for the picture, and a series of each panel.
PICTURES: Mapping[str, Sequence[str]] = {
    "anomaly-found": (
        "artificialWithAnomaly/art_daily_nojump.csv",
        "realAWSCloudwatch/ec2_cpu_utilization_53ea38.csv",
        "realAWSCloudwatch/rds_cpu_utilization_e47b3b.csv",
    ),
    "anomaly-mixed": (
        "realAWSCloudwatch/ec2_cpu_utilization_fe7f93.csv",
        "realAWSCloudwatch/ec2_disk_write_bytes_c0d644.csv",
        "realAdExchange/exchange-4_cpc_results.csv",
    ),
}

Scores = Mapping[str, Sequence[float]]


class Trivial:
    """The least that a detector can do: what a loop around it costs."""

    def update(self, _timestamp: datetime, _value: float) -> float:
        return 0.0


def main() -> int:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.anomaly_nab", description=__doc__)
    parser.add_argument("--nab", type=Path, default=NAB, metavar="DIR", help="where score.py, data and labels are")
    parser.add_argument("--clean", type=int, default=100, metavar="N", help="clean series of each kind (100)")
    parser.add_argument("--quick", action="store_true", help="without the cross-validation, with 10 clean series")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also draw the pictures; needs matplotlib")
    options = parser.parse_args()
    scorer = load_scorer(options.nab / "score.py")
    if scorer is None:
        print(f"The Numenta Anomaly Benchmark is not at {options.nab}; see --nab.", file=sys.stderr)
        return 2
    corpus, available = scorer.load_corpus(options.nab / "data", options.nab / "labels" / "windows.json")
    scores, micros = scorer.run_detector(Detector, {}, corpus)
    _, trivial = scorer.run_detector(Trivial, {}, corpus)
    report = scorer.evaluate("Detector", corpus, scores, ALERT_THRESHOLD, files_available=available)
    print(scorer.table(report, per_file=False))
    print(f"\n{micros:.2f} µs a value; {trivial:.2f} with a detector that does nothing. State: {state_size(corpus)}")
    print_categories(scorer, corpus, scores)
    print_views(scorer, corpus)
    if not options.quick:
        print_cross_validation(scorer, corpus)
    print_clean(10 if options.quick else options.clean)
    print_planted(10 if options.quick else options.clean)
    if options.plots is not None:
        draw(corpus, scores, options.plots)
    return 0


def load_scorer(path: Path) -> ModuleType | None:
    """Import the benchmark's scorer from its file."""
    if not path.is_file():
        return None
    spec = util.spec_from_file_location("nab_score", path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def state_size(corpus: Sequence[Any]) -> str:
    """The largest state after any series, as JSON."""
    sizes = []
    for one in corpus:
        detector = Detector()
        for at, value in zip(one.timestamps, one.values, strict=True):
            detector.update(at, value)
        sizes.append(len(json.dumps(detector.state())))
    return f"{min(sizes)} to {max(sizes)} bytes of JSON"


def category(name: str) -> str:
    """The artificial series count as one category: half of them have no anomaly."""
    kind = name.partition("/")[0]
    return "artificial" if kind.startswith("artificial") else kind


def categories(corpus: Iterable[Any]) -> list[str]:
    return sorted({category(one.name) for one in corpus})


def score(scorer: ModuleType, outcome: Any, windows: int, profile: str = PROFILE) -> float:
    return float(scorer.nab_score(outcome, scorer.PROFILES[profile], windows))


def print_categories(scorer: ModuleType, corpus: Sequence[Any], scores: Scores) -> None:
    print(f"\nBy category, at the fixed threshold {ALERT_THRESHOLD}:")
    print(f"{'':18}{'files':>6}{'standard':>10}{'low FP':>8}{'low FN':>8}{'hit':>8}{'false':>7}")
    for name in categories(corpus):
        part = [one for one in corpus if category(one.name) == name]
        report = scorer.evaluate(name, part, {one.name: scores[one.name] for one in part}, ALERT_THRESHOLD)
        fixed, windows = report.fixed, report.windows
        cells = [score(scorer, fixed, windows, profile) for profile in scorer.PROFILES]
        print(
            f"{name:18}{len(part):6}{cells[0]:10.1f}{cells[1]:8.1f}{cells[2]:8.1f}"
            f"{f'{fixed.hits}/{windows}':>8}{fixed.false_positive_rows:7}"
        )


def print_views(scorer: ModuleType, corpus: Sequence[Any]) -> None:
    """What each view adds: the score with it alone, and with all but it."""
    print(f"\nViews, {PROFILE} at the fixed threshold (windows hit, false rows):")
    everything = detector_module.VIEWS
    for name in everything:
        cells = []
        for views in ((name,), tuple(view for view in everything if view != name)):
            with watching(views):
                fixed, windows = run(scorer, corpus)
            cells.append(f"{score(scorer, fixed, windows):5.1f} ({fixed.hits:2}, {fixed.false_positive_rows:2})")
        print(f"  {name:8} alone {cells[0]}   all but it {cells[1]}")


def run(scorer: ModuleType, corpus: Sequence[Any]) -> tuple[Any, int]:
    """One pass with the constants as they are now: the outcome at the fixed threshold, and the windows."""
    scores, _ = scorer.run_detector(Detector, {}, corpus)
    report = scorer.evaluate("", corpus, scores, ALERT_THRESHOLD)
    return report.fixed, report.windows


def print_cross_validation(scorer: ModuleType, corpus: Sequence[Any]) -> None:
    """Leave one category out: the best point of the grid on the others, judged on the one left out."""
    names = categories(corpus)
    parts = {name: [one for one in corpus if category(one.name) == name] for name in names}
    windows = {name: sum(one.windows for one in part) for name, part in parts.items()}
    outcomes: dict[tuple[float, ...], dict[str, Any]] = {}
    for point in product(*GRID.values()):
        with constants(dict(zip(GRID, point, strict=True))):
            scores, _ = scorer.run_detector(Detector, {}, corpus)
        outcomes[point] = {
            name: scorer.combine(
                ALERT_THRESHOLD, [scorer.at_threshold(one, scores[one.name], ALERT_THRESHOLD) for one in part]
            )
            for name, part in parts.items()
        }

    def on(point: tuple[float, ...], chosen: Sequence[str]) -> float:
        both = scorer.combine(ALERT_THRESHOLD, [outcomes[point][name] for name in chosen])
        return score(scorer, both, sum(windows[name] for name in chosen))

    print(f"\nLeave one category out, {len(outcomes)} points of {', '.join(GRID)}; {PROFILE}, fixed threshold:")
    held = []
    for name in names:
        others = [other for other in names if other != name]
        best = max(outcomes, key=lambda point, others=others: on(point, others))
        held.append(outcomes[best][name])
        print(f"  {name:18} chosen on the others {best}: {on(best, others):5.1f} there, {on(best, [name]):5.1f} here")
    total = scorer.combine(ALERT_THRESHOLD, held)
    everything = sorted(on(point, names) for point in outcomes)
    print(
        f"  together {score(scorer, total, sum(windows.values())):.1f}"
        f" ({total.hits} hit, {total.false_positive_rows} false);"
        f" over the grid: least {everything[0]:.1f}, median {everything[len(everything) // 2]:.1f},"
        f" greatest {everything[-1]:.1f}"
    )


def alerts(values: Iterable[tuple[datetime, float]]) -> list[int]:
    """Where a fresh detector fires."""
    update = Detector().update
    return [i for i, (at, value) in enumerate(values) if update(at, value) >= ALERT_THRESHOLD]


def print_clean(count: int) -> None:
    """False alarms on series without anomalies."""
    print(f"\nAlerts of clean series (a value every ten minutes), {count} of each kind:")
    print(f"  {'':30}{'first week':>12}{'a week of the next three':>26}")
    for kind in CLEAN:
        found = [i for seed in range(count) for i in alerts(series(kind, seed, 4 * WEEK))]
        first = sum(i < WEEK for i in found)
        print(f"  {kind:30}{first / count:12.3f}{(len(found) - first) / count / 3:26.3f}")


def print_planted(count: int) -> None:
    """Anomalies of known kinds that are found within a day, and how soon; alerts before them."""
    print(f"\nPlanted anomalies, after two weeks of values every ten minutes; {count} series of each kind:")
    print(f"  {'':42}{'found':>7}{'median delay, values':>22}{'alerts a week before':>22}")
    for kind in PLANTED:
        delays, before = [], 0
        for seed in range(count):
            found = alerts(timed(planted(kind, seed)))
            before += sum(i < onset(kind) for i in found)
            delays += [i - onset(kind) for i in found if 0 <= i - onset(kind) < IN_TIME][:1]
        middle = f"{median(delays):.0f}" if delays else "-"
        print(f"  {kind:42}{len(delays) / count:7.0%}{middle:>22}{before / count / (onset(kind) / WEEK):22.3f}")


@contextmanager
def constants(values: Mapping[str, float]) -> Iterator[None]:
    """Change constants of the detector for a while."""
    homes = {name: novelty_module if hasattr(novelty_module, name) else detector_module for name in values}
    before = {name: getattr(home, name) for name, home in homes.items()}
    try:
        for name, home in homes.items():
            setattr(home, name, values[name])
        yield
    finally:
        for name, home in homes.items():
            setattr(home, name, before[name])


@contextmanager
def watching(views: Sequence[str]) -> Iterator[None]:
    """Let the detector judge by some of its views only."""
    whole = Detector._look

    def some(self: Detector, timestamp: datetime, value: float) -> list[Any]:
        # The level of the value is needed by others: it is learnt, and never far enough out to be judged.
        looks = whole(self, timestamp, value)
        return [look if look.view in views else look._replace(most_deviations=0.0) for look in looks]

    Detector._look = some  # type: ignore[method-assign]
    try:
        yield
    finally:
        Detector._look = whole  # type: ignore[method-assign]


def draw(corpus: Sequence[Any], scores: Scores, directory: Path) -> None:
    """Series with their labelled windows and the alerts, and the score below each."""
    import matplotlib as mpl  # noqa: PLC0415  # only here: the figures need nothing that is not installed anyway

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    by_name = {one.name: one for one in corpus}
    for picture, names in PICTURES.items():
        figure, axes = pyplot.subplots(
            2 * len(names), 1, figsize=(9, 2.4 * len(names)), height_ratios=[3, 1] * len(names), layout="constrained"
        )
        for upper, lower, name in zip(axes[::2], axes[1::2], names, strict=True):
            one, scored = by_name[name], scores[name]
            rows = range(len(one.values))
            upper.plot(rows, one.values, linewidth=0.5, color="#34618c")
            upper.set_title(name, fontsize=8, loc="left", pad=2)
            for number in sorted(set(one.window) - {-1}):
                inside = [row for row in rows if one.window[row] == number]
                for axis in (upper, lower):
                    axis.axvspan(inside[0], inside[-1], color="#e8a33d", alpha=0.25, linewidth=0)
            alerts = [row for row in rows if scored[row] >= ALERT_THRESHOLD and row >= one.start]
            for hit, colour in ((True, "#2a7d3f"), (False, "#b3261e")):
                at = [row for row in alerts if (one.window[row] >= 0) is hit]
                upper.plot(at, [0.92] * len(at), "v", color=colour, transform=upper.get_xaxis_transform())
            lower.plot(rows, scored, linewidth=0.6, color="#444444")
            lower.axhline(ALERT_THRESHOLD, color="#b3261e", linewidth=0.5, linestyle=":")
            lower.set_ylim(-0.05, 1.05)
            for axis in (upper, lower):
                axis.set_xlim(0, len(one.values))
                axis.tick_params(labelsize=6)
            upper.set_xticklabels([])
            lower.set_ylabel("score", fontsize=6)
        figure.savefig(directory / f"{picture}.png", dpi=90)
        pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
