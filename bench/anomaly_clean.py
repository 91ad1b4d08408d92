"""Series without anomalies, by name: what a detector must leave alone."""

import math
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

WEEK = 1008
DAY = 144
STEP = timedelta(minutes=10)
BEGIN = datetime(2024, 3, 4)  # noqa: DTZ001 naive, as in NAB

Values = list[float]


def white(noise: random.Random, length: int) -> Values:
    return [noise.gauss(100, 10) for _ in range(length)]


def autoregressive(share: float) -> Callable[[random.Random, int], Values]:
    def make(noise: random.Random, length: int) -> Values:
        values = [0.0]
        while len(values) < length:
            values.append(share * values[-1] + noise.gauss(0, 1))
        return values

    return make


def daily(noise: random.Random, length: int) -> Values:
    return [100 + 30 * math.sin(2 * math.pi * i / DAY) + noise.gauss(0, 5) for i in range(length)]


def daily_multiplied(noise: random.Random, length: int) -> Values:
    return [(100 + 80 * math.sin(2 * math.pi * i / DAY)) * math.exp(noise.gauss(0, 0.1)) for i in range(length)]


def counts(mean: float) -> Callable[[random.Random, int], Values]:
    def make(noise: random.Random, length: int) -> Values:
        return [float(poisson(noise, mean)) for _ in range(length)]

    return make


def daily_counts(noise: random.Random, length: int) -> Values:
    return [float(poisson(noise, 10 * (1 + math.sin(2 * math.pi * i / DAY)))) for i in range(length)]


def working_hours(noise: random.Random, length: int) -> Values:
    busy = [i // DAY % 7 < 5 and 48 <= i % DAY < 108 for i in range(length)]
    return [float(poisson(noise, 30 if now else 0.3)) for now in busy]


def rarely_moving(noise: random.Random, length: int) -> Values:
    values = [10.5]
    while len(values) < length:
        values.append(10.5 + noise.choice([-1, 0, 1]) if noise.random() < 0.01 else values[-1])
    return values


def exponential(noise: random.Random, length: int) -> Values:
    return [noise.expovariate(1) for _ in range(length)]


def log_normal(noise: random.Random, length: int) -> Values:
    return [math.exp(noise.gauss(0, 0.5)) for _ in range(length)]


def student(noise: random.Random, length: int) -> Values:
    return [noise.gauss(0, 1) / math.sqrt(noise.gammavariate(1.5, 2) / 3) for _ in range(length)]


CLEAN: Mapping[str, Callable[[random.Random, int], Values]] = {
    "white noise": white,
    "uniform noise": lambda noise, length: [noise.random() for _ in range(length)],
    "AR(1), 0.5": autoregressive(0.5),
    "AR(1), 0.9": autoregressive(0.9),
    "daily cycle and noise": daily,
    "daily cycle times noise": daily_multiplied,
    "random walk": autoregressive(1.0),
    "constant, rarely moved": rarely_moving,
    "Poisson counts, mean 0.3": counts(0.3),
    "Poisson counts, mean 5": counts(5),
    "Poisson counts, mean 50": counts(50),
    "Poisson counts, daily": daily_counts,
    "Poisson counts, office hours": working_hours,
    "exponential noise": exponential,
    "log-normal noise, 0.5": log_normal,
    "Student t, 3 degrees": student,
}


def series(kind: str, seed: int, length: int = WEEK) -> list[tuple[datetime, float]]:
    """One series of a kind of `CLEAN`."""
    return timed(CLEAN[kind](random.Random(f"{kind}/{seed}"), length))


def timed(values: Values) -> list[tuple[datetime, float]]:
    """The values every ten minutes, from a Monday on."""
    return [(BEGIN + i * STEP, value) for i, value in enumerate(values)]


def poisson(noise: random.Random, mean: float) -> int:
    """A Poisson number, by the gaps between events."""
    count, at = 0, noise.expovariate(1)
    while at < mean:
        count += 1
        at += noise.expovariate(1)
    return count
