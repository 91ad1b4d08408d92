"""Examining one experiment's closed windows: its series, what deviates in them, and what is to be told. Pure.

Every event name is a series of counts, every gauge one of values, and every metric with a formula over counts one
of rates. What is known of a series is kept as JSON between windows, so that whoever examines the next window
continues exactly.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from pydantic_core import from_json, to_json

from redis_agent.anomaly import CountSeries, Episode, GaugeSeries, RateSeries, Verdict
from redis_agent.criteria import Metrics, MetricSpec
from redis_agent.events import ERROR_EVENT
from redis_agent.lifecycle import DAY_MS, Policy
from redis_agent.windows import GaugeSums, WindowSums

SeriesKind: TypeAlias = Literal["count", "rate", "gauge"]
Series: TypeAlias = CountSeries | RateSeries | GaugeSeries

# Fields of the hash that are no series.
UPTO: Final = "upto"
TOLD: Final = "told"
_HOUR_MS: Final = 3_600_000
_MOST_DOUBLINGS: Final = 10
# A series without a value for so long is forgotten.
_FORGOTTEN_S: Final = 28 * 86_400


@dataclass(frozen=True, slots=True)
class Found:
    """A series in which something goes on.

    Attributes:
        kind: what the series is made of.
        name: of the event, the metric or the gauge.
        verdict: on the last window; it has an episode.
        successes, trials: of a rate in this window.
        scale: what a ratio of 1 reads as, for a rate.
    """

    kind: SeriesKind
    name: str
    verdict: Verdict
    successes: int = 0
    trials: int = 0
    scale: float = 1.0

    @property
    def key(self) -> str:
        """Tells the series of an experiment apart."""
        return f"{self.kind}:{self.name}"

    @property
    def episode(self) -> Episode:
        """What goes on."""
        assert self.verdict.episode is not None  # noqa: S101 - for the type; it is only made with one
        return self.verdict.episode


@dataclass(slots=True)
class Told:
    """What was told of a series' anomalies.

    Attributes:
        times: how often lately; the wait before the next doubles with it.
        at_ms: when last.
        open: whether the episode that goes on was told.
    """

    times: int
    at_ms: int
    open: bool


@dataclass(slots=True)
class _Watched:
    """A series with its memory."""

    series: Series
    seen_s: int
    changed: bool = False


@dataclass(slots=True)
class Examination:
    """One experiment's series.

    Args:
        kept: the hash, as it was read.
        specs: the experiment's metrics by name; those with a formula over counts are rates.
        max_series: how many series are watched, at most.
    """

    kept: Mapping[str, str]
    specs: Mapping[str, MetricSpec]
    max_series: int
    told: dict[str, Told] = field(init=False)
    left_out: int = field(init=False, default=0)
    _watched: dict[str, _Watched] = field(init=False, default_factory=dict)
    _gone: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Read what was kept; what somebody else made of it begins anew."""
        self.told = _read_told(self.kept.get(TOLD, ""))
        for key, text in self.kept.items():
            kind, separator, _ = key.partition(":")
            if separator and kind in _CLASSES:
                watched = _restored(kind, text)
                if watched is None:
                    self._gone.append(key)
                else:
                    self._watched[key] = watched
        for key, told in self.told.items():
            told.open = told.open and key in self._watched

    def examine(self, start_s: int, seconds: int, sums: WindowSums) -> list[Found]:
        """Take the next window.

        Args:
            start_s: its beginning, in seconds since the epoch; later than that of any before.
            seconds: its length.
            sums: what it adds up to.

        Returns:
            the series in which something goes on with this window.
        """
        found: list[Found] = []
        for kind, name, args, seen in self._values(sums):
            watched = self._watch(kind, name, start_s, seen=seen)
            if watched is None:
                continue
            verdict = watched.series.examine(1000 * start_s, float(seconds), *args)
            watched.changed = True
            if seen:
                watched.seen_s = start_s
            if verdict.phase in ("opened", "goes_on") and verdict.episode is not None:
                found.append(self._found(kind, name, verdict, args))
            elif verdict.phase == "ended" and (told := self.told.get(f"{kind}:{name}")) is not None:
                told.open = False
        self._forget(start_s)
        return found

    def news(self, found: Sequence[Found], now_ms: int, policy: Policy) -> list[Found]:
        """What of it is to be told, the strongest first.

        Counts that fall while another that fell was told are not: emails that are not sent do not bounce either. A rate
        is, whatever its counts do, and so is what rises.
        """
        due = [one for one in found if _is_due(self.told.get(one.key), now_ms, policy)]
        if any(_falls(one) and one.key in self.told and self.told[one.key].open for one in found):
            due = [one for one in due if not _falls(one)]
        return sorted(due, key=lambda one: (-one.episode.score, one.kind != "rate", one.name))

    def with_told(self, news: Sequence[Found], now_ms: int) -> str:
        """The field `told` when this is told, too."""
        told = {key: Told(one.times, one.at_ms, one.open) for key, one in self.told.items()}
        for one in news:
            known = told.get(one.key)
            told[one.key] = Told(1 if known is None else known.times + 1, now_ms, open=True)
        return _dump_told(told, now_ms)

    def times(self, one: Found) -> int:
        """How often this series is told lately when it is told now."""
        known = self.told.get(one.key)
        return 1 if known is None else known.times + 1

    def changes(self, now_ms: int) -> tuple[dict[str, str], list[str]]:
        """What must change in the hash: fields to set, and fields to remove."""
        set_to = {
            # Written and read a hundred thousand times an hour: this takes a sixth of json's time, and loses no digit.
            key: to_json([watched.seen_s, watched.series.state()]).decode()
            for key, watched in self._watched.items()
            if watched.changed
        }
        told = _dump_told(self.told, now_ms)
        if told != self.kept.get(TOLD, ""):
            set_to[TOLD] = told
        return set_to, self._gone

    def _values(self, sums: WindowSums) -> Iterator[tuple[SeriesKind, str, tuple[Any, ...], bool]]:
        """Each series with what the window has of it, and whether that is anything."""
        known = {key.partition(":")[2] for key in self._watched if key.startswith("count:")}
        counts = {name: sums.counts.get(name, 0) for name in sorted(known | sums.counts.keys()) if name != ERROR_EVENT}
        for name, count in counts.items():
            yield "count", name, (count,), name in sums.counts
        for name in sorted(sums.gauges):
            yield "gauge", name, _gauge(sums.gauges[name]), True
        yield from self._rates(counts)

    def _rates(self, counts: Mapping[str, int]) -> Iterator[tuple[SeriesKind, str, tuple[Any, ...], bool]]:
        """Metrics that are counts over counts within the window."""
        formulas = [spec for spec in self.specs.values() if spec.formula is not None]
        if not formulas or not any(counts.values()):
            return
        fields = {f"{name}_count": str(count) for name, count in counts.items()}
        metrics = Metrics.from_hash({**fields, "events_total": "1"}, self.specs)
        for spec in formulas:
            reading = metrics.computed(spec.name)
            if reading is not None and reading.kind == "rate" and reading.trials and reading.successes is not None:
                yield "rate", spec.name, (reading.successes, reading.trials), True

    def _watch(self, kind: SeriesKind, name: str, start_s: int, *, seen: bool) -> _Watched | None:
        """The series; a new one if there is something of it, and room."""
        key = f"{kind}:{name}"
        watched = self._watched.get(key)
        if watched is None and seen:
            if len(self._watched) >= self.max_series:
                self.left_out += 1
                return None
            watched = self._watched[key] = _Watched(_CLASSES[kind](), start_s)
            if key in self._gone:
                self._gone.remove(key)
        return watched

    def _found(self, kind: SeriesKind, name: str, verdict: Verdict, args: tuple[Any, ...]) -> Found:
        if kind != "rate":
            return Found(kind, name, verdict)
        successes, trials = args
        return Found(kind, name, verdict, successes, trials, self.specs[name].scale)

    def _forget(self, start_s: int) -> None:
        """Drop series that have had no value for long."""
        for key in [key for key, watched in self._watched.items() if start_s - watched.seen_s > _FORGOTTEN_S]:
            del self._watched[key]
            self._gone.append(key)
            self.told.pop(key, None)


