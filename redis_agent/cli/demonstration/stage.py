"""The demo from its first moment to its last."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, redirect_stderr
from dataclasses import dataclass

from redis.asyncio import Redis

from redis_agent import app, log
from redis_agent.cli.demonstration.board import Board
from redis_agent.cli.demonstration.interrupts import Interrupts
from redis_agent.cli.demonstration.lines import Lines
from redis_agent.cli.demonstration.scenario import STORIES, Simulation
from redis_agent.cli.demonstration.screen import Screen
from redis_agent.cli.output import counted
from redis_agent.cli.replay import compare
from redis_agent.cli.session import Session
from redis_agent.config import Settings, analyst_variables, load_settings
from redis_agent.embedded import EmbeddedServer
from redis_agent.errors import AgentError
from redis_agent.store import keys
from redis_agent.store.partitions import Partitions
from redis_agent.store.union import AllInspection

# Seconds between two steps of the simulation.
_STEP = 0.05
_READY_SECONDS = 20.0
_SETTLE_SECONDS = 3.0
# A replay of more than this would keep people waiting.
_REPLAY_AT_MOST = 200_000
_LOG_LINES = 15


View = Screen | Lines


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for.

    Attributes:
        speed: seconds of the scenario in one second.
        seconds: how long to play; None until Ctrl-C.
        seed: of the simulation.
        http_port: of the endpoint; 0 for none.
        partitions: how many.
        live: a live view on the terminal, instead of lines.
    """

    speed: float
    seconds: float | None
    seed: int
    http_port: int
    partitions: int
    live: bool


def perform(plan: Plan, interrupts: Interrupts) -> str:
    """Run the demo on a server of its own; a line with what it came to.

    Whatever ends it, nothing is left behind: no process and no directory.

    Raises:
        AgentError: the server or the agent did not start, or ended by itself.
        KeyboardInterrupt: a signal came before the loop ran.
    """
    with ExitStack() as stack:
        server = EmbeddedServer()
        stack.callback(server.stop)
        stack.callback(interrupts.ignore)  # comes first: nothing may interrupt the server's end
        server.start()
        # Logs, and whatever else goes to stderr, would destroy the picture.
        log_file = stack.enter_context((server.directory / "redis-agent.log").open("a+", encoding="utf-8"))
        with redirect_stderr(log_file):
            log.configure(level="info", form="json")
            try:
                return asyncio.run(_perform(plan, server, interrupts))
            except AgentError:
                raise
            except Exception as error:
                root = _root(error)
                if isinstance(root, BrokenPipeError):
                    raise root from None  # whoever read our lines has gone; click ends quietly
                log_file.seek(0)
                tail = "".join(log_file.readlines()[-_LOG_LINES:])
                what = f"the demo broke: {type(root).__name__}: {root}"
                raise AgentError(f"{what}\n{tail}".rstrip()) from error


