"""Experiments as they are written, and the verdicts on their criteria.

``parse_experiment`` takes what Redis holds under ``experiments:{id}`` and ``metrics_specs:{id}``
and makes one ``Experiment`` of it; ``judge`` and ``derived`` are pure functions of it and of the
fields of its aggregate. A part that cannot be read is named in ``problems`` and costs only itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Literal

from redis_agent.criteria import (
    Criterion,
    CriterionError,
    CriterionKind,
    Evaluation,
    Metrics,
    MetricSpec,
    Vocabulary,
    evaluate,
    is_base_field,
    parse,
    parse_flag,
    print_name,
    print_number,
    understand,
)
from redis_agent.criteria.documents import MAX_SHOWN, decoded, kind_of, parse_moment, shown, text_of
from redis_agent.criteria.forms import ExperimentError, declared_metrics, experiment_fields, file_fields
from redis_agent.criteria.names import name_key
from redis_agent.criteria.thresholds import threshold_criteria

__all__ = [
    "Experiment",
    "ExperimentError",
    "JudgedCriterion",
    "MetricSpec",
    "Verdict",
    "derived",
    "judge",
    "parse_experiment",
    "parse_experiment_file",
    "parse_moment",
    "with_translations",
    "without_repeats",
]

MAX_CRITERIA: Final = 100
"""Listed criteria of an experiment; and as many again out of thresholds."""
MAX_PROBLEMS: Final = 20
MAX_FILE_BYTES: Final = 1_000_000

_STATES: Final = frozenset({"", "draft", "ready", "running", "run", "completed", "failed", "archived"})
_PLANNED_RUNS: Final = ("planned_runs", "total_runs", "max_runs", "runs")
_NOT_JUDGED: Final = frozenset({"archived", "failed"})
_DEADLINE_PASSED: Final = re.compile(r"the deadline [-0-9: ]+ UTC has passed")
_IS: Final = {">": "above", ">=": "at least", "<": "below", "<=": "at most", "==": "equal to", "!=": "different from"}
# YAML 1.1, which most loaders speak, has more words than two.
_TRUTHS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class JudgedCriterion:
    """A criterion of an experiment, understood or not.

    Attributes:
        kind: ``success`` or ``failure``.
        text: As it was written; an object as ``name: value``.
        criterion: What was understood, or None.
        problem: Why nothing was understood, or "".
        fingerprint: Stable short name of the kind and the canonical text.
        listed: Whether it stands in a list of criteria; else it is a metric's threshold.
        only_final: Whether it is met only when the experiment is over.
        translated: Whether a model has put it into the grammar.
    """

    kind: CriterionKind
    text: str
    criterion: Criterion | None
    problem: str
    fingerprint: str
    listed: bool = True
    only_final: bool = False
    translated: bool = False


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        id: The experiment's id, without a key's prefix.
        hypothesis: As written.
        state: In lower case; "" when absent, which counts as active.
        created_at: The start, with a zone, or None.
        criteria: Those of success, then those of failure, each in the written order; then those that the metrics'
            thresholds make, in the metrics' order.
        metrics: The declared metrics.
        problems: What could not be read, one readable line each.
        planned_runs: After how many completed runs it is over; None where the definition does not say.
    """

    id: str
    hypothesis: str = ""
    state: str = ""
    created_at: datetime | None = None
    criteria: tuple[JudgedCriterion, ...] = ()
    metrics: tuple[MetricSpec, ...] = ()
    problems: tuple[str, ...] = ()
    planned_runs: int | None = None

    @property
    def judged(self) -> bool:
        """Whether its criteria are judged at all: archived and failed ones are not."""
        return self.state not in _NOT_JUDGED

    @property
    def finished(self) -> bool:
        """Whether it is over, so that its values are final."""
        return self.state == "completed"

    @property
    def has_time_clauses(self) -> bool:
        """Whether a verdict can change by the clock alone."""
        return any(entry.criterion is not None and entry.criterion.has_time_clause for entry in self.criteria)

    @cached_property
    def asks_for_less(self) -> bool:
        """Whether a criterion is met by a value below something, such as a rate that must not be low."""
        return any(entry.criterion is not None and entry.criterion.asks_for_less for entry in self.criteria)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The metrics that its definition knows: the declared ones, and what their formulas read."""
        formulas = [name for spec in self.metrics if spec.formula is not None for name in spec.formula.names]
        return tuple(dict.fromkeys([*(spec.name for spec in self.metrics), *formulas]))

    @cached_property
    def untranslated(self) -> Mapping[str, JudgedCriterion]:
        """The criteria that nobody understands, by a key that stands for the text and the metrics it may be about."""
        return {_translation_key(c, self.names): c for c in self.criteria if c.criterion is None and c.listed}

    @cached_property
    def specs(self) -> Mapping[str, MetricSpec]:
        """The metrics by name."""
        return {spec.name: spec for spec in self.metrics}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one criterion of an experiment comes to; ``evaluation`` is None when unsupported."""

    entry: JudgedCriterion
    evaluation: Evaluation | None

    @property
    def kind(self) -> CriterionKind:
        """``success`` or ``failure``."""
        return self.entry.kind

    @property
    def text(self) -> str:
        """The criterion as it was written."""
        return self.entry.text

    @property
    def fingerprint(self) -> str:
        """Stable short name of the kind and the canonical text."""
        return self.entry.fingerprint

    @property
    def state(self) -> Literal["met", "not_met", "unknown", "unsupported"]:
        """The state that ``check`` shows."""
        return "unsupported" if self.evaluation is None else self.evaluation.state

    @property
    def reason(self) -> str:
        """One sentence."""
        return self.entry.problem if self.evaluation is None else self.evaluation.reason

    @property
    def has_time_clause(self) -> bool:
        """Whether the state can change by the clock alone."""
        return self.entry.criterion is not None and self.entry.criterion.has_time_clause

    @property
    def missed(self) -> bool:
        """Whether it is a success that was to be reached by a deadline, and was not."""
        return self.kind == "success" and self.state == "not_met" and bool(_DEADLINE_PASSED.search(self.reason))

    @property
    def finding(self) -> str:
        """The reason for people who read many: a rate in percent, and nothing about how it came to be judged."""
        found = self.evaluation
        if found is None or found.proof is None or found.metric is None or found.value is None:
            return self.reason.rstrip(".")
        if found.operator is None or found.threshold is None:
            return self.reason.rstrip(".")
        value, threshold = (f"{100 * number / found.scale:.3g} %" for number in (found.value, found.threshold))
        words = _IS[found.operator] if self.state == "met" else f"not {_IS[found.operator]}"
        sure = "; early, not yet confirmed" if found.evidence == "early" else ""
        counts = f"({found.proof.successes:,} of {found.proof.trials:,})"
        return f"{found.metric} is {value} {counts}, {words} {threshold}{sure}"

    def as_json(self) -> dict[str, Any]:
        """The object that ``check --json`` prints for a criterion."""
        evaluation = self.evaluation or Evaluation("unknown", "")
        interval = evaluation.interval
        criterion = self.entry.criterion
        return {
            "kind": self.kind,
            "criterion": self.text,
            "parsed": None if criterion is None else criterion.text,
            "state": self.state,
            "evidence": evaluation.evidence,
            "metric": evaluation.metric,
            "operator": evaluation.operator,
            "threshold": _json_number(evaluation.threshold),
            "value": _json_number(evaluation.value),
            "samples": evaluation.samples,
            "interval": None if interval is None else [_json_number(end) for end in interval],
            "reason": self.reason,
            "translated": self.entry.translated,
        }


