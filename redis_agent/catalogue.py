"""The experiments as they are defined now: read again when what is known has grown old, parsed when it has changed.

One catalogue serves all roles of a process, so that what is wrong with a definition is said once: when it is found,
and again only after it was mended in between.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis_agent import experiments, log
from redis_agent.experiments import Experiment
from redis_agent.store.definitions import Definition, Definitions
from redis_agent.telemetry import Telemetry

# Experiments that are remembered; beyond it the oldest is forgotten, and read again when it is asked for.
_MEMORY: Final = 10_000


class Catalogue:
    """Knows experiments by their id."""

    def __init__(self, *, definitions: Definitions, telemetry: Telemetry, ttl_seconds: float) -> None:
        self._definitions = definitions
        self._telemetry = telemetry
        self._ttl_seconds = ttl_seconds
        self._log = log.get("catalogue")
        # Until when a definition counts as known, on the event loop's clock.
        self._fresh: dict[str, float] = {}
        self._parsed: dict[str, tuple[Definition, Experiment | None]] = {}
        self._said: dict[str, frozenset[tuple[str, str]]] = {}

    async def experiments(self, ids: Sequence[str]) -> dict[str, Experiment]:
        """Those that are defined; the same object as long as the definition is the same.

        Raises:
            RedisError, OSError: definitions could not be read.
        """
        now = asyncio.get_running_loop().time()
        wanted = [i for i in ids if self._fresh.get(i, now) <= now]
        if wanted:
            for experiment_id, definition in (await self._definitions.read(wanted)).items():
                if await self._understand(experiment_id, definition):
                    self._fresh[experiment_id] = now + self._ttl_seconds
                else:
                    # Asked for again with the next event: an experiment may be defined after its first one.
                    self._fresh.pop(experiment_id, None)
        found = ((i, self._parsed[i][1]) for i in ids if i in self._parsed)
        known = {experiment_id: experiment for experiment_id, experiment in found if experiment is not None}
        self._forget_oldest()
        return known

    async def _understand(self, experiment_id: str, definition: Definition) -> bool:
        """Parse what has changed; whether there is a definition at all."""
        known = self._parsed.get(experiment_id)
        if known is not None and known[0] == definition:
            return definition.exists
        parsed = parse_definition(experiment_id, definition)
        problems: list[tuple[str, str]] = []
        if definition.problem:
            problems.append(("definition_unreadable", definition.problem))
        if isinstance(parsed, Experiment):
            problems += (("definition_problem", problem) for problem in parsed.problems)
        elif parsed:
            problems.append(("definition_unreadable", parsed))
        self._say(experiment_id, frozenset(problems), problems)
        if definition.exists or problems:
            self._parsed[experiment_id] = (definition, parsed if isinstance(parsed, Experiment) else None)
            # A large definition takes a while: others have their turn.
            await asyncio.sleep(0)
        else:
            self._parsed.pop(experiment_id, None)
        return definition.exists

    def _say(self, experiment_id: str, found: frozenset[tuple[str, str]], in_order: Sequence[tuple[str, str]]) -> None:
        """Say what is wrong with a definition, but for what was wrong with it before."""
        before = self._said.pop(experiment_id, frozenset())
        if found:
            self._said[experiment_id] = found
        for event, problem in dict.fromkeys(in_order):
            if (event, problem) not in before:
                fields: dict[str, Any] = {"experiment_id": experiment_id, "problem": problem}
                self._telemetry.definition_errors.inc()
                self._log.warning(event, **fields)

    def _forget_oldest(self) -> None:
        for known in (self._parsed, self._said, self._fresh):
            while len(known) > _MEMORY:
                del known[next(iter(known))]


def parse_definition(experiment_id: str, definition: Definition) -> Experiment | str:
    """The experiment a definition describes, or why not ("" when there is none)."""
    if definition.document is None and definition.specs is None:
        return definition.problem
    try:
        return experiments.parse_experiment(experiment_id, definition.document or {}, definition.specs)
    except ValueError as problem:
        return str(problem)
