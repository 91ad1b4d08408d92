"""What every command that talks to Redis does around its work: settings, a client, errors in one line."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click
from redis.exceptions import RedisError

from redis_agent.clock import Clock
from redis_agent.config import Settings, load_settings, variable_name
from redis_agent.errors import AgentError
from redis_agent.maturity import Maturity
from redis_agent.store.failures import Remedy, classify
from redis_agent.store.partitions import Partition, Partitions
from redis_agent.store.union import AllWindows

if TYPE_CHECKING:
    from redis_agent.analyst.analyst import Analyst
    from redis_agent.analyst.reader import Reader
    from redis_agent.publishing import Publishing
    from redis_agent.summaries import Digests

_T = TypeVar("_T")

# A URL given with a command means that very server, whoever is the master, and no cluster.
_THAT_SERVER = dict.fromkeys(map(variable_name, ("sentinels", "sentinel_master", "cluster_nodes", "pubsub")), "")


@dataclass(frozen=True, slots=True)
class Session:
    """The settings, and the partitions of the server or cluster that they name."""

    settings: Settings
    partitions: Partitions

    async def mature(self, aggregates: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """The aggregates without the trials that are too young to count; empty where all count at once."""
        return await self.maturity().fields(aggregates)

    def publishing(self) -> "Publishing":
        """What publishes as services do."""
        from redis_agent.publishing import Publishing

        settings = self.settings
        return Publishing(
            self.partitions,
            channel=settings.metrics_channel,
            pubsub=settings.pubsub,
            max_event_bytes=settings.max_event_bytes,
        )

    def maturity(self) -> Maturity:
        """Which counts are old enough."""
        return Maturity(AllWindows(self.partitions), Clock(), self.settings.maturity_seconds)

    @asynccontextmanager
    async def analyst(self, partition: Partition) -> "AsyncIterator[tuple[Reader, Analyst]]":
        """What reads the facts of a partition, and what words them."""
        from redis_agent import app, log
        from redis_agent.analyst.analyst import Analyst
        from redis_agent.catalogue import Catalogue
        from redis_agent.store.definitions import Definitions
        from redis_agent.store.translations import Translations
        from redis_agent.telemetry import Telemetry

        log.configure(level="error", form=self.settings.log_format)
        telemetry, clock, home = Telemetry(), Clock(), self.partitions.home.client
        catalogue = Catalogue(
            definitions=Definitions(self.partitions.wide),
            telemetry=telemetry,
            ttl_seconds=self.settings.definitions_ttl_seconds,
            translations=Translations(home) if self.settings.translate_criteria else None,
        )
        asker = app.asker_of(self.settings, home, telemetry)
        reader = app.reader_of(self.settings, partition.client, catalogue=catalogue, clock=clock)
        try:
            yield reader, Analyst(reader=reader, asker=asker, telemetry=telemetry, clock=clock)
        finally:
            await asker.aclose()

    @asynccontextmanager
    async def digests(self) -> "AsyncIterator[Digests]":
        """What makes summaries."""
        from redis_agent import app

        clients = [partition.client for partition in self.partitions.all]
        async with self.analyst(self.partitions.home) as (reader, analyst):
            yield app.digests_of(self.settings, clients, catalogue=reader.catalogue, clock=Clock(), analyst=analyst)


def settings_of(redis_url: str | None) -> Settings:
    """The settings; a URL given with the command, or before it, stands above the environment.

    Raises:
        click.ClickException: a setting is wrong.
    """
    context = click.get_current_context(silent=True)
    url = redis_url or (context.find_root().obj if context is not None else None)
    try:
        return load_settings(overrides={"REDIS_URL": url, **_THAT_SERVER} if url else None)
    except AgentError as error:
        raise click.ClickException(str(error)) from None


def with_redis(redis_url: str | None, work: Callable[[Session], Awaitable[_T]], *, looks: bool = True) -> _T:
    """Run a command's work with a connection; what Redis refuses becomes one line and exit code 1.

    Args:
        redis_url: given with the command.
        work: what it does.
        looks: whether it looks into partitions, and so must know how many there are.
    """
    settings = settings_of(redis_url)

    async def session() -> _T:
        partitions = Partitions(settings.address, settings.partitions, name="redis-agent:cli")
        try:
            if looks:
                await _compare(partitions)
            return await work(Session(settings, partitions))
        finally:
            await partitions.aclose()

    try:
        return asyncio.run(session())
    except AgentError as error:
        raise click.ClickException(str(error)) from None
    except (RedisError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise  # whoever read our output has gone; click ends quietly
        _explain(error, settings.address_shown)


async def _compare(partitions: Partitions) -> None:
    """Refuse to look at another number of partitions than there are, as far as that can be known.

    A cluster may have lost the node that knows it: what of it is left can be looked at.
    """
    try:
        await partitions.compare()
    except (RedisError, OSError):
        if partitions.topology is None:
            raise


def _explain(error: Exception, url: str) -> NoReturn:
    failure = classify(error)
    said = " ".join(str(error).split()) or type(error).__name__
    if failure.kind in ("auth", "noauth", "wrongpass"):
        message = f"Redis at {url} refuses the login: {said}"
    elif failure.kind == "noperm":
        message = f"Redis at {url} does not permit this: {said}"
    elif failure.remedy is Remedy.RECONNECT or failure.kind in ("tls_certificate", "permission"):
        message = f"Redis at {url} cannot be reached: {said}"
    elif failure.kind == "cluster":
        message = f"Redis at {url} is a node of a cluster: REDIS_AGENT_CLUSTER_NODES names those ({said})"
    elif failure.kind == "wrongtype":
        message = f"a key of the agent has the wrong type: {said}"
    else:
        message = f"Redis at {url} answered: {said}"
    raise click.ClickException(message) from None
