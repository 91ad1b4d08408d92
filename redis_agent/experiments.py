"""Experiments as they are written, and the verdicts on their criteria.

``parse_experiment`` takes what Redis holds under ``experiments:{id}`` and ``metrics_specs:{id}``
and makes one ``Experiment`` of it; ``judge`` and ``derived`` are pure functions of it and of the
fields of its aggregate. A part that cannot be read is named in ``problems`` and costs only itself.

Read now: the experiment as a HASH of fields or as JSON text, specs as a HASH with ``metrics`` or as
JSON text. A HASH whose ``spec`` is a YAML file, and ``metrics_yaml``, are refused by name until
their reader joins in ``_experiment_fields`` and ``_metric_entries``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    parse_flag,
    print_name,
    understand,
)
from redis_agent.criteria.documents import (
    MAX_SHOWN,
    decoded,
    from_json,
    from_yaml,
    kind_of,
    parse_moment,
    shown,
    text_of,
)
from redis_agent.criteria.specs import metric_specs

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
]

MAX_CRITERIA: Final = 100
MAX_FILE_BYTES: Final = 1_000_000

_STATES: Final = frozenset({"", "draft", "ready", "running", "run", "completed", "failed", "archived"})
_NOT_JUDGED: Final = frozenset({"archived", "failed"})


class ExperimentError(ValueError):
    """An experiment cannot be read at all; the message says what is not understood."""


@dataclass(frozen=True, slots=True)
class JudgedCriterion:
    """A criterion of an experiment, understood or not.

    Attributes:
        kind: ``success`` or ``failure``.
        text: As it was written; an object as ``name: value``.
        criterion: What was understood, or None.
        problem: Why nothing was understood, or "".
        fingerprint: Stable short name of the kind and the canonical text.
    """

    kind: CriterionKind
    text: str
    criterion: Criterion | None
    problem: str
    fingerprint: str


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        id: The experiment's id, without a key's prefix.
        hypothesis: As written.
        state: In lower case; "" when absent, which counts as active.
        created_at: The start, with a zone, or None.
        criteria: Those of success, then those of failure, each in the written order.
        metrics: The declared metrics.
        problems: What could not be read, one readable line each.
    """

    id: str
    hypothesis: str = ""
    state: str = ""
    created_at: datetime | None = None
    criteria: tuple[JudgedCriterion, ...] = ()
    metrics: tuple[MetricSpec, ...] = ()
    problems: tuple[str, ...] = ()

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
    fields = _experiment_fields(document, problems)
    metrics: list[MetricSpec] = []
    if specs_document is not None:
        metrics = metric_specs(_metric_entries(specs_document, problems), problems)
    if not metrics:
        metrics = metric_specs(decoded(fields.get("metrics"), "metrics", problems), problems)
    vocabulary = Vocabulary(metrics)
    criteria = list(_criteria("success", fields, vocabulary, problems))
    criteria += _criteria("failure", fields, vocabulary, problems)
    if len(criteria) > MAX_CRITERIA:
        problems.append(f"only the first {MAX_CRITERIA} criteria are judged")
    created = fields.get("created_at")
    created_at = parse_moment(created)
    if created_at is None and created not in (None, ""):
        problems.append(f"created_at is no time: {shown(created)}")
    state = text_of(fields.get("state")).lower()
    if state not in _STATES:
        problems.append(f"the state {shown(state)} is not known and counts as active")
    return Experiment(
        id=experiment_id,
        hypothesis=text_of(fields.get("hypothesis")),
        state=state,
        created_at=created_at,
        criteria=tuple(criteria[:MAX_CRITERIA]),
        metrics=tuple(metrics),
        problems=tuple(problems),
    )


