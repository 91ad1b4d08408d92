"""A criterion judged on the metrics of one moment: met, not met or unknown, and why.

Three values, by Kleene's logic: what is not known is neither true nor false. How sure a met
criterion is depends on what it reads:

- gauges, counters and flags are facts: met is met;
- a rate over counts compared with a number is ``early`` or ``confirmed`` (see ``evidence``), and
  not met on fewer than ``min_samples`` trials that do not confirm it. The alternatives of an ``or``
  share the level, so that it holds for the criterion as a whole;
- a rate inside other arithmetic, or compared with a metric, has no test: it is early at best;
- after ``after N sends``, past a ``within`` deadline and when the experiment is over, values are
  taken literally. ``after 7 days`` only waits: it says nothing about how much data there is;
- where trials need time to succeed, those that had too little are left out of a rate that is asked
  to be below something, until a deadline or the end: successes all count, so that what is judged is
  never lower than what the old trials alone would show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from redis_agent.criteria.evaluation import Evaluation, State, Strength, all_of, any_of, compared, shown
from redis_agent.criteria.evidence import Evidence, compares, rate_evidence
from redis_agent.criteria.expression import (
    LESS,
    AfterCount,
    AfterTime,
    And,
    AtEnd,
    Bounded,
    Comparison,
    ComparisonOperator,
    Condition,
    Criterion,
    Duration,
    Flag,
    Name,
    Number,
    Or,
    Within,
    names_of,
    print_clause,
    print_number,
    print_term,
)
from redis_agent.criteria.metrics import Metrics
from redis_agent.criteria.reading import Reading, unknown, value_of


def evaluate(
    criterion: Criterion,
    metrics: Metrics,
    *,
    now: datetime,
    started_at: datetime | None,
    final: bool = False,
    alpha: float = 0.05,
    min_samples: int = 20,
    mature: Metrics | None = None,
) -> Evaluation:
    """Judges a criterion. Pure; whatever the metrics hold, nothing is raised.

    Args:
        criterion: What is asked.
        metrics: The values of this moment.
        now: The time of judging; without a zone it is UTC.
        started_at: When the experiment began, None when nobody knows.
        final: The experiment is over: values are taken literally.
        alpha: Chance that a rate on its threshold is ever confirmed.
        min_samples: Trials from which a rate that is met counts as early.
        mature: The counts without what is too young to have succeeded; None where all is old enough.

    Returns:
        The state with its reason and the comparison that decided.
    """
    plain = criterion.plain
    if plain is not None:
        reading = metrics.read(plain.name)
        value, scale = reading.value, reading.scale
        if value is not None and reading.trials is None:
            return _fact(plain.name, value, plain.operator, plain.literal.at(scale), scale)
    elapsed = None if started_at is None else (_aware(now) - _aware(started_at)).total_seconds()
    judge = _Judge(metrics, elapsed, started_at, min_samples, final)
    if mature is not None and not final:
        judge.read_mature = mature.read
    if criterion.spoken:
        judge.read = partial(metrics.read_spoken, spoken=criterion.spoken)
        if judge.read_mature is not None and mature is not None:
            judge.read_mature = partial(mature.read_spoken, spoken=criterion.spoken)
    literally = "the experiment is over" if final else ""
    return judge.condition(criterion.plan, literally, alpha)


def _fact(metric: str, value: float, operator: ComparisonOperator, threshold: float, scale: float) -> Evaluation:
    """A value that is no rate, against a number: met is met."""
    if compares(value, operator, threshold):
        return Evaluation("met", None, metric, operator, threshold, value, None, "fact", None, scale)
    return Evaluation("not_met", None, metric, operator, threshold, value, None, None, None, scale)


class _Judge:
    """One evaluation; ``literally`` says why values are taken literally, "" when they are not."""

    __slots__ = ("_elapsed_seconds", "_final", "_metrics", "_min_samples", "_started_at", "read", "read_mature")

    def __init__(
        self,
        metrics: Metrics,
        elapsed_seconds: float | None,
        started_at: datetime | None,
        min_samples: int,
        final: bool,
    ) -> None:
        self._metrics = metrics
        self._final = final
        self.read: Callable[[str], Reading] = metrics.read
        self.read_mature: Callable[[str], Reading] | None = None
        self._elapsed_seconds = elapsed_seconds
        self._started_at = started_at
        self._min_samples = min_samples

    def condition(self, node: Condition, literally: str, alpha: float) -> Evaluation:
        """Judges a node of a plan; its depth is bounded by the grammar."""
        if isinstance(node, Comparison):
            return self._comparison(node, literally, alpha)
        if isinstance(node, Flag):
            return self._flag(node)
        if isinstance(node, And):
            return all_of(self.condition(item, literally, alpha) for item in node.items)
        if isinstance(node, Or):
            share = alpha / len(node.items)
            return any_of([self.condition(item, literally, share) for item in node.items])
        if isinstance(node, Bounded):
            return self._bounded(node, literally, alpha)
        return Evaluation("unknown", "a plan has no negations")

    def _flag(self, flag: Flag) -> Evaluation:
        reading = self.read(flag.name)
        expected = 1.0 if flag.expected else 0.0
        if reading.value is None:
            return Evaluation("unknown", reading.reason, flag.name, "==", expected)
        is_true = reading.value != 0.0
        return Evaluation(
            "met" if is_true == flag.expected else "not_met",
            f"{flag.name} is {'true' if is_true else 'false'}",
            flag.name,
            "==",
            expected,
            reading.value,
            evidence="fact" if is_true == flag.expected else None,
        )

    def _comparison(self, node: Comparison, literally: str, alpha: float) -> Evaluation:
        left_term, right_term = node.operands
        operator = node.operators[0]
        read = self.read
        if type(left_term) is Name:
            metric = left_term.name
            left = read(metric)
        else:
            metric = print_term(left_term)
            left = value_of(left_term, read)
        young = 0
        if operator in LESS and left.kind == "rate" and self.read_mature is not None:
            all_trials = left.trials or 0
            left = _without_young(metric, left, value_of(left_term, self.read_mature))
            young = all_trials - (left.trials or 0)
        constant = type(right_term) is Number or not names_of(right_term)
        right = value_of(right_term, read, left.scale)
        value, threshold = left.value, right.value
        if value is None or threshold is None:
            reason = left.reason if value is None else right.reason
            return Evaluation("unknown", reason, metric, operator, threshold, value)
        samples = _fewest(left.trials, right.trials)
        if constant and samples is None:
            return _fact(metric, value, operator, threshold, left.scale)
        met = compares(value, operator, threshold)
        against = "" if constant else f"{print_term(right_term)}, "
        reason = compared(metric, value, operator, threshold, met=met, counts=_counts(left), against=against)
        if young:
            reason = f"{reason}; {young} trials too young to count"
        state: State = "met" if met else "not_met"
        strength: Strength | None = "fact" if met else None
        proof = None
        if samples is not None:
            if constant and left.kind == "rate":
                proof = self._proof(left, operator, threshold, alpha)
            if literally:
                reason = f"{reason}; taken literally, since {literally}"
            elif met:
                state, strength, more = self._strength(samples, proof)
                reason = f"{reason}; {more}"
        return Evaluation(
            state,
            reason,
            metric,
            operator,
            threshold,
            value,
            samples,
            strength,
            proof,
            left.scale,
        )

    def _strength(self, samples: int, proof: Evidence | None) -> tuple[State, Strength | None, str]:
        """How sure a rate is that is met literally; too little data is not met."""
        if proof is not None and proof.state == "confirmed":
            return "met", "confirmed", "confirmed"
        if samples >= self._min_samples:
            return "met", "early", "early, not yet confirmed"
        of = "" if proof is None else f"{proof.successes} of "
        return (
            "not_met",
            None,
            f"met literally on {of}{samples}, fewer than {self._min_samples} samples",
        )

    def _proof(self, rate: Reading, operator: ComparisonOperator, threshold: float, alpha: float) -> Evidence | None:
        """The test of a rate against a number; None when floats cannot scale the threshold."""
        if rate.successes is None or rate.trials is None:
            return None
        try:
            return rate_evidence(
                rate.successes,
                rate.trials,
                threshold / rate.scale,
                operator,
                alpha=alpha,
                min_samples=self._min_samples,
            )
        except (ValueError, ArithmeticError):
            return None

    def _bounded(self, node: Bounded, literally: str, alpha: float) -> Evaluation:
        """Judges the clauses first: what still waits is not met, and never literally so."""
        passed = late = ""
        for clause in node.clauses:
            if isinstance(clause, AtEnd):
                if not self._final:
                    return self._waiting_for_end(node.condition, alpha)
            elif isinstance(clause, AfterCount):
                gate = self._count_gate(clause, names_of(node.condition))
                if gate.state != "met":
                    return gate
                literally = literally or gate.reason
            elif isinstance(clause, AfterTime):
                time_gate = self._time_gate(clause)
                if time_gate is not None:
                    return time_gate
            else:
                if self._elapsed_seconds is None:
                    return _start_unknown(clause)
                if self._elapsed_seconds > clause.duration.seconds:
                    passed = f"the deadline {self._moment(clause.duration)} has passed"
                    literally = literally or passed
                    late = late or self._late_events(clause.duration)
        read_mature = self.read_mature
        if passed:  # what is too young by now had its time
            self.read_mature = None
        result = self.condition(node.condition, literally, alpha)
        self.read_mature = read_mature
        if late and result.state == "met":
            # It may have become so only after the deadline; what it was then is not known any more.
            return result._replace(state="unknown", evidence=None, said=f"{result.reason}; {late}")
        if passed and result.state != "unknown" and literally not in result.reason:
            return result._replace(said=f"{result.reason}; {passed}")
        return result

    def _waiting_for_end(self, condition: Condition, alpha: float) -> Evaluation:
        """What is judged at the end only, with what it would come to now."""
        so_far = self.condition(condition, "", alpha)
        reason = f"waits until the experiment is over; so far: {so_far.reason}"
        return so_far._replace(state="not_met", evidence=None, said=reason)

    def _late_events(self, duration: Duration) -> str:
        """Why values judged after a deadline may not be those of the deadline, or ""."""
        last = self._metrics.last_event_at
        if last is None or self._started_at is None:
            return ""
        if (_aware(last) - _aware(self._started_at)).total_seconds() <= duration.seconds:
            return ""
        return "events came after the deadline, so it is not known whether it was met in time"

    def _count_gate(self, clause: AfterCount, names: Sequence[str]) -> Evaluation:
        reading = self._metrics.count_for(clause.noun, names)
        count, metric = print_number(clause.count), reading.name or clause.noun
        threshold = clause.count
        if reading.value is None:
            reason = f"{print_clause(clause)}: {reading.reason}"
            return Evaluation("unknown", reason, metric, ">=", threshold)
        reached = compares(reading.value, ">=", clause.count)
        if reached:
            reason = f"{shown(reading.value)} {clause.noun} are at least {count}"
        else:
            reason = f"waits for {count} {clause.noun}: {shown(reading.value)} so far"
        return Evaluation("met" if reached else "not_met", reason, metric, ">=", threshold, reading.value)

    def _time_gate(self, clause: AfterTime) -> Evaluation | None:
        if self._elapsed_seconds is None:
            return _start_unknown(clause)
        if self._elapsed_seconds < clause.duration.seconds:
            return Evaluation("not_met", f"waits until {self._moment(clause.duration)}")
        return None

    def _moment(self, duration: Duration) -> str:
        """The moment that lies ``duration`` after the start, for people."""
        if self._started_at is None:
            return "the time comes"
        try:
            moment = (_aware(self._started_at) + duration.delta).astimezone(UTC)
        except OverflowError:
            return "the time comes"
        return moment.strftime("%Y-%m-%d %H:%M UTC")


def _without_young(metric: str, rate: Reading, mature: Reading) -> Reading:
    """A rate of all its successes over the trials that have had their time.

    Which of the successes are those of old trials nobody knows: to count all errs away from being below.
    """
    trials = mature.trials or 0
    if rate.successes is None or mature.kind != "rate" or trials <= 0:
        return unknown(metric, f"none of the {rate.trials} trials of {metric} is old enough to count", rate.scale)
    successes = min(rate.successes, trials)
    value = successes / trials * rate.scale
    return Reading(rate.name, value, "", "rate", successes, trials, rate.scale, rate.assumed)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _start_unknown(clause: AfterTime | Within) -> Evaluation:
    reason = f"{print_clause(clause)}: nobody knows when the experiment started"
    return Evaluation("unknown", reason)


def _fewest(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)


def _counts(rate: Reading) -> str:
    return "" if rate.successes is None else f" ({rate.successes} of {rate.trials})"
