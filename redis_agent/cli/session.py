"""What every command that talks to Redis does around its work: settings, a client, errors in one line."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_agent.clock import Clock
from redis_agent.config import Settings, load_settings, variable_name
from redis_agent.errors import AgentError
from redis_agent.maturity import Maturity
from redis_agent.store.client import connect
from redis_agent.store.failures import Remedy, classify
from redis_agent.store.windows import Windows

if TYPE_CHECKING:
    from redis_agent.analyst.analyst import Analyst
    from redis_agent.analyst.reader import Reader
    from redis_agent.summaries import Digests

_T = TypeVar("_T")

# A URL given with a command means that very server, whoever is the master.
_NO_SENTINELS = dict.fromkeys(map(variable_name, ("sentinels", "sentinel_master")), "")


@dataclass(frozen=True, slots=True)
class Session:
    """The settings and a client of the server that they name."""

    settings: Settings
    client: Redis

    async def mature(self, aggregates: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """The aggregates without the trials that are too young to count; empty where all count at once."""
        return await self.maturity().fields(aggregates)

    def maturity(self) -> Maturity:
        """Which counts are old enough."""
        return Maturity(Windows(self.client), Clock(), self.settings.maturity_seconds)

    @asynccontextmanager
    async def analyst(self) -> "AsyncIterator[tuple[Reader, Analyst]]":
        """What reads the facts, and what words them."""
        from redis_agent import app, log
        from redis_agent.analyst.analyst import Analyst
        from redis_agent.catalogue import Catalogue
        from redis_agent.store.definitions import Definitions
        from redis_agent.store.translations import Translations
        from redis_agent.telemetry import Telemetry

        log.configure(level="error", form=self.settings.log_format)
        telemetry, clock = Telemetry(), Clock()
        catalogue = Catalogue(
            definitions=Definitions(self.client),
            telemetry=telemetry,
            ttl_seconds=self.settings.definitions_ttl_seconds,
            translations=Translations(self.client) if self.settings.translate_criteria else None,
        )
        asker = app.asker_of(self.settings, self.client, telemetry)
        reader = app.reader_of(self.settings, self.client, catalogue=catalogue, clock=clock)
        try:
            yield reader, Analyst(reader=reader, asker=asker, telemetry=telemetry, clock=clock)
        finally:
            await asker.aclose()

    @asynccontextmanager
    async def digests(self) -> "AsyncIterator[Digests]":
        """What makes summaries."""
        from redis_agent import app

        async with self.analyst() as (reader, analyst):
            yield app.digests_of(
                self.settings, [self.client], catalogue=reader.catalogue, clock=Clock(), analyst=analyst
            )


def settings_of(redis_url: str | None) -> Settings:
    """The settings; a URL given with the command, or before it, stands above the environment.

    Raises:
        click.ClickException: a setting is wrong.
    """
    context = click.get_current_context(silent=True)
    url = redis_url or (context.find_root().obj if context is not None else None)
    try:
        return load_settings(overrides={"REDIS_URL": url, **_NO_SENTINELS} if url else None)
    except AgentError as error:
        raise click.ClickException(str(error)) from None


def with_redis(redis_url: str | None, work: Callable[[Session], Awaitable[_T]]) -> _T:
    """Run a command's work with a connection; what Redis refuses becomes one line and exit code 1."""
    settings = settings_of(redis_url)

    async def session() -> _T:
        client = connect(settings.address, name="redis-agent:cli")
        try:
            return await work(Session(settings, client))
        finally:
            await client.aclose()

    try:
        return asyncio.run(session())
    except AgentError as error:
        raise click.ClickException(str(error)) from None
    except (RedisError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise  # whoever read our output has gone; click ends quietly
        _explain(error, settings.address_shown)


def _explain(error: Exception, url: str) -> NoReturn:
    failure = classify(error)
    said = " ".join(str(error).split()) or type(error).__name__
    if failure.kind in ("auth", "noauth", "wrongpass"):
        message = f"Redis at {url} refuses the login: {said}"
    elif failure.kind == "noperm":
        message = f"Redis at {url} does not permit this: {said}"
    elif failure.remedy is Remedy.RECONNECT or failure.kind in ("tls_certificate", "permission"):
        message = f"Redis at {url} cannot be reached: {said}"
    elif failure.kind == "wrongtype":
        message = f"a key of the agent has the wrong type: {said}"
    else:
        message = f"Redis at {url} answered: {said}"
    raise click.ClickException(message) from None
