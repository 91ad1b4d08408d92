"""The demo's experiments on a server of somebody's own: what the services of a deployment would publish."""

import asyncio
import contextlib
from datetime import UTC, datetime

import click
from redis.exceptions import RedisError

from redis_agent.cli.demonstration.interrupts import Interrupts
from redis_agent.cli.demonstration.scenario import STORIES, Simulation
from redis_agent.cli.output import counted
from redis_agent.cli.session import Session
from redis_agent.store import keys
from redis_agent.store.failures import Remedy, classify

# Seconds between two steps of the simulation, and between two tries while the server is away.
_STEP, _AGAIN = 0.05, 1.0
# So much of the story, in its own seconds, is told at once when it begins.
_OPENING = 1.0


async def publish_story(
    session: Session, *, speed: float, seconds: float | None, seed: int, interrupts: Interrupts
) -> str:
    """Define the experiments and publish their events until interrupted; a line with what it came to.

    The story begins when somebody hears its first event. While the server is away nothing is published, as services
    would have it: what happens meanwhile is not told later.

    Raises:
        RedisError: the server does not let this user do it.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    interrupts.end_instead(ended, loop)
    simulation, started = Simulation(seed), loop.time()
    opening = simulation.until(_OPENING)
    began: float | None = None
    published = unheard = missed = 0
    defined = away = alone = False
    publishing = session.publishing()
    while not ended.is_set() and (seconds is None or loop.time() < started + seconds):
        events = [] if began is None else simulation.until((loop.time() - began) * speed)
        wait = _STEP
        try:
            if not defined:
                await publishing.check()
                await _define(session)
                defined = True
            if began is None:
                if any(await publishing.publish(opening[:1])):
                    began, published, events = loop.time(), 1, opening[1:]
                elif not alone:
                    click.echo(f"nobody listens on {publishing.where} yet", err=True)
                    alone = True
            if events:
                receivers = await publishing.publish(events)
                published += len(events)
                unheard += receivers.count(0)
            if away:
                click.echo("the server is there again", err=True)
                away = False
        except (RedisError, OSError) as error:
            if classify(error).remedy is Remedy.FATAL:
                raise
            if not away:
                click.echo(f"the server is away: {' '.join(str(error).split())}", err=True)
            away, wait = True, _AGAIN
            missed += len(events)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), wait)
    line = f"{counted(published, 'event')} published"
    if unheard:
        line += f", {unheard:,} of them unheard by any bridge"
    return line + (f"; {missed:,} not, or without a reply, while the server was away" if missed else "")


async def _define(session: Session) -> None:
    created = datetime.now(UTC).isoformat()
    for story in STORIES:
        for key, document in (
            (keys.experiment(story.id), story.definition(created)),
            (keys.metrics_specs(story.id), story.metrics_specs()),
        ):
            await session.partitions.wide.hset(key, items=[part for pair in document.items() for part in pair])
