"""The four experiments of the demo: how they are defined, and what happens in them. Pure and seeded."""

import heapq
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Scenario time, in seconds, of the turns the story takes.
QUIET_FROM = 8.0
BREAKS_AT = 12.0
RESTRICTED_AT = 40.0

Document = dict[str, str]


@dataclass(frozen=True, slots=True)
class Story:
    """One experiment.

    Attributes:
        id: its id.
        hypothesis: what it is about.
        target: whom it addresses.
        success: criteria.
        failure: criteria.
        counters: metrics that are 0 until their first event.
        formulas: metric -> how it is computed from counts.
    """

    id: str
    hypothesis: str
    target: dict[str, Any]
    success: list[Any]
    failure: list[Any]
    counters: tuple[str, ...] = ()
    formulas: dict[str, str] = field(default_factory=dict)

    def definition(self, created_at: str) -> Document:
        """The HASH `experiments:{id}` in the PRD's form."""
        return {
            "hypothesis": self.hypothesis,
            "target": json.dumps(self.target),
            "success_criteria": json.dumps(self.success),
            "failure_criteria": json.dumps(self.failure),
            "state": "running",
            "created_at": created_at,
        }

    def metrics_specs(self) -> Document:
        """The HASH `metrics_specs:{id}`."""
        metrics = [{"name": name, "type": "counter"} for name in self.counters]
        metrics += [{"name": name, "type": "percentage", "formula": formula} for name, formula in self.formulas.items()]
        return {"metrics": json.dumps(metrics)}


WINNER = Story(
    id="exp_winner",
    hypothesis="A first line about the reader's own product doubles the replies of CTOs",
    target={"audience": "CTOs of seed-stage startups", "size": 5000},
    success=["reply_rate >= 8%", "meetings_booked >= 12"],
    failure=["bounce_rate > 5%", "unsubscribe_rate > 2% after 200 sends"],
    counters=("emails_sent", "replies_received", "emails_bounced", "unsubscribes"),
    formulas={
        "reply_rate": "replies_received / emails_sent",
        "bounce_rate": "emails_bounced / emails_sent",
        "unsubscribe_rate": "unsubscribes / emails_sent",
    },
)
LOSER = Story(
    id="exp_loser",
    hypothesis="A bought list of addresses reaches founders sooner than our own",
    target={"audience": "founders", "size": 20000},
    success=["reply_rate >= 10%"],
    failure=["bounce_rate > 5%", "reply_rate < 3% after 250 sends", {"account_restricted": True}],
    counters=("emails_sent", "replies_received", "emails_bounced"),
    formulas={
        "reply_rate": "replies_received / emails_sent",
        "bounce_rate": "emails_bounced / emails_sent",
    },
)
BREAKING = Story(
    id="exp_breaking",
    hypothesis="Posts at eight in the morning, through the scheduling API, bring demo calls",
    target={"audience": "followers", "size": 1200},
    success=["demo_calls_booked >= 30"],
    failure=["errors >= 25", "api_latency_ms > 2000"],
    counters=("demo_calls_booked", "errors"),
)
QUIET = Story(
    id="exp_quiet",
    hypothesis="A footnote in the newsletter brings people to try the product",
    target={"audience": "readers of the newsletter", "size": 800},
    success=["click_rate >= 15% after 200 sends"],
    failure=["unsubscribe_rate > 1%"],
    counters=("newsletters_sent", "links_clicked", "unsubscribes"),
    formulas={
        "click_rate": "links_clicked / newsletters_sent",
        "unsubscribe_rate": "unsubscribes / newsletters_sent",
    },
)
STORIES = (WINNER, LOSER, BREAKING, QUIET)


class Simulation:
    """What happens in the experiments as their time goes on.

    Args:
        seed: the same seed tells the same story.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a story, not a secret
        self._told = 0
        # (due, number, event): what follows from an event, such as a reply, comes later than it.
        self._due: list[tuple[float, int, bytes]] = []
        # What happens of itself, and how often a second.
        self._sources: list[tuple[float, Callable[[float], None]]] = [
            (9.0, self._winner_sends),
            (11.0, self._loser_sends),
            (4.0, self._posts),
            (6.0, self._sends_newsletters),
            (1.0, self._measures),
        ]
        # When each does next: one order of draws, whatever steps time goes on in.
        self._next = [(self._random.expovariate(rate), n) for n, (rate, _) in enumerate(self._sources)]
        heapq.heapify(self._next)
        self._say(RESTRICTED_AT, LOSER, account_restricted=True)

    def until(self, moment: float) -> list[bytes]:
        """The events since the last call and up to a moment of the scenario, in order."""
        while self._next[0][0] <= moment:
            at, n = self._next[0]
            rate, happens = self._sources[n]
            happens(at)
            heapq.heapreplace(self._next, (at + self._random.expovariate(rate), n))
        events = []
        while self._due and self._due[0][0] <= moment:
            events.append(heapq.heappop(self._due)[2])
        return events

    def _winner_sends(self, at: float) -> None:
        self._say(at, WINNER, event="email_sent", count=1)
        self._follows(0.55, at, 1.0, WINNER, "email_opened")
        self._follows(0.19, at, 2.0, WINNER, "reply_received")
        self._follows(0.05, at, 4.0, WINNER, "meeting_booked")
        self._follows(0.01, at, 0.5, WINNER, "email_bounced")
        self._follows(0.003, at, 3.0, WINNER, "unsubscribe")

    def _loser_sends(self, at: float) -> None:
        self._say(at, LOSER, event="email_sent", count=1)
        self._follows(0.16, at, 0.5, LOSER, "email_bounced")
        self._follows(0.20, at, 2.0, LOSER, "email_opened")
        self._follows(0.015, at, 3.0, LOSER, "reply_received")

    def _posts(self, at: float) -> None:
        broken = at >= BREAKS_AT
        if broken and self._chance(0.6):
            timeout = self._chance(0.7)
            self._say(
                at,
                BREAKING,
                event="error",
                error_type="ApiTimeout" if timeout else "RateLimited",
                message=f"the scheduling API gave no answer within {30 + int(at) % 30} s"
                if timeout
                else "429 Too Many Requests: try again in 60 s",
                run_id=f"{BREAKING.id}:{int(at)}",
            )
            return
        self._say(at, BREAKING, event="post_published", count=1)
        self._follows(0.25, at, 2.0, BREAKING, "demo_call_booked")

    def _sends_newsletters(self, at: float) -> None:
        if at < QUIET_FROM:
            self._say(at, QUIET, event="newsletter_sent", count=self._random.randint(1, 4))
            self._follows(0.2, at, 1.0, QUIET, "link_clicked")

    def _measures(self, at: float) -> None:
        typical = 180.0 if at < BREAKS_AT else 2600.0
        latency = round(self._random.gauss(typical, typical / 12), 1)
        self._say(at, BREAKING, api_latency_ms=latency)
        self._say(at, WINNER, inbox_placement=round(self._random.uniform(0.91, 0.98), 3))

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _follows(self, share: float, at: float, delay: float, story: Story, event: str) -> None:
        """With a certain chance this event comes after another, some seconds later on average."""
        if self._chance(share):
            self._say(at + self._random.expovariate(1 / delay), story, event=event, count=1)

    def _say(self, at: float, story: Story, **event: Any) -> None:
        self._told += 1
        document = {"experiment_id": story.id, **event}
        heapq.heappush(self._due, (at, self._told, json.dumps(document).encode()))
