"""The periodic summary as a plain text: wins, concerns, what is under way, what is quiet. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis_agent.aggregate import events_total
from redis_agent.experiments import Verdict

# Lines under each heading; the rest is counted. A summary is pasted into a prompt whole.
_MAX_LINES = 10
# An experiment that has been quiet for longer than this many summary-quiet periods is no news any more.
_OLD_NEWS = 24


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


def plain_summary(subjects: Sequence[Subject], *, now_ms: int, since_ms: int, quiet_after_ms: int) -> str:
    """The summary of an interval. Its first line makes sense alone.

    Args:
        subjects: every experiment that has ever had an event.
        now_ms: the end of the interval.
        since_ms: its beginning.
        quiet_after_ms: an experiment without events for so long is quiet.
    """
    known = [s for s in subjects if s.judged]
    quiet = [s for s in known if quiet_after_ms < now_ms - s.last_event_ms < _OLD_NEWS * quiet_after_ms]
    lively = [s for s in known if now_ms - s.last_event_ms <= quiet_after_ms]
    concerns = [line for s in known for line in _met(s, "failure")]
    wins = [line for s in known for line in _met(s, "success")]
    moved = [s for s in lively if s.last_event_ms >= since_ms]
    headline = (
        f"{_count(len(moved), 'experiment')} had events in the last {_duration(now_ms - since_ms)}: "
        f"{_count(len(wins), 'success criterion', 'success criteria')} met, "
        f"{_count(len(concerns), 'failure criterion', 'failure criteria')} met, "
        f"{_count(len(quiet), 'experiment')} quiet."
    )
    lines = [headline]
    lines += _section("Wins", wins)
    lines += _section("Concerns", concerns)
    settled = {s.experiment_id for s in known if any(v.state == "met" for v in s.verdicts)}
    under_way = [s for s in lively if s.experiment_id not in settled]
    lines += _section("Under way", [_progress(s) for s in under_way])
    lines += _section(
        "Quiet",
        [f"{s.experiment_id}: no event for {_duration(now_ms - s.last_event_ms)}" for s in quiet],
    )
    return "\n".join(lines)


def _met(subject: Subject, kind: str) -> list[str]:
    return [
        f"{subject.experiment_id}: {v.reason.rstrip('.')}"
        for v in subject.verdicts
        if v.kind == kind and v.state == "met"
    ]


def _progress(subject: Subject) -> str:
    """How far an experiment is that has met nothing yet: its own words for its first open criterion."""
    events = events_total(subject.fields)
    waiting = next((v for v in subject.verdicts if v.kind == "success"), None)
    said = f"; {waiting.reason.rstrip('.')}" if waiting is not None else "; no criteria are defined"
    return f"{subject.experiment_id}: {_count(events, 'event')} so far{said}"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    shown = [f"- {line}" for line in lines[:_MAX_LINES]]
    if len(lines) > _MAX_LINES:
        shown.append(f"- and {len(lines) - _MAX_LINES} more")
    return [title, *shown]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _duration(ms: int) -> str:
    seconds = ms / 1000
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 0.95 * size:
            return _count(round(seconds / size), unit)
    return _count(max(1, round(seconds)), "second")
