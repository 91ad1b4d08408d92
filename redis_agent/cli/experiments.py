"""`redis-agent experiments`: what is known of the experiments."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.check import criteria_table
from redis_agent.cli.history import DEFAULT_SECONDS, show_history
from redis_agent.cli.options import Command, Duration, json_option, limit_option, redis_url_option
from redis_agent.cli.output import Cell, Table, age, joined, number, print_json, say, shortened, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.overview import KnownExperiments

_PAGE = 100
_PEOPLE_SEE = 50
_RATES_SHOWN = 3


@click.command(cls=Command)
@click.argument("experiment_id", metavar="[ID]", required=False)
@limit_option(f"List so many, the most recently active first (people: {_PEOPLE_SEE}).")
@click.option("--history", is_flag=True, help="Draw how the experiment's counts and gauges went.")
@click.option(
    "--last",
    "history_seconds",
    type=Duration("a history lasts", least=60),
    metavar="TIME",
    help="How far back the history goes: 90m, 2d, 2w (2d).",
)
@json_option
@redis_url_option
def experiments(
    *,
    experiment_id: str | None,
    limit: int | None,
    history: bool,
    history_seconds: int | None,
    as_json: bool,
    redis_url: str | None,
) -> None:
    """List the experiments, or show all there is about one.

    The list has those that ever had an event: state, events, the last one, the rates computed from
    counts, and how many criteria are met.

    Examples:
        redis-agent experiments
        redis-agent experiments exp_test
        redis-agent experiments exp_test --history --last 6h
        redis-agent experiments exp_test --json | jq .aggregate
    """
    from redis_agent.cli.session import with_redis

    if experiment_id is None and (history or history_seconds):
        raise click.UsageError("which experiment's history? `redis-agent experiments` lists them")
    if experiment_id is not None:
        wanted = experiment_id
        if history or history_seconds:
            show_history(redis_url, wanted, history_seconds or DEFAULT_SECONDS, as_json=as_json)
            return

        async def one(session: "Session") -> dict[str, Any]:
            return await read_experiment(session, wanted)

        document = with_redis(redis_url, one)
        print_json(document) if as_json else _show_one(document)
        return

    async def some(session: "Session") -> dict[str, Any]:
        return await read_experiments(session, limit or (None if as_json else _PEOPLE_SEE))

    document = with_redis(redis_url, some)
    print_json(document) if as_json else _show_list(document)


async def read_experiments(session: "Session", limit: int | None) -> dict[str, Any]:
    """The document that `--json` prints without an id."""
    from redis_agent.store.union import AllAggregates

    last_events = await AllAggregates(session.partitions).all()
    ids = list(last_events)[:limit]
    now = datetime.now(UTC)
    experiments_known = _known(session)
    rows: list[dict[str, Any]] = []
    for first in range(0, len(ids), _PAGE):
        page = ids[first : first + _PAGE]
        for experiment_id, known in (await experiments_known.read(page, now)).items():
            age_seconds = now.timestamp() - last_events[experiment_id] / 1000
            rows.append(
                {
                    "experiment_id": experiment_id,
                    "state": known["state"],
                    "events_total": known["events_total"],
                    "last_event_at": known["aggregate"].get("last_updated"),
                    "last_event_age_seconds": round(max(0.0, age_seconds), 3),
                    "rates": known["rates"],
                    "criteria": {
                        "met": sum(1 for c in known["criteria"] if c["state"] == "met"),
                        "total": len(known["criteria"]),
                    },
                }
            )
    return {"total": len(last_events), "experiments": rows}


async def read_experiment(session: "Session", experiment_id: str) -> dict[str, Any]:
    """The document that `--json` prints with an id.

    Raises:
        click.ClickException: there is neither an event nor a definition.
    """
    from redis_agent.store.aggregates import Aggregates
    from redis_agent.store.inspection import Inspection

    known = (await _known(session).read([experiment_id], datetime.now(UTC)))[experiment_id]
    client = session.partitions.of(experiment_id).client
    problem = await Inspection(client).aggregate_problem(experiment_id)
    if problem:
        known["problems"].append(problem)
    elif not known["aggregate"] and not known["defined"]:
        raise click.ClickException(f"{experiment_id} is unknown: it has neither an event nor a definition")
    known["refused"] = await Aggregates(client).refused_names(experiment_id)
    if session.partitions.several:
        known["partition"] = session.partitions.of(experiment_id).number
    return known


def _known(session: "Session") -> "KnownExperiments":
    from redis_agent.overview import KnownExperiments

    settings = session.settings
    return KnownExperiments(
        session.partitions,
        maturity=session.maturity(),
        alpha=settings.alert_alpha,
        min_samples=settings.min_samples,
        translate=settings.translate_criteria,
    )


def _show_list(document: dict[str, Any]) -> None:
    if not document["experiments"]:
        say("no experiment has had an event yet")
        return
    table = Table(["experiment", "state", ">events", ">last event", "rates", "criteria"])
    for row in document["experiments"]:
        met, total = row["criteria"]["met"], row["criteria"]["total"]
        table.add(
            Cell(row["experiment_id"], "bold"),
            row["state"] or ("active" if row["state"] == "" else "not defined"),
            f"{row['events_total']:,}",
            f"{age(row['last_event_age_seconds'])} ago",
            _rates(row["rates"]),
            Cell(f"{met} of {total} met" if total else "-", "green" if met else ""),
        )
    show(table)
    left = document["total"] - len(document["experiments"])
    if left:
        say(f"and {left:,} more; --limit shows more of them")


def _rates(rates: dict[str, Any]) -> str:
    shown = [
        f"{name}={number(value) if isinstance(value, float) else value}"
        for name, value in list(rates.items())[:_RATES_SHOWN]
    ]
    more = len(rates) - _RATES_SHOWN
    return joined([*shown, f"{more} more"] if more > 0 else shown)


def _show_one(document: dict[str, Any]) -> None:
    state = document["state"] or ("active" if document["state"] == "" else "not defined")
    say(f"{document['experiment_id']}  ({state})", "bold")
    if document["hypothesis"]:
        say(shortened(document["hypothesis"], 300))
    for problem in document["problems"]:
        say(f"problem: {problem}", "yellow")
    say()
    if document["aggregate"]:
        table = Table(["field", ">value"])
        for name, value in sorted(document["aggregate"].items()):
            table.add(name, value)
        show(table)
    else:
        say("no event yet")
    if document["criteria"]:
        say()
        show(criteria_table(document["criteria"]))
    if document["refused"]:
        say()
        names = joined(f"{n} ({times}x)" for n, times in sorted(document["refused"].items()))
        say(f"names refused, the aggregate being full: {names}", "yellow")