def parse_experiment(
    experiment_id: str,
    document: Mapping[str, str] | str,
    specs_document: Mapping[str, str] | str | None = None,
) -> Experiment:
    """Reads an experiment and its metrics.

    Args:
        experiment_id: From the key.
        document: The HASH, or the STRING (JSON text), under ``experiments:{id}``.
        specs_document: Likewise under ``metrics_specs:{id}``; None when there is none. Where it
            has no metrics, those inside the experiment count.

    Raises:
        ExperimentError: The document as a whole is of a form that is not understood. Anything
            smaller is a line in ``problems``.
    """
    problems: list[str] = []
    return _experiment(experiment_id, experiment_fields(document, problems), specs_document, problems)


def _experiment(
    experiment_id: str,
    fields: Mapping[str, object],
    specs_document: Mapping[str, str] | str | None,
    problems: list[str],
) -> Experiment:
    metrics = declared_metrics(specs_document, fields.get("metrics"), problems)
    vocabulary = Vocabulary(metrics)
    criteria = list(_criteria("success", fields, vocabulary, problems))
    criteria += _criteria("failure", fields, vocabulary, problems)
    thresholds = list(_thresholds(metrics))
    if len(criteria) > MAX_CRITERIA or len(thresholds) > MAX_CRITERIA:
        problems.append(f"only the first {MAX_CRITERIA} criteria are judged, and the first {MAX_CRITERIA} thresholds")
    created = fields.get("created_at")
    created_at = parse_moment(created)
    if created_at is None and created not in (None, ""):
        problems.append(f"created_at is no time: {shown(created)}")
    state = text_of(fields.get("state")).lower()
    if state not in _STATES:
        problems.append(f"the state {shown(state)} is not known and counts as active")
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} problems more"]
    return Experiment(
        id=experiment_id,
        hypothesis=text_of(fields.get("hypothesis")),
        state=state,
        created_at=created_at,
        criteria=(*criteria[:MAX_CRITERIA], *thresholds[:MAX_CRITERIA]),
        metrics=metrics,
        problems=tuple(problems),
        planned_runs=_planned_runs(fields),
    )