def _root(error: BaseException) -> BaseException:
    """The first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _settings(plan: Plan, server: EmbeddedServer) -> Settings:
    """Short intervals, so that everything can be seen within a minute; from the environment only what Gemini needs."""
    return load_settings(
        {
            **analyst_variables(),
            "REDIS_URL": server.url,
            "REDIS_AGENT_HTTP_PORT": str(plan.http_port),
            "REDIS_AGENT_PARTITIONS": str(plan.partitions),
            "THRESHOLD_CHECK_INTERVAL_SECONDS": "5",
            "SUMMARY_INTERVAL_SECONDS": "30",
            "ALERT_COOLDOWN_SECONDS": "60",
            "REDIS_AGENT_QUIET_AFTER_SECONDS": "15",
        }
    )


async def _perform(plan: Plan, server: EmbeddedServer, interrupts: Interrupts) -> str:
    ended, stop = asyncio.Event(), asyncio.Event()
    interrupts.end_instead(ended, asyncio.get_running_loop())
    settings = _settings(plan, server)
    board = Board(url=server.url, port=server.port, server=_name(server), settings=settings)
    agent = asyncio.create_task(app.run(settings, roles=frozenset(app.ROLES), stop=stop))
    agent.add_done_callback(lambda _: ended.set())
    verdict = ""
    async with AsyncExitStack() as stack:
        partitions = Partitions(settings.address, settings.partitions, name="redis-agent:demo")
        stack.push_async_callback(partitions.aclose)
        stack.push_async_callback(_drain, agent, stop)
        await _until(lambda: _leads(partitions), ended, _READY_SECONDS)
        if not ended.is_set():
            await _play(plan, board, partitions, ended)
        if not agent.done():
            verdict = await _proof(board, settings, partitions)
    if agent.result() != 0:
        raise AgentError(f"the agent ended with exit code {agent.result()}")
    return _closing(board) + verdict


async def _drain(agent: asyncio.Task[int], stop: asyncio.Event) -> None:
    stop.set()
    await asyncio.wait({agent})


def _name(server: EmbeddedServer) -> str:
    return f"{server.binary.name} {server.binary.version}"


async def _leads(partitions: Partitions) -> bool:
    """Whether the bridge writes, so that what is published from now on is kept."""
    return (await AllInspection(partitions.all).bridge()).at_ms > 0


async def _play(plan: Plan, board: Board, partitions: Partitions, ended: asyncio.Event) -> None:
    board.define(asyncio.get_running_loop().time())
    for story in STORIES:
        created = board.started.isoformat()
        for key, document in (
            (keys.experiment(story.id), story.definition(created)),
            (keys.metrics_specs(story.id), story.metrics_specs()),
        ):
            await partitions.wide.hset(key, items=[part for pair in document.items() for part in pair])
    client = partitions.home.client
    with Screen(board) if plan.live else Lines(board) as view:
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(_orchestrator(board, client, view))
            looker = tasks.create_task(_look(board, partitions, view))
            await _publish(plan, board, client, ended)
            await _settle(board, partitions)
            listener.cancel()
            looker.cancel()
        await board.sample(partitions, asyncio.get_running_loop().time())
        view.refresh()


async def _publish(plan: Plan, board: Board, client: Redis, ended: asyncio.Event) -> None:
    """Publish the story at its speed until it is ended."""
    simulation = Simulation(plan.seed)
    loop = asyncio.get_running_loop()
    began = loop.time()
    until = None if plan.seconds is None else began + plan.seconds
    while not ended.is_set() and (until is None or loop.time() < until):
        events = simulation.until((loop.time() - began) * plan.speed)
        if events:
            async with client.pipeline(transaction=False) as pipe:
                for event in events:
                    pipe.publish(board.settings.metrics_channel, event)
                await pipe.execute()
            board.published += len(events)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), _STEP)


async def _orchestrator(board: Board, client: Redis, view: View) -> None:
    """Play the Orchestrator: listen to the alerts."""
    async with client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(board.settings.orchestrator_channel)
        while True:
            message = await listener.get_message(timeout=1.0)
            if message is not None:
                view.alert(board.received(message["data"]))


async def _look(board: Board, partitions: Partitions, view: View) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(view.every_seconds)
        await board.sample(partitions, loop.time())
        view.refresh()


async def _settle(board: Board, partitions: Partitions) -> None:
    """Give what was published the time to arrive."""

    async def arrived() -> bool:
        inspection = AllInspection(partitions.all)
        bridge, group = await inspection.bridge(), await inspection.group()
        alerts = await inspection.alert_counts()
        return bridge.written >= board.published and not (group.lag or group.pending or alerts.waiting)

    await _until(arrived, asyncio.Event(), _SETTLE_SECONDS)


async def _until(condition: Callable[[], Awaitable[bool]], ended: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not ended.is_set() and not await condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def _proof(board: Board, settings: Settings, partitions: Partitions) -> str:
    """What a replay of the stream says of the aggregates."""
    if not board.published or board.published > _REPLAY_AT_MOST:
        return ""
    document = await compare(Session(settings, partitions))
    if document["agree"]:
        return "; a replay of the stream agrees with every aggregate"
    return f"; a replay of the stream DISAGREES in {counted(len(document['differences']), 'field')}"


def _closing(board: Board) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(board.kinds.items()))
    return (
        f"{counted(board.published, 'event')} published, {board.applied:,} applied, "
        f"{counted(sum(board.kinds.values()), 'alert')}{f' ({kinds})' if kinds else ''}"
    )
