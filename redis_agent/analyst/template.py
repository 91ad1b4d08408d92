"""The analysis in plain words, without any model: status, key metric, one sentence, and what to do about it. Pure.

It recommends only what the data supports: an early sign is waited out, an anomaly is looked into, and nothing is
stopped that no criterion of failure speaks against.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis_agent.alerts import AlertType, cut
from redis_agent.analyst.facts import CriterionFact, Facts, MetricFact, percent

Status = Literal["on_track", "at_risk", "failing", "succeeded"]

NO_ACTION: Final = "none"
NO_METRIC: Final = "none"
_MISSED: Final = "Decide whether it goes on: what it was to reach by its deadline was not reached."
_INSIGHT: Final = 600
# Rates of two spans are compared from so many trials in each, counts from so many events in one.
_TRIALS: Final = 20
_EVENTS: Final = 10
# A change by less than this share is none that is worth a word.
_CHANGE: Final = 0.1

_MET: Final = {">": "above", ">=": "at or above", "<": "below", "<=": "at or below"}
_NOT_MET: Final = {">": "not above", ">=": "below", "<": "not below", "<=": "above"}
# What a deviation is called, and whether the metric went up.
_DEVIATIONS: Final = {"high": True, "shift_up": True, "low": False, "shift_down": False, "silence": False}


@dataclass(frozen=True, slots=True)
class Analysis:
    """What an experiment's state, or an alert about it, means.

    Attributes:
        status: how the experiment stands.
        key_metric: what says most; "none" where there is none.
        insight: one sentence.
        action: what to do; "none" where the data supports nothing.
    """

    status: Status
    key_metric: str
    insight: str
    action: str


def analyse(facts: Facts) -> Analysis:
    """The analysis of an experiment, or of the alert that the facts name."""
    alert = facts.alert or {}
    status = _status(facts, alert)
    key = _key(facts, alert)
    said = "; ".join(_sentence(facts, alert, key))
    return Analysis(
        status=status,
        key_metric=_key_metric(facts, alert, key),
        insight=cut(said, _INSIGHT - 1).rstrip(".") + ".",
        action=_action(facts, alert, status, key),
    )


# Status --------------------------------------------------------------------------------------------------------


def _status(facts: Facts, alert: Mapping[str, Any]) -> Status:
    """What the criteria say; then what the alert says that is about something else."""
    kind = alert.get("type")
    final = alert.get("final")
    if isinstance(final, Mapping):
        return _final_status(final)
    if facts.count("failure", "met"):
        return "failing"
    if kind == AlertType.FAILURE:
        # Told as met, and not met any more, unless nobody knows the criteria.
        return "failing" if not facts.tally and alert.get("evidence") != "early" else "at_risk"
    if facts.count("failure", "early") or (kind == AlertType.ANOMALY and not _is_good(facts, alert)):
        return "at_risk"
    if facts.count("success", "met") and not facts.count("success", "early", "not_met", "missed", "unknown"):
        return "succeeded"
    if facts.count("success", "missed"):
        return "at_risk" if facts.count("success", "met", "early", "not_met", "unknown") else "failing"
    if facts.state == "completed":
        return (
            "at_risk"
            if facts.count("success", "met")
            else "failing"
            if facts.count("success", "not_met")
            else "on_track"
        )
    return "on_track"


def _final_status(final: Mapping[str, Any]) -> Status:
    success, failure = (final.get(kind, {}) for kind in ("success", "failure"))
    if failure.get("met"):
        return "failing"
    if not success.get("met"):
        return "failing" if success.get("not_met") else "on_track"
    return "at_risk" if success.get("not_met") or success.get("unknown") else "succeeded"


def _is_good(facts: Facts, alert: Mapping[str, Any]) -> bool:
    """Whether a deviation goes the way in which a criterion of success asks the metric to go, and none of failure."""
    rising = _DEVIATIONS.get(str(alert.get("anomaly")))
    if rising is None:
        return False
    asked = {
        (one.kind, one.operator[0] == ">")
        for one in facts.criteria
        if one.metric == alert.get("metric") and one.operator
    }
    return ("success", rising) in asked and ("failure", rising) not in asked


# What it is about ----------------------------------------------------------------------------------------------


def _key(facts: Facts, alert: Mapping[str, Any]) -> CriterionFact | None:
    """The criterion that the analysis is about: the one that was told, else the most important one."""
    if alert.get("type") in (AlertType.SUCCESS, AlertType.FAILURE):
        return next((one for one in facts.criteria if one.text == alert.get("criterion")), None)
    if alert.get("type") == AlertType.ANOMALY:
        return None
    return facts.criteria[0] if facts.criteria and facts.criteria[0].standing != "unsupported" else None


def _key_metric(facts: Facts, alert: Mapping[str, Any], key: CriterionFact | None) -> str:
    told = alert.get("metric")
    if isinstance(told, str) and told:
        return told
    if key is not None and key.metric is not None:
        return key.metric
    return facts.metrics[0].name if facts.metrics else NO_METRIC


# The sentence --------------------------------------------------------------------------------------------------


def _sentence(facts: Facts, alert: Mapping[str, Any], key: CriterionFact | None) -> Iterator[str]:
    """What is, how it came, and how the others stand: parts of one sentence."""
    kind = alert.get("type")
    if isinstance(alert.get("final"), Mapping) or kind == AlertType.COMPLETED:
        yield "the experiment is over"
        yield _final_standing(alert.get("final") or {}) or "it had no criteria"
    elif kind == AlertType.ANOMALY:
        yield _message(facts, alert)
        yield "no criterion is decided by it"
    elif key is not None:
        yield _standing_of(key)
        if alert.get("type") in (AlertType.SUCCESS, AlertType.FAILURE) and key.standing == "not_met":
            yield "the criterion was met when this was told"
        elif alert.get("evidence") == "confirmed" and key.standing == "early":
            yield "it was confirmed when this was told"
        elif alert.get("flapping"):
            yield "it keeps coming and going"
    elif kind in (AlertType.SUCCESS, AlertType.FAILURE):
        yield _message(facts, alert)
    elif not facts.events:
        yield "no event has come yet"
    else:
        yield f"{_counted(facts.events, 'event')} so far and no criterion that can be judged"
    metric = facts.metric(_key_metric(facts, alert, key))
    about_it = kind != AlertType.COMPLETED and key is not None and metric is not None and key.metric == metric.name
    trend = _trend(facts, metric, "it" if about_it else "")
    if trend:
        yield trend
    if not isinstance(alert.get("final"), Mapping):
        yield from _others(facts)


def _message(facts: Facts, alert: Mapping[str, Any]) -> str:
    """The first thing that the alert itself says."""
    said = str(alert.get("message", "")).removeprefix(f"{facts.experiment_id}: ")
    return said.partition("; ")[0].partition(". ")[0].rstrip(".") or "an alert was told"


def _standing_of(one: CriterionFact) -> str:
    """A criterion's comparison in words, with its counts and how sure it is."""
    words = (_NOT_MET if one.standing in ("not_met", "missed", "unknown") else _MET).get(one.operator or "")
    if words is None or one.metric is None or one.value is None or one.threshold is None:
        return one.reason.rstrip(".") or f"({one.text}) is {one.standing.replace('_', ' ')}"
    rate = one.samples is not None
    counts = f" ({one.successes:,} of {one.samples:,})" if one.successes is not None and one.samples is not None else ""
    value, threshold = (_shown(each, one.scale, rate=rate) for each in (one.value, one.threshold))
    said = f"{one.metric} is {value}{counts}, {words} the {one.kind} threshold of {threshold}"
    if one.standing == "early":
        return f"{said}, which is too few to be sure{_interval(one)}"
    return f"{said}, and its deadline has passed" if one.standing == "missed" else said


