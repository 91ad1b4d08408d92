"""`redis-agent repartition`: change the number of partitions, with all that is known of the experiments."""

import sys
from typing import TYPE_CHECKING

import click

from redis_agent.cli.options import Command, json_option, redis_url_option, yes_option
from redis_agent.cli.output import counted, print_json, say

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.repartition import Report

_MOST = 256


@click.command(cls=Command)
@click.option("--to", required=True, type=click.IntRange(1, _MOST), metavar="N", help="How many there shall be.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and what is in the way.")
@yes_option
@json_option
@redis_url_option
def repartition(*, to: int, dry_run: bool, yes: bool, as_json: bool, redis_url: str | None) -> None:
    """Change the number of partitions, while no agent runs. Exits with 1 when something is in the way.

    How many there are is known from Redis, whatever REDIS_AGENT_PARTITIONS is. A run that was interrupted is gone on
    with by the next; until what is new is complete, it is taken back by the number that there was.

    Examples:
        redis-agent repartition --to 8 --dry-run
        redis-agent repartition --to 8 --yes --json
    """
    from redis_agent.cli.session import with_redis
    from redis_agent.repartition import repartition as change

    if not (yes or dry_run) and sys.stdin.isatty():
        click.confirm(f"Change the number of partitions to {to}?", abort=True, err=True)

    async def work(session: "Session") -> "Report":
        return await change(session.settings, to, dry_run=dry_run, say=lambda line: click.echo(line, err=True))

    report = with_redis(redis_url, work, looks=False)
    if as_json:
        print_json(report.document())
    else:
        _show(report)
    if report.obstacles:
        raise SystemExit(1)


def _show(report: "Report") -> None:
    change = f"from {report.before} to {counted(report.after, 'partition')}"
    for one in report.obstacles:
        where = "" if one.partition is None else f"partition {one.partition}: "
        say(f"{where}{one.what}; {one.remedy}", "red")
    if report.outcome == "unchanged":
        say(f"there {'is' if report.after == 1 else 'are'} {counted(report.after, 'partition')} already")
    elif report.outcome == "taken_back":
        say(f"the change {change} is taken back: REDIS_AGENT_PARTITIONS is {report.before}", "green")
    elif report.outcome == "blocked":
        say(f"nothing was changed: {change} is not possible yet", "red")
    else:
        what = ", ".join(
            counted(count, noun)
            for count, noun in (
                (report.experiments, "experiment"),
                (report.events, "event"),
                (report.dead_letters, "dead letter"),
                (report.alerts, "alert"),
            )
        )
        moved = counted(report.keys, "key")
        if report.outcome == "changed":
            say(f"changed {change}: {what}; {moved} copied", "green")
        else:
            say(f"it can be changed {change}: {what}; {moved} to copy", "green")
    if report.events_left_out:
        say(f"{counted(report.events_left_out, 'event')} of the history left out: not every partition goes back so far")
    if report.renumbered:
        say(f"{counted(report.renumbered, 'entry')} of streams got another id: two partitions had the same")
    if report.outcome == "changed":
        say(f"start the agents with REDIS_AGENT_PARTITIONS={report.after}")
