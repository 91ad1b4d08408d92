"""What the demo shows: the state of the system at this moment, and what the Orchestrator received."""

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from redis_agent.cli.demonstration.scenario import STORIES
from redis_agent.config import Settings
from redis_agent.experiments import Experiment, Verdict, judge, parse_experiment
from redis_agent.store.partitions import Partitions
from redis_agent.store.union import AllAggregates, AllInspection

_HISTORY = 24
_ALERTS_KEPT = 200


@dataclass(slots=True)
class Panel:
    """One experiment as the board shows it.

    Attributes:
        experiment: its definition.
        fields: its aggregate.
        verdicts: on its criteria.
        rates: events a second, newest last.
        last_event: when its newest event came.
    """

    experiment: Experiment
    fields: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    rates: deque[float] = field(default_factory=lambda: deque([0.0] * _HISTORY, maxlen=_HISTORY))
    last_event: datetime | None = None

    @property
    def events(self) -> int:
        """Events applied so far."""
        return int(self.fields.get("events_total", "0"))


@dataclass(slots=True)
class Board:
    """Everything that is shown.

    Attributes:
        url: of the private server.
        port: of the private server.
        server: what it is, such as "valkey 9.1".
        published: events published.
        rates: events published a second, newest last.
        lag, pending: of the group; the lag is None while it is unknown.
        alerts: received by the Orchestrator, newest first.
        kinds: how many of each type.
    """

    url: str
    port: int
    server: str
    settings: Settings
    panels: dict[str, Panel] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    published: int = 0
    rates: deque[float] = field(default_factory=lambda: deque([0.0] * _HISTORY, maxlen=_HISTORY))
    lag: int | None = None
    pending: int = 0
    alerts: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_ALERTS_KEPT))
    kinds: Counter[str] = field(default_factory=Counter)
    _sampled: tuple[float, int] = (0.0, 0)

    @property
    def wording(self) -> str:
        """Who words alerts and summaries, in one line."""
        if self.settings.asks_gemini:
            return f"alerts and summaries are worded by {self.settings.model}, or by templates where that is late"
        return "alerts and summaries are worded by plain templates: GOOGLE_API_KEY is not set"

    def define(self, now: float) -> None:
        """Parse the experiments' definitions; the story begins, the clock of the event loop being at `now`."""
        self._sampled = (now, 0)
        created = self.started.isoformat()
        for story in STORIES:
            experiment = parse_experiment(story.id, story.definition(created), story.metrics_specs())
            self.panels[story.id] = Panel(experiment)

    @property
    def applied(self) -> int:
        """Events in the aggregates."""
        return sum(panel.events for panel in self.panels.values())

    def received(self, payload: bytes) -> dict[str, Any]:
        """The Orchestrator received a message."""
        try:
            alert = json.loads(payload)
        except ValueError:
            alert = {"type": "unreadable", "message": repr(payload)}
        self.alerts.appendleft(alert)
        self.kinds[str(alert.get("type"))] += 1
        return dict(alert)

    async def sample(self, partitions: Partitions, now: float) -> None:
        """Look at Redis, the clock of the event loop being at `now`."""
        group = await AllInspection(partitions.all).group()
        self.lag, self.pending = group.lag, group.pending
        moment = datetime.now(UTC)
        found = await AllAggregates(partitions).read(list(self.panels))
        since, before = self._sampled
        seconds = max(0.001, now - since)
        for experiment_id, panel in self.panels.items():
            events = panel.events
            panel.fields = found.get(experiment_id, {})
            panel.rates.append((panel.events - events) / seconds)
            if panel.events > events:
                panel.last_event = moment
            panel.verdicts = judge(
                panel.experiment,
                panel.fields,
                now=moment,
                alpha=self.settings.alert_alpha,
                min_samples=self.settings.min_samples,
            )
        self.rates.append((self.published - before) / seconds)
        self._sampled = (now, self.published)