def _interval(one: CriterionFact) -> str:
    if one.interval is None:
        return ""
    low, high = (percent(end, one.scale) for end in one.interval)
    return f": the true rate may lie between {low:g} and {high:g} %"


def _trend(facts: Facts, metric: MetricFact | None, name: str) -> str:
    """How the metric went, where the two spans have enough to be compared."""
    if metric is None or metric.recent is None or metric.before is None or not facts.recent:
        return ""
    if metric.is_rate:
        enough = min(metric.recent_samples or 0, metric.before_samples or 0) >= _TRIALS
    else:
        enough = metric.kind == "counter" and max(metric.recent, metric.before) >= _EVENTS
    if not enough:
        return ""
    recent, before = (_shown(each, metric.scale, rate=metric.is_rate) for each in (metric.recent, metric.before))
    name = name or metric.name
    largest = max(abs(metric.recent), abs(metric.before))
    if recent == before or abs(metric.recent - metric.before) < _CHANGE * largest:
        return f"{name} held at {recent} in {facts.recent}"
    verb = "rose" if metric.recent > metric.before else "fell"
    return f"{name} {verb} from {before} in {facts.before} to {recent} in {facts.recent}"


def _others(facts: Facts) -> Iterator[str]:
    """How many criteria stand how."""
    met = facts.count("success", "met")
    total = sum((facts.tally or {}).get("success", {}).values())
    if total:
        early = facts.count("success", "early")
        if total == 1:
            yield f"its only success criterion {'is' if met else 'looks' if early else 'is not'} met"
        else:
            more = f", {early} more {'looks' if early == 1 else 'look'} met" if early else ""
            yield f"{met} of {total} success criteria {'is' if met == 1 else 'are'} met{more}"
    failed = facts.count("failure", "met")
    if failed > 1 or (failed and facts.alert is not None and facts.alert.get("type") != AlertType.FAILURE):
        yield f"{failed} failure {'criterion is' if failed == 1 else 'criteria are'} met"
    unclear = facts.count("success", "unsupported") + facts.count("failure", "unsupported")
    if unclear and not total:
        yield f"{_counted(unclear, 'criterion', 'criteria')} cannot be understood"


