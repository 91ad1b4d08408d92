"""How often evidence is wrong and how soon it is right: `make bench-judging`. What it shows: docs/evidence.md.

Experiments are simulated by the gaps between their successes, which is the same as trial by trial and quicker. While
the successes stay the same, a rule over counts holds for a range of trials, found once by bisection over
`rate_evidence` itself; so each experiment is watched after every event.
"""

import argparse
import math
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from bench import comparison
from redis_agent.criteria.evidence import compares, rate_evidence

ALPHA = 0.05
MIN_SAMPLES = 20
EXPERIMENTS = 10_000
TRIALS = 2_000
NULL_RATES = (0.02, 0.08, 0.3)
THRESHOLD = 0.10
ABOVE = (0.13, 0.15, 0.2, 0.3, 0.4)
BELOW = (0.07, 0.05, 0.02, 0.0)
MEDIAN_GOAL = 75
SEED = 20_261_126

# The trials, first and last, for which something holds at 0, 1, 2, ... successes.
Ranges = list[tuple[int, int]]
NEVER = (1, 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a watcher waits for; it holds at few trials (a high rate) or at many (a low one)."""

    name: str
    holds: Callable[[int, int], bool]
    high: bool
    at_least: int = 1

    def ranges(self, trials: int, successes: int) -> Ranges:
        return [self._range(count, trials) for count in range(successes + 1)]

    def _range(self, successes: int, trials: int) -> tuple[int, int]:
        first = max(successes, self.at_least)
        if first > trials or not self.holds(successes, first if self.high else trials):
            return NEVER
        yes, no = (first, trials + 1) if self.high else (trials, first - 1)
        while abs(yes - no) > 1:
            middle = (yes + no) // 2
            if self.holds(successes, middle):
                yes = middle
            else:
                no = middle
        return (first, yes) if self.high else (yes, trials)


def literal(threshold: float, operator: str) -> Rule:
    """What the product's requirements ask for: met at any look with enough samples."""
    return Rule("literal", lambda s, n: compares(s / n, operator, threshold), operator == ">", MIN_SAMPLES)


def confirmed(threshold: float, operator: str) -> Rule:
    def holds(successes: int, trials: int) -> bool:
        return rate_evidence(successes, trials, threshold, operator, alpha=ALPHA).state == "confirmed"

    return Rule("confirmed", holds, operator == ">")


def excluded(rate: float, operator: str, *, high: bool) -> Rule:
    """The interval of a criterion with this operator lies wholly above the rate, or below it."""

    def holds(successes: int, trials: int) -> bool:
        bounds = rate_evidence(successes, trials, rate, operator, alpha=ALPHA).interval or (1.0, 0.0)
        return bounds[0] > rate if high else bounds[1] < rate

    return Rule("excluded", holds, high)


def first_looks(rate: float, rules: Sequence[Rule], trials: int, experiments: int, seed: str) -> list[list[int]]:
    """For each rule and experiment the first number of trials at which it holds, 0 for never."""
    rng = random.Random(seed)
    # Ten standard deviations: no experiment has more successes.
    most = min(trials, int(trials * rate + 10.0 * math.sqrt(trials * rate * (1.0 - rate)) + 10.0))
    tables = [rule.ranges(trials, most) for rule in rules]
    looks: list[list[int]] = [[] for _ in rules]
    for _ in range(experiments):
        found = [0] * len(rules)
        waiting = list(enumerate(tables))
        successes, now = 0, 1
        for following in _successes(rng, rate, trials):
            for item in tuple(waiting):
                first, last = item[1][successes]
                first = max(first, now)
                if first < following and first <= last:
                    found[item[0]] = first
                    waiting.remove(item)
            if not waiting:
                break
            successes, now = successes + 1, following
        for index, look in enumerate(found):
            looks[index].append(look)
    return looks


def _successes(rng: random.Random, rate: float, trials: int) -> Iterable[int]:
    """The trials that succeed, and one past the end."""
    if rate > 0.0:
        scale = 1.0 / math.log1p(-rate)
        at = 0
        while True:
            at += int(math.log(1.0 - rng.random()) * scale) + 1
            if at > trials:
                break
            yield at
    yield trials + 1


@dataclass(frozen=True, slots=True)
class Null:
    """Experiments whose rate is the threshold."""

    rate: float
    operator: str
    literal: list[int]
    confirmed: list[int]
    missed: float


def at_the_threshold(rate: float, experiments: int) -> list[Null]:
    rules = [rule(rate, operator) for operator in "><" for rule in (literal, confirmed)]
    rules += [excluded(rate, operator, high=high) for operator in "><" for high in (True, False)]
    looks = first_looks(rate, rules, TRIALS, experiments, f"{SEED} null {rate}")
    missed = [statistics.fmean(a > 0 or b > 0 for a, b in zip(*looks[i : i + 2], strict=True)) for i in (4, 6)]
    return [Null(rate, ">", looks[0], looks[1], missed[0]), Null(rate, "<", looks[2], looks[3], missed[1])]


def until_confirmed(rate: float, operator: str, experiments: int) -> list[int]:
    return first_looks(rate, [confirmed(THRESHOLD, operator)], 5_000, experiments, f"{SEED} {rate}")[0]


def microseconds() -> tuple[float, float]:
    """Of a state and of an interval: the best of several rounds, over counts of all sizes."""
    calls = [(3, 20), (28, 250), (50, 250), (180, 1_500), (130_000, 10**6), (2 * 10**8, 10**9)]
    state = interval = math.inf
    for _ in range(20):
        begin = time.perf_counter()
        found = [rate_evidence(s, n, 0.1, ">") for s, n in calls for _ in range(50)]
        state = min(state, (time.perf_counter() - begin) / len(found))
        begin = time.perf_counter()
        for evidence in found[::5]:
            assert evidence.interval is not None
        interval = min(interval, (time.perf_counter() - begin) / len(found[::5]))
    return state * 1e6, interval * 1e6


def quantile(looks: list[int], share: float) -> str:
    ordered = sorted(look or 10**9 for look in looks)
    value = ordered[math.ceil(share * len(ordered)) - 1]
    return f"{value:,}" if value < 10**9 else "-"


def share_by(looks: list[int]) -> list[float]:
    """The share of experiments that had stopped, for each number of trials from 0 on."""
    counts = [0] * (TRIALS + 1)
    for look in looks:
        if 0 < look <= TRIALS:
            counts[look] += 1
    return [count / len(looks) for count in accumulate(counts)]


def draw(path: Path, nulls: list[Null], stops: dict[float, list[int]]) -> None:
    import matplotlib as mpl  # noqa: PLC0415  # only here: the figures need nothing that is not installed anyway

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), dpi=110, layout="constrained")
    trials = range(TRIALS + 1)
    for null, style in zip([null for null in nulls if null.operator == ">"], ("-", "--", ":"), strict=False):
        of = f"p = p0 = {null.rate:g}"
        left.plot(trials, share_by(null.literal), style, color="tab:red", label=f"met at any look, {of}")
        left.plot(trials, share_by(null.confirmed), style, color="tab:blue", label=f"confirmed, {of}")
    left.axhline(ALPHA, color="black", linewidth=0.8)
    left.annotate(f"alpha = {ALPHA:g}", (1.1, ALPHA + 0.015), fontsize=8)
    left.set(
        xscale="log",
        xlim=(1, TRIALS),
        ylim=(0, 1),
        xlabel="trials, a look after each",
        ylabel="experiments with a false alarm by then",
    )
    left.set_title("On the threshold")
    left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0.0, 0.93))
    for rate, looks in stops.items():
        if rate > THRESHOLD:
            right.plot(trials, share_by(looks), label=f"p = {rate:g}")
    right.axhline(0.5, color="black", linewidth=0.8)
    right.set(xscale="log", xlim=(1, TRIALS), ylim=(0, 1), xlabel="trials", ylabel="experiments confirmed by then")
    right.set_title(f"Above a threshold of {THRESHOLD:g}")
    right.legend(fontsize=8, loc="upper left")
    # No date and no version inside: the same figures make the same file.
    figure.savefig(path, metadata={"Software": None})


