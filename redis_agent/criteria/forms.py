"""The forms that experiments and their metrics have in Redis and in files, brought to one.

An experiment is a HASH of fields, a HASH whose ``spec`` is the text of a whole YAML file, or one JSON object; its
metrics are a list in any of them, or of their own: a HASH with ``metrics`` (a JSON list) or ``metrics_yaml`` (a piece
cut out of the YAML file), or a JSON list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from redis_agent.criteria.documents import decoded, from_json, kind_of
from redis_agent.criteria.metrics import MetricSpec
from redis_agent.criteria.specs import metric_specs

# What whoever runs the experiment keeps up to date beside its `spec`.
_LIFECYCLE: Final = ("state", "created_at", "updated_at")
_STRING: Final = "the experiment"


class ExperimentError(ValueError):
    """An experiment cannot be read at all; the message says what is not understood."""


def experiment_fields(document: Mapping[str, str] | str, problems: list[str]) -> Mapping[str, object]:
    """The experiment's own fields, whichever form it has.

    Args:
        document: The HASH or the STRING under ``experiments:{id}``.
        problems: Gets a line for what is not understood and does not cost the rest.

    Raises:
        ExperimentError: Nothing of it can be used.
    """
    if isinstance(document, str):
        return _object(document, _STRING, problems)
    if not document.get("spec", "").strip():
        return document
    try:
        inside = _object(document["spec"], "spec", problems)
    except ExperimentError as error:
        if "success_criteria" not in document and "failure_criteria" not in document:
            raise
        problems.append(str(error))
        return document
    beside = {name: value for name, value in document.items() if name != "spec" and value.strip()}
    kept = {name: value for name, value in beside.items() if name in _LIFECYCLE}
    return {**beside, **inside, **kept}


def file_fields(text: str, problems: list[str]) -> Mapping[str, object]:
    """The fields of an experiment in a file: JSON or YAML, bare or under ``experiment:``.

    Raises:
        ExperimentError: The file holds no such object.
    """
    return _object(text, "the file", problems)


def declared_metrics(
    document: Mapping[str, str] | str | None, inside: object, problems: list[str]
) -> tuple[MetricSpec, ...]:
    """The metrics of an experiment.

    Args:
        document: What is under ``metrics_specs:{id}``; None when there is none.
        inside: The list inside the experiment. It counts where the document has none, and where the document
            is a piece of YAML that says no more than the list does: it was cut out of the same file.
        problems: Gets a line for whatever is not understood.
    """
    own_problems: list[str] = []
    inside_problems: list[str] = []
    entries, is_cut, fault = _own_entries(document, own_problems)
    own = metric_specs(entries, own_problems)
    if own and not is_cut:
        problems += own_problems
        return tuple(own)
    listed = _entries(decoded(inside, "metrics", inside_problems), "metrics", inside_problems)
    others = metric_specs(listed, inside_problems)
    if own and (not others or (not fault and _said(own) > _said(others))):
        counts, used = f"the {len(own)} metrics before that count", own
    else:
        counts, used = "the list inside the experiment counts" if others else "there is no other list", others
    if fault:
        problems.append(f"metrics_yaml is cut short or broken: {fault}; {counts}")
    # Of a piece that another list replaces its own faults are of no interest.
    if used is own or not is_cut:
        problems += own_problems
    if used is others:
        problems += inside_problems
    return tuple(used)


def _own_entries(document: Mapping[str, str] | str | None, problems: list[str]) -> tuple[object, bool, str]:
    """The list under ``metrics_specs:{id}``; whether it is a piece of YAML; where that breaks off, or ""."""
    if document is None:
        return None, False, ""
    if isinstance(document, str):
        return _loaded_entries(document, problems), False, ""
    if document.get("metrics", "").strip() in ("", "null"):
        entries, fault = _cut_entries(document.get("metrics_yaml", ""), problems)
        return entries, True, fault
    return _entries(decoded(document["metrics"], "metrics_specs", problems), "metrics_specs", problems), False, ""


def _object(text: str, name: str, problems: list[str]) -> Mapping[str, Any]:
    """The object in a text, out of ``experiment`` where it stands under that.

    Raises:
        ExperimentError: There is none.
    """
    json_problems: list[str] = []
    yaml_problems: list[str] = []
    fault = ""
    loaded = from_json(text.removeprefix("\ufeff"), name, json_problems)
    if json_problems:
        loaded, fault = _from_yaml(text, yaml_problems)
    if isinstance(loaded, dict):
        problems += (f"{name}, {problem}" for problem in yaml_problems)
        return _unwrapped(loaded)
    if json_problems and (name == _STRING or text.lstrip()[:1] in ("{", "[")):
        raise ExperimentError(json_problems[0])
    raise ExperimentError(f"{name} is not YAML: {fault}" if fault else f"{name} holds {kind_of(loaded)}, not an object")


def _from_yaml(text: str, problems: list[str]) -> tuple[object, str]:
    """A whole YAML text and what is wrong with it, "" for nothing."""
    from redis_agent.criteria.yaml_text import YamlError, from_yaml  # noqa: PLC0415 - most experiments are not YAML

    try:
        return from_yaml(text, problems), ""
    except YamlError as error:
        return None, str(error)


def _unwrapped(root: dict[str, Any]) -> Mapping[str, Any]:
    """The object under the root key ``experiment``, with what stands beside it; else the object itself."""
    inner = root.get("experiment")
    if not isinstance(inner, dict):
        return root
    return {**{name: value for name, value in root.items() if name != "experiment"}, **inner}


def _loaded_entries(text: str, problems: list[str]) -> object:
    """The list in a STRING: JSON, or else YAML."""
    json_problems: list[str] = []
    loaded = from_json(text, "metrics_specs", json_problems)
    if json_problems:
        loaded, _ = _from_yaml(text, problems)
        if not isinstance(loaded, (dict, list)):
            problems += json_problems
            return None
    return _entries(loaded, "metrics_specs", problems)


def _cut_entries(text: str, problems: list[str]) -> tuple[object, str]:
    """The list in a piece of a YAML file, as far as it goes, and where it breaks off, "" if it does not."""
    from redis_agent.criteria.yaml_text import from_cut_yaml  # noqa: PLC0415 - most experiments are not YAML

    if not text.strip():
        return None, ""
    loaded, fault = from_cut_yaml(text, problems)
    # A text that breaks off in its first words is no list yet.
    entries = loaded if isinstance(loaded, (dict, list)) else None
    said = "" if fault is None else str(fault)
    if entries is None and not said:
        said = f"it holds {kind_of(loaded)}"
    listed = _entries(entries, "metrics_yaml", problems)
    if isinstance(listed, list) and any(isinstance(entry, dict) for entry in listed):
        # `- nam` is what is left of `- name: ...`, and reads like a metric's bare name.
        listed = [entry for entry in listed if isinstance(entry, dict) and entry]
    return listed, said


def _entries(loaded: object, name: str, problems: list[str]) -> object:
    """What ``metric_specs`` reads in a document: a list, or an object by name."""
    if not isinstance(loaded, dict):
        return loaded
    root = _unwrapped(loaded)
    if "metrics" in root and not isinstance(root["metrics"], (str, int, float)):
        return root["metrics"]
    if all(isinstance(value, dict) for value in root.values()):
        return root
    problems.append(f"{name} has no list of metrics")
    return None


def _said(specs: list[MetricSpec]) -> int:
    """How much is said in a list of metrics: a name each, and whatever else is there."""
    return sum(
        1
        + sum(bool(part) for part in (spec.type, spec.formula, spec.unit, spec.description))
        + sum(part is not None for part in (spec.success_threshold, spec.failure_threshold, spec.target))
        for spec in specs
    )
