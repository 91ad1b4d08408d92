"""Faults that lose data by nature: keys that somebody deletes, or the server evicts, under load; what is owed then."""

import asyncio
import json
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from redis_agent.store.pending import PendingEntries
from tests.fault.havoc import EVENTS_KEPT, LEASES, PAUSE_SECONDS, READY, STREAM, Havoc
from tests.ledger import EXPERIMENTS, replay
from tests.waiting import eventually

ACCOUNT, OUTBOX_ACCOUNT, DEAD = "redis_agent:account", "redis_agent:alerts:account", "fullsend:metrics:dead"
# Every kind of key that docs/redis.md lists but for the two streams, and what its loss may do; never more than that.
KEYS: dict[str, str] = {
    "metrics_aggregated:*": "sums begin anew",
    "metrics:*": "the list begins anew",
    DEAD: "dead letters are gone",
    "redis_agent:experiments": "an experiment is not swept or summarised before its next event",
    "redis_agent:cooldown:*": "an error is told again before its cooldown is over",
    "redis_agent:alert_state:*": "a criterion is told again once its cooldown is over",
    **dict.fromkeys(LEASES.values(), "another leads, or the same with a new token"),
    **dict.fromkeys([f"{lease}:fence" for lease in LEASES.values()], "tokens begin anew; owners differ all the same"),
    "redis_agent:floor": "nothing; with the group lost as well, all of the stream is applied again",
    "redis_agent:applied_above": "nothing; with the group lost as well, what it says is applied again",
    "redis_agent:unapplied": "replay differs by these entries",
    ACCOUNT: "what is lost with the stream is counted too low",
    "redis_agent:fold_state:*": "the latest value may be an older one, until the next",
    "redis_agent:bridge": "gaps are forgotten (stream_state_lost); what is not durable yet is written again",
    READY: "until the next sign of life no other bridge counts as in step",
    "redis_agent:reclaim": "the scan begins anew",
    "redis_agent:scheduler": "one summary is left out",
    "redis_agent:finals": "a completed experiment is judged once more",
    "redis_agent:completions": "what ended by its events is told as completed once more",
    "redis_agent:silence:*": "what was muted is told",
    "redis_agent:barrier": "nothing",
    "redis_agent:owners": "nothing",
    "redis_agent:replicas": "nothing",
    "redis_agent:alerts:floor": "nothing; with the group lost as well, alerts are delivered again",
    OUTBOX_ACCOUNT: "what is lost with the outbox is counted too low",
    "redis_agent:alerts:undelivered": "the history shows what was given up as delivered",
    "redis_agent:alerts:newest_summary": "summaries that piled up are all delivered",
    "redis_agent:bridge:node": "the bridges agree anew, on the same node while it stands",
    "redis_agent:touched": "what was changed is copied with the experiment's next event",
    "redis_agent:partitions": "the next that starts records the number anew; while it is changed, see arrived",
    "redis_agent:arriving:*": "while the number of partitions is changed: what it would have been is lost",
    "redis_agent:arrived": "a change of the number of partitions that is not ended refuses to end",
    "redis_agent:translation:*": "a text is offered once more",
    "redis_agent:alerts:analyses": "what waits is analysed once more, and the history shows none",
}


# Not there most of the time; the barrier only with REDIS_AGENT_DURABILITY.
COME_AND_GO = {
    "redis_agent:applied_above",
    "redis_agent:alerts:undelivered",
    "redis_agent:alerts:analyses",
    "redis_agent:bridge:node",
    "redis_agent:partitions",
    "redis_agent:arriving:*",
    "redis_agent:arrived",
    "redis_agent:touched",
    "redis_agent:translation:*",
    "redis_agent:finals",
    "redis_agent:completions",
    "redis_agent:silence:*",
    "redis_agent:barrier",
}


@dataclass
class Toll:
    """What was lost, as the ledger has it and as the agent says.

    Attributes:
        applied: how often each event was applied, by its bytes.
        told: how often each error was told to the subscriber.
    """

    published: list[bytes]
    applied: Counter[bytes]
    told: Counter[tuple[str, str]]
    errors: set[tuple[str, str]]
    stream_lost: int = 0
    alerts_lost: int = 0
    in_stream: Counter[bytes] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        return sum(not self.applied[event] for event in self.published)

    @property
    def twice(self) -> int:
        return sum(times > 1 for counts in (self.applied, self.in_stream) for times in counts.values())


