"""When a criterion is told: inactive, early, confirmed, cleared. Pure: the time comes in, a reason goes out.

A criterion that rises is told: once as early, at once again when it is confirmed. While it is confirmed it is told
again when its wait is over and events have come since; each time the wait grows by the backoff, up to a day. When it
holds no longer it is cleared, but what was told is remembered, so that coming and going does not begin the wait anew.
Only when it has been cleared for a whole day is it forgotten, and a new crossing is the first again.

Three rises within a day are flapping. That is told once, when the wait allows it; after that nothing more is told
until the criterion has held without a break for as long as its wait, and for an hour at least.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

DAY_MS: Final = 86_400_000
# The wait between two alerts about what lasts grows to this, or to the cooldown where that is longer.
MAX_WAIT_MS: Final = DAY_MS
# Cleared for so long, a crossing is forgotten.
CALM_MS: Final = DAY_MS
# So many rises within so long are flapping.
FLAPS: Final = 3
FLAP_WINDOW_MS: Final = DAY_MS
# What flapped must hold at least so long before it is believed again.
SETTLED_MS: Final = 3_600_000
# A worker may judge an aggregate a moment after another judged a newer one; beyond it fewer events are a new start.
_LATE_MS: Final = 60_000
# A longer text is none that the agent wrote, and not remembered.
_REMEMBERED_LENGTH: Final = 2_000
# Large enough for any wait to have reached its limit, small enough for a float.
_MAX_EXPONENT: Final = 64


class Level(StrEnum):
    """Where a criterion stands; inactive is what has no state."""

    INACTIVE = "inactive"
    CLEARED = "cleared"
    EARLY = "early"
    CONFIRMED = "confirmed"


_ACTIVE: Final = frozenset({Level.EARLY, Level.CONFIRMED})


class Reason(StrEnum):
    """Why a criterion is told, or not."""

    # Told.
    ROSE = "rose"
    LASTS = "lasts"
    FLAPS = "flaps"
    SETTLED = "settled"
    CLEARED = "cleared"
    # Not told.
    UNCHANGED = "unchanged"
    OLDER = "an older aggregate"
    OVER = "no longer met"
    FORGOTTEN = "forgotten"
    EARLY_IS_SILENT = "early ones are not told"
    TOLD_AS_EARLY = "told as early before"
    WEAKER = "confirmed before, early now"
    WAITS = "the wait runs"
    NO_NEWS = "no event since it was told"
    FLAPPING = "flapping was told"


_TELLING: Final = frozenset({Reason.ROSE, Reason.LASTS, Reason.FLAPS, Reason.SETTLED, Reason.CLEARED})


@dataclass(frozen=True, slots=True)
class CriterionState:
    """What is remembered of a criterion.

    Attributes:
        level: where it stands.
        since_ms: since when it holds, or is cleared.
        events: of the experiment when that began.
        rises: when it last rose, at most `FLAPS` times.
        told: how often it was told as confirmed.
        told_level: the highest level it was told at; inactive if never.
        told_ms: when it was last told.
        told_events: of the experiment at that time.
        flapping: whether it was told as flapping, and has not settled since.
        open: whether it was told, and not told as cleared since.
        alert_id: of what was last told.
    """

    level: Level = Level.INACTIVE
    since_ms: int = 0
    events: int = 0
    rises: tuple[int, ...] = ()
    told: int = 0
    told_level: Level = Level.INACTIVE
    told_ms: int = 0
    told_events: int = 0
    flapping: bool = False
    open: bool = False
    alert_id: str = ""

    @property
    def active(self) -> bool:
        """Whether the criterion holds."""
        return self.level in _ACTIVE

    def dumps(self) -> str:
        """The JSON text that is kept; "" for what needs not be remembered."""
        return "" if self == CriterionState() else json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def loads(cls, text: bytes | str | None) -> "CriterionState":
        """Reads what is kept; what cannot be read counts as nothing, and is written anew."""
        if not text:
            return _NOTHING
        return _loaded(text) if len(text) <= _REMEMBERED_LENGTH else _loaded.__wrapped__(text)

    @classmethod
    def _of(cls, kept: Mapping[str, Any]) -> "CriterionState":
        numbers = {name: int(kept.get(name, 0)) for name in ("since_ms", "events", "told", "told_ms", "told_events")}
        return cls(
            level=Level(kept.get("level", Level.INACTIVE)),
            told_level=Level(kept.get("told_level", Level.INACTIVE)),
            rises=tuple(map(int, kept.get("rises", ())))[-FLAPS:],
            flapping=kept.get("flapping") is True,
            open=kept.get("open") is True,
            alert_id=str(kept.get("alert_id", "")),
            **numbers,
        )


_NOTHING: Final = CriterionState()


@lru_cache(maxsize=2_000)
def _loaded(text: bytes | str) -> CriterionState:
    """The same text is read with each judgement, and changes with few of them."""
    try:
        kept: Any = json.loads(text)
        return CriterionState._of(kept) if isinstance(kept, Mapping) else _NOTHING  # noqa: SLF001 - its other half
    except (ValueError, TypeError, OverflowError, RecursionError):
        return _NOTHING


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that decide.

    Attributes:
        cooldown_ms: the first wait.
        backoff: by what each further wait is longer; 1 keeps it.
        early: whether early crossings are told.
    """

    cooldown_ms: int
    backoff: float
    early: bool

    def wait_ms(self, told: int) -> int:
        """The wait after a criterion was told for the so-manieth time."""
        grown = self.cooldown_ms * self.backoff ** min(max(told - 1, 0), _MAX_EXPONENT)
        return int(min(grown, max(MAX_WAIT_MS, self.cooldown_ms)))

    @property
    def early_wait_ms(self) -> int:
        """The cooldown of an early sign, which is told once: whatever the one of what is sure, a day at least."""
        return max(DAY_MS, self.cooldown_ms)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a criterion.

    Attributes:
        reason: why.
        held: the state to keep when it is not told.
        told: the state to keep when it is; its `alert_id` is still to be set.
        wait_ms: the cooldown that telling starts.
    """

    reason: Reason
    held: CriterionState
    told: CriterionState
    wait_ms: int = 0

    @property
    def tell(self) -> bool:
        """Whether it is to be told."""
        return self.reason in _TELLING


def decide(
    state: CriterionState, seen: Level, *, now_ms: int, events: int, policy: Policy, tell_cleared: bool = False
) -> Decision:
    """Decides about a criterion that was judged.

    Args:
        state: what is remembered.
        seen: inactive if the criterion is not met, else early or confirmed. What is unknown decides nothing: then do
            not ask.
        now_ms: the time.
        events: of the experiment, in the aggregate that was judged.
        policy: the settings.
        tell_cleared: whether it is told that the criterion holds no longer.
    """
    if events < state.events and 0 <= now_ms - state.since_ms < _LATE_MS:
        return _quiet(Reason.OLDER, state)
    if seen not in _ACTIVE:
        return _over(state, now_ms=now_ms, events=events, policy=policy, tell_cleared=tell_cleared)
    if state.level is Level.CLEARED and now_ms - state.since_ms >= CALM_MS:
        state = CriterionState()
    if not state.active:
        rises = (*state.rises, now_ms)[-FLAPS:]
        state = replace(state, level=seen, since_ms=now_ms, events=events, rises=rises)
    elif seen is Level.EARLY and state.level is Level.CONFIRMED:
        return _quiet(Reason.WEAKER, state)
    else:
        state = replace(state, level=seen)
    reason = _reason(state, now_ms=now_ms, events=events, policy=policy)
    if reason not in _TELLING:
        return _quiet(reason, state)
    sure = state.level is Level.CONFIRMED
    told = replace(
        state,
        told=state.told + sure,
        told_level=state.level,
        told_ms=now_ms,
        told_events=events,
        flapping=reason is Reason.FLAPS,
        open=True,
        rises=() if reason in (Reason.FLAPS, Reason.SETTLED) else state.rises,
    )
    return Decision(reason, state, told, policy.wait_ms(told.told) if sure else policy.early_wait_ms)


def inhibits_anomalies(failures: Iterable[CriterionState]) -> bool:
    """Whether an experiment's anomalies are muted: while one of its failure criteria holds, and was told.

    Args:
        failures: the states of its criteria of failure.
    """
    return any(state.active and state.open for state in failures)


def _over(state: CriterionState, *, now_ms: int, events: int, policy: Policy, tell_cleared: bool) -> Decision:
    """What holds no longer; it is told as cleared once for each time that it was told, and not while it flaps."""
    if state.active:
        cleared = replace(state, level=Level.CLEARED, since_ms=now_ms, events=events)
        if tell_cleared and state.open and not state.flapping:
            return Decision(Reason.CLEARED, cleared, replace(cleared, open=False), policy.cooldown_ms)
        return _quiet(Reason.OVER, cleared)
    if state.level is Level.CLEARED and now_ms - state.since_ms >= CALM_MS:
        return _quiet(Reason.FORGOTTEN, CriterionState())
    return _quiet(Reason.UNCHANGED, state)


def _reason(state: CriterionState, *, now_ms: int, events: int, policy: Policy) -> Reason:
    """Whether to tell what holds."""
    if state.level is Level.EARLY:
        if not policy.early:
            return Reason.EARLY_IS_SILENT
        return Reason.ROSE if state.told_level is Level.INACTIVE else Reason.TOLD_AS_EARLY
    if state.told_level is not Level.CONFIRMED:
        return Reason.ROSE
    wait_ms = policy.wait_ms(state.told)
    # A time of telling that lies ahead is of another clock: the cooldown in Redis decides then.
    if 0 <= now_ms - state.told_ms < wait_ms:
        return Reason.WAITS
    rose = state.since_ms > state.told_ms
    # Fewer are news, too: an aggregate that was deleted begins anew.
    if not rose and events == state.told_events:
        return Reason.NO_NEWS
    if state.flapping:
        return Reason.SETTLED if now_ms - state.since_ms >= max(wait_ms, SETTLED_MS) else Reason.FLAPPING
    if len(state.rises) == FLAPS and now_ms - state.rises[0] <= FLAP_WINDOW_MS:
        return Reason.FLAPS
    return Reason.ROSE if rose else Reason.LASTS


def _quiet(reason: Reason, state: CriterionState) -> Decision:
    return Decision(reason, state, state)
