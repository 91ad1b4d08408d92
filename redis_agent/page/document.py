"""What the status page shows, as one document with bounds: read once for all who look."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

from redis_agent.overview import KnownExperiments, Parts, read_status
from redis_agent.page.hours import HOURS, Hours
from redis_agent.store.partitions import Partitions
from redis_agent.store.union import AllAggregates, AllInspection, AllWindows

# How many of each are shown, the most recent first; all that is left out is counted.
MAX_EXPERIMENTS: Final = 30
MAX_CRITERIA: Final = 24
MAX_RATES: Final = 12
MAX_PROBLEMS: Final = 5
MAX_ALERTS: Final = 50
MAX_DEAD_LETTERS: Final = 10
MAX_PENDING: Final = 10
MAX_REPLICAS: Final = 100
# Characters of a word that says of what kind something is, of a name, and of a sentence.
MAX_WORD: Final = 40
MAX_NAME: Final = 120
MAX_SENTENCE: Final = 400
# An event may be megabytes long. Dead letters are read one by one until they come to so much, then not for a while.
_DEAD_BYTES: Final = 1_000_000
_DEAD_SECONDS: Final = 10.0
_EXCERPT: Final = 160
# These join letters and emoji; everything else that has no shape of its own is spelt out.
_JOINERS: Final = "\u200c\u200d"


def shown(text: str, limit: int) -> str:
    r"""At most so many characters, with what could turn or hide its neighbours (controls, directions) spelt out.

    >>> shown("a\u202eb", 20)
    'a\\u202eb'
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in _JOINERS else " " if c == "\n" else c.encode("unicode_escape").decode()
        for c in text
    )


