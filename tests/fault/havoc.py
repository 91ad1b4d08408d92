"""A seeded schedule of faults against real processes, each behind a proxy of its own, and a ledger of what is owed."""

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_agent.embedded import EmbeddedServer
from tests.fault.proxy import Proxy, script_names
from tests.ledger import JUDGED, RATE, Account, Ledger, account, check_replay, compare, criteria_told
from tests.processes import AgentProcess, Agents, unused_port
from tests.waiting import eventually

METRICS, ORCHESTRATOR = "fullsend:metrics", "fullsend:to_orchestrator"
STREAM, GROUP, OUTBOX = "fullsend:metrics:stream", "redis_agent", "fullsend:alerts"
READY = "redis_agent:bridge:ready"
LEASES = {role: f"redis_agent:lease:{role}" for role in ("bridge", "dispatcher", "scheduler")}
ROLES = {"bridge": 2, "worker": 3, "dispatcher": 2, "scheduler": 2}
# So many that there is always an alert to raise and to deliver.
ERROR_TYPES = 500
# One after the other is met while the test runs, and told once.
CRITERIA = {f"email_sent >= {needed}": needed for needed in range(2_000, 200_001, 2_000)}
# Longer than any run, a week: an error that is told again within one was told twice.
COOLDOWN_SECONDS = 604_800
# Longer than the lease of a second under which the tests' agents run.
PAUSE_SECONDS = 1.6
# Events that have not come into the stream for so long are lost; and how many of an experiment are kept, to count them.
GIVEN_UP_SECONDS = 15.0
EVENTS_KEPT = 10_000_000


@dataclass(frozen=True)
class Verdict:
    """What the faults came to.

    Attributes:
        faults: each fault's name, and how many events had been published when it began.
        account: of the events and the alerts.
        gaps: gaps that the bridges counted.
        redelivered: alerts that came to the subscriber once more.
    """

    published: int
    faults: list[tuple[int, str]]
    account: Account
    gaps: int
    redelivered: int

    @property
    def faultless(self) -> bool:
        lost, twice = len(self.account.lost), len(self.account.twice)
        return not (lost or twice or self.account.alerts_lost or self.account.alerts_twice or self.redelivered)

    def __str__(self) -> str:
        """The table: an event that was lost counts for each fault that was the last to begin before it."""
        done = Counter(name for _, name in self.faults)
        lost, twice = (self._by_fault(numbers) for numbers in (self.account.lost, self.account.twice))
        lines = [f"{'fault':36} {'times':>6} {'lost':>6} {'twice':>6}"]
        lines += [f"{name:36} {done[name]:6} {lost[name]:6} {twice[name]:6}" for name in sorted(done)]
        lines.append(f"{'all':36} {done.total():6} {len(self.account.lost):6} {len(self.account.twice):6}")
        told = f"{self.account.alerts_lost} lost, {self.account.alerts_twice} raised twice"
        lines.append(f"{self.published} events; {self.gaps} gaps; alerts: {told}, {self.redelivered} delivered again")
        return "\n".join(lines)

    def _by_fault(self, numbers: list[int]) -> Counter[str]:
        found: Counter[str] = Counter()
        for number in numbers:
            last = max((began for began, _ in self.faults if began < number), default=None)
            found.update(name for began, name in self.faults if began == last)
        return found


class Victim:
    """An agent behind its proxy."""

    def __init__(self, role: str, proxy: Proxy, agent: AgentProcess) -> None:
        self.role = role
        self.proxy = proxy
        self.agent = agent


