"""The experiments as they are defined now: read again when what is known has grown old, parsed when it has changed.

One catalogue serves all roles of a process, so that what is wrong with a definition is said once: when it is found,
and again only after it was mended in between.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from redis_agent import experiments, log
from redis_agent.experiments import Experiment
from redis_agent.store.definitions import Definition, Definitions
from redis_agent.store.translations import Translations
from redis_agent.telemetry import Telemetry

# Experiments that are remembered; beyond it the oldest is forgotten, and read again when it is asked for.
_MEMORY: Final = 10_000
_UNSUPPORTED: Final = "criterion_unsupported"
# Of a criterion that is not understood so many characters are said.
_SHOWN: Final = 200
# Definitions that are looked at before others in the process get their turn.
_SLICE: Final = 32
# What is too large to be read is not fetched again within this time.
_TOO_LARGE_SECONDS: Final = 30.0


class Catalogue:
    """Knows experiments by their id.

    Args:
        definitions: as they stand in Redis.
        telemetry: counts what is wrong with them.
        ttl_seconds: how long one is used before it is read again.
        translations: of criteria that nobody understands; None where none are used.
    """

    def __init__(
        self,
        *,
        definitions: Definitions,
        telemetry: Telemetry,
        ttl_seconds: float,
        translations: Translations | None = None,
    ) -> None:
        self._definitions = definitions
        self._translations = translations
        self._telemetry = telemetry
        self._ttl_seconds = ttl_seconds
        self._log = log.get("catalogue")
        # Until when a definition counts as known, on the event loop's clock.
        self._fresh: dict[str, float] = {}
        self._parsed: dict[str, tuple[bytes, Experiment | None]] = {}
        self._said: dict[str, frozenset[tuple[str, str]]] = {}

    async def experiments(self, ids: Sequence[str]) -> dict[str, Experiment]:
        """Those that are defined; the same object as long as the definition is the same.

        Raises:
            RedisError, OSError: definitions could not be read.
        """
        now = asyncio.get_running_loop().time()
        wanted = [i for i in ids if self._fresh.get(i, now) <= now]
        if wanted:
            for n, (experiment_id, definition) in enumerate((await self._definitions.read(wanted)).items()):
                if n % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)
                await self._understand(experiment_id, definition)
                if definition.too_large:
                    self._fresh[experiment_id] = now + max(self._ttl_seconds, _TOO_LARGE_SECONDS)
                elif definition.exists:
                    self._fresh[experiment_id] = now + self._ttl_seconds
                else:
                    # Asked for again with the next event: an experiment may be defined after its first one.
                    self._fresh.pop(experiment_id, None)
            await self._translate(wanted)
        found = ((i, self._parsed[i][1]) for i in ids if i in self._parsed)
        known = {experiment_id: experiment for experiment_id, experiment in found if experiment is not None}
        self._forget_oldest()
        return known

    def may_define(self, experiment_id: str) -> bool:
        """Whether it was defined when it was last looked up, if it ever was."""
        return experiment_id not in self._parsed or self._parsed[experiment_id][1] is not None

    def may_judge(self, experiment_id: str) -> bool:
        """Whether it had criteria when it was last looked up, if it ever was."""
        known = self._parsed.get(experiment_id)
        return known is None or (known[1] is not None and known[1].judged)

    async def _understand(self, experiment_id: str, definition: Definition) -> None:
        """Parse what has changed, and say what is wrong with it."""
        if experiment_id in self._parsed and self._parsed[experiment_id][0] == definition.digest:
            return
        parsed = parse_definition(experiment_id, definition)
        if isinstance(parsed, Experiment):
            problems = [("definition_problem", problem) for problem in parsed.problems]
            unsupported = [c for c in parsed.criteria if c.criterion is None]
            problems += [(_UNSUPPORTED, f"{c.text[:_SHOWN]}: {c.problem}") for c in unsupported]
            self._say(experiment_id, problems)
            self._parsed[experiment_id] = (definition.digest, parsed)
        else:
            self._say(experiment_id, [("definition_unreadable", parsed)] if parsed else [])
            self._parsed[experiment_id] = (definition.digest, None)
        if definition.exists:
            # A large definition takes a while: others have their turn.
            await asyncio.sleep(0)

    async def _translate(self, ids: Sequence[str]) -> None:
        """Put translations in the place of what nobody understands, where there are some by now."""
        if self._translations is None:
            return
        known = {i: found for i in ids if i in self._parsed and (found := self._parsed[i][1]) is not None}
        asked = {key for experiment in known.values() for key in experiment.untranslated}
        translations = await self._translations.of(sorted(asked))
        for experiment_id, experiment in known.items():
            translated = experiments.with_translations(experiment, translations)
            if translated is not experiment:
                self._parsed[experiment_id] = (self._parsed[experiment_id][0], translated)
                for entry in (c for c in translated.criteria if c.translated and c not in experiment.criteria):
                    meant = "" if entry.criterion is None else entry.criterion.text
                    self._log.info(
                        "criterion_translated", experiment_id=experiment_id, text=entry.text[:_SHOWN], criterion=meant
                    )

    def _say(self, experiment_id: str, problems: Sequence[tuple[str, str]]) -> None:
        """Say what is wrong with a definition, and which criteria nobody can decide, but for what was so before."""
        before = self._said.pop(experiment_id, frozenset())
        if problems:
            self._said[experiment_id] = frozenset(problems)
        for event, problem in dict.fromkeys(problems):
            if (event, problem) not in before:
                if event != _UNSUPPORTED:  # an author's free text is no error
                    self._telemetry.definition_errors.inc()
                self._log.warning(event, experiment_id=experiment_id, problem=problem)

    def _forget_oldest(self) -> None:
        while len(self._parsed) > _MEMORY:
            oldest = next(iter(self._parsed))
            del self._parsed[oldest]
            self._fresh.pop(oldest, None)
        while len(self._said) > _MEMORY:
            del self._said[next(iter(self._said))]


def parse_definition(experiment_id: str, definition: Definition) -> Experiment | str:
    """The experiment a definition describes, or why not ("" when there is none)."""
    if definition.document is None and definition.specs is None:
        return definition.problem
    try:
        experiment = experiments.parse_experiment(experiment_id, definition.document or {}, definition.specs)
    except ValueError as problem:
        return str(problem)
    if definition.problem:
        return replace(experiment, problems=(definition.problem, *experiment.problems))
    return experiment
