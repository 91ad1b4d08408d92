"""Simulated series for the suite of anomalies: what experiments look like when nothing is wrong, and what goes wrong.

Everything comes from `random.Random` with the series' name and number as its seed.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

MONDAY_MS = 1_767_571_200_000  # 5 January 2026
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
WINDOW = 600
MEANS = (0.1, 0.3, 1.0, 3.0, 10.0, 50.0)

# Events in a window that begins at a time, `days` after the beginning of the series.
Draw = Callable[[random.Random, int, float], int]
RateDraw = Callable[[random.Random, int, float], tuple[int, int]]


def poisson(rng: random.Random, mean: float) -> int:
    if mean > 80.0:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def binomial(rng: random.Random, trials: int, rate: float) -> int:
    if trials * min(rate, 1.0 - rate) > 50.0:
        drawn = round(rng.gauss(trials * rate, math.sqrt(trials * rate * (1.0 - rate))))
        return min(max(drawn, 0), trials)
    if rate > 0.5:
        return trials - binomial(rng, trials, 1.0 - rate)
    # By the gaps between successes.
    if rate <= 0.0:
        return 0
    successes, at, scale = 0, 0, math.log1p(-rate)
    while True:
        at += int(math.log(1.0 - rng.random()) / scale) + 1
        if at > trials:
            return successes
        successes += 1


def office(at_ms: int) -> float:
    """Nothing at night and on weekends, 1.5 at one in the afternoon."""
    hour, day = at_ms / HOUR_MS % 24.0, (at_ms // DAY_MS + 3) % 7
    return 1.5 * math.sin((hour - 8.0) / 10.0 * math.pi) if day < 5 and 8.0 <= hour <= 18.0 else 0.0


def daily(at_ms: int) -> float:
    """Between 0.2 and 1.8, weekends at half."""
    day = (at_ms // DAY_MS + 3) % 7
    return (1.0 + 0.8 * math.sin(at_ms / DAY_MS * 2.0 * math.pi)) * (0.5 if day >= 5 else 1.0)


def constant(mean: float) -> Draw:
    return lambda rng, _at, _days: poisson(rng, mean)


def shaped(mean: float, shape: Callable[[int], float]) -> Draw:
    return lambda rng, at_ms, _days: poisson(rng, mean * shape(at_ms))


def trending(mean: Callable[[float], float], shape: Callable[[int], float] | None = None) -> Draw:
    return lambda rng, at_ms, days: poisson(rng, mean(days) * (shape(at_ms) if shape else 1.0))


def negative_binomial(mean: float, r: float, shape: Callable[[int], float] | None = None) -> Draw:
    return lambda rng, at_ms, _days: poisson(rng, rng.gammavariate(r, mean / r) * (shape(at_ms) if shape else 1.0))


def batches(mean: float, size: int) -> Draw:
    return lambda rng, _at, _days: size * poisson(rng, mean)


def uneven_batches(mean: float) -> Draw:
    """Mostly single events, one in twenty a batch of forty on average."""

    def draw(rng: random.Random, _at: int, _days: float) -> int:
        sizes = (1 + int(rng.expovariate(1 / 40)) if rng.random() < 0.05 else 1 for _ in range(poisson(rng, mean)))
        return sum(sizes)

    return draw


def sends(size: int) -> Draw:
    """A batch on every weekday, some time between nine and ten."""

    def draw(rng: random.Random, at_ms: int, _days: float) -> int:
        day, slot = (at_ms // DAY_MS + 3) % 7, at_ms % DAY_MS // (WINDOW * 1000)
        sent_in = 54 + random.Random(at_ms // DAY_MS).randrange(6)
        return size - rng.randrange(size // 4) if day < 5 and slot == sent_in else 0

    return draw


def replies(number: float) -> Draw:
    """After a batch at nine on weekdays, fewer and fewer with a half-life of two hours."""

    def draw(rng: random.Random, at_ms: int, _days: float) -> int:
        day, hours = (at_ms // DAY_MS + 3) % 7, at_ms % DAY_MS / HOUR_MS - 9.0
        rate = number * math.log(2.0) / 12.0 * 0.5 ** (hours / 2.0) if day < 5 and hours >= 0.0 else 0.0
        return poisson(rng, rate)

    return draw


def contagious(mean: float, branching: float, memory: float) -> Draw:
    """Every event brings others, within a while (Hawkes 1971)."""
    brought, fade = [0.0], math.exp(-1.0 / memory)

    def draw(rng: random.Random, _at: int, days: float) -> int:
        if days == 0.0:
            brought[0] = 0.0
        number = poisson(rng, mean * (1.0 - branching) + brought[0])
        brought[0] = brought[0] * fade + branching * (1.0 - fade) * number
        return number

    return draw


def loose_office(mean: float) -> Draw:
    """Eight hours a weekday, from some time between eight and ten, at some level between 0.6 and 1.5."""

    def draw(rng: random.Random, at_ms: int, _days: float) -> int:
        of_day = random.Random(at_ms // DAY_MS)
        opens, level = 8.0 + 2.0 * of_day.random(), of_day.uniform(0.6, 1.5)
        day, hour = (at_ms // DAY_MS + 3) % 7, at_ms % DAY_MS / HOUR_MS
        return poisson(rng, mean * level) if day < 5 and opens <= hour < opens + 8.0 else 0

    return draw


def fading(mean: float, half_life: float) -> Draw:
    """Level for ten days, then less and less."""
    return trending(lambda days: mean * 0.5 ** (max(days - 10.0, 0.0) / half_life))


def launch(mean: float, growth: float, days: float) -> Draw:
    """Grows daily for some days, in office hours, from a tenth of its level."""
    return trending(lambda at: mean * min(1.0, 0.1 * growth ** min(at, days)), office)


def rate(p: float, least: int, most: int) -> RateDraw:
    def draw(rng: random.Random, _at: int, _days: float) -> tuple[int, int]:
        trials = rng.randint(least, most)
        return binomial(rng, trials, p), trials

    return draw


def clustered_rate(a: float, b: float, most: int) -> RateDraw:
    """The rate itself varies from window to window."""

    def draw(rng: random.Random, _at: int, _days: float) -> tuple[int, int]:
        trials = rng.randint(0, most)
        return binomial(rng, trials, rng.betavariate(a, b)), trials

    return draw


def late_replies(number: float, trials: int) -> RateDraw:
    """A batch of emails in the morning, replies in the hours after it."""
    send, reply = sends(trials), replies(number)

    def draw(rng: random.Random, at_ms: int, days: float) -> tuple[int, int]:
        return reply(rng, at_ms, days), send(rng, at_ms, days)

    return draw


@dataclass(frozen=True, slots=True)
class Clean:
    """A kind of series in which nothing is wrong."""

    name: str
    draw: Draw
    weeks: int = 4
    seconds: int = WINDOW


@dataclass(frozen=True, slots=True)
class CleanRate:
    """A rate with which nothing is wrong."""

    name: str
    draw: RateDraw
    weeks: int = 4


@dataclass(frozen=True, slots=True)
class CleanGauge:
    """A gauge with which nothing is wrong."""

    name: str
    values: Callable[[random.Random], Iterator[float]]
    weeks: int = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the mean of a series; `windows` is None for what stays."""

    name: str
    factor: float
    windows: int | None = None
    watched: int = 144
    """In windows, from the beginning of the fault."""