class Losses(Havoc):
    """Deletes keys under load. What the comparison needs is moved away instead: for the agent that is the same."""

    copies = 0
    # Whether the lists of events are left alone, so that the sums must be theirs.
    lists_whole = False

    async def matching(self, pattern: str) -> list[bytes]:
        """The keys of a kind that are there."""
        return [key async for key in self._control.scan_iter(pattern, count=1000)]

    async def give_one_up(self) -> None:
        """An operator makes a dead letter of an event that could be read."""
        (entry_id, *_) = await self._abandon(1)
        pending = PendingEntries(self._control)
        (entry,) = (await pending.named([entry_id.decode()])).values()
        assert await pending.bury(entry, "operator", readable=True, max_dead=EVENTS_KEPT)

    async def delete(self, pattern: str) -> int:
        """Delete every key of a kind, in one step each; how many there were."""
        found = 0
        for key in await self.matching(pattern):
            if pattern in ("metrics:*", DEAD):
                self.copies += 1
                if await self._control.exists(key):
                    await self._control.rename(key, f"test:{'dead' if pattern == DEAD else 'list'}:{self.copies}")
                    found += 1
            else:
                found += await self._control.delete(key)
        self.done[f"DEL {pattern}"] += 1
        return found

    async def delete_unread(self, key: str, role: str) -> None:
        """Delete a stream while those who read it are stopped, so that something is lost with it."""
        processes = [victim.agent for victim in self._victims if victim.role == role]
        for process in processes:
            process.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_SECONDS)
            await self._control.delete(key)
        finally:
            for process in processes:
                process.signal(signal.SIGCONT)
        self.done[f"DEL {key}"] += 1

    async def flush(self) -> None:
        """FLUSHALL, while nothing is published: what came before and after can be told apart."""
        await self._control.flushall()
        self.done["FLUSHALL"] += 1

    async def rest(self) -> None:
        """All that is in the stream is read and acked, all that is in the outbox delivered."""
        await self._in_step()

        async def still() -> bool:
            (group,) = await self._control.xinfo_groups(STREAM)
            newest = await self._control.xrevrange(STREAM, count=1)
            last = self.ledger.events[-1]
            return bool(
                newest and newest[0][1][b"data"] == last
                and group["pending"] == 0 and group["last-delivered-id"] == newest[0][0]
            )  # fmt: skip

        await eventually(still, 60, interval=0.1, what="all is in the stream, read and acked")
        await eventually(self._all_delivered, 30, interval=0.1, what="every alert is delivered")

    async def toll(self) -> Toll:
        applied: Counter[bytes] = Counter()
        lists = [*await self.matching("metrics:*"), *await self.matching("test:list:*")]
        for key in lists:
            applied.update(await self._control.lrange(key, 0, -1))
        for key in [DEAD.encode(), *await self.matching("test:dead:*")]:
            applied.update([fields[b"data"] for _, fields in await self._control.xrange(key)])
        told: Counter[tuple[str, str]] = Counter()
        for data, times in self.received.items():
            alert = json.loads(data)
            if alert["type"] == "error":
                told[alert["experiment_id"], alert["error_type"]] += times
        return Toll(
            published=self.ledger.events,
            applied=applied,
            told=told,
            errors=self.ledger.errors,
            stream_lost=int(await self._control.hget(ACCOUNT, "lost") or 0),
            alerts_lost=int(await self._control.hget(OUTBOX_ACCOUNT, "lost") or 0),
            in_stream=Counter([fields[b"data"] for _, fields in await self._control.xrange(STREAM)]),
        )

    async def _compare(self) -> Any:
        """Each test judges what its faults came to."""
        if self.lists_whole:
            await self.sums_are_those_of_the_lists()
        return await self.toll()

    async def sums_are_those_of_the_lists(self) -> None:
        """Whatever was lost: what was applied was applied whole."""
        for experiment in EXPERIMENTS:
            totals: Counter[str] = Counter()
            for event in await self._control.lrange(f"metrics:{experiment}", 0, -1):
                fields = json.loads(event)
                totals["events_total"] += 1
                if "event" in fields:
                    totals[f"{fields['event']}_count"] += fields.get("count", 1)
            found = await self._control.hgetall(f"metrics_aggregated:{experiment}")
            assert {name: int(found[name.encode()]) for name in totals} == totals

    def said(self, event: str) -> list[dict[str, Any]]:
        """Every line of all agents about this."""
        return [line for victim in self._victims for line in victim.agent.log() if line["event"] == event]

    def replayed(self) -> dict[str, Any]:
        return replay(self._server.url)[1]