def _final_standing(final: Mapping[str, Any]) -> str:
    said = []
    for kind in ("success", "failure"):
        states = final.get(kind, {})
        if states:
            total = sum(states.values())
            met = states.get("met", 0)
            criteria = _counted(total, f"{kind} criterion", f"{kind} criteria")
            said.append(f"{met} of {criteria} {'was' if met == 1 else 'were'} met")
    return "; ".join(said)


# The action ----------------------------------------------------------------------------------------------------


def _action(facts: Facts, alert: Mapping[str, Any], status: Status, key: CriterionFact | None) -> str:
    """What to do, in one sentence; "none" where the data supports nothing."""
    kind = alert.get("type")
    if kind == AlertType.ANOMALY:
        return _look_into(alert)
    if kind == AlertType.COMPLETED or facts.state == "completed":
        return _after_the_end(status)
    if status == "failing":
        return _stop(key)
    if key is not None and key.standing == "early":
        return f"Wait for more data before {key.metric or 'it'} decides anything: it is not confirmed yet."
    if key is not None and key.standing == "missed":
        return _MISSED
    if kind == AlertType.FAILURE and key is not None and key.standing == "not_met":
        return f"Watch {key.metric or 'it'}: the criterion is not met any more, and may come back."
    if status == "at_risk":
        return "Watch it: wait until the sign is confirmed or gone."
    if status == "succeeded":
        return "Review whether the goal is reached, and decide what comes next."
    return NO_ACTION


def _look_into(alert: Mapping[str, Any]) -> str:
    metric, since = alert.get("metric", "it"), str(alert.get("since", ""))[:16].replace("T", " ")
    when = f" at {since} UTC" if since else " then"
    if alert.get("anomaly") == "silence":
        return f"Check whether {metric} still happens, and whether its events are still published."
    return f"Find out what changed{when} before anything is decided by {metric}."


def _stop(key: CriterionFact | None) -> str:
    if key is not None and key.standing == "missed":
        return _MISSED
    if key is None or key.kind != "failure" or key.standing != "met":
        return "Decide whether it should go on: a failure criterion is met."
    metric = f" behind {key.metric}" if key.metric else ""
    return f"Pause it and find the cause{metric}, or decide that it goes on: its author's failure criterion is met."


def _after_the_end(status: Status) -> str:
    if status == "failing":
        return "Review what went wrong before it is repeated."
    if status == "succeeded":
        return "Review the results and decide what follows."
    return "Review which goals were missed before it is repeated."


# Numbers -------------------------------------------------------------------------------------------------------


def _shown(value: float, scale: float, *, rate: bool) -> str:
    """A number for people: a rate in percent, anything else plainly."""
    if rate:
        return f"{percent(value, scale):g} %"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