def parse_experiment_file(text: str) -> Experiment:
    """Reads an experiment from the text of a file: JSON or YAML, bare or under ``experiment:``.

    Raises:
        ExperimentError: The file is too large, or holds no such object.
    """
    if len(text) > MAX_FILE_BYTES:
        raise ExperimentError(f"the file is larger than {MAX_FILE_BYTES} characters")
    problems: list[str] = []
    fields = file_fields(text, problems)
    if isinstance(fields.get("spec"), str):  # a HASH of the field, as a file
        fields = experiment_fields({name: _as_field(value) for name, value in fields.items()}, problems)
    return _experiment(text_of(fields.get("id")) or "file", fields, None, problems)


def judge(
    experiment: Experiment,
    fields: Mapping[str, str],
    *,
    now: datetime,
    alpha: float = 0.05,
    min_samples: int = 20,
    final: bool = False,
    mature: Mapping[str, str] | None = None,
    metrics: Metrics | None = None,
) -> list[Verdict]:
    """Judges every criterion on an aggregate; whatever the fields hold, nothing is raised.

    Args:
        experiment: Whose criteria; times count from its ``created_at``, else from the first event.
        fields: The aggregate hash.
        now: The time of judging.
        alpha: Level of the test of rates.
        min_samples: Trials from which a rate counts as early.
        final: Values are final; a completed experiment's always are.
        mature: The same fields without what is too young to have succeeded; None where all is old enough.
        metrics: The fields as this experiment reads them (see ``metrics_of``); None makes it of them.

    Returns:
        A verdict for each criterion, in their order.
    """
    metrics = metrics or metrics_of(experiment, fields)
    old_enough = None if mature is None else Metrics.from_hash(mature, experiment.specs)
    started_at = experiment.created_at or parse_moment(fields.get("first_event_at"))
    final = final or experiment.finished
    verdicts = []
    for entry in experiment.criteria:
        evaluation: Evaluation | None = None
        if entry.criterion is not None:
            evaluation = evaluate(
                entry.criterion,
                metrics,
                now=now,
                started_at=started_at,
                final=final,
                alpha=alpha,
                min_samples=min_samples,
                mature=old_enough,
            )
            if entry.only_final and not final and evaluation.state == "met":
                reason = f"{evaluation.reason}; counts only when the experiment is over"
                evaluation = evaluation._replace(state="not_met", evidence=None, said=reason)
        verdicts.append(Verdict(entry, evaluation))
    return verdicts


