"""Some series with what was expected of them and what was told: PNG files for docs/anomalies-series.md."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.dates as mdates
import matplotlib.pyplot as plt

from bench.anomaly_series import DAY_MS, MONDAY_MS, WINDOW, binomial, office, poisson, windows
from redis_agent.anomaly import ALERT_THRESHOLD, CountSeries, RateSeries, Verdict

SEED = 20_261_126
INK, BAND, TOLD, SCORE = "#22384d", "#bcd4e6", "#c0392b", "#7f8c8d"


@dataclass(frozen=True, slots=True)
class Picture:
    """A series to be drawn; days are from its beginning."""

    file: str
    title: str
    mean: Callable[[float, int], float]
    days: float
    shown: tuple[float, float]


def between(days: float, begin: float, hours: float) -> bool:
    return begin <= days < begin + hours / 24.0


PICTURES = (
    Picture(
        "anomaly-burst.png",
        "3 events in ten minutes; 1 h at tenfold, and 3 h at fourfold",
        lambda d, _: 3.0 * (10.0 if between(d, 12.6, 1) else 4.0 if between(d, 13.4, 3) else 1.0),
        14.0,
        (11.9, 14.0),
    ),
    Picture(
        "anomaly-office.png",
        "office hours from the first event: weekend, burst at day 15.5, silence from day 17.45 to 17.7",
        lambda d, at: 10.0 * office(at) * (6.0 if between(d, 15.5, 0.7) else 0.0 if between(d, 17.45, 6) else 1.0),
        19.0,
        (0.0, 19.0),
    ),
    Picture(
        "anomaly-shift.png",
        "a level that doubles for five days, and comes back",
        lambda d, _: 6.0 if 12.0 <= d < 17.0 else 3.0,
        21.0,
        (10.0, 21.0),
    ),
    Picture(
        "anomaly-end.png",
        "a campaign that fades out with a half-life of two days",
        lambda d, _: 10.0 * 0.5 ** (max(d - 10.0, 0.0) / 2.0),
        24.0,
        (8.0, 24.0),
    ),
    Picture(
        "anomaly-silence.png",
        "one event in ten minutes, then none",
        lambda d, _: 1.0 if d < 12.5 else 0.0,
        14.0,
        (12.0, 13.6),
    ),
)

Point = tuple[int, float, Verdict]


def draw(directory: Path) -> None:
    """Writes every picture."""
    directory.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        rng, series = random.Random(SEED), CountSeries()
        points: list[Point] = []
        for at_ms, days in windows(MONDAY_MS, int(picture.days * 144)):
            count = poisson(rng, picture.mean(days, at_ms))
            points.append((at_ms, count, series.examine(at_ms, WINDOW, count)))
        draw_one(directory / picture.file, picture.title, points, picture.shown, "events in 10 minutes")
    draw_one(directory / "anomaly-rate.png", "2 % of 0 to 20 bounce, then 8 %", rate_points(), (9.0, 13.0), "rate")


def rate_points() -> list[Point]:
    rng, series = random.Random(SEED), RateSeries()
    points: list[Point] = []
    for at_ms, days in windows(MONDAY_MS, 13 * 144):
        trials = rng.randint(0, 20)
        verdict = series.examine(at_ms, WINDOW, binomial(rng, trials, 0.02 if days < 11.0 else 0.08), trials)
        if verdict.value is not None:
            points.append((at_ms, verdict.value, verdict))
    return points


def draw_one(path: Path, title: str, points: list[Point], shown: tuple[float, float], label: str) -> None:
    first_ms, last_ms = (MONDAY_MS + int(day * DAY_MS) for day in shown)
    points = [point for point in points if first_ms <= point[0] < last_ms]
    times = [moment(at_ms) for at_ms, _, _ in points]
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(11, 4.6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    lows, highs = zip(*(verdict.expected for _, _, verdict in points), strict=True)
    above.fill_between(times, lows, highs, step="mid", color=BAND, label="expected, central 95 %")
    above.plot(times, [value for _, value, _ in points], drawstyle="steps-mid", color=INK, lw=0.8, label=label)
    for span in episodes(points):
        above.axvspan(*span, color=TOLD, alpha=0.15, lw=0)
    for at_ms, _, verdict in points:
        if verdict.phase == "opened" and verdict.episode is not None:
            above.annotate(
                verdict.episode.kind.replace("_", " "),
                (mdates.date2num(moment(at_ms)), 0.92),
                xycoords=above.get_xaxis_transform(),
                xytext=(4, 0),
                textcoords="offset points",
                color=TOLD,
                fontsize=9,
                fontweight="bold",
            )
    above.set_title(title, loc="left", fontsize=11)
    above.set_ylabel(label)
    above.legend(loc="upper left", fontsize=8, frameon=False)
    below.semilogy(times, [verdict.score for _, _, verdict in points], color=SCORE, lw=0.9)
    below.axhline(ALERT_THRESHOLD, color=TOLD, lw=0.8, ls="--")
    below.set_ylabel("score")
    below.set_ylim(5e-5, 2.0)
    below.xaxis.set_major_formatter(mdates.ConciseDateFormatter(below.xaxis.get_major_locator()))
    figure.savefig(path, dpi=90)
    plt.close(figure)


def episodes(points: list[Point]) -> list[tuple[datetime, datetime]]:
    """From the first window that deviated to the end, or to the end of the picture."""
    spans = []
    for _, _, verdict in points:
        episode = verdict.episode
        if verdict.phase == "ended" and episode is not None and episode.ended_ms is not None:
            spans.append((moment(episode.began_ms), moment(episode.ended_ms)))
    last = points[-1][2].episode
    if last is not None and last.ended_ms is None:
        spans.append((moment(last.began_ms), moment(points[-1][0])))
    return spans


def moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)