_CLASSES: Final[dict[str, type[Series]]] = {"count": CountSeries, "rate": RateSeries, "gauge": GaugeSeries}


def _gauge(sums: GaugeSums) -> tuple[float, float, float, int]:
    return sums.mean, sums.low, sums.high, sums.samples


def _restored(kind: str, text: str) -> _Watched | None:
    try:
        seen_s, state = from_json(text)
        return _Watched(_CLASSES[kind].restore(state), int(seen_s))
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return None


def _falls(one: Found) -> bool:
    """Whether it is a count with less than was expected."""
    return one.kind == "count" and one.episode.kind in ("low", "silence", "shift_down")


def _is_due(told: Told | None, now_ms: int, policy: Policy) -> bool:
    """Whether an episode is to be told: not twice, and not too soon after the last one of its series."""
    if told is None:
        return True
    # A time of telling that lies ahead is of another clock.
    return not told.open and not 0 <= now_ms - told.at_ms < wait_ms(told.times, policy)


def wait_ms(times: int, policy: Policy) -> int:
    """How long a series rests that was told so often within a day: an hour, and each time twice as long, up to a day.

    Not less than anything else would rest: an anomaly is about what is unusual, and what keeps coming is not.
    """
    return max(policy.wait_ms(times), min(_HOUR_MS << min(times - 1, _MOST_DOUBLINGS), DAY_MS))


def _read_told(text: str) -> dict[str, Told]:
    try:
        kept = json.loads(text)
        return {key: Told(int(times), int(at_ms), bool(is_open)) for key, (times, at_ms, is_open) in kept.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _dump_told(told: Mapping[str, Told], now_ms: int) -> str:
    """What is worth keeping of it: episodes that go on, and those of the last day."""
    kept = {key: [t.times, t.at_ms, int(t.open)] for key, t in told.items() if t.open or now_ms - t.at_ms < DAY_MS}
    return json.dumps(kept, separators=(",", ":")) if kept else ""