def without_repeats(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Leaves out met thresholds that say only what a listed criterion says that is met, too.

    Authors often write both: ``success_threshold: 0.08`` and ``response_rate > 0.08``. To tell one of them is enough.
    """
    listed = {_bound(verdict) for verdict in verdicts if verdict.entry.listed} - {None}
    return [verdict for verdict in verdicts if verdict.entry.listed or _bound(verdict) not in listed]


def _bound(verdict: Verdict) -> tuple[CriterionKind, str, str, float] | None:
    """What a met verdict is about: the metric, the side, and the threshold on the metric's own scale."""
    evaluation = verdict.evaluation
    if evaluation is None or evaluation.state != "met":
        return None
    if evaluation.metric is None or evaluation.operator is None or evaluation.threshold is None:
        return None
    return verdict.kind, name_key(evaluation.metric), evaluation.operator[0], float(f"{evaluation.threshold:.9g}")


def metrics_of(experiment: Experiment, fields: Mapping[str, str]) -> Metrics:
    """An aggregate hash as an experiment reads it: to be shared by all that is asked of it at that moment."""
    return Metrics.from_hash(fields, experiment.specs)


def derived(experiment: Experiment, metrics: Metrics) -> dict[str, str]:
    """The formula metrics whose value is known, as fields for the aggregate hash.

    Args:
        experiment: Whose.
        metrics: Its aggregate as it reads it (see ``metrics_of``).

    Returns:
        Decimal text by the metric's plain name; never a name that events' own fields could have.
    """
    values: dict[str, str] = {}
    for spec in experiment.metrics:
        if spec.formula is None or is_base_field(spec.name):
            continue
        reading = metrics.computed(spec.name)
        if reading is not None and reading.value is not None:
            values[spec.name] = str(_json_number(reading.value))
    return values


def with_translations(experiment: Experiment, translations: Mapping[str, str]) -> Experiment:
    """The experiment with criteria in the grammar that stand for such as nobody understands.

    Args:
        experiment: As it was read.
        translations: Key (see ``Experiment.untranslated``) to canonical text. One that does not parse, or reads a
            metric that the definition does not know, counts as none.

    Returns:
        The same object where there is nothing to add.
    """
    known = set(experiment.names)
    found = {}
    for key, entry in experiment.untranslated.items():
        try:
            criterion = parse(translations[key]) if translations.get(key) else None
        except CriterionError:
            continue
        if criterion is not None and criterion.names and set(criterion.names) <= known:
            fingerprint = _fingerprint(entry.kind, criterion.text)
            found[entry] = replace(entry, criterion=criterion, problem="", fingerprint=fingerprint, translated=True)
    if not found:
        return experiment
    return replace(experiment, criteria=tuple(found.get(entry, entry) for entry in experiment.criteria))


def _translation_key(entry: JudgedCriterion, names: Sequence[str]) -> str:
    identity = "\0".join((entry.kind, entry.text, *sorted(names)))
    return hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _planned_runs(fields: Mapping[str, object]) -> int | None:
    """How many runs the definition plans: a whole number at the top, in `execution` or in `schedule`."""
    parts: list[object] = [fields, *(decoded(fields.get(name), name, []) for name in ("execution", "schedule"))]
    for part in parts:
        for name in _PLANNED_RUNS:
            planned = part.get(name) if isinstance(part, Mapping) else None
            text = text_of(planned) if isinstance(planned, str | int) and not isinstance(planned, bool) else ""
            if text.isascii() and text.isdecimal() and len(text) < 10 and int(text):
                return int(text)
    return None


def _thresholds(metrics: Sequence[MetricSpec]) -> Iterator[JudgedCriterion]:
    for spec in metrics:
        for entry in threshold_criteria(spec):
            yield JudgedCriterion(
                entry.kind,
                entry.text[:MAX_SHOWN],
                entry.criterion,
                "",
                _fingerprint(entry.kind, entry.criterion.text + ("\0final" if entry.only_final else "")),
                listed=False,
                only_final=entry.only_final,
            )


def _as_field(value: object) -> str:
    """A value as it stands in a HASH."""
    return value if isinstance(value, str) else json.dumps(value)


def _criteria(
    kind: CriterionKind, fields: Mapping[str, object], vocabulary: Vocabulary, problems: list[str]
) -> Iterator[JudgedCriterion]:
    name = f"{kind}_criteria"
    value = decoded(fields.get(name), name, problems)
    if isinstance(value, str):
        value = [line.strip().removeprefix("- ") for line in value.splitlines() if line.strip()]
    if isinstance(value, dict):
        value = [{key: item} for key, item in value.items()]
    if value is None:
        return
    if not isinstance(value, list):
        problems.append(f"{name} is {kind_of(value)}, not a list")
        return
    for item in value[: MAX_CRITERIA + 1]:
        yield _criterion(kind, item, vocabulary)


def _criterion(kind: CriterionKind, item: object, vocabulary: Vocabulary) -> JudgedCriterion:
    criterion: Criterion | None = None
    problem = ""
    try:
        if isinstance(item, str):
            text = item.strip()
            criterion = understand(item, vocabulary, kind)
        elif isinstance(item, dict) and len(item) == 1:
            key, value = next(iter(item.items()))
            text = f"{text_of(key)}: {text_of(value) if isinstance(value, str) else shown(value)}"
            criterion = _from_object(text_of(key), value, vocabulary, kind)
        else:
            text = shown(item)
            problem = f"a criterion is a text or an object with one key, not {kind_of(item)}"
    except CriterionError as error:
        problem = str(error)
    text = text[:MAX_SHOWN]
    return JudgedCriterion(
        kind, text, criterion, problem, _fingerprint(kind, text if criterion is None else criterion.text)
    )


def _fingerprint(kind: CriterionKind, meaning: str) -> str:
    identity = f"{kind}\0{meaning}"
    return hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _from_object(name: str, value: object, vocabulary: Vocabulary, kind: CriterionKind) -> Criterion:
    """``{"account_restricted": true}``, and ``{"response_rate": "> 0.1"}``."""
    if isinstance(value, bool):
        return parse_flag(name, value)
    if isinstance(value, str):
        truth = _TRUTHS.get(value.strip().lower())
        if truth is not None:
            return parse_flag(name, truth)
        if value.lstrip()[:1] in tuple("<>=!\u2265\u2264"):
            return understand(f"{print_name(name)} {value}", vocabulary, kind)
        # A colon in a sentence: YAML makes an object of it.
        return understand(f"{name}: {value}", vocabulary, kind)
    if isinstance(value, int | float):  # - Refund requests: 0
        return understand(f"{name}: {print_number(value)}", vocabulary, kind)
    raise CriterionError(f"{kind_of(value)} under {shown(name)} is no criterion", 0, "write true, or a comparison")


def _json_number(value: float | None) -> float | int | None:
    """Twelve significant digits, whole numbers as integers."""
    if value is None:
        return None
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
