"""`redis-agent analyze`: what an experiment's state means, in a sentence."""

from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, redis_url_option
from redis_agent.cli.output import Table, number, print_json, say, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session

# A person waits; alerts do not.
_LEAST_SECONDS = 10.0
_STYLES = {"succeeded": "bold green", "on_track": "green", "at_risk": "yellow", "failing": "bold red"}


@click.command(cls=Command)
@click.argument("experiment_id", metavar="ID")
@json_option
@redis_url_option
def analyze(*, experiment_id: str, as_json: bool, redis_url: str | None) -> None:
    """Say how an experiment stands, what decides that, and what to do about it.

    Gemini words it where GOOGLE_API_KEY is set, else a template does, from the same facts. With --json the facts are
    shown, too. Nothing is told to anybody else, and nothing changes.

    Examples:
        redis-agent analyze exp_test
        redis-agent analyze exp_test --json | jq -r .analysis.insight
    """
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> dict[str, Any]:
        return await read_analysis(session, experiment_id)

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
    else:
        _show(document)


async def read_analysis(session: "Session", experiment_id: str) -> dict[str, Any]:
    """The document that `--json` prints.

    Raises:
        click.ClickException: nothing is known of the experiment.
    """
    import asyncio
    from datetime import UTC, datetime

    from redis_agent.analyst.gathering import gather

    async with session.analyst(session.partitions.of(experiment_id)) as (reader, analyst):
        material = await reader.material(experiment_id)
        if material.experiment is None and not material.fields:
            raise click.ClickException(f"{experiment_id} is unknown: it has neither an event nor a readable definition")
        facts = gather(material, now=datetime.now(UTC))
        wait = max(_LEAST_SECONDS, session.settings.analysis_deadline_seconds)
        analysis = await analyst.word(facts, deadline=asyncio.get_running_loop().time() + wait)
    return {"experiment_id": experiment_id, "analysis": analysis, "facts": facts.as_json()}


def _show(document: dict[str, Any]) -> None:
    analysis, facts = document["analysis"], document["facts"]
    experiment = facts["experiment"]
    words = analysis["status"].replace("_", " ")
    say(f"{document['experiment_id']}: {words}  ({analysis['source']})", _STYLES.get(analysis["status"], ""))
    say(analysis["insight"])
    say(f"action: {analysis['action']}")
    say(f"{experiment['state']}, {experiment['age']} old, {experiment['events']:,} events", "dim")
    if not facts["metrics"]:
        return
    recent, before = facts.get("recent", "recently"), facts.get("before", "before")
    table = Table(["metric", ">value", f">{recent}", f">{before}"])
    for metric in facts["metrics"]:
        table.add(metric["name"], *(_value(metric, name) for name in ("value", "recent", "before")))
    say()
    show(table)


def _value(metric: dict[str, Any], which: str) -> str:
    share = metric.get("percent" if which == "value" else f"{which}_percent")
    return number(metric.get(which)) if share is None else f"{share:g} %"