class Havoc:
    """Publishes at a steady rate while one fault after another is done.

    Args:
        server: of which everything is the test's; AOF is on.
        seed: of the schedule and of the events; the same seed does the same faults in the same order.
        env: further settings of every agent.
    """

    def __init__(
        self,
        server: EmbeddedServer,
        directory: Path,
        *,
        seed: int,
        rate: int = 300,
        env: dict[str, object] | None = None,
    ) -> None:
        self._server = server
        self._rng = random.Random(seed)
        self.ledger = Ledger(random.Random(seed + 1), error_types=ERROR_TYPES, criteria=CRITERIA)
        self._rate = rate
        self._env = env or {}
        self.agents = Agents(server.url, directory)
        self._victims: list[Victim] = []
        self._client: Redis = Redis.from_url(server.url, protocol=2, single_connection_client=True)
        self._control: Redis = Redis.from_url(server.url, protocol=2)
        self.done: Counter[str] = Counter()
        self._begun: list[tuple[int, str]] = []
        self._over = asyncio.Event()
        self.received: Counter[bytes] = Counter()
        self._dead: set[bytes] = set()

    @property
    def faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Every fault by its name."""
        processes = {
            f"{role} {how}": lambda role=role, how=how: self._process(role, how)  # type: ignore[misc]
            for role in ROLES
            for how in ("SIGKILL", "SIGSTOP", "SIGTERM")
        }
        return processes | {
            "bridge's subscription cut": self._cut_subscription,
            "connections cut": self._cut_connections,
            "replies late": self._delay,
            "network hangs": self._hang,
            "CLIENT KILL TYPE normal": lambda: self._command("CLIENT", "KILL", "TYPE", "normal"),
            "SCRIPT FLUSH": lambda: self._command("SCRIPT", "FLUSH"),
            "XGROUP DESTROY": lambda: self._command("XGROUP", "DESTROY", STREAM, GROUP),
            "XGROUP DESTROY of the dispatcher": lambda: self._command("XGROUP", "DESTROY", OUTBOX, "dispatcher"),
            "maxmemory reached": self._out_of_memory,
            "read-only replica": self._read_only,
        }

    async def run(self, schedule: Callable[[random.Random], "asyncio.Future[None] | Any"]) -> Verdict:
        """Start everything, publish, let `schedule` do its faults, come to rest, compare; nothing lost, nothing twice.

        Raises:
            AssertionError: something was lost, counted twice, or does not come to rest.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._client.aclose)
            stack.push_async_callback(self._control.aclose)
            stack.callback(self.agents.end)
            stack.callback(self._over.set)
            try:
                await self._start(stack)
                publishing = asyncio.create_task(self._publish())
                await schedule(self._rng)
                self._over.set()
                await publishing
                await self.rest()
                return await self._compare()
            except BaseException:
                for log in self.agents.logs():
                    print(log)
                raise

    async def _start(self, stack: AsyncExitStack) -> None:
        await self.define()
        listener = self._control.pubsub()
        stack.push_async_callback(listener.aclose)
        await listener.subscribe(ORCHESTRATOR)
        listening = asyncio.create_task(self._listen(listener))
        stack.callback(listening.cancel)
        settings = {
            "ALERT_COOLDOWN_SECONDS": COOLDOWN_SECONDS,
            "REDIS_AGENT_MAX_ERROR_ALERTS": ERROR_TYPES,
            "REDIS_AGENT_METRICS_LIST_LENGTH": EVENTS_KEPT,
            "THRESHOLD_CHECK_INTERVAL_SECONDS": 2,
            **self._env,
        }
        for role, replicas in ROLES.items():
            for n in range(replicas):
                proxy = await stack.enter_async_context(Proxy(self._server.port))
                agent = self.agents.start(
                    role,
                    url=proxy.url,
                    REDIS_AGENT_CONSUMER=f"{role}{n}",
                    **settings,
                )
                self._victims.append(Victim(role, proxy, agent))
        await self._in_step()

    async def define(self) -> None:
        """One experiment has criteria and a rate: alerts are raised and derived metrics written all the time."""
        metrics = [{"name": RATE, "formula": "reply / email_sent"}]
        definition = {"success_criteria": json.dumps(list(CRITERIA)), "metrics": json.dumps(metrics)}
        await self._control.hset(f"experiments:{JUDGED}", mapping=definition)

    async def _listen(self, listener: Any) -> None:
        async for message in listener.listen():
            if message["type"] == "message":
                self.received[_as_raised(message["data"])] += 1

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while not self._over.is_set():
            # On a machine that is too busy for the rate it never catches up.
            while sent < (loop.time() - began) * self._rate and not self._over.is_set():
                assert await self._client.publish(METRICS, self.ledger.next_event()), "a bridge always listens"
                sent += 1
            await asyncio.sleep(0.01)

    # Faults --------------------------------------------------------------------------------------------------------

    async def do(self, *faults: str) -> None:
        """Faults of different roles at the same time; what a bridge suffers waits until another is in step."""
        await self._in_step()
        self._begun += [(self.ledger.published, fault) for fault in faults]
        await asyncio.gather(*(self.faults[fault]() for fault in faults))
        self.done.update(faults)

    async def lose_replies(self, kind: str, times: int) -> int:
        """Lose replies of one kind, wherever it is sent next; how many were lost."""
        lost = 0
        provoke = self._provoked.get(kind)
        for _ in range(times):
            await self._in_step()
            before = sum(v.proxy.lost[kind] for v in self._victims)
            senders = [v for v in self._victims if v.proxy.seen[kind] or provoke]
            for victim in senders[:1] if kind == "SUBSCRIBE" else senders:
                victim.proxy.lose_replies(kind)
            if provoke:
                await provoke()
            if kind in ("SUBSCRIBE", "CLIENT", "HELLO", "SELECT"):  # only sent when a connection is made
                self._rng.choice(senders[:1]).proxy.cut()

            def some(before: int = before) -> bool:
                return sum(v.proxy.lost[kind] for v in self._victims) > before

            try:
                patience = 15 if provoke or kind in script_names().values() else 4
                await eventually(some, patience, what=f"a reply of {kind} is lost")
            except AssertionError:
                break  # it is not sent in this state
            finally:
                for victim in self._victims:
                    victim.proxy.forgive()
            lost += sum(v.proxy.lost[kind] for v in self._victims) - before
        self.done[f"reply lost: {kind}"] += lost
        return lost

    def kinds(self) -> list[str]:
        """Every kind of command that was sent so far, or is sent when something befalls an agent."""
        return sorted({kind for victim in self._victims for kind in victim.proxy.seen} | self._provoked.keys())

    @property
    def _provoked(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """What makes agents send what they do not send all the time."""
        return {
            "bridge_broken": self._cut_subscription,
            "bridge_release": lambda: self._process("bridge", "SIGTERM"),
            "lease_release": lambda: self._process("scheduler", "SIGTERM"),
            "group_ensure": lambda: self._command("XGROUP", "DESTROY", STREAM, GROUP),
            "EVAL": lambda: self._command("SCRIPT", "FLUSH"),
            "ACL": lambda: self._process("worker", "SIGKILL"),
            "CONFIG": lambda: self._process("worker", "SIGKILL"),
            "XPENDING": lambda: self._process("worker", "SIGKILL"),
            "renew": self._refuse_batches,
            "raise_alerts": self._next_criterion,
            "take": lambda: self._abandon(1),
            "take_alone": lambda: self._abandon(3),
            "forgive": lambda: self._abandon(3),
        }

    async def _refuse_batches(self) -> None:
        """For a second nothing can be applied, so that workers keep what they have in hand; the bridges go on."""
        index, stash = "redis_agent:experiments", "test:experiments"
        async with self._control.pipeline(transaction=True) as pipe:
            await pipe.rename(index, stash).set(index, "in the way").execute()
        await asyncio.sleep(1)
        async with self._control.pipeline(transaction=True) as pipe:
            await pipe.delete(index).rename(stash, index).execute()

    async def _next_criterion(self) -> None:
        """The next criterion is met, and told."""
        met = len(self.ledger.met)
        await eventually(lambda: len(self.ledger.met) > met, 30, what="a criterion is met")

    async def _abandon(self, deliveries: int) -> list[bytes]:
        """Somebody reads some entries, as often as that, and is never seen again; their ids."""
        given: list[Any] = []
        while not given:
            given = await self._control.xreadgroup(GROUP, "gone", {STREAM: ">"}, count=3, block=100)
        ids = [entry_id for entry_id, _ in given[0][1]]
        await self._control.xclaim(STREAM, GROUP, "gone", 0, ids, idle=60_000, retrycount=deliveries, justid=True)
        return ids

    async def _in_step(self) -> None:
        """Every agent lives, and each bridge is in step: what it said before the last fault does not count."""
        for victim in self._victims:
            if not victim.agent.alive:
                victim.agent.start()

        began_ms = 0

        async def told() -> bool:
            nonlocal began_ms
            try:
                if not began_ms:
                    seconds, microseconds = await self._control.time()
                    began_ms = seconds * 1_000 + microseconds // 1_000
                owners = await self._control.zrangebyscore(READY, began_ms + 1, "+inf")
            except RedisError:
                return False
            bridges = [f"bridge{n}-".encode() for n in range(ROLES["bridge"])]
            owners = [owner for owner in owners if owner not in self._dead]
            silent = [b for b in bridges if not any(owner.startswith(b) for owner in owners)]
            assert not silent, (silent, began_ms, await self._hand_over())
            return True

        await eventually(told, 30, interval=0.05, what="every bridge is in step")

    async def _hand_over(self) -> dict[str, Any]:
        """What the server knows of the bridges."""
        client = self._control
        alive = await client.pubsub_channels("redis_agent:bridge:alive:*")
        return {
            "now": await client.time(),
            "lease": (await client.get(LEASES["bridge"]), await client.pttl(LEASES["bridge"])),
            "state": await client.hgetall("redis_agent:bridge"),
            "ready": await client.zrange(READY, 0, -1, withscores=True),
            "subscribed": alive,
        }

    async def at_work(self) -> None:
        """Every role goes on: somebody leads, every bridge is in step, what is published now is applied."""
        await self._in_step()
        await eventually(self._all_lead, 20, what="every role has a leader")
        published = self.ledger.published

        async def applied() -> bool:
            return published < self.ledger.published and await self._flows(since=published)

        await eventually(applied, 20, interval=0.1, what="what was published after it is applied")

    async def _all_lead(self) -> bool:
        return len([True for lease in LEASES.values() if await self._control.exists(lease)]) == len(LEASES)

    async def _flows(self, since: int) -> bool:
        """Whether an event that was published later than this one is in the stream, and acked."""
        groups = {group["name"]: group for group in await self._control.xinfo_groups(STREAM)}
        newest = await self._control.xrevrange(STREAM, count=1)
        if GROUP.encode() not in groups or not newest:
            return False
        number = self.ledger.events.index(newest[0][1][b"data"]) + 1
        return number > since and groups[GROUP.encode()]["pending"] < 1_000

    async def _chosen(self, role: str) -> Victim:
        """Whoever leads in a role; any worker."""
        victims = [victim for victim in self._victims if victim.role == role]
        if role not in LEASES:
            return self._rng.choice(victims)

        async def leader() -> Victim | None:
            value = (await self._control.get(LEASES[role]) or b"").decode()
            return next((v for n, v in enumerate(victims) if f":{role}{n}-" in value), None)

        found = await eventually(leader, 20, what=f"a {role} leads")
        assert found is not None
        return found

    async def _process(self, role: str, how: str) -> None:
        agent = (await self._chosen(role)).agent
        await agent.logged("started", timeout=30)  # one that has only just been started again has nothing to lose
        if how == "SIGKILL":
            agent.kill()
            # What a dead bridge said last is not a sign of the life of the one that takes its name.
            name = agent._env["REDIS_AGENT_CONSUMER"].encode()
            self._dead.update(o for o in await self._control.zrange(READY, 0, -1) if o.startswith(name + b"-"))
            agent.start()
        elif how == "SIGTERM":
            assert await agent.terminate() == 0
            agent.start()
        else:
            agent.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(PAUSE_SECONDS)
            finally:
                agent.signal(signal.SIGCONT)

    async def _cut_subscription(self) -> None:
        agent = (await self._chosen("bridge")).agent
        name = agent._env["REDIS_AGENT_CONSUMER"]
        for client in await self._control.client_list():
            if int(client["sub"]) and client["name"] == f"redis-agent:{name}":
                await self._control.client_kill_filter(_id=client["id"])

    async def _cut_connections(self) -> None:
        self._rng.choice(self._victims).proxy.cut()

    async def _delay(self) -> None:
        proxy = self._rng.choice(self._victims).proxy
        proxy.delay = 0.3
        await asyncio.sleep(1)
        proxy.delay = 0.0

    async def _hang(self) -> None:
        proxy = self._rng.choice(self._victims).proxy
        proxy.hang()
        await asyncio.sleep(PAUSE_SECONDS)
        proxy.pass_on()

    async def _command(self, *command: str) -> None:
        await self._client.execute_command(*command)

    async def _out_of_memory(self) -> None:
        await self._control.config_set("maxmemory", "1")
        await asyncio.sleep(1)
        await self._control.config_set("maxmemory", "0")

    async def _read_only(self) -> None:
        await self._client.execute_command("REPLICAOF", "127.0.0.1", str(unused_port()))
        await asyncio.sleep(1)
        await self._client.execute_command("REPLICAOF", "NO", "ONE")

    # Judging -------------------------------------------------------------------------------------------------------

    async def rest(self) -> None:
        """Everything that was published is in the stream, read, acked, and every alert delivered."""
        await self._in_step()
        loop = asyncio.get_running_loop()
        seen, grown_at = 0, loop.time()

        async def settled() -> bool:
            nonlocal seen, grown_at
            groups = {g["name"]: g for g in await self._control.xinfo_groups(STREAM)}
            (newest, _), *_ = await self._control.xrevrange(STREAM, count=1)
            group = groups.get(GROUP.encode())
            length = await self._control.xlen(STREAM)
            done = group is not None and group["pending"] == 0 and group["last-delivered-id"] == newest
            if length != seen:
                seen, grown_at = length, loop.time()
            if length < self.ledger.published:
                assert loop.time() - grown_at > GIVEN_UP_SECONDS, f"{length} of {self.ledger.published} events"
            return done

        await eventually(settled, 60, interval=0.1, what="all is in the stream, read and acked")
        await eventually(self._all_told, 30, interval=0.1, what="every criterion that is met is told")
        await eventually(self._all_delivered, 30, interval=0.1, what="every alert is delivered")

    async def _all_told(self) -> bool:
        told = {criterion for _, criterion in await criteria_told(self._control)}
        return self.ledger.met <= told

    async def _all_delivered(self) -> bool:
        """Every alert but the summaries: of those that piled up only the newest is."""
        waiting = [f[b"data"] for _, f in await self._control.xrange(OUTBOX) if f[b"data"] not in self.received]
        return all(json.loads(data)["type"] == "periodic_summary" for data in waiting)

    async def _compare(self) -> Verdict:
        verdict = Verdict(
            published=self.ledger.published,
            faults=self._begun,
            account=await account(self._control, self.ledger),
            gaps=int(await self._control.hget("redis_agent:bridge", "gaps") or 0),
            redelivered=(self.received - Counter(self.received.keys())).total(),
        )
        assert verdict.faultless, f"\n{verdict}"
        assert not verdict.gaps, f"\n{verdict}"
        await compare(self._control, self.ledger)
        await check_replay(self._server.url, self._control)
        return verdict


def _as_raised(data: bytes) -> bytes:
    """An alert as it stands in the outbox: without the analysis that it was delivered with."""
    alert, analysis, _ = data.partition(b',"analysis":{')
    return alert + b"}" if analysis else data
