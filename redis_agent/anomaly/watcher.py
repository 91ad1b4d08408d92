"""What the series of every kind share: their clock, their one episode, their detectors' histories, their state."""

from __future__ import annotations

from math import exp, log
from typing import Any, ClassVar, Final, Self

from redis_agent.anomaly.calibration import TailHistory
from redis_agent.anomaly.episode import EpisodeTracker, Verdict
from redis_agent.anomaly.score import PRIOR, score_of
from redis_agent.anomaly.shift import Excursion
from redis_agent.anomaly.window import Window

DAY: Final = 86_400.0
DEVIATION: Final = 3.0
"""A surprise beyond this (p = 5 %) is a deviation."""

_DAY_MS: Final = 86_400_000
# No window is shorter or longer, in seconds.
_SHORTEST: Final = 0.001
_LONGEST: Final = 7 * DAY
# The prior is meant for windows of ten minutes: shorter ones are looked at more often, and each counts for less.
_WINDOW: Final = 600.0
# A surprise without any limit would be one of floating point.
_MOST_SURPRISING: Final = 690.0
_SMALLEST: Final = 1e-300
# A shift must have lasted for so many windows, and so many seconds.
_SHIFT_WINDOWS: Final = 3
_SHIFT_SECONDS: Final = 1800.0


def surprise_of(p: float) -> float:
    """-ln p, limited."""
    return -log(p) if p > _SMALLEST else _MOST_SURPRISING


class Watcher:
    """A series whose detectors share one episode and one way to be kept.

    Args:
        shares: What each detector may spend of the chance of a false alarm; together 1 (Bonferroni).
        up: The CUSUM for a level that rose.
        down: The CUSUM for a level that fell.
        merge_seconds: What comes again within it belongs to the same episode.
        adopt_seconds: An episode that lasts so long is what is usual from then on.
    """

    _VERSION: ClassVar[int] = 1
    _NUMBERS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, shares: dict[str, float], up: Excursion, down: Excursion, *, merge_seconds: float, adopt_seconds: float
    ) -> None:
        self._log_shares = {name: log(share) for name, share in shares.items()}
        self._histories = {name: TailHistory(DEVIATION) for name in shares}
        self._up, self._down = up, down
        self._tracker = EpisodeTracker(merge_seconds)
        self._adopt_ms = adopt_seconds * 1000.0
        self._end_ms = -1
        self._run_ms = -1

    def _enter(self, start_ms: int, seconds: float) -> Window | None:
        """The window, or None when it cannot be one: no length, or begun before the last one ended."""
        if not _SHORTEST <= seconds <= _LONGEST or start_ms < max(self._end_ms, 0):
            return None
        last_end_ms = self._end_ms
        end_ms = start_ms + int(seconds * 1000.0)
        gap = 0.0
        if last_end_ms >= 0:
            gap = (start_ms - last_end_ms) / 1000.0
            if start_ms // _DAY_MS != last_end_ms // _DAY_MS:
                for history in self._histories.values():
                    history.fade()
        self._end_ms = end_ms
        return Window(start_ms, end_ms, seconds, gap)

    def _unmeasured(self) -> Verdict:
        """For a window that says nothing."""
        episode = self._tracker.episode
        return Verdict(PRIOR, (0.0, 0.0), None, episode, "goes_on" if episode is not None else "none")

    def _deviates(self, window: Window, surprise: float) -> None:
        """Remembers since when windows deviate without a break."""
        if surprise < DEVIATION:
            self._run_ms = -1
        elif self._run_ms < 0:
            self._run_ms = window.start_ms

    def _strongest(self, found: dict[str, float], window: Window) -> tuple[str, float]:
        """The detector that is most surprised, for its share and by its history, and the score."""
        best, strongest = 0.0, ""
        looks = log(window.seconds / _WINDOW) if window.seconds < _WINDOW else 0.0
        for name, surprise in found.items():
            if surprise <= best:
                continue
            weighed = self._histories[name].calibrated(surprise) + self._log_shares[name] + looks
            if weighed > best:
                best, strongest = weighed, name
        return strongest, score_of(exp(-best)) if best > 1.0 else PRIOR

    @staticmethod
    def _lasts(excursion: Excursion, window: Window) -> bool:
        windows = excursion.windows
        return windows >= _SHIFT_WINDOWS and windows * window.seconds >= _SHIFT_SECONDS

    def _adoptable(self, window: Window) -> bool:
        episode = self._tracker.episode
        return episode is not None and window.end_ms - episode.began_ms >= self._adopt_ms

    def _forget_evidence(self) -> None:
        """Nothing is carried over what was not watched, nor from an episode into the time after it."""
        self._up.reset()
        self._down.reset()
        self._run_ms = -1

    def state(self) -> list[Any]:
        """Everything that the next window needs, as plain JSON; `restore` goes on from it exactly."""
        return [
            self._VERSION,
            self._end_ms,
            self._run_ms,
            [_plain(getattr(self, name)) for name in self._NUMBERS],
            [number for history in self._histories.values() for number in history.state()],
            self._up.state(),
            self._down.state(),
            self._tracker.state(),
            self._extra_state(),
        ]

    @classmethod
    def restore(cls, state: list[Any], **settings: Any) -> Self:
        """A series that goes on where the one whose state it was stopped.

        Args:
            state: What `state` returned, before or after JSON.
            settings: As for the constructor; they are not kept.

        Raises:
            ValueError: The state is of another version, or not a state.
        """
        series = cls(**settings)
        if not state or state[0] != cls._VERSION:
            raise ValueError("not a state of this version")
        try:
            series._take(state)
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError("not a state of this version") from error
        return series

    def _take(self, state: list[Any]) -> None:
        _, self._end_ms, self._run_ms, numbers, histories, up, down, tracker, extra = state
        for name, number in zip(self._NUMBERS, numbers, strict=True):
            setattr(self, name, number)
        for index, history in enumerate(self._histories.values()):
            history.restore(histories[2 * index : 2 * index + 2])
        self._up.restore(up)
        self._down.restore(down)
        self._tracker.restore(tracker)
        self._restore_extra(extra)

    def _extra_state(self) -> list[Any]:
        """What a kind of series keeps besides numbers."""
        return []

    def _restore_extra(self, state: list[Any]) -> None:
        """Takes back what `_extra_state` gave."""


def _plain(number: float) -> float | int:
    """Whole numbers without ".0": the state is kept as text."""
    return int(number) if number == int(number) else number
