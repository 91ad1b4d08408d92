"""Summaries in plain words: wins, concerns, what changed, what is under way, what is quiet. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from redis_agent.aggregate import events_total
from redis_agent.alerts import AlertType, cut
from redis_agent.experiments import Verdict, without_repeats

# Lines under each heading; the rest is counted. A summary is pasted into a prompt whole.
MAX_LINES: Final = 10
_LINE: Final = 300
# An experiment that has been quiet for longer than this many summary-quiet periods is no news any more.
_OLD_NEWS: Final = 24
_ID: Final = 100
_CRITERION: Final = 150
_HEADINGS: Final = ("Wins", "Concerns", "Changed", "Under way", "Quiet")


@dataclass(frozen=True, slots=True)
class Subject:
    """One experiment in a summary.

    Attributes:
        experiment_id: which.
        last_event_ms: receipt of its last event.
        judged: False for an archived or failed one, which is not spoken of.
        fields: its aggregate hash.
        verdicts: its criteria as judged now.
    """

    experiment_id: str
    last_event_ms: int
    judged: bool
    fields: Mapping[str, str]
    verdicts: Sequence[Verdict]


@dataclass(frozen=True, slots=True)
class Digest:
    """What a summary says; each line names its experiment and makes sense alone.

    Attributes:
        headline: all in one sentence.
        wins: criteria of success that are met.
        concerns: criteria of failure that are met, and goals whose deadline has passed.
        changes: what was told since the last summary.
        under_way: experiments that have met nothing yet.
        quiet: experiments without events.
        experiments: how many it covers.
    """

    headline: str
    wins: tuple[str, ...] = ()
    concerns: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    under_way: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    experiments: int = 0

    @property
    def sections(self) -> dict[str, tuple[str, ...]]:
        """Heading -> lines."""
        return dict(zip(_HEADINGS, (self.wins, self.concerns, self.changes, self.under_way, self.quiet), strict=True))

    def text(self) -> str:
        """For people and prompts; its first line makes sense alone."""
        return "\n".join(
            [self.headline, *(line for title, found in self.sections.items() for line in _section(title, found))]
        )

    def as_json(self) -> dict[str, Any]:
        """For programs; at most `MAX_LINES` of each kind, and how many more there are."""
        lines = {
            "wins": self.wins,
            "concerns": self.concerns,
            "changes": self.changes,
            "under_way": self.under_way,
            "quiet": self.quiet,
        }
        more = {name: len(found) - MAX_LINES for name, found in lines.items() if len(found) > MAX_LINES}
        shown = {name: list(found[:MAX_LINES]) for name, found in lines.items()}
        return {"headline": self.headline, **shown, **({"left_out": more} if more else {})}


def digest(
    subjects: Sequence[Subject],
    told: Sequence[Mapping[str, Any]] = (),
    *,
    now_ms: int,
    since_ms: int,
    quiet_after_ms: int,
) -> Digest:
    """The summary of an interval.

    Args:
        subjects: every experiment that has ever had an event.
        told: the alerts of the interval as JSON objects, newest first.
        now_ms: the end of the interval.
        since_ms: its beginning.
        quiet_after_ms: an experiment without events for so long is quiet.
    """
    known = [s for s in subjects if s.judged]
    quiet = [s for s in known if quiet_after_ms < now_ms - s.last_event_ms < _OLD_NEWS * quiet_after_ms]
    lively = [s for s in known if now_ms - s.last_event_ms <= quiet_after_ms]
    concerns = [line for s in known for line in _met(s, "failure")]
    missed = [line for s in known for line in _missed(s)]
    wins = [line for s in known for line in _met(s, "success")]
    moved = [s for s in known if s.last_event_ms >= since_ms]
    headline = (
        f"{_count(len(moved), 'experiment')} had events in the last {_duration(now_ms - since_ms).removeprefix('1 ')}: "
        f"{_count(len(wins), 'success criterion', 'success criteria')} met, "
        f"{_count(len(concerns), 'failure criterion', 'failure criteria')} met, "
        f"{_count(len(quiet), 'experiment')} quiet."
    )
    settled = {s.experiment_id for s in known if any(v.state == "met" or v.missed for v in s.verdicts)}
    return Digest(
        headline=headline,
        wins=_lines(wins),
        concerns=_lines([*concerns, *missed]),
        changes=_lines(_changes(told)),
        under_way=_lines(_progress(s) for s in lively if s.experiment_id not in settled),
        quiet=_lines(f"{s.experiment_id}: no event for {_duration(now_ms - s.last_event_ms)}" for s in quiet),
        experiments=len(subjects),
    )


def _met(subject: Subject, kind: str) -> list[str]:
    return [
        f"{subject.experiment_id}: {v.finding}"
        for v in without_repeats(subject.verdicts)
        if v.kind == kind and v.state == "met"
    ]


def _missed(subject: Subject) -> list[str]:
    return [f"{subject.experiment_id}: {v.finding}; its deadline has passed" for v in subject.verdicts if v.missed]


def _progress(subject: Subject) -> str:
    """How far an experiment is that has met nothing yet: its own words for its first open criterion."""
    events = events_total(subject.fields)
    waiting = next((v for v in subject.verdicts if v.kind == "success"), None)
    said = f"; {waiting.finding}" if waiting is not None else "; no criteria are defined"
    return f"{subject.experiment_id}: {_count(events, 'event')} so far{said}"


# What changed --------------------------------------------------------------------------------------------------

_ORDER: Final = (
    AlertType.FAILURE, AlertType.ANOMALY, AlertType.ERROR, AlertType.SUCCESS, AlertType.COMPLETED, AlertType.CLEARED,
)  # fmt: skip


def _changes(told: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """What was told in the interval: what is worst first, then in the order in which it was told; each thing once."""
    of: dict[str, list[Mapping[str, Any]]] = {kind.value: [] for kind in _ORDER}
    for alert in reversed(told):
        kind = alert.get("type")
        if isinstance(kind, str) and kind in of and not alert.get("repeated"):
            of[kind].append(alert)
    for kind, alerts in of.items():
        if kind == AlertType.ERROR:
            counts = Counter(_whose(alert) for alert in alerts)
            yield from (f"{who}: {_count(count, 'error')} told" for who, count in counts.items())
        else:
            # An early sign that was confirmed in the same interval is one change.
            yield from {_what(alert): _change(alert) for alert in alerts}.values()


def _what(alert: Mapping[str, Any]) -> tuple[str, str, str]:
    about = alert.get("criterion") or alert.get("metric") or ""
    return _whose(alert), str(alert.get("type")), str(about)


def _change(alert: Mapping[str, Any]) -> str:
    kind, when = alert.get("type"), _time(alert)
    criterion = cut(str(alert.get("criterion", "")), _CRITERION)
    if kind in (AlertType.FAILURE, AlertType.SUCCESS):
        verb = "looked" if alert.get("evidence") == "early" else "was"
        noun = "failure" if kind == AlertType.FAILURE else "success"
        comes = ", and keeps coming and going" if alert.get("flapping") else ""
        return f"{_whose(alert)}: the {noun} criterion ({criterion}) {verb} met{when}{comes}"
    if kind == AlertType.CLEARED:
        return f"{_whose(alert)}: the failure criterion ({criterion}) was cleared{when}"
    said = str(alert.get("message", "")).removeprefix(f"{alert.get('experiment_id')}: ")
    first = said.partition("; ")[0] if kind == AlertType.ANOMALY else ". ".join(said.split(". ")[:2])
    return f"{_whose(alert)}: {cut(first, _CRITERION).rstrip('.')}"


def _whose(alert: Mapping[str, Any]) -> str:
    return cut(str(alert.get("experiment_id", "?")), _ID)


def _time(alert: Mapping[str, Any]) -> str:
    try:
        moment = datetime.fromisoformat(str(alert.get("timestamp")))
    except ValueError:
        return ""
    return f" at {moment:%H:%M} UTC"


# Words ---------------------------------------------------------------------------------------------------------


def _lines(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(cut(line, _LINE) for line in lines)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    shown = [f"- {line}" for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        shown.append(f"- and {len(lines) - MAX_LINES} more")
    return [title, *shown]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _duration(ms: int) -> str:
    seconds = ms / 1000
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 0.95 * size:
            return _count(round(seconds / size), unit)
    return _count(max(1, round(seconds)), "second")
