"""`redis-agent summary`: all experiments on one page, as the periodic summary has it."""

from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, redis_url_option
from redis_agent.cli.output import print_json, say

if TYPE_CHECKING:
    from redis_agent.cli.session import Session

_DAY_MS = 86_400_000
_STYLES = {"Wins": "bold green", "Concerns": "bold red", "Quiet": "yellow"}


@click.command(cls=Command)
@click.option("--daily", is_flag=True, help="Of the last day, instead of the last interval.")
@json_option
@redis_url_option
def summary(*, daily: bool, as_json: bool, redis_url: str | None) -> None:
    """Sum all experiments up: wins, concerns, what changed, what is under way, what is quiet.

    It covers the last SUMMARY_INTERVAL_SECONDS, or a day. Gemini words it where GOOGLE_API_KEY is set, else a template
    does. The Orchestrator is not told.

    Examples:
        redis-agent summary
        redis-agent summary --daily --json | jq -r '.concerns[]'
    """
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> dict[str, Any]:
        return await read_summary(session, daily=daily)

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
    else:
        _show(document)


async def read_summary(session: "Session", *, daily: bool) -> dict[str, Any]:
    """The document that `--json` prints."""
    from redis_agent.alerts import DAY, INTERVAL
    from redis_agent.clock import Clock, iso_from_ms

    now_ms = Clock().now_ms()
    since_ms = now_ms - (_DAY_MS if daily else int(1000 * session.settings.summary_interval_seconds))
    async with session.digests() as digests:
        plain = await digests.read(await digests.everything(), since_ms=since_ms, now_ms=now_ms)
        worded, by = await digests.word(plain)
    return {
        "period": DAY if daily else INTERVAL,
        "since": iso_from_ms(since_ms),
        "until": iso_from_ms(now_ms),
        "experiment_count": worded.experiments,
        "worded_by": by,
        "summary": worded.text(),
        **worded.as_json(),
    }


def _show(document: dict[str, Any]) -> None:
    for n, line in enumerate(document["summary"].splitlines()):
        say(line, "bold" if n == 0 else _STYLES.get(line, ""))
