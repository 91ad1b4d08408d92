"""`redis-agent silence`: mute the alerts of an experiment for a time."""

from typing import TYPE_CHECKING

import click

from redis_agent.cli.options import Command, Duration, json_option, redis_url_option
from redis_agent.cli.output import Table, age, print_json, say, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.store.partitions import Partition

_TYPES = (
    "success_threshold", "failure_threshold", "error", "anomaly", "periodic_summary", "experiment_completed", "cleared",
)  # fmt: skip


@click.command(cls=Command)
@click.argument("experiment", metavar="[ID]", required=False)
@click.option(
    "--type", "alert_type", type=click.Choice(_TYPES), metavar="TYPE", help=f"Only one of: {', '.join(_TYPES)}."
)
@click.option(
    "--for", "seconds", type=Duration("a silence lasts"), metavar="TIME", help="How long: 90s, 30m, 2h, 1d12h, 1w."
)
@click.option("--list", "listing", is_flag=True, help="Show the silences that last.")
@click.option("--remove", is_flag=True, help="End the silence.")
@json_option
@redis_url_option
def silence(
    *,
    experiment: str | None,
    alert_type: str | None,
    seconds: int | None,
    listing: bool,
    remove: bool,
    as_json: bool,
    redis_url: str | None,
) -> None:
    """Mute the alerts of an experiment, or one type of them, for a time; `all` is the experiment of summaries.

    Muted alerts are not delivered, also such as wait already. A criterion that rose meanwhile, and is still met when
    the silence is over, is told then.

    Examples:
        redis-agent silence exp_test --for 2h
        redis-agent silence exp_test --type error --for 1d12h
        redis-agent silence --list --json
        redis-agent silence exp_test --remove
    """
    if sum((listing, remove, seconds is not None)) != 1:
        raise click.UsageError("give one of --for TIME, --list and --remove")
    if listing:
        _list(redis_url, experiment, as_json=as_json)
        return
    if not experiment:
        raise click.UsageError("which experiment? `redis-agent experiments` lists them")
    if seconds is None:
        _remove(redis_url, experiment, alert_type, as_json=as_json)
    else:
        _add(redis_url, experiment, alert_type, seconds, as_json=as_json)


def _add(redis_url: str | None, experiment: str, alert_type: str | None, seconds: int, *, as_json: bool) -> None:
    from redis_agent.cli.session import with_redis
    from redis_agent.clock import Clock, iso_from_ms
    from redis_agent.store.silences import Silences

    now_ms = Clock().now_ms()
    until = iso_from_ms(now_ms + 1000 * seconds)

    async def work(session: "Session") -> None:
        for partition in _told_in(session, experiment):
            silences = Silences(partition.client)
            await silences.add(experiment, alert_type, seconds=seconds, since=iso_from_ms(now_ms))

    with_redis(redis_url, work)
    if as_json:
        print_json({"experiment_id": experiment, "type": alert_type, "until": until})
    else:
        say(f"{experiment}: {alert_type or 'all alerts'} muted until {until}")


def _remove(redis_url: str | None, experiment: str, alert_type: str | None, *, as_json: bool) -> None:
    from redis_agent.cli.session import with_redis
    from redis_agent.store.silences import Silences

    async def work(session: "Session") -> bool:
        removed = [await Silences(p.client).remove(experiment, alert_type) for p in _told_in(session, experiment)]
        return any(removed)

    if not with_redis(redis_url, work):
        raise click.ClickException(f"there is no such silence of {experiment} (see redis-agent silence --list)")
    if as_json:
        print_json({"experiment_id": experiment, "type": alert_type, "removed": True})
    else:
        say(f"{experiment}: {alert_type or 'all alerts'} no longer muted")


def _told_in(session: "Session", experiment: str) -> "list[Partition]":
    """The partitions in which alerts of an experiment are raised; summaries, of all experiments, are in the home."""
    from redis_agent.alerts import ALL_EXPERIMENTS

    partitions = session.partitions
    places = [partitions.of(experiment)]
    if experiment == ALL_EXPERIMENTS and partitions.home not in places:
        places.append(partitions.home)
    return places


def _list(redis_url: str | None, experiment: str | None, *, as_json: bool) -> None:
    from redis_agent.cli.session import with_redis
    from redis_agent.store.silences import Silence, Silences
    from redis_agent.store.union import each

    async def work(session: "Session") -> list[Silence]:
        lists = await each(session.partitions.all, lambda partition: Silences(partition.client).all())
        # What is told of all experiments, and of one of that name, may be muted in two partitions.
        found = {(one.experiment_id, one.type or ""): one for some in lists for one in some}
        return [one for _, one in sorted(found.items()) if experiment in (None, one.experiment_id)]

    found = with_redis(redis_url, work)
    if as_json:
        names = ("experiment_id", "type", "left_seconds", "since")
        print_json([{name: getattr(one, name) for name in names} for one in found])
        return
    if not found:
        say("no silences")
        return
    table = Table(["experiment", "type", "since", ">left"])
    for one in found:
        left = "for ever" if one.left_seconds is None else age(one.left_seconds)
        table.add(one.experiment_id, one.type or "all", one.since, left)
    show(table)