CLEAN = (
    *(Clean(f"Poisson, mean {mean:g}", constant(mean)) for mean in MEANS),
    Clean("Poisson, mean 3, windows of 1 min", constant(0.3), 1, 60),
    Clean("Poisson, mean 3, windows of 1 h", constant(18.0), 12, 3600),
    Clean("negative binomial, mean 1, r 0.5", negative_binomial(1.0, 0.5)),
    Clean("negative binomial, mean 10, r 2", negative_binomial(10.0, 2.0)),
    Clean("negative binomial, mean 50, r 4", negative_binomial(50.0, 4.0)),
    Clean("batches of 25, 3 a day", batches(0.02, 25)),
    Clean("batches of 25, 14 a day", batches(0.1, 25)),
    Clean("batches of 25, 72 a day", batches(0.5, 25)),
    Clean("uneven batches, mean 1", uneven_batches(0.34)),
    *(Clean(f"office hours, mean {mean:g}", shaped(mean, office)) for mean in (0.3, 1.0, 3.0, 10.0, 50.0)),
    Clean("office hours, negative binomial, mean 10", negative_binomial(10.0, 4.0, office)),
    Clean("office hours of Chicago, mean 10", shaped(10.0, lambda at_ms: office(at_ms - 6 * HOUR_MS))),
    Clean("office hours of Singapore, mean 10", shaped(10.0, lambda at_ms: office(at_ms + 8 * HOUR_MS))),
    Clean("an office that opens when it likes, mean 6", loose_office(6.0)),
    Clean("events that bring others, mean 1.5", contagious(1.5, 0.8, 5.0)),
    *(Clean(f"day and night, mean {mean:g}", shaped(mean, daily)) for mean in (0.3, 3.0, 30.0)),
    Clean("a batch of 100 every weekday", sends(100)),
    Clean("replies after a batch, 30 a day", replies(30.0)),
    Clean("drift +3 % a day, mean 3", trending(lambda days: 3.0 * 1.03**days)),
    Clean("drift -3 % a day, mean 3", trending(lambda days: 3.0 * 0.97**days)),
    Clean("drift +10 % a day, mean 0.5", trending(lambda days: 0.5 * 1.1**days)),
    Clean("launch, +25 % a day, to 10", launch(10.0, 1.25, 14.0)),
    Clean("launch, +50 % a day, to 10", launch(10.0, 1.5, 7.0)),
    Clean("end, half-life 2 days, from 10", fading(10.0, 2.0)),
    Clean("end, half-life 1 day, from 10", fading(10.0, 1.0)),
    Clean("end, half-life 2 days, from 1", fading(1.0, 2.0)),
)

