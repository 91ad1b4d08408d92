"""The alert that says what deviates in an experiment: what, since when, and how far from what was expected. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil, floor, isfinite
from typing import Any, Final

from redis_agent.alerts import Alert, AlertType, Severity, cut, short_hash
from redis_agent.clock import iso_from_ms
from redis_agent.examination import Found

# Series that a message names; those beyond are counted.
_NAMED: Final = 4
_LISTED: Final = 20
_NAME_LENGTH: Final = 100
_WHOLE_FROM: Final = 1_000


def anomaly_alert(
    news: Sequence[Found],
    *,
    experiment_id: str,
    alert_id: str,
    now: datetime,
    window_seconds: int,
    times: int = 1,
) -> Alert:
    """One alert for all that is new in an experiment's latest window.

    Args:
        news: the series, the strongest first.
        experiment_id: whose.
        alert_id: unique.
        now: the time.
        window_seconds: length of the window.
        times: how often the first of them was told within a day, this time included.
    """
    first = news[0]
    episode = first.episode
    said = "; ".join(_said(one, now, window_seconds) for one in news[:_NAMED])
    more = f"; and {len(news) - _NAMED} more" if len(news) > _NAMED else ""
    again = f"; {cut(first.name, _NAME_LENGTH)} deviates for the {times}. time within a day" if times > 1 else ""
    low, high = (_number(bound, first) for bound in first.verdict.expected)
    rising = episode.kind in ("high", "shift_up")
    return Alert(
        alert_id=alert_id,
        type=AlertType.ANOMALY,
        experiment_id=experiment_id,
        severity=Severity.MEDIUM,
        message=f"{experiment_id}: {said}{more}{again}.",
        timestamp=now,
        fingerprint=short_hash(first.key),
        details={
            "metric": first.name,
            "value": _number(first.verdict.value, first),
            "threshold": high if rising else low,
            "operator": ">" if rising else "<",
            "anomaly": episode.kind,
            "expected": [low, high],
            "since": iso_from_ms(episode.began_ms),
            "window_seconds": window_seconds,
            "score": round(episode.score, 4),
            "times": times if times > 1 else None,
            "also": [_brief(one) for one in news[1:_LISTED]] or None,
            "recommendation": "Find out what changed at that time; no criterion is decided by it.",
        },
    )


def _brief(one: Found) -> dict[str, Any]:
    """A further series in the alert's JSON."""
    return {
        "metric": cut(one.name, _NAME_LENGTH),
        "value": _number(one.verdict.value, one),
        "expected": [_number(bound, one) for bound in one.verdict.expected],
        "anomaly": one.episode.kind,
        "since": iso_from_ms(one.episode.began_ms),
    }


def _said(one: Found, now: datetime, window_seconds: int) -> str:
    """One series in words: "email_bounced: 41 in the last 10 minutes, 2 to 6 expected, since 14:20 UTC"."""
    name, episode = cut(one.name, _NAME_LENGTH), one.episode
    since = f"since {_clock_time(episode.began_ms, now)}"
    if episode.kind == "silence":
        return f"{name}: none {since}, {_range(one)} expected every {_length(window_seconds)}"
    level = {"shift_up": ", a higher level", "shift_down": ", a lower level"}.get(episode.kind, "")
    return f"{name}: {_value(one)} in the last {_length(window_seconds)}, {_range(one)} expected, {since}{level}"


def _value(one: Found) -> str:
    value = one.verdict.value
    if value is None:
        return "nothing"
    if one.kind == "rate":
        return f"{100 * value:.3g} % ({one.successes:,} of {one.trials:,})"
    return _plain(value) if one.kind == "count" else f"{_plain(value)} on average"


def _range(one: Found) -> str:
    low, high = one.verdict.expected
    if one.kind == "rate":
        return f"{100 * low:.2g} to {100 * high:.2g} %"
    if one.kind == "count":
        low, high = float(floor(low)), float(ceil(high))
    return f"{_plain(low)} to {_plain(high)}" if low < high else f"about {_plain(low)}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= _WHOLE_FROM else f"{value:.4g}"


def _number(value: float | None, one: Found) -> float | None:
    """A number as JSON has it, on the metric's own scale, without digits that say nothing."""
    if value is None or not isfinite(value):
        return None
    return float(f"{value * one.scale:.6g}")


def _clock_time(at_ms: int, now: datetime) -> str:
    """The time of the day, with the date where it is not today."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{moment:%H:%M} UTC" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M} UTC"


def _length(seconds: int) -> str:
    """The length of a window in words."""
    if seconds % 3_600 == 0:
        hours = seconds // 3_600
        return "hour" if hours == 1 else f"{hours} hours"
    minutes = seconds // 60
    return "minute" if minutes == 1 else f"{minutes} minutes"
