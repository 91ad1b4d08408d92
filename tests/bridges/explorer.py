"""A state explorer for the bridges' hand-over: the agent's own code against a model of the server.

`Terms`, `BridgeTenure` and `Lockstep` run as they are. What they await are the server's answers; the explorer decides
when a script runs, when its answer arrives or that it never does, when a message arrives, whose subscription is cut,
whose lease runs out, who dies. Everything between two awaits is one step, as in the event loop.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import Any

from redis_agent.bridge_terms import BridgeTenure, Terms
from redis_agent.lockstep import Announcement, Batch, Claim, Lockstep
from redis_agent.store.mirror import Break, DeafError, Durable, Renewal, Written
from redis_agent.telemetry import Telemetry
from tests.bridges.server_model import ServerModel

TELEMETRY = Telemetry()
MISHAPS = (
    *("lost answer", "lost answer", "lease", "local lease", "cut", "die", "sign", "leave", "server"),
    *("outage", "call", "elsewhere"),
)


class ViolationError(AssertionError):
    """A promise is broken."""


class CutError(ConnectionError):
    """The answer was lost; whether the script ran is unknown."""


class Ask:
    """A script on its way: `run` executes it on the model, the awaiting code gets the answer later, or `CutError`."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run

    def __await__(self) -> Generator["Ask", Any, Any]:
        return (yield self)


class FakeMirror:
    """`Mirror` on the model."""

    channel = "control"

    def __init__(self, server: ServerModel, owner: str, *, waits: bool) -> None:
        self._server = server
        self._owner = owner
        self.waits = waits

    async def durable(self) -> Durable | None:
        return await Ask(self._server.durable)

    async def claim(self, *, epoch: str, new_epoch: str) -> Claim | None:
        return await Ask(lambda: self._server.claim(self._owner, epoch=epoch, new_epoch=new_epoch))

    async def renew(self, value: str, *, epoch: str, mark: str, confirmed: int | None) -> Renewal | None:
        assert (confirmed is None) != self.waits
        return await Ask(lambda: self._server.renew(self._owner, value, epoch=epoch, mark=mark, confirmed=confirmed))

    async def release(self, value: str) -> None:
        await Ask(lambda: self._server.release(self._owner, value))

    async def broken(self, value: str, *, new_epoch: str, gap_ms: int | None, may_yield: bool) -> Break:
        gap = gap_ms is not None
        return await Ask(
            lambda: self._server.broken(self._owner, value, new_epoch=new_epoch, gap=gap, may_yield=may_yield)
        )

    async def announce(self, value: str, announcement: Announcement) -> bool:
        return await Ask(lambda: self._server.announce(value, str(announcement)))

    async def write(
        self, value: str, *, epoch: str, batch: Batch, confirmed: int | None, traces: Mapping[int, str]
    ) -> Written:
        assert not traces
        assert (confirmed is None) != self.waits
        return await Ask(lambda: self._server.write(value, epoch=epoch, batch=batch, confirmed=confirmed))


