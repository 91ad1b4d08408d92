"""The examiner: closed windows of all experiments are looked at for anomalies, and what is new is told.

The way of a window: it is closed when every event that a bridge received in it has been applied; its minutes are read,
the experiment's series take it in, and what they know by now is written together with the alert, in one step that is
fenced by the scheduler's lease and refused where the experiment was examined by somebody else meanwhile. Whoever dies
before that step leaves the window to the next leader, who reads the same and finds the same; whoever dies after it
has left nothing to do. What was missed while the agent itself was cut off is no silence: windows in which events may
have been lost are left out.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from redis_agent import log
from redis_agent.alerts import Alert, AlertType, Severity
from redis_agent.anomaly_alerts import anomaly_alert
from redis_agent.catalogue import Catalogue
from redis_agent.clock import Clock
from redis_agent.examination import UPTO, Examination, Found, wait_ms
from redis_agent.experiments import Experiment
from redis_agent.lifecycle import CriterionState, Policy, inhibits_anomalies
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.anomalies import OVERTAKEN, SILENCED, WRONG_TYPE, Anomalies, Examined, Standing, Tell
from redis_agent.store.lease import Leadership
from redis_agent.store.outbox import Outbox
from redis_agent.store.windows import Windows
from redis_agent.telemetry import Liveness, Telemetry
from redis_agent.windows import SECONDS, Window, WindowSums

_HOUR: Final = SECONDS["hour"]
# Publishers' clocks and queues are late by less: so long after its end a window is closed.
_DELAY_SECONDS: Final = 30
# Without an event for so long an experiment is not looked at any more: its silence was told, or never will be.
_ASLEEP_SECONDS: Final = 7 * 86_400
# Windows that begin so long after an experiment's last event have none, whatever the clocks of those who noted it.
_EMPTY_AFTER_SECONDS: Final = 7_200
# How far back an experiment is examined that never was, or not for long.
_BACK_SECONDS: Final = 172_800
# What began and ended longer ago than this before it was examined is history, and not told.
_STALE_SECONDS: Final = 3_600
# Experiments examined in one go, and windows of each: bounds what is held, and how long others wait.
_PAGE: Final = 20
_WINDOWS: Final = 24
# Experiments whose progress is asked for in one go.
_ASKED: Final = 500
# A turn lasts so long: the scheduler has other jobs.
_TURN_SECONDS: Final = 2.0
# Times in which events may have been lost that are remembered.
_BLIND_SPELLS: Final = 50
_SAID: Final = 1_000


@dataclass(frozen=True, slots=True)
class Mark:
    """What one leader leaves to the next.

    Attributes:
        losses: the count of losses when it last looked.
        sound_ms: until when nothing was lost since.
        blind: spells (from, until; ms) in which something may have been.
    """

    losses: int
    sound_ms: int
    blind: tuple[tuple[int, int], ...] = ()

    @classmethod
    def loads(cls, text: str) -> "Mark | None":
        """Read it; None for none, and for what somebody else made of it."""
        try:
            losses, sound_ms, blind = json.loads(text)
            return cls(int(losses), int(sound_ms), tuple((int(a), int(b)) for a, b in blind))
        except (ValueError, TypeError, RecursionError):
            return None

    def dumps(self) -> str:
        """The JSON text."""
        return json.dumps([self.losses, self.sound_ms, self.blind], separators=(",", ":"))

    def after(self, standing: Standing, now_ms: int) -> "Mark":
        """The mark by now: what was lost since the last look was lost between the two."""
        blind = self.blind
        if standing.losses != self.losses:
            blind = (*blind, (min(self.sound_ms, standing.complete_ms), now_ms))
        kept = tuple(spell for spell in blind if now_ms - spell[1] < 1000 * _BACK_SECONDS)
        return Mark(standing.losses, standing.complete_ms, kept[-_BLIND_SPELLS:])

    def sees(self, start_s: int, end_s: int) -> bool:
        """Whether nothing was lost in this time."""
        return not any(begin < 1000 * end_s and 1000 * start_s < end for begin, end in self.blind)


class Examiner:
    """Examines experiments as the scheduler's leader.

    Args:
        leadership: of the scheduler.
        anomalies: where what is known of series is kept.
        windows: of all experiments.
        aggregates: says which experiments have events.
        catalogue: their definitions.
        outbox: says which criteria of failure are met.
        telemetry, liveness, clock: as everywhere.
        policy: the waits between alerts about one series.
        window_seconds: length of the windows that are examined; a multiple of 60.
        max_series: of one experiment.
        hours_kept: whether there are windows of hours, too, that say where minutes need not be asked for.
    """

    def __init__(
        self,
        *,
        leadership: Leadership,
        anomalies: Anomalies,
        windows: Windows,
        aggregates: Aggregates,
        catalogue: Catalogue,
        outbox: Outbox,
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        policy: Policy,
        window_seconds: int,
        max_series: int,
        hours_kept: bool,
    ) -> None:
        self._leadership = leadership
        self._anomalies = anomalies
        self._windows = windows
        self._aggregates = aggregates
        self._catalogue = catalogue
        self._outbox = outbox
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._policy = policy
        self._window_seconds = window_seconds
        self._max_series = max_series
        self._hours_kept = hours_kept
        self._log = log.get("examiner")
        self._mark = Mark(0, 0)
        self._done_s = 0
        self._last_events: dict[str, int] = {}
        self._said: set[str] = set()

    async def examine(self) -> bool:
        """Examine what has closed; True when the turn was over before all was.

        Raises:
            RedisError, OSError: what was written is complete; the rest is examined next time.
        """
        now_ms = self._clock.now_ms()
        standing = await self._anomalies.standing(now_ms)
        if not await self._note(standing, now_ms):
            return False
        closed_s = (standing.complete_ms // 1000 - _DELAY_SECONDS) // self._window_seconds * self._window_seconds
        if closed_s == self._done_s:
            return False
        deadline = asyncio.get_running_loop().time() + _TURN_SECONDS
        self._last_events = await self._aggregates.active_since(1000 * (closed_s - _ASLEEP_SECONDS))
        awake = list(self._last_events)
        for first in range(0, len(awake), _ASKED):
            asked = awake[first : first + _ASKED]
            uptos = await self._anomalies.examined_upto(asked)
            behind = [i for i, upto in zip(asked, uptos, strict=True) if _seconds(upto) < closed_s]
            for page in range(0, len(behind), _PAGE):
                if asyncio.get_running_loop().time() > deadline:
                    return True
                if self._leadership.value is None:
                    return False
                self._liveness.beat("scheduler")
                if not await self._examine_page(behind[page : page + _PAGE], closed_s, deadline):
                    return True
        self._done_s = closed_s
        self._telemetry.examined_until.set(closed_s)
        return False

    async def _note(self, standing: Standing, now_ms: int) -> bool:
        """Note whether something was lost since the last look; False when this is the leader no more."""
        mark = Mark.loads(standing.mark) or Mark(standing.losses, standing.complete_ms)
        # A mark from the future is of another clock.
        if mark.sound_ms > now_ms:
            mark = Mark(mark.losses, standing.complete_ms, mark.blind)
        self._mark = mark.after(standing, now_ms)
        lease = self._leadership.value
        return lease is not None and await self._anomalies.write(lease, [], mark=self._mark.dumps()) is not None

    async def _examine_page(self, ids: Sequence[str], closed_s: int, deadline: float) -> bool:
        """Examine these experiments until all their windows are; False when the turn is over before."""
        definitions = await self._catalogue.experiments(list(ids))
        waiting = [i for i in ids if i not in definitions or _is_running(definitions[i])]
        while waiting:
            if self._leadership.value is None or asyncio.get_running_loop().time() > deadline:
                return False
            waiting = await self._step(waiting, definitions, closed_s)
        return True

    async def _step(self, ids: Sequence[str], definitions: Mapping[str, Experiment], closed_s: int) -> list[str]:
        """Examine some windows of each; those of which more wait."""
        kept = dict(zip(ids, await self._anomalies.read(ids), strict=True))
        starts = {i: self._starts(_seconds(fields.get(UPTO, "")), closed_s) for i, fields in kept.items()}
        sums = await self._read(starts)
        examined: list[Examined] = []
        alerts: list[Alert | None] = []
        waiting: list[str] = []
        for experiment_id in ids:
            await asyncio.sleep(0)
            definition = definitions.get(experiment_id)
            try:
                one, alert = await self._examine_one(
                    experiment_id, kept[experiment_id], definition, starts[experiment_id], sums[experiment_id]
                )
            except (ValueError, ArithmeticError, LookupError, TypeError):  # one experiment must not stop the others
                self._once(experiment_id, "examining_failed", exc_info=True)
                continue
            examined.append(one)
            alerts.append(alert)
            if one.upto < closed_s:
                waiting.append(experiment_id)
        lease = self._leadership.value
        outcomes = None if lease is None or not examined else await self._anomalies.write(lease, examined)
        if outcomes is None:
            return []
        gone_on = set(waiting)
        for one, alert, outcome in zip(examined, alerts, outcomes, strict=True):
            if outcome in (OVERTAKEN, WRONG_TYPE):
                gone_on.discard(one.experiment_id)
                self._once(one.experiment_id, "not_examined", outcome=outcome)
            elif alert is not None:
                self._say(alert, outcome)
        return [i for i in waiting if i in gone_on]

    def _starts(self, upto_s: int, closed_s: int) -> list[int]:
        """Beginnings of the next windows to examine."""
        length = self._window_seconds
        first = max(upto_s, closed_s - _BACK_SECONDS) // length * length
        return list(range(first, closed_s, length))[:_WINDOWS]

    async def _read(self, starts: Mapping[str, Sequence[int]]) -> dict[str, dict[int, WindowSums]]:
        """What the windows of each experiment add up to; where there are many, hours without events are not asked."""
        wanted = [(i, start) for i, some in starts.items() for start in some]
        quiet: set[tuple[str, int]] = set()
        if self._hours_kept and len(wanted) > 2 * len(starts):
            ends = [(i, s) for i, start in wanted for s in (start, start + self._window_seconds - 1)]
            hours = sorted({(i, s // _HOUR * _HOUR) for i, s in ends})
            found = await self._windows.sums([(i, [Window("hour", hour)]) for i, hour in hours])
            quiet = {hour for hour, sums in zip(hours, found, strict=True) if not sums.events}
        asked = [
            (i, [Window("minute", s) for s in self._minutes(start) if (i, s // _HOUR * _HOUR) not in quiet])
            if 1000 * (start - _EMPTY_AFTER_SECONDS) <= self._last_events[i]
            else (i, [])
            for i, start in wanted
        ]
        found = await self._windows.sums(asked)
        sums_of: dict[str, dict[int, WindowSums]] = {i: {} for i in starts}
        for (experiment_id, start), sums in zip(wanted, found, strict=True):
            sums_of[experiment_id][start] = sums
        return sums_of

    def _minutes(self, start_s: int) -> range:
        return range(start_s, start_s + self._window_seconds, SECONDS["minute"])

    async def _examine_one(
        self,
        experiment_id: str,
        kept: Mapping[str, str],
        definition: Experiment | None,
        starts: Sequence[int],
        sums: Mapping[int, WindowSums],
    ) -> tuple[Examined, Alert | None]:
        """Examine these windows of one experiment, up to the first with something to tell."""
        now_ms = self._clock.now_ms()
        specs = {} if definition is None else definition.specs
        examination = Examination(kept, specs, self._max_series)
        upto, news = _seconds(kept.get(UPTO, "")), list[Found]()
        for start in starts:
            upto = start + self._window_seconds
            if not self._mark.sees(start, upto):
                continue
            found = examination.examine(start, self._window_seconds, sums[start])
            if found and now_ms // 1000 - upto < _STALE_SECONDS:
                news = examination.news(found, now_ms, self._policy)
            if news:
                break
        if examination.left_out:
            self._once(experiment_id, "series_left_out", limit=self._max_series)
        alert, tell = None, None
        if news and not await self._inhibited(experiment_id, definition):
            alert = anomaly_alert(
                news,
                experiment_id=experiment_id,
                alert_id=str(uuid.uuid4()),
                now=self._clock.now(),
                window_seconds=self._window_seconds,
                times=examination.times(news[0]),
            )
            tell = Tell(
                alert_type=alert.type.value,
                fingerprint=alert.fingerprint,
                cooldown_seconds=max(1, wait_ms(examination.times(news[0]), self._policy) // 1000),
                alert_id=alert.alert_id,
                data=alert.dumps(),
                told=examination.with_told(news, now_ms),
            )
        elif news:
            self._telemetry.alerts.labels(AlertType.ANOMALY.value, Severity.MEDIUM.value, "silenced").inc()
        set_to, remove = examination.changes(now_ms)
        return Examined(experiment_id, kept.get(UPTO, ""), upto, set_to, remove, tell), alert

    async def _inhibited(self, experiment_id: str, definition: Experiment | None) -> bool:
        """Whether a failure of this experiment that was told speaks for its anomalies, too."""
        if definition is None:
            return False
        failures = {entry.fingerprint for entry in definition.criteria if entry.kind == "failure"}
        states = (await self._outbox.states([experiment_id]))[experiment_id]
        return inhibits_anomalies(CriterionState.loads(raw) for name, raw in states.items() if name in failures)

    def _say(self, alert: Alert, outcome: int) -> None:
        """Count and log what became of an alert."""
        if outcome == 0:
            self._log.info("alert_raised", alert=alert.as_json())
            return
        counted = "silenced" if outcome == SILENCED else "cooldown"
        self._telemetry.alerts.labels(alert.type.value, alert.severity.value, counted).inc()

    def _once(self, experiment_id: str, event: str, **fields: object) -> None:
        """Say a problem of one experiment once, not with every window."""
        what = f"{event}:{experiment_id}"
        if what in self._said:
            return
        if len(self._said) > _SAID:
            self._said.clear()
        self._said.add(what)
        self._log.warning(event, experiment_id=experiment_id, **fields)


def _is_running(experiment: Experiment) -> bool:
    """Whether its events still say something about it."""
    return experiment.judged and not experiment.finished


def _seconds(upto: str) -> int:
    return int(upto) if upto.isdecimal() and len(upto) < 16 else 0
