"""The plots of docs/benchmarks.md, from a run."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.growth import Point
from bench.report import GROWTH, LOOPS, WAYS
from bench.run import Run

OURS, FLOOR, PEER = "#22384d", "#7f8c8d", "#bcd4e6"
_NOT_PEERS = ("api", "api_large", "bare", "bare_large", "by_hand", "naive", "naive_full")
_AXES = {"experiments": "experiments", "criteria": "criteria an experiment", "backlog": "backlog", "bytes": "bytes"}


def draw(run: Run, directory: Path) -> list[tuple[str, str]]:
    """Write what can be drawn of the run; the files' names, and what they show."""
    drawn = []
    if "main" in run.compared:
        drawn.append((_loops(run, directory / "benchmarks-loops.png"), "Events a second, and CPU per event"))
    if run.growth:
        drawn.append((_growth(run.growth, directory / "benchmarks-growth.png"), "CPU per event as things grow"))
    if run.latency:
        drawn.append((_latency(run, directory / "benchmarks-latency.png"), "Latency"))
    return drawn


def _loops(run: Run, path: Path) -> str:
    """Events a second beside the bare loop, and CPU per event; the slower below."""
    rates = sorted(
        (rate for rate in run.compared["main"].rates if rate.loop != "no_windows"), key=lambda rate: rate.per_second
    )
    names = [LOOPS[rate.loop] for rate in rates]
    colours = [OURS if r.loop == "worker" else FLOOR if r.loop in _NOT_PEERS else PEER for r in rates]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), dpi=110, layout="constrained", sharey=True)
    bare = next(rate for rate in rates if rate.loop == "api")
    ratios = [rate.per_second / bare.per_second for rate in rates]
    left.barh(names, ratios, color=colours)
    left.set(xscale="log", xlabel="events a second, the bare loop is 1", xlim=(min(ratios) / 2, max(ratios) * 4))
    for n, rate in enumerate(rates):
        left.text(ratios[n] * 1.1, n, f"{rate.per_second:,.0f}", va="center", fontsize=8)
    right.scatter([rate.server_us for rate in rates], names, c=colours, s=70, marker="o", label="server")
    right.scatter([rate.client_us for rate in rates], names, c=colours, s=70, marker="^", label="process")
    right.set(xscale="log", xlabel="CPU per event, microseconds")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    return _saved(figure, path)


def _growth(points: Sequence[Point], path: Path) -> str:
    """CPU of both sides per event as something grows."""
    figure, axes = plt.subplots(1, len(_AXES), figsize=(14, 3.8), dpi=110, layout="constrained")
    for axis, (kind, called) in zip(axes, _AXES.items(), strict=True):
        _curve(axis, [point for point in points if point.kind == kind], OURS, "worker")
        if kind == "experiments":
            _curve(axis, [point for point in points if point.kind == "defined"], PEER, "worker, 20 of them active")
        these = [point for point in points if point.kind == kind]
        axis.plot([p.size for p in these], [p.bare.cost_us for p in these], "o--", color=FLOOR, label="bare loop")
        axis.set(xscale="log", xlabel=called, title=GROWTH[kind])
        if kind == "bytes":
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.title.set_fontsize(8)
        axis.title.set_wrap(True)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("CPU per event, microseconds")
    return _saved(figure, path)


def _curve(axis: Axes, points: Sequence[Point], colour: str, label: str) -> None:
    axis.plot([p.size for p in points], [p.worker.cost_us for p in points], "o-", color=colour, label=label)


def _latency(run: Run, path: Path) -> str:
    """The median of each way, and how far its tail reaches."""
    figure, axis = plt.subplots(figsize=(9, 4.2), dpi=110, layout="constrained")
    rates = sorted({one.per_second for one in run.latency})
    ways = {"alone": FLOOR, "bare": PEER, "applied": "#5b8db8", "alert": OURS}
    for w, (way, colour) in enumerate(ways.items()):
        for r, rate in enumerate(rates):
            one = next((one for one in run.latency if (one.way, one.per_second) == (way, rate)), None)
            if one is None:
                continue
            at = r + (w - 1.5) / 6
            axis.vlines(at, one.p50, one.p999, color=colour, lw=3, label=WAYS[way] if r == 0 else None)
            axis.plot([at] * 3, [one.p50, one.p99, one.p999], "_", color=colour, ms=12, mew=2)
    axis.set(yscale="log", ylabel="milliseconds: p50, p99, p99.9", xlabel="events a second")
    axis.set_xticks(range(len(rates)), [f"{rate:,}" for rate in rates])
    axis.grid(axis="y", which="major", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return _saved(figure, path)


def _saved(figure: plt.Figure, path: Path) -> str:
    figure.savefig(path)
    plt.close(figure)
    return path.name
