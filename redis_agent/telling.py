"""Telling: criteria as they were judged become alerts, each crossing once.

Reads what is remembered of the criteria, decides (`lifecycle`), and writes decision and alert in one step. Where
somebody else was quicker it reads and decides again: workers and the sweep may judge the same experiment at a time.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeAlias

from redis_agent import log
from redis_agent.alerts import (
    Alert,
    AlertType,
    Crossing,
    FinalVerdict,
    Severity,
    cleared_alert,
    completed_alert,
    threshold_alert,
    threshold_severity,
    threshold_type,
)
from redis_agent.clock import Clock
from redis_agent.lifecycle import CriterionState, Decision, Level, Policy, Reason, decide
from redis_agent.store import keys
from redis_agent.store.outbox import NOTED, OVERTAKEN, SILENCED, Outbox, Raise, StateChange
from redis_agent.telemetry import Telemetry
from redis_agent.tracing import OFF, UNTRACED, Span, Step, Tracing

# A cooldown that is known to run is not asked for again for so long, at most.
_COOLDOWN_MEMORY_SECONDS = 5.0
# Experiments whose states are decided on before others in the process get their turn.
_SLICE = 4
# Bounds of what is remembered between batches; beyond it is forgotten and read again.
_MEMORY = 10_000
# How often one decision is taken anew because somebody else was quicker; then the next batch or sweep takes it.
_ATTEMPTS = 5
# What is remembered of a criterion that the definition no longer has goes after so long: another process may have read
# a newer definition.
_STRAY_MS = 3_600_000

# Experiment -> what is remembered of its criteria: fingerprint -> JSON.
States: TypeAlias = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What judging one experiment found about its criteria.

    Attributes:
        experiment_id: which.
        events: in the aggregate that was judged.
        at_ms: receipt of the newest event that led here; 0 when time alone did.
        levels: where each criterion stands by this judgement; one that is unknown is left out.
        crossings: what there is to say about each of these, made when it is said: an interval takes its time.
        failures: which of them are criteria of failure.
        known: fingerprints of all criteria that the experiment has.
        trace: the context of the judgement, where it is traced.
    """

    experiment_id: str
    events: int
    at_ms: int
    levels: Mapping[str, Level]
    crossings: Mapping[str, Callable[[], Crossing]]
    failures: frozenset[str]
    known: frozenset[str]
    trace: str = ""


@dataclass(frozen=True, slots=True)
class _Step:
    """One change of state, with its alert if it has one."""

    change: Raise
    alert: Alert | None = None
    span: Span = UNTRACED


