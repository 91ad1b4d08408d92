"""Real bridges, a steady publisher, and what befalls the leader; at the end the ledger is compared with the stream."""

import asyncio
import json
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

METRICS, STREAM = "fullsend:metrics", "fullsend:metrics:stream"
BRIDGE, READY, LEASE = "redis_agent:bridge", "redis_agent:bridge:ready", "redis_agent:lease:bridge"
FAULTS = ("killed", "paused", "cut", "stopped")


@dataclass
class Verdict:
    """What became of what was published.

    Attributes:
        done: how often each fault was done.
        lost: events that are not in the stream.
        twice: events that are there once too often.
        gaps: gaps that the bridges counted.
    """

    published: int
    lost: int
    twice: int
    gaps: int
    in_order: bool
    done: Counter[str] = field(default_factory=Counter)


class HandOver:
    """Bridges of which the leader comes to grief again and again while another is in step.

    Args:
        url: the server.
        directory: for the bridges' logs.
        rate: events published a second.
        replicas: how many bridges.
    """

    def __init__(self, url: str, directory: Path, *, seed: int, rate: int, replicas: int = 2) -> None:
        self.agents = Agents(url, directory)
        self._client: Redis = Redis.from_url(url)
        self._rng = random.Random(seed)
        self._rate = rate
        self._replicas = replicas
        self._bridges: list[AgentProcess] = []
        self._published = 0
        self._over = asyncio.Event()

    async def run(self, faults: list[str]) -> Verdict:
        """Do these faults, in this order, each to whoever leads, and each with another bridge in step."""
        done: Counter[str] = Counter()
        try:
            self._bridges = [self.agents.start("bridge") for _ in range(self._replicas)]
            await self._in_step()
            publisher = asyncio.create_task(self._publish())
            for fault in faults:
                await self._in_step()
                await self._befall(await self._leader(), fault)
                done[fault] += 1
            await self._in_step()
            self._over.set()
            await publisher
            await eventually(self._all_written, 20, what="all that was published is in the stream")
            return await self._verdict(done)
        finally:
            self._over.set()
            self.agents.end()
            await self._client.aclose()

    async def _in_step(self) -> None:
        """Every bridge is alive, and was in step a moment ago."""

        async def told() -> bool:
            now = int((await self._client.time())[0]) * 1000
            owners = await self._client.zrangebyscore(READY, now - 1_500, "+inf")
            return all(any(f"-{b.pid}-" in owner.decode() for owner in owners) for b in self._bridges)

        await eventually(told, 30, what="every bridge is in step")

    async def _leader(self) -> AgentProcess:
        async def known() -> AgentProcess | None:
            value = (await self._client.get(LEASE) or b"").decode()
            return next((bridge for bridge in self._bridges if f"-{bridge.pid}-" in value), None)

        leader = await eventually(known, 20, what="somebody leads")
        assert leader is not None
        return leader

    async def _befall(self, leader: AgentProcess, fault: str) -> None:
        old = await self._client.get(LEASE)

        async def succeeded() -> bool:
            return await self._client.get(LEASE) not in (None, old)

        if fault == "killed":
            leader.kill()
            await eventually(succeeded, 20, what="another leads")
            leader.start()
        elif fault == "stopped":
            assert await leader.terminate() == 0
            leader.start()
        elif fault == "paused":
            leader.signal(signal.SIGSTOP)
            try:
                await eventually(succeeded, 20, what="another leads")
            finally:
                leader.signal(signal.SIGCONT)
        else:
            clients = [c for c in await self._client.client_list() if int(c["sub"])]
            (subscribed,) = [c for c in clients if str(leader.pid) in c["name"]]
            await self._client.client_kill_filter(_id=subscribed["id"])
            await eventually(succeeded, 20, what="another leads")

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while not self._over.is_set():
            due = int((loop.time() - began) * self._rate) - sent
            if due > 0:
                async with self._client.pipeline(transaction=False) as pipe:
                    for _ in range(min(due, 500)):
                        # Every third is the same as the one before it: two identical messages are two events.
                        number = self._published - (self._published % 3 == 2)
                        pipe.publish(METRICS, json.dumps({"experiment_id": "e", "event": "x", "n": str(number)}))
                        self._published += 1
                        sent += 1
                    heard = await pipe.execute()
                assert all(heard), "there was always a bridge to hear it"
            await asyncio.sleep(0.002)

    async def _all_written(self) -> bool:
        return await self._client.xlen(STREAM) >= self._published

    async def _verdict(self, done: Counter[str]) -> Verdict:
        found = [int(json.loads(fields[b"data"])["n"]) for _, fields in await self._client.xrange(STREAM)]
        owed = Counter(n - (n % 3 == 2) for n in range(self._published))
        have = Counter(found)
        return Verdict(
            published=self._published,
            lost=(owed - have).total(),
            twice=(have - owed).total(),
            gaps=int(await self._client.hget(BRIDGE, "gaps") or 0),
            in_order=found == sorted(found),
            done=done,
        )
