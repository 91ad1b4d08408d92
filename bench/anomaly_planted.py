"""Series with one anomaly of a known kind, from value `ONSET` on: what a detector should find, and how soon."""

import random
from collections.abc import Callable, Mapping

from bench.anomaly_clean import DAY, WEEK, Values, autoregressive, daily, log_normal, poisson, white, working_hours

LENGTH = 3 * WEEK
ONSET = 2 * WEEK + DAY + 60
"""Ten o'clock on a Tuesday, after two weeks."""

IN_TIME = DAY
"""An alert within a day of the onset counts as found."""

Plant = Callable[[random.Random], Values]


def changed(
    clean: Callable[[random.Random, int], Values], length: int, change: Callable[[random.Random, float, int], float]
) -> Plant:
    """A clean series, of which `length` values are changed: by a function of the value and of how long it lasts."""

    def make(noise: random.Random) -> Values:
        values = clean(noise, LENGTH)
        for i in range(ONSET, ONSET + length):
            values[i] = change(noise, values[i], i - ONSET)
        return values

    return make


def weekend_work(noise: random.Random) -> Values:
    """Four busy hours on the Saturday after the usual onset."""
    values = working_hours(noise, LENGTH + 4 * DAY)
    saturday = ONSET + 4 * DAY
    for i in range(saturday, saturday + 24):
        values[i] = float(poisson(noise, 30))
    return values


PLANTED: Mapping[str, Plant] = {
    "noise: a spike of 8 deviations": changed(white, 1, lambda _, value, __: value + 80),
    "noise: a shift of 3 deviations": changed(white, WEEK // 2, lambda _, value, __: value + 30),
    "noise: a shift of 1.5 deviations": changed(white, WEEK // 2, lambda _, value, __: value + 15),
    "noise: three times as wide": changed(white, DAY, lambda noise, _, __: noise.gauss(100, 30)),
    "noise: stuck": changed(white, DAY, lambda _, __, ___: 100.0),
    "noise: a ramp of a deviation an hour": changed(white, DAY, lambda _, value, i: value + i / 6 * 10),
    "daily cycle: a spike within its range": changed(daily, 1, lambda _, __, ___: 60.0),
    "daily cycle: flat for a day": changed(daily, DAY, lambda noise, _, __: 100 + noise.gauss(0, 1)),
    "daily cycle: shifted by its amplitude": changed(daily, WEEK // 2, lambda _, value, __: value + 30),
    "log-normal: three values of three times": changed(log_normal, 3, lambda _, value, __: 3 * value),
    "log-normal: half as much again": changed(log_normal, DAY, lambda _, value, __: 1.5 * value),
    "AR(1), 0.9: a jump of 10 deviations": changed(autoregressive(0.9), DAY, lambda _, value, __: value + 23),
    "random walk: a jump of 20 steps": changed(autoregressive(1.0), WEEK // 2, lambda _, value, __: value + 20),
    "office counts: an outage": changed(working_hours, 24, lambda _, __, ___: 0.0),
    "office counts: three times as many": changed(working_hours, 12, lambda noise, _, __: float(poisson(noise, 90))),
    "office counts: work on a Saturday": weekend_work,
}


def onset(kind: str) -> int:
    return ONSET + 4 * DAY if PLANTED[kind] is weekend_work else ONSET


def planted(kind: str, seed: int) -> Values:
    """One series of a kind of `PLANTED`."""
    return PLANTED[kind](random.Random(f"{kind}/{seed}"))
