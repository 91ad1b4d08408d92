"""One anomaly from its first deviating window to its end, whatever detectors noticed it."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from math import exp
from typing import Any, Final, Literal, TypeAlias

Kind: TypeAlias = Literal["high", "low", "silence", "shift_up", "shift_down"]
Phase: TypeAlias = Literal["none", "opened", "goes_on", "ended"]

# What lasts longer than six hours is a shift by then.
_LASTING_MS: Final = 21_600_000
_LASTING: Final[dict[Kind, Kind]] = {"high": "shift_up", "low": "shift_down"}
_RISING: Final = frozenset({"high", "shift_up"})

# Evidence for the end, in nats: a likelihood ratio of 1,100 for the usual level against the episode's, so that an
# episode that goes on is closed by chance once in 1,100 windows.
_ENOUGH: Final = 7.0
# One window says no more than this, so that an end takes three.
_MOST: Final = 2.4
_ROUNDING: Final = 4


@dataclass(frozen=True, slots=True)
class Episode:
    """An anomaly, as it is told.

    Attributes:
        kind: "high" and "low" last for a few windows, a shift for longer; "silence" is a low without any event.
        began_ms: start of the first window that deviated.
        peak_ms: start of the window that deviated most.
        ended_ms: end of the last window that deviated; None while it goes on.
        peak_value: of the window that deviated most.
        expected_low: lower end of the central 95 % that was expected of that window.
        expected_high: its upper end.
        score: the highest so far.
    """

    kind: Kind
    began_ms: int
    peak_ms: int
    ended_ms: int | None
    peak_value: float
    expected_low: float
    expected_high: float
    score: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one window says about its series.

    Attributes:
        score: probability that something is wrong, 1e-4 to 1; the same scale on every series.
        expected: central 95 % predictive range of the value, without what this window says.
        value: of this window; None where there was nothing to measure (no trials, no samples, an unusable window).
        episode: the one that goes on, or ended with this window; None when all is well.
        phase: "opened" is what makes an alert; "goes_on"; "ended" comes once; "none".
    """

    score: float
    expected: tuple[float, float]
    value: float | None
    episode: Episode | None
    phase: Phase


class EpisodeTracker:
    """Keeps the open episode of a series, and decides when it is over.

    The end is a sequential test (Wald 1945): the log likelihood ratio of the usual level against the episode's own,
    added up over windows and kept above zero. It needs a ratio of 1,100, in three windows at least, and the quiet must
    have lasted for the merge time; what deviates again within it belongs to the same episode.

    Args:
        merge_seconds: quiet for so long, an episode is over.
    """

    __slots__ = ("_evidence", "_quiet_since_ms", "closed", "episode", "merge_seconds")

    def __init__(self, merge_seconds: float) -> None:
        self.merge_seconds = merge_seconds
        self.episode: Episode | None = None
        self.closed: Episode | None = None
        self._evidence = 0.0
        self._quiet_since_ms = 0

    @property
    def standing(self) -> float:
        """The probability that the episode goes on: its score, less the evidence for its end."""
        if self.episode is None:
            return 0.0
        odds = self.episode.score / max(1.0 - self.episode.score, 1e-12) * exp(-self._evidence)
        return odds / (1.0 + odds)

    @property
    def rising(self) -> bool:
        """Whether the open episode is one of too much."""
        return self.episode is not None and self.episode.kind in _RISING

    def open(  # noqa: PLR0917 - what an episode begins with
        self, kind: Kind, began_ms: int, at_ms: int, value: float, expected: tuple[float, float], score: float
    ) -> Episode:
        """Begins an episode."""
        self._evidence, self._quiet_since_ms = 0.0, 0
        self.episode = Episode(kind, began_ms, at_ms, None, value, *expected, score)
        return self.episode

    def go_on(  # noqa: PLR0917 - what a window adds to an episode
        self,
        at_ms: int,
        end_ms: int,
        value: float,
        expected: tuple[float, float],
        score: float,
        normal: float,
    ) -> Phase:
        """Takes the next window into the open episode.

        Args:
            at_ms: Start of the window.
            end_ms: Its end.
            value: Its value.
            expected: Range expected of it.
            score: Of this window.
            normal: Log likelihood ratio of the usual level against the episode's.

        Returns:
            "goes_on" or "ended"; the episode that ended is in `closed`.
        """
        episode = self.episode
        if episode is None:
            return "none"
        evidence = round(max(0.0, min(self._evidence + min(normal, _MOST), 2.0 * _ENOUGH)), _ROUNDING)
        if evidence > 0.0 and self._evidence <= 0.0:
            self._quiet_since_ms = at_ms
        self._evidence = evidence
        beyond = value > episode.peak_value if self.rising else value < episode.peak_value
        if beyond:
            low, high = expected
            episode = replace(episode, peak_ms=at_ms, peak_value=value, expected_low=low, expected_high=high)
        lasting = _LASTING.get(episode.kind) if end_ms - episode.began_ms > _LASTING_MS else None
        if score > episode.score or lasting is not None:
            episode = replace(episode, score=max(score, episode.score), kind=lasting or episode.kind)
        self.episode = episode
        if evidence >= _ENOUGH and end_ms - self._quiet_since_ms >= self.merge_seconds * 1000.0:
            self.close(self._quiet_since_ms)
            return "ended"
        return "goes_on"

    def close(self, ended_ms: int) -> Episode | None:
        """Ends the episode; returns it."""
        episode, self.episode, self._evidence = self.episode, None, 0.0
        self.closed = None if episode is None else replace(episode, ended_ms=max(ended_ms, episode.began_ms))
        return self.closed

    def state(self) -> list[Any]:
        """What is to be kept."""
        if self.episode is None:
            return []
        return [self._evidence, self._quiet_since_ms, *astuple(self.episode)]

    def restore(self, state: list[Any]) -> None:
        """Goes on from what was kept."""
        if state:
            self._evidence, self._quiet_since_ms, *rest = state
            self.episode = Episode(*rest)