class FakeLeadership:
    """`Leadership` without its clock: when it asks, and when its lease has run out, is the explorer's choice."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.held_by_other = False
        self.resigned: str | None = None

    def lose(self, _why: str) -> None:
        self.value = None

    def hurry(self) -> None:
        pass

    def resign(self) -> None:
        self.resigned, self.value = self.value, None


class Silent:
    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_kwargs: None


class Running:
    """A coroutine that awaits the server's answers, moved by hand: ask -> (executed) -> answered."""

    def __init__(self, work: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> None:
        self._work = work
        self._done = done
        self.ask: Ask | None = None
        self.answer: tuple[Any] | None = None
        self._move(lambda: work.send(None))

    @property
    def over(self) -> bool:
        return self.ask is None

    def execute(self) -> None:
        assert self.ask is not None
        try:
            self.answer = (self.ask.run(),)
        except DeafError as error:
            self.answer = (error,)

    def arrive(self) -> None:
        assert self.answer is not None
        (answer,), self.answer = self.answer, None
        if isinstance(answer, DeafError):
            self._move(lambda: self._work.throw(answer))
        else:
            self._move(lambda: self._work.send(answer))

    def cut(self) -> None:
        self.answer = None
        self._move(lambda: self._work.throw(CutError()))

    def _move(self, step: Callable[[], Ask]) -> None:
        try:
            self.ask = step()
        except StopIteration as end:
            self.ask = None
            self._done(end.value)
        except CutError:
            self.ask = None


class Replica:
    """One bridge: its listener's inbox, its leadership's loop and its writer's loop, each moved by hand."""

    def __init__(self, name: str, server: ServerModel, lockstep: Lockstep, batch_size: int, *, waits: bool) -> None:
        self.name = name
        self.server = server
        self.lockstep = lockstep
        self.leadership = FakeLeadership()
        mirror: Any = FakeMirror(server, name, waits=waits)
        self.tenure = BridgeTenure(mirror, lockstep)
        leadership: Any = self.leadership
        self.terms = Terms(
            mirror=mirror,
            lockstep=lockstep,
            tenure=self.tenure,
            leadership=leadership,
            telemetry=TELEMETRY,
            batch_size=batch_size,
        )
        self.terms._log = Silent()
        self.lease_work: Running | None = None
        self.write_work: Running | None = None
        self.confirm_work: Running | None = None
        self.inbox: deque[tuple[str, bytes] | None] | None = None

    def steps(self) -> list[Callable[[], None]]:
        """What it can do next if nothing befalls it."""
        steps = [self._subscribe if self.inbox is None else self._receive] if self.inbox or self.inbox is None else []
        if self.terms.elsewhere:
            steps = [self._leave_elsewhere]
        steps.append(self._lease_step)
        steps.append(self._write_step)
        if self.confirm_work is not None or self.terms.wrote.is_set():
            steps.append(self._confirm_step)
        return steps

    def works(self) -> list[Running]:
        works = (self.lease_work, self.write_work, self.confirm_work)
        return [work for work in works if work is not None and not work.over]

    def _subscribe(self) -> None:
        self.inbox = self.server.inboxes[self.name] = deque()
        self.lockstep.subscribed()

    def _leave_elsewhere(self) -> None:
        self.server.inboxes.pop(self.name, None)
        self.inbox = None
        self.terms.broke(0.0)

    def _receive(self) -> None:
        assert self.inbox is not None
        message = self.inbox.popleft()
        if message is None:
            self.inbox = None
            self.terms.broke(0.0)
        elif message[0] == "control":
            self.terms.heed(message[1])
        else:
            self.lockstep.receive(0, message[1])

    def _lease_step(self) -> None:
        work = self.lease_work
        if work is not None and not work.over:
            self._advance(work)
            return
        held = self.leadership.value
        if self.leadership.resigned is not None:
            value, self.leadership.resigned = self.leadership.resigned, None
            self.lease_work = Running(self.tenure.release(value), lambda _: None)
        elif held is not None:
            self.lease_work = Running(self.tenure.renew(held), lambda kept: self._kept(held, kept))
        else:
            self.lease_work = Running(self.tenure.acquire(), self._acquired)

    def _kept(self, value: str, kept: bool) -> None:
        if not kept and self.leadership.value == value:
            self.leadership.lose("")

    def _acquired(self, value: str | None) -> None:
        self.leadership.held_by_other = value is None
        self.leadership.value = value

    def _write_step(self) -> None:
        work = self.write_work
        if work is not None and not work.over:
            self._advance(work)
        elif self.leadership.value is None:
            self.terms.follow()
        else:
            self.write_work = Running(self.terms.round(self.leadership.value), lambda _: None)

    def _confirm_step(self) -> None:
        work = self.confirm_work
        if work is not None and not work.over:
            self._advance(work)
            return
        self.terms.wrote.clear()
        self.confirm_work = Running(self.terms.confirm(), self._confirmed)

    def _confirmed(self, all_confirmed: bool) -> None:
        if not all_confirmed:
            self.terms.wrote.set()

    @staticmethod
    def _advance(work: Running) -> None:
        if work.answer is None:
            work.execute()
        else:
            work.arrive()


class World:
    """Some bridges, one server, and what befalls them.

    Args:
        seed: of every choice.
        replicas: how many bridges.
        sound: the number of bridges that nothing befalls but delays; with one or more, and a server that forgets
            nothing, nothing may be lost and no gap counted.
        server_fails: whether the server may lose its newest writes, or all.
        waits: whether the bridges wait until what they write is durable; then another server may take over that lacks
            what is not, and what a sound bridge held then is in the stream in the end.
        lockstep: makes what a bridge holds (tests of the explorer itself plant faults here).
        server: makes the server (the same).
    """

    def __init__(
        self,
        seed: int,
        *,
        replicas: int = 3,
        sound: int = 1,
        server_fails: bool = False,
        waits: bool = False,
        lockstep: Callable[[int], Lockstep] = Lockstep,
        server: Callable[..., ServerModel] = ServerModel,
    ) -> None:
        self.rng = random.Random(seed)
        self.server = server(wrote=self._check_written)
        self._lockstep = lockstep
        self._names = 0
        self.sound = sound
        self.server_fails = server_fails
        self.waits = waits
        self.promised: set[bytes] = set()
        self.failovers = 0
        self.bridges = [self._bridge() for _ in range(replicas)]
        self.published = 0
        self.owed: list[bytes] = []
        self.unreceived: set[bytes] = set()
        self.history: list[str] = []
        self._in_stream: dict[bytes, int] = {}

    def _bridge(self) -> Replica:
        self._names += 1
        batch_size = self.rng.choice([1, 2, 5])
        return Replica(f"b{self._names}", self.server, self._lockstep(10**6), batch_size, waits=self.waits)

    def _check_written(self, event: bytes) -> None:
        stream = self.server.stream
        if stream.count(event) > 1:
            raise ViolationError(f"{event!r} is twice in the stream {stream}")
        if len(stream) > 1 and int(stream[-2]) > int(event):
            raise ViolationError(f"{event!r} follows {stream[-2]!r}")

    def settle(self) -> None:
        """Let everything that is under way happen, until the sound bridges are in step and all is written."""
        alive = {bridge.name for bridge in self.bridges}
        if self.server.lease.partition(":")[2] not in alive:
            self.server.lease = ""
        for owner in [owner for owner in self.server.ready if owner not in alive]:
            del self.server.ready[owner]
        for _ in range(1_000):
            for bridge in self.bridges:
                for step in bridge.steps():
                    step()
                while bridge.inbox:
                    bridge._receive()
            self.server.call_in_vain()
            if self._at_rest():
                return
        states = [(b.name, b.lockstep.leads, b.lockstep.epoch, len(b.lockstep)) for b in self.bridges]
        raise ViolationError(f"no rest with one leader, all in step and nothing held: {states}, {self.server.hash}")

    def _at_rest(self) -> bool:
        steps = [bridge.lockstep for bridge in self.bridges]
        told = all(bridge.name in self.server.ready for bridge in self.bridges)
        placed = all(lockstep.epoch == self.server.hash.epoch and not len(lockstep) for lockstep in steps)
        return told and placed and sum(lockstep.leads for lockstep in steps) == 1

    def run(self, steps: int) -> None:
        """So many random steps, then rest, then judge."""
        self.settle()
        # From here on every message is owed.
        gaps_before = self.server.hash.gaps
        owed_from = self.published
        for _ in range(steps):
            self.step()
        self.settle()
        missing = [n for n in range(owed_from, self.published) if b"%d" % n not in self.server.stream]
        lost = sorted(self.promised - set(self.server.stream), key=int)
        if lost:
            raise ViolationError(f"{lost} are missing, which every sound bridge held when another server took over")
        if self.failovers:
            return  # the new server may have forgotten what was counted, too
        counted = self.server.hash.gaps - gaps_before + self.server.forgotten + self.server.hash.given_up
        if missing and not counted:
            raise ViolationError(f"{missing} are missing and nothing was counted")
        if self.sound and not self.server_fails and counted:
            raise ViolationError(f"{counted} gaps counted although a bridge in step was there all the time")

    def step(self) -> None:
        if self.waits:
            self.server.note()
        rng = self.rng
        choice = rng.random()
        if choice < 0.2:
            self._publish()
        elif choice < 0.85:
            bridge = rng.choice(self.bridges)
            rng.choice(bridge.steps())()
        else:
            self._mishap()

    def _mishap(self) -> None:
        rng = self.rng
        kind = rng.choice(MISHAPS)
        if kind != "lost answer" and not self.promised <= set(self.server.stream):
            return  # what a failover has cost is written again first; only answers are lost meanwhile
        works = [work for bridge in self.bridges for work in bridge.works()]
        if kind == "lost answer" and works:
            rng.choice(works).cut()  # the script ran, or never will
        elif kind == "lease":
            self.server.lease = ""
        elif kind == "local lease":
            rng.choice(self.bridges).leadership.lose("")
        elif kind == "sign":
            for owner in set(self.server.ready) - self._sound_names():
                self.server.ready[owner] = 0
        elif kind == "outage":
            self._outage()
        elif kind == "call" and not self._sound_names() & set(self.server.silent()):
            self.server.call_in_vain()
        elif kind == "server" and self.server_fails:
            if rng.random() < 0.3:
                self.server.flush()
            else:
                self.server.crash(rng.choice([0, 0, 1, 2, 5]))
        elif kind == "server" and self.waits:
            self._fail_over()
        elif self.sound < len(self.bridges):
            self._befall(kind, rng.randrange(self.sound, len(self.bridges)))

    def _befall(self, kind: str, index: int) -> None:
        """What befalls one bridge."""
        bridge = self.bridges[index]
        if kind == "cut" and bridge.name in self.server.inboxes:
            self.server.cut([bridge.name], keep=self.rng.randint(0, 6))
        elif kind == "elsewhere":
            self.server.inboxes.pop(bridge.name, None)
        elif kind == "die":
            self._vanish(index)
        elif kind == "leave":
            if bridge.leadership.value is not None:
                self.server.release(bridge.name, bridge.leadership.value)
            self._vanish(index)

    def _sound_names(self) -> set[str]:
        return {bridge.name for bridge in self.bridges[: self.sound]}

    def _outage(self) -> None:
        """No script runs for longer than the lease; what is published arrives all the same."""
        for bridge in self.bridges:
            for work in bridge.works():
                work.cut()
            bridge.leadership.lose("")
        for _ in range(self.rng.randint(0, 8)):
            if self.rng.random() < 0.5:
                self._publish()
            else:
                bridge = self.rng.choice(self.bridges)
                if bridge.inbox:
                    bridge._receive()
        self.server.outage()

    def _fail_over(self) -> None:
        """Another server takes over, without what is not durable, and no subscription survives.

        What is promised: every sound bridge held it, in the numbering that the new server knows, and none had been
        given the lease for a term that it has not begun. A promise ends when another failover comes before it was kept
        and that is durable.
        """
        for bridge in self.bridges:
            for work in bridge.works():
                work.cut()
        written = set(self.server.stream)
        self.promised &= self.server.durable_stream()
        self.failovers += 1
        self.server.fail_over(self.rng.random())
        held = [self._held_by(bridge) for bridge in self.bridges[: self.sound]]
        if held:
            self.promised |= set.intersection(*held) & written

    def _held_by(self, bridge: Replica) -> set[bytes]:
        known = bridge.lockstep.numbering == self.server.hash.epoch
        begun = bridge.leadership.value in (None, bridge.terms._term)
        return {event for _, event in bridge.lockstep._placed} if known and begun else set()

    def _publish(self) -> None:
        self.server.publish("metrics", b"%d" % self.published)
        self.published += 1

    def _vanish(self, index: int) -> None:
        self.server.inboxes.pop(self.bridges[index].name, None)
        self.bridges[index] = self._bridge()


async def explore(seeds: range, *, steps: int = 150, **world: Any) -> None:
    """Run a world for each seed.

    Raises:
        ViolationError: naming the seed.
    """
    for seed in seeds:
        try:
            World(seed, **world).run(steps)
        except ViolationError as violation:
            raise ViolationError(f"seed {seed}, {world}: {violation}") from None
        if seed % 50 == 0:
            await asyncio.sleep(0)
