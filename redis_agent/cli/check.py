"""`redis-agent check`: what the criteria of an experiment evaluate to, and why."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, redis_url_option
from redis_agent.cli.output import Cell, Table, number, print_json, say, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.config import Settings
    from redis_agent.experiments import Experiment

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(cls=Command)
@click.argument("experiment_id", metavar="[ID]", required=False)
@click.option("--file", "path", type=_FILE, help="Read the experiment from a JSON or YAML file.")
@click.option(
    "--metrics",
    "metrics_path",
    type=_FILE,
    help="With --file: a JSON object with the fields of the aggregate, such as email_sent_count.",
)
@click.option("--now", "now_text", metavar="ISO", help="Judge as of this moment.")
@json_option
@redis_url_option
def check(
    *,
    experiment_id: str | None,
    path: Path | None,
    metrics_path: Path | None,
    now_text: str | None,
    as_json: bool,
    redis_url: str | None,
) -> None:
    """Say for every criterion what was understood, what it comes to, and why.

    An experiment is judged as it stands in Redis, or as a file has it: then no server is needed. The file holds one
    experiment, in YAML under `experiment:` or as a bare object in JSON or YAML; time counts from its created_at. The
    listed criteria come first, then those of the metrics' thresholds.

    Examples:
        redis-agent check exp_test
        redis-agent check --file experiment.yaml
        redis-agent check --file experiment.yaml --metrics aggregate.json --now 2026-02-01T10:00:00Z
    """
    if (experiment_id is None) == (path is None):
        raise click.UsageError("name an experiment, or a file with --file")
    if metrics_path is not None and path is None:
        raise click.UsageError("--metrics belongs to --file")

    from redis_agent.cli.session import settings_of, with_redis

    now = _moment(now_text)
    if path is not None:
        fields = {} if metrics_path is None else _fields_of(metrics_path)
        document = _document(_experiment_of(path), fields, now, settings_of(redis_url))
    else:
        wanted = experiment_id or ""

        async def work(session: "Session") -> dict[str, Any]:
            experiment, fields = await _read(session, wanted)
            mature = await session.mature({wanted: fields})
            return _document(experiment, fields, now, session.settings, mature.get(wanted))

        document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
    else:
        _show(document)


def _document(
    experiment: "Experiment",
    fields: dict[str, str],
    now: datetime,
    settings: "Settings",
    mature: dict[str, str] | None = None,
) -> dict[str, Any]:
    from redis_agent.experiments import judge

    verdicts = judge(
        experiment,
        fields,
        now=now,
        alpha=settings.alert_alpha,
        min_samples=settings.min_samples,
        mature=mature,
    )
    return {
        "experiment_id": experiment.id,
        "state": experiment.state,
        "judged": experiment.judged,
        "criteria": [verdict.as_json() for verdict in verdicts],
        "problems": list(experiment.problems),
    }


async def _read(session: "Session", experiment_id: str) -> "tuple[Experiment, dict[str, str]]":
    from redis_agent.catalogue import parse_definition
    from redis_agent.experiments import Experiment, with_translations
    from redis_agent.store.aggregates import Aggregates
    from redis_agent.store.definitions import Definitions, is_experiment
    from redis_agent.store.inspection import Inspection
    from redis_agent.store.translations import Translations

    if not is_experiment(experiment_id):
        raise click.ClickException(f"{experiment_id} is no experiment: it is something that an experiment has")
    partitions = session.partitions
    client = partitions.of(experiment_id).client
    definition = (await Definitions(partitions.wide).read([experiment_id]))[experiment_id]
    problem = await Inspection(client).aggregate_problem(experiment_id)
    if problem:
        raise click.ClickException(problem)
    aggregates = await Aggregates(client).read([experiment_id])
    fields = aggregates.get(experiment_id, {})
    experiment = parse_definition(experiment_id, definition)
    if isinstance(experiment, Experiment):
        if session.settings.translate_criteria:
            found = await Translations(partitions.home.client).of(list(experiment.untranslated))
            experiment = with_translations(experiment, found)
        return experiment, fields
    if experiment:
        raise click.ClickException(f"the definition of {experiment_id} is no use: {experiment}")
    if fields:
        raise click.ClickException(
            f"{experiment_id} has events, but no definition: there is no key experiments:{experiment_id}"
        )
    raise click.ClickException(f"{experiment_id} is unknown: it has neither an event nor a definition")


def _experiment_of(path: Path) -> "Experiment":
    from redis_agent.experiments import parse_experiment_file

    try:
        return parse_experiment_file(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:  # also what is not UTF-8
        raise click.ClickException(f"{path}: {error}") from None


def _fields_of(path: Path) -> dict[str, str]:
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise click.ClickException(f"{path}: {error}") from None
    if not isinstance(document, dict):
        raise click.ClickException(f"{path}: an object with fields of the aggregate is expected")
    fields = {}
    for name, value in document.items():
        if isinstance(value, (dict, list)):
            raise click.ClickException(f"{path}: the value of {name} must be a number or a text")
        if value is not None:
            # As the aggregate has it: flags are 1 and 0.
            fields[name] = str(int(value) if isinstance(value, bool) else value)
    return fields


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    from redis_agent.experiments import parse_moment

    moment = parse_moment(text)
    if moment is None:
        raise click.BadParameter(f"{text!r} is no time in ISO 8601", param_hint="--now")
    return moment


def _show(document: dict[str, Any]) -> None:
    say(f"{document['experiment_id']}  ({document['state'] or 'active'})", "bold")
    if not document["judged"]:
        say(f"in this state it is not judged, and nothing is told: {document['state']}", "yellow")
    for problem in document["problems"]:
        say(f"problem: {problem}", "yellow")
    if document["criteria"]:
        show(criteria_table(document["criteria"]))
    else:
        say("no criteria")


def criteria_table(criteria: list[dict[str, Any]]) -> Table:
    """The verdicts for people."""
    table = Table(["kind", "criterion", "understood as", "state", ">value", "threshold", "why"])
    for verdict in criteria:
        threshold = ""
        if verdict["threshold"] is not None:
            threshold = f"{verdict['operator']} {number(verdict['threshold'])}"
        parsed = verdict["parsed"]
        table.add(
            verdict["kind"],
            verdict["criterion"],
            "the same" if parsed == verdict["criterion"] else _understood(verdict),
            _state(verdict),
            number(verdict["value"]),
            threshold or "-",
            verdict["reason"],
        )
    return table


def _understood(verdict: dict[str, Any]) -> str:
    parsed = verdict["parsed"] or "-"
    return f"{parsed} (translated)" if verdict["translated"] else parsed


def _state(verdict: dict[str, Any]) -> Cell:
    state = verdict["state"]
    words = state.replace("_", " ")
    if state == "met":
        evidence = verdict["evidence"]
        words = words if evidence in (None, "fact") else f"{words} ({evidence})"
        return Cell(words, "bold green" if verdict["kind"] == "success" else "bold red")
    styles = {"unknown": "yellow", "unsupported": "magenta"}
    return Cell(words, styles.get(state, "dim"))