class Document:
    """Reads everything; a part that may not be read, or whose key has another type, costs only itself.

    Args:
        partitions: all of them.
        address_shown: where the server is, without secrets.
        experiments: what is known of them.
    """

    def __init__(self, partitions: Partitions, *, address_shown: str, experiments: KnownExperiments) -> None:
        self._partitions = partitions
        self._address_shown = address_shown
        self._experiments = experiments
        self._aggregates = AllAggregates(partitions)
        self._inspection = AllInspection(partitions.all)
        self._hours = Hours(AllWindows(partitions))
        self._letters: list[dict[str, Any]] = []
        self._letters_s = float("-inf")

    async def read(self) -> dict[str, Any]:
        """The document, ready to be written as JSON.

        Raises:
            RedisError, OSError: the server does not answer, or lets nothing be read.
        """
        parts = Parts(lenient=self._partitions.several)
        status = await read_status(self._partitions, self._address_shown)
        now_ms = await self._inspection.now_ms()
        replicas = status["replicas"] or []
        status["bridge"]["replicas"] = len(status["bridge"]["replicas"] or ())
        document = {
            **status,
            "now_ms": now_ms,
            "stream": {**status["stream"], "added": await parts.read("flow", self._inspection.entries_added())},
            "replicas": replicas[:MAX_REPLICAS],
            "replicas_total": len(replicas),
            "experiments": await parts.read("experiments", self._read_experiments(now_ms)),
            "experiments_total": status["experiments"],
            "alerts_shown": await parts.read("alert list", self._read_alerts()),
            "pending": await parts.read("pending", self._read_pending()),
            "dead_letters": await parts.read("dead letter list", self._read_letters(now_ms / 1000)),
            "problems": {**status["problems"], **parts.problems},
        }
        bounded: dict[str, Any] = _bounded(document)
        return bounded

    async def _read_experiments(self, now_ms: int) -> dict[str, Any]:
        last_events = await self._aggregates.page(0, MAX_EXPERIMENTS)
        known = await self._experiments.read(list(last_events), datetime.fromtimestamp(now_ms / 1000, UTC))
        hours = await self._hours.read({i: k["aggregate"] for i, k in known.items()}, now_ms // 1000)
        rows = []
        for n, (experiment_id, last_ms) in enumerate(last_events.items()):
            row = _experiment(known[experiment_id])
            rows.append({"n": n, **row, "last_event_ms": last_ms, "hours": hours[experiment_id]})
        return {"hours": HOURS, "shown": rows}

    async def _read_alerts(self) -> list[dict[str, Any]]:
        found = await self._inspection.recent_alerts(MAX_ALERTS)
        return [
            {
                "id": self._partitions.entry(partition, alert.id),
                **_alert(alert.data),
                **_analysis(alert.analysis),
                "delivered": alert.delivered,
            }
            for partition, alert in found
        ]

    async def _read_pending(self) -> dict[str, Any]:
        consumers = await self._inspection.consumers()
        holding = sorted(consumers, key=lambda consumer: (-consumer.pending, consumer.name))
        return {
            "consumers_total": len(consumers),
            "consumers": [
                {"name": shown(c.name, MAX_NAME), "pending": c.pending, "idle_ms": c.idle_ms}
                for c in holding[:MAX_REPLICAS]
            ],
            "entries": [
                {
                    "id": self._partitions.entry(partition, e.id),
                    "consumer": shown(e.consumer, MAX_NAME),
                    "idle_ms": e.idle_ms,
                    "deliveries": e.deliveries,
                }
                for partition, e in await self._inspection.oldest_pending(MAX_PENDING)
            ],
        }

    async def _read_letters(self, now_s: float) -> list[dict[str, Any]]:
        if 0 <= now_s - self._letters_s < _DEAD_SECONDS:
            return self._letters
        letters: list[dict[str, Any]] = []
        size = 0
        async for partition, letter in self._inspection.newest_dead_letters(page=1):
            size += len(letter.data)
            letters.append(
                {
                    "id": self._partitions.entry(partition, letter.id),
                    "reason": shown(letter.reason, MAX_WORD),
                    "at_ms": int(letter.id.partition("-")[0]),
                    "deliveries": letter.deliveries,
                    "bytes": len(letter.data),
                    "excerpt": shown(letter.data[: 4 * _EXCERPT].decode("utf-8", "replace"), _EXCERPT),
                }
            )
            if len(letters) == MAX_DEAD_LETTERS or size > _DEAD_BYTES:
                break
        self._letters, self._letters_s = letters, now_s
        return letters


def _experiment(known: Mapping[str, Any]) -> dict[str, Any]:
    criteria, rates, problems = known["criteria"], known["rates"], known["problems"]
    return {
        "id": shown(known["experiment_id"], MAX_NAME),
        "defined": known["defined"],
        "state": None if known["state"] is None else shown(known["state"], MAX_WORD),
        "hypothesis": known["hypothesis"],
        "events": known["events_total"],
        "rates": [{"name": shown(name, MAX_NAME), "value": rates[name]} for name in list(rates)[:MAX_RATES]],
        "criteria": criteria[:MAX_CRITERIA],
        "criteria_total": len(criteria),
        "problems": problems[:MAX_PROBLEMS],
        "problems_total": len(problems),
    }


def _alert(data: str) -> dict[str, Any]:
    """What is shown of an alert; what is not ours is shown as it stands."""
    alert = _object(data)
    if alert is None:
        return {"type": "unreadable", "severity": "", "experiment_id": "", "message": data[: 2 * MAX_SENTENCE]}
    return {
        **{name: shown(str(alert.get(name) or ""), MAX_NAME) for name in ("type", "severity", "experiment_id")},
        "message": str(alert.get("message") or ""),
    }


def _analysis(data: str) -> dict[str, str]:
    """What a model made of the alert, and what is proposed; a template's insight only says the message again."""
    analysis = _object(data) or {}
    insight = "" if analysis.get("source") == "template" else str(analysis.get("insight") or "")
    return {"insight": insight, "action": str(analysis.get("action") or "")}


def _object(data: str) -> dict[str, Any] | None:
    """A JSON object; None where it is none."""
    try:
        found = json.loads(data, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _bounded(value: Any) -> Any:
    """The same with every text as it may be shown, and without numbers that are no JSON."""
    if isinstance(value, str):
        return shown(value, MAX_SENTENCE)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {shown(str(name), MAX_NAME): _bounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(item) for item in value]
    return value