CLEAN_RATES = (
    CleanRate("8 % of 0 to 20", rate(0.08, 0, 20)),
    CleanRate("2 % of 0 to 20", rate(0.02, 0, 20)),
    CleanRate("30 % of 0 to 5", rate(0.3, 0, 5)),
    CleanRate("2 % of 500", rate(0.02, 500, 500)),
    CleanRate("97 % of 0 to 50", rate(0.97, 0, 50)),
    CleanRate("clustered, 5 % of 0 to 40", clustered_rate(1.0, 19.0, 40)),
    CleanRate("replies hours after their emails", late_replies(8.0, 100)),
)


def noise(mean: float, deviation: float) -> Callable[[random.Random], Iterator[float]]:
    def values(rng: random.Random) -> Iterator[float]:
        while True:
            yield rng.gauss(mean, deviation)

    return values


def wandering(mean: float, deviation: float, memory: float) -> Callable[[random.Random], Iterator[float]]:
    """Autoregressive of order 1."""

    def values(rng: random.Random) -> Iterator[float]:
        keep, off = math.exp(-1.0 / memory), 0.0
        while True:
            off = keep * off + math.sqrt(1.0 - keep * keep) * rng.gauss(0.0, deviation)
            yield mean + off

    return values


def swinging(mean: float, swing: float, deviation: float) -> Callable[[random.Random], Iterator[float]]:
    """Once around a day."""

    def values(rng: random.Random) -> Iterator[float]:
        for index in count():
            yield mean + swing * math.sin(index / 144.0 * 2.0 * math.pi) + rng.gauss(0.0, deviation)

    return values


def log_normal(deviation: float, samples: int = 1) -> Callable[[random.Random], Iterator[float]]:
    """Durations: means of so many."""

    def values(rng: random.Random) -> Iterator[float]:
        while True:
            yield sum(rng.lognormvariate(0.0, deviation) for _ in range(samples)) / samples

    return values


def student(level: float, freedom: int = 3) -> Callable[[random.Random], Iterator[float]]:
    """Heavy tails to both sides."""

    def values(rng: random.Random) -> Iterator[float]:
        while True:
            yield level + rng.gauss(0.0, 1.0) / math.sqrt(rng.gammavariate(freedom / 2.0, 2.0 / freedom))

    return values


CLEAN_GAUGES = (
    CleanGauge("gauge, noise", noise(100.0, 5.0)),
    CleanGauge("gauge, wandering for 2 hours", wandering(100.0, 5.0, 12.0)),
    CleanGauge("gauge, day and night", swinging(100.0, 30.0, 3.0)),
    CleanGauge("gauge, log-normal, 0.5", log_normal(0.5)),
    CleanGauge("gauge, log-normal, 1", log_normal(1.0)),
    CleanGauge("gauge, means of 5 log-normal, 0.7", log_normal(0.7, 5)),
    CleanGauge("gauge, Student t3 around 0", student(0.0)),
    CleanGauge("gauge, Student t3 around 5", student(5.0)),
)

FAULTS = (
    Fault("burst x3, 10 min", 3.0, 1),
    Fault("burst x5, 10 min", 5.0, 1),
    Fault("burst x10, 10 min", 10.0, 1),
    Fault("burst x3, 1 h", 3.0, 6),
    Fault("burst x5, 1 h", 5.0, 6),
    Fault("burst x10, 1 h", 10.0, 6),
    Fault("drop to zero", 0.0, None, 432),
    Fault("shift x0.5", 0.5, None, 432),
    Fault("shift x2", 2.0, None, 432),
    Fault("shift x3", 3.0, None, 432),
)

# Rate before, rate after, fewest and most trials in a window.
RATE_FAULTS = (
    (0.02, 0.08, 0, 5),
    (0.02, 0.08, 0, 20),
    (0.02, 0.08, 50, 50),
    (0.08, 0.02, 0, 20),
    (0.08, 0.02, 50, 50),
    (0.08, 0.25, 0, 20),
    (0.97, 0.80, 0, 20),
)


def beginnings(rng: random.Random) -> int:
    """Some hour of some day of the week."""
    return MONDAY_MS + rng.randrange(7 * 24) * HOUR_MS


def windows(begin_ms: int, number: int, seconds: int = WINDOW) -> Iterator[tuple[int, float]]:
    """Starts, with the days since the first."""
    for index in range(number):
        yield begin_ms + index * seconds * 1000, index * seconds / 86_400.0