class Teller:
    """Tells what is to be told about criteria."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        telemetry: Telemetry,
        clock: Clock,
        policy: Policy,
        notify_cleared: bool,
        tracing: Tracing = OFF,
    ) -> None:
        self._outbox = outbox
        self._telemetry = telemetry
        self._clock = clock
        self._policy = policy
        self._notify_cleared = notify_cleared
        self._tracing = tracing
        self._log = log.get("judge")
        self._cooling: dict[tuple[str, str, str], float] = {}

    async def states(self, experiment_ids: Sequence[str]) -> States:
        """What is remembered of the criteria of these experiments, as `tell` wants it.

        Raises:
            RedisError, OSError: it could not be read.
        """
        return await self._outbox.states(experiment_ids) if experiment_ids else {}

    async def tell(self, findings: Sequence[Finding], *, known: States | None = None) -> None:
        """Change the states of these criteria, and raise the alerts that are due.

        Args:
            findings: one for each experiment.
            known: what is remembered, read a moment ago. Where it lacks one of them, or another change came in between,
                it is read anew.

        Raises:
            RedisError, OSError: nothing is half done; telling again is safe.
        """
        waiting = list(findings)
        for _ in range(_ATTEMPTS):
            if not waiting:
                return
            ids = [finding.experiment_id for finding in waiting]
            states = known if known is not None and known.keys() >= set(ids) else await self.states(ids)
            known = None
            steps: list[_Step] = []
            for n, finding in enumerate(waiting):
                if n % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)
                steps += self._steps(finding, states[finding.experiment_id])
            overtaken = await self._take(steps) if steps else set()
            waiting = [finding for finding in waiting if finding.experiment_id in overtaken]

    async def complete(self, experiment_id: str, verdicts: Sequence[FinalVerdict], run_id: str | None) -> None:
        """Tell that an experiment is completed, once.

        Raises:
            RedisError, OSError: nothing is half done; telling again is safe.
        """
        alert = completed_alert(
            verdicts, experiment_id=experiment_id, alert_id=str(uuid.uuid4()), now=self._clock.now(), run_id=run_id
        )
        change = Raise(
            experiment_id=experiment_id,
            alert_type=alert.type.value,
            fingerprint=alert.fingerprint,
            cooldown_seconds=max(1, self._policy.cooldown_ms // 1000),
            alert_id=alert.alert_id,
            data=alert.dumps(),
            at_ms=0,
            # What is muted is not told later: it is no news then.
            state=StateChange(keys.COMPLETIONS, experiment_id, b"", alert.alert_id, alert.alert_id),
        )
        await self._take([_Step(change, alert)])

    def _steps(self, finding: Finding, kept: Mapping[str, bytes]) -> list[_Step]:
        """What is to be written for one experiment."""
        now_ms = self._clock.now_ms()
        steps = []
        for fingerprint, level in finding.levels.items():
            raw = kept.get(fingerprint, b"")
            if not raw and level is Level.INACTIVE:
                continue
            state = CriterionState.loads(raw)
            decision = decide(
                state,
                level,
                now_ms=now_ms,
                events=finding.events,
                policy=self._policy,
                tell_cleared=self._notify_cleared and fingerprint in finding.failures,
            )
            if decision.tell:
                step = self._alert(finding, finding.crossings[fingerprint](), decision, raw)
                if self._cooling.get(_cooling_key(step.change), 0.0) <= asyncio.get_running_loop().time():
                    steps.append(step)
                elif step.alert is not None:
                    self._count(step.alert.type, step.alert.severity, "cooldown")
                continue
            if decision.reason is Reason.WAITS:
                kind = "failure" if fingerprint in finding.failures else "success"
                self._count(threshold_type(kind), threshold_severity(kind, early=level is Level.EARLY), "cooldown")
            if decision.held != state:
                steps.append(_noted(finding, fingerprint, raw, decision.held.dumps()))
        strays = (f for f in kept if f not in finding.known and _is_stray(kept[f], now_ms))
        return steps + [_noted(finding, fingerprint, kept[fingerprint], "") for fingerprint in strays]

    def _alert(self, finding: Finding, crossing: Crossing, decision: Decision, raw: bytes) -> _Step:
        alert_id, now = str(uuid.uuid4()), self._clock.now()
        if decision.reason is Reason.CLEARED:
            alert = cleared_alert(crossing, experiment_id=finding.experiment_id, alert_id=alert_id, now=now)
        else:
            alert = threshold_alert(
                crossing,
                experiment_id=finding.experiment_id,
                alert_id=alert_id,
                now=now,
                why=decision.reason,
                since=datetime.fromtimestamp(decision.held.since_ms / 1000, UTC),
            )
        told = replace(decision.told, alert_id=alert.alert_id).dumps()
        span = self._tracing.begin(
            Step.RAISE, finding.trace, alert_id=alert_id, alert_type=alert.type, severity=alert.severity
        )
        change = Raise(
            experiment_id=alert.experiment_id,
            alert_type=alert.type.value,
            fingerprint=alert.fingerprint,
            cooldown_seconds=max(1, decision.wait_ms // 1000),
            alert_id=alert.alert_id,
            data=alert.dumps(),
            at_ms=finding.at_ms,
            state=StateChange(
                keys.alert_state(finding.experiment_id), crossing.fingerprint, raw, told, decision.held.dumps()
            ),
            trace=span.context,
        )
        return _Step(change, alert, span)

    async def _take(self, steps: Sequence[_Step]) -> set[str]:
        """Write the steps; the experiments about which somebody else was quicker."""
        now = asyncio.get_running_loop().time()
        outcomes = await self._outbox.raise_([step.change for step in steps])
        if len(self._cooling) > _MEMORY:
            self._cooling.clear()
        overtaken = set()
        for step, outcome in zip(steps, outcomes, strict=True):
            if outcome == OVERTAKEN:
                overtaken.add(step.change.experiment_id)
            elif step.alert is None or outcome == NOTED:
                continue
            elif outcome == 0:
                step.span.end()
                self._log.info("alert_raised", alert=step.alert.as_json())
            elif outcome == SILENCED:
                self._cooling[_cooling_key(step.change)] = now + _COOLDOWN_MEMORY_SECONDS
                self._say_silenced(step)
            else:
                self._cooling[_cooling_key(step.change)] = now + min(outcome / 1000, _COOLDOWN_MEMORY_SECONDS)
                self._count(step.alert.type, step.alert.severity, "cooldown")
        return overtaken

    def _say_silenced(self, step: _Step) -> None:
        """Count and log what was muted, once for each change of the state."""
        change, alert = step.change.state, step.alert
        if change is None or alert is None or change.held.encode() == change.expected:
            return
        self._count(alert.type, alert.severity, "silenced")
        self._log.info("alert_silenced", alert=alert.as_json())

    def _count(self, kind: AlertType, severity: Severity, outcome: str) -> None:
        self._telemetry.alerts.labels(kind.value, severity.value, outcome).inc()


def _noted(finding: Finding, fingerprint: str, expected: bytes, state: str) -> _Step:
    """A state that changes without an alert."""
    change = StateChange(keys.alert_state(finding.experiment_id), fingerprint, expected, "", state)
    return _Step(Raise(finding.experiment_id, "", fingerprint, 1, "", "", 0, change))


def _is_stray(raw: bytes, now_ms: int) -> bool:
    return now_ms - CriterionState.loads(raw).since_ms > _STRAY_MS


def _cooling_key(change: Raise) -> tuple[str, str, str]:
    return change.experiment_id, change.alert_type, change.fingerprint