def main() -> int:
    """Simulate, measure, print, draw; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.judging", description=__doc__)
    parser.add_argument("--experiments", type=int, default=EXPERIMENTS, help=f"of each kind ({EXPERIMENTS:,})")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="also draw a PNG; needs matplotlib")
    options = parser.parse_args()
    experiments = options.experiments
    error = math.sqrt(ALPHA * (1.0 - ALPHA) / experiments)
    begin = time.monotonic()
    goals: list[tuple[str, bool]] = []

    print(f"{experiments:,} experiments of {TRIALS:,} trials at p = p0, looked at after every trial; alpha {ALPHA}\n")
    print("criterion      met at any look   confirmed ever   interval covers p0 at all looks")
    nulls: list[Null] = []
    for rate in NULL_RATES:
        for null in at_the_threshold(rate, experiments):
            nulls.append(null)
            false = statistics.fmean(look > 0 for look in null.confirmed)
            literally = statistics.fmean(look > 0 for look in null.literal)
            print(
                f"rate {null.operator} {rate:<7g} {100 * literally:13.1f} % {100 * false:14.2f} %"
                f" {100 * (1 - null.missed):20.2f} %"
            )
            goals.append((f"alarms at {null.operator} {rate:g}", false <= ALPHA + 3 * error))
            goals.append((f"coverage at {null.operator} {rate:g}", null.missed <= ALPHA))
    print(f"goals                              <= {100 * (ALPHA + 3 * error):10.2f} %           >= 95 %\n")

    print(f"trials until confirmed, threshold {THRESHOLD:g}\n")
    print("criterion     true rate   a tenth    median   nine tenths")
    stops: dict[float, list[int]] = {}
    for operator, rates in ((">", ABOVE), ("<", BELOW)):
        for rate in rates:
            stops[rate] = looks = until_confirmed(rate, operator, experiments)
            tenth, median, most = (quantile(looks, share) for share in (0.1, 0.5, 0.9))
            print(f"rate {operator} {THRESHOLD:<7g} {rate:8g} {tenth:>9} {median:>9} {most:>13}")
    median_goal = statistics.median(look or math.inf for look in stops[2 * THRESHOLD]) <= MEDIAN_GOAL
    goals.append(("median at twice the threshold", median_goal))
    print(f"goal: a median of {MEDIAN_GOAL} at most at a true rate of {2 * THRESHOLD:g}\n")

    state, interval = microseconds()
    print(
        f"a state {state:.1f} us (goal 100), an interval {interval:.0f} us (goal 1,000);"
        f" Python {platform.python_version()}"
    )
    print("\njudging a comparison that is compiled")
    goals.append(("microseconds of a comparison", comparison.main() == 0))
    missed = [name for name, met in goals if not met]
    print("\nmissed: " + ", ".join(missed) if missed else f"\nall {len(goals)} goals met")
    print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
    if options.plot is not None:
        draw(options.plot, nulls, stops)
        print(f"drawn: {options.plot}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