def parse_experiment_file(text: str) -> Experiment:
    """Reads an experiment from the text of a file: JSON or YAML, bare or under ``experiment:``.

    Raises:
        ExperimentError: The file is too large, or holds no such object.
    """
    if len(text) > MAX_FILE_BYTES:
        raise ExperimentError(f"the file is larger than {MAX_FILE_BYTES} characters")
    loaded = from_json(text, "the file", [])
    if loaded is None:
        try:
            loaded = from_yaml(text)
        except ValueError as error:
            raise ExperimentError(f"the file is neither JSON nor YAML: {error}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("experiment"), dict):
        loaded = loaded["experiment"]
    if not isinstance(loaded, dict):
        raise ExperimentError(f"the file holds {kind_of(loaded)}, not an experiment")
    return parse_experiment(text_of(loaded.get("id")) or "file", loaded)


def judge(
    experiment: Experiment,
    fields: Mapping[str, str],
    *,
    now: datetime,
    alpha: float = 0.05,
    min_samples: int = 20,
    final: bool = False,
) -> list[Verdict]:
    """Judges every criterion on an aggregate; whatever the fields hold, nothing is raised.

    Args:
        experiment: Whose criteria; times count from its ``created_at``, else from the first event.
        fields: The aggregate hash.
        now: The time of judging.
        alpha: Level of the test of rates.
        min_samples: Trials from which a rate counts as early.
        final: Values are final; a completed experiment's always are.

    Returns:
        A verdict for each criterion, in their order.
    """
    metrics = Metrics.from_hash(fields, experiment.specs)
    started_at = experiment.created_at or parse_moment(fields.get("first_event_at"))
    return [
        Verdict(
            entry,
            None
            if entry.criterion is None
            else evaluate(
                entry.criterion,
                metrics,
                now=now,
                started_at=started_at,
                final=final or experiment.finished,
                alpha=alpha,
                min_samples=min_samples,
            ),
        )
        for entry in experiment.criteria
    ]


def derived(experiment: Experiment, fields: Mapping[str, str]) -> dict[str, str]:
    """The formula metrics whose value is known, as fields for the aggregate hash.

    Returns:
        Decimal text by the metric's plain name; never a name that events' own fields could have.
    """
    metrics = Metrics.from_hash(fields, experiment.specs)
    values: dict[str, str] = {}
    for spec in experiment.metrics:
        if spec.formula is None or is_base_field(spec.name):
            continue
        reading = metrics.computed(spec.name)
        if reading is not None and reading.value is not None:
            values[spec.name] = str(_json_number(reading.value))
    return values


def _experiment_fields(document: Mapping[str, str] | str, problems: list[str]) -> Mapping[str, object]:
    """The experiment's own fields, whichever form it has."""
    if isinstance(document, str):
        loaded = from_json(document, "the experiment", problems)
        if isinstance(loaded, dict) and isinstance(loaded.get("experiment"), dict):
            loaded = loaded["experiment"]
        if not isinstance(loaded, dict):
            raise ExperimentError(problems[-1] if problems else "the experiment is no JSON object")
        return loaded
    if "spec" in document:
        message = "the field spec (an experiment as a YAML file) is not understood yet"
        if "success_criteria" not in document and "failure_criteria" not in document:
            raise ExperimentError(message)
        problems.append(message)
    return document


def _metric_entries(document: Mapping[str, str] | str, problems: list[str]) -> object:
    """The list of metrics in a ``metrics_specs`` document."""
    if isinstance(document, str):
        loaded = from_json(document, "metrics_specs", problems)
        return loaded.get("metrics") if isinstance(loaded, dict) else loaded
    if "metrics" in document:
        return decoded(document["metrics"], "metrics_specs", problems)
    if "metrics_yaml" in document:
        problems.append("the field metrics_yaml is not understood yet")
    return None


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
            text = f"{text_of(key)}: {shown(value)}"
            criterion = _from_object(text_of(key), value, vocabulary, kind)
        else:
            text = shown(item)
            problem = f"a criterion is a text or an object with one key, not {kind_of(item)}"
    except CriterionError as error:
        problem = str(error)
    text = text[:MAX_SHOWN]
    identity = f"{kind}\0{text if criterion is None else criterion.text}"
    fingerprint = hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return JudgedCriterion(kind, text, criterion, problem, fingerprint)


def _from_object(name: str, value: object, vocabulary: Vocabulary, kind: CriterionKind) -> Criterion:
    """``{"account_restricted": true}``, and ``{"response_rate": "> 0.1"}``."""
    if isinstance(value, bool):
        return parse_flag(name, value)
    if isinstance(value, str):
        if value.strip().lower() in ("true", "false"):
            return parse_flag(name, value.strip().lower() == "true")
        if value.lstrip()[:1] in tuple("<>=!\u2265\u2264"):
            return understand(f"{print_name(name)} {value}", vocabulary, kind)
    raise CriterionError(f"{kind_of(value)} under {shown(name)} is no criterion", 0, "write true, or a comparison")


def _json_number(value: float | None) -> float | int | None:
    """Twelve significant digits, whole numbers as integers."""
    if value is None:
        return None
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
