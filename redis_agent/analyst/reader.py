"""Reads what an analysis needs: definition, aggregate, verdicts, windows and history, all that is asked for at once."""

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from redis_agent import experiments
from redis_agent.analyst.facts import Spans
from redis_agent.analyst.gathering import Material, comparison_seconds, comparison_windows
from redis_agent.catalogue import Catalogue
from redis_agent.clock import Clock
from redis_agent.experiments import Experiment
from redis_agent.lifecycle import CriterionState
from redis_agent.maturity import Maturity
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.inspection import Inspection
from redis_agent.store.outbox import Outbox
from redis_agent.store.windows import Windows

_T = TypeVar("_T")

# Of the history so many alerts, of all experiments, are looked through for those of one.
_HISTORY: Final = 200
# What was read is remembered for so long: a burst of alerts is often about few experiments.
_MEMORY_SECONDS: Final = 1.0
# Experiments that are read at the same time, and those that are judged before others have their turn.
_AT_ONCE: Final = 8
_SLICE: Final = 16


@dataclass(frozen=True, slots=True)
class Evidence:
    """How criteria are judged (see `judge.Rules`)."""

    alpha: float
    min_samples: int


class Reader:
    """Reads the material for facts.

    Args:
        catalogue: definitions.
        aggregates, windows, outbox, inspection: what stands in Redis.
        maturity: which counts are old enough.
        clock: the time.
        evidence: how criteria are judged.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        aggregates: Aggregates,
        windows: Windows,
        outbox: Outbox,
        inspection: Inspection,
        maturity: Maturity,
        clock: Clock,
        evidence: Evidence,
    ) -> None:
        self.catalogue = catalogue
        self._aggregates = aggregates
        self._windows = windows
        self._outbox = outbox
        self._inspection = inspection
        self._maturity = maturity
        self._clock = clock
        self._evidence = evidence
        self._read: dict[str, tuple[float, asyncio.Task[Material]]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._history: tuple[float, asyncio.Task[list[dict[str, Any]]]] | None = None
        # The history as it was read last, by entry id and JSON: most of it is there the next time, too.
        self._alerts: dict[tuple[str, str], dict[str, Any] | None] = {}

    async def material(self, experiment_id: str, *, since: float | None = None) -> Material:
        """What is known of an experiment.

        Args:
            experiment_id: which.
            since: what was read from then on, on the event loop's clock, is new enough: alerts that are seen together
                share what is read about them. None reads anew.

        Raises:
            RedisError, OSError: something could not be read.
        """
        now = asyncio.get_running_loop().time()
        found = self._read.get(experiment_id)
        if found is None or found[0] < (now if since is None else since):
            for known in [i for i, (at, task) in self._read.items() if now - at > _MEMORY_SECONDS and task.done()]:
                del self._read[known]
            found = self._read[experiment_id] = (now, _shared(self._material(experiment_id)))
        # Who stops waiting must not end it for others.
        return await asyncio.shield(found[1])

    def _latest_alerts(self) -> asyncio.Task[list[dict[str, Any]]]:
        """Reads the newest alerts of all experiments, newest first, not older than a second."""
        now = asyncio.get_running_loop().time()
        if self._history is None or now - self._history[0] > _MEMORY_SECONDS:
            self._history = (now, _shared(self._read_history()))
        return self._history[1]

    async def look(self, experiment_ids: Sequence[str]) -> list[Material]:
        """Definition, aggregate and verdicts of experiments that have an aggregate; a page of them at a time.

        Raises:
            RedisError, OSError: something could not be read.
        """
        defined = await self.catalogue.experiments(experiment_ids)
        found = await self._aggregates.read(experiment_ids)
        return await self._judged(defined, found)

    async def _judged(
        self, defined: Mapping[str, Experiment], found: Mapping[str, Mapping[str, str]]
    ) -> list[Material]:
        asked = {i: fields for i, fields in found.items() if i in defined and defined[i].asks_for_less}
        mature = await self._maturity.fields({i: fields for i, fields in asked.items() if defined[i].judged})
        now, materials = self._clock.now(), []
        for n, (experiment_id, fields) in enumerate(found.items()):
            if n % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            experiment = defined.get(experiment_id)
            verdicts = (
                experiments.judge(
                    experiment,
                    fields,
                    now=now,
                    alpha=self._evidence.alpha,
                    min_samples=self._evidence.min_samples,
                    mature=mature.get(experiment_id),
                )
                if experiment is not None and experiment.judged
                else []
            )
            materials.append(Material(experiment_id, experiment, fields, verdicts))
        return materials

    async def _material(self, experiment_id: str) -> Material:
        async with self._turns:
            latest = self._latest_alerts()
            defined = await self.catalogue.experiments([experiment_id])
            asked = _shared(self._outbox.states([experiment_id]))
            found = await self._aggregates.read([experiment_id])
            kept = await asked
            (material,) = await self._judged(defined, {experiment_id: found.get(experiment_id, {})})
            spans = await self._spans(material, self._clock.now())
            # Who stops waiting must not end it for others.
            history = await asyncio.shield(latest)
            return replace(
                material,
                states={fingerprint: CriterionState.loads(state) for fingerprint, state in kept[experiment_id].items()},
                spans=spans,
                history=[alert for alert in history if alert.get("experiment_id") == experiment_id],
            )

    async def _spans(self, material: Material, now: datetime) -> Spans:
        seconds = comparison_seconds(material, now)
        recent, before = comparison_windows(seconds, int(now.timestamp()))
        sums = await self._windows.sums([(material.experiment_id, recent), (material.experiment_id, before)])
        return Spans(seconds, *sums)

    async def _read_history(self) -> list[dict[str, Any]]:
        entries = await self._inspection.newest_alerts(_HISTORY)
        alerts: dict[tuple[str, str], dict[str, Any] | None] = {}
        for n, entry in enumerate(entries):
            if n % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            alerts[entry] = self._alerts[entry] if entry in self._alerts else _alert_of(entry[1])
        self._alerts = alerts
        return [alert for alert in alerts.values() if alert is not None]


def _shared(reading: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """A task that several wait for, or none in the end: then its failure is nobody's."""
    task = asyncio.create_task(reading)
    task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return task


def alerts_of(entries: Sequence[tuple[str, str]]) -> list[tuple[str, dict[str, Any]]]:
    """Entries of the outbox as JSON objects, each with its id; what is none is left out."""
    found = ((entry_id, _alert_of(data)) for entry_id, data in entries)
    return [(entry_id, alert) for entry_id, alert in found if alert is not None]


def _alert_of(data: str) -> dict[str, Any] | None:
    try:
        alert = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return alert if isinstance(alert, dict) else None
