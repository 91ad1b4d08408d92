"""What the bridges' scripts do, as a model: `test_server_model.py` compares it with the scripts themselves."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from redis_agent.lockstep import Batch, Claim
from redis_agent.store.mirror import Break, DeafError, Durable, Renewal, Written

TTL_MS = 600_000


@dataclass
class Hash:
    """`redis_agent:bridge`."""

    written: int = 0
    epoch: str = ""
    leader: str = ""
    before: tuple[str, str] = ("", "")
    gaps: int = 0
    given_up: int = 0
    called: int | None = None
    asked: int = 0


@dataclass
class ServerModel:
    """One server: its keys, and who listens.

    Attributes:
        now_ms: its clock; it stands still but for what the tests do to it.
        ready: when each bridge in step has given its last sign of life, the oldest first.
        inboxes: what each subscriber has not received yet, in order; None as the last is the end of a subscription.
        forgotten: positions that were written and then lost by the server.
    """

    hash: Hash = field(default_factory=Hash)
    fence: int = 0
    lease: str = ""
    now_ms: int = 10**9
    ready: dict[str, int] = field(default_factory=dict)
    stream: list[bytes] = field(default_factory=list)
    inboxes: dict[str, deque[tuple[str, bytes] | None]] = field(default_factory=dict)
    forgotten: int = 0
    wrote: Callable[[bytes], None] = lambda _event: None
    kept: list[tuple[Any, ...]] = field(default_factory=list)

    def publish(self, channel: str, message: bytes) -> int:
        for inbox in self.inboxes.values():
            inbox.append((channel, message))
        return len(self.inboxes)

    def say(self, message: str) -> None:
        self.publish("control", message.encode())

    def claim(self, owner: str, *, epoch: str, new_epoch: str) -> Claim | None:
        h = self.hash
        in_step = bool(epoch) and epoch == h.epoch
        deaf = owner not in self.inboxes
        self._ready(owner, in_step and not deaf)
        if self.lease and self.lease.partition(":")[2] == owner:
            return self._granted(owner, self.lease, h.before)
        if deaf and (self.lease or in_step):
            raise DeafError
        if self.lease or (not in_step and self._better()):
            return None
        h.called = None
        self.fence += 1
        self.lease = f"{self.fence}.{new_epoch}:{owner}"
        h.before = (h.epoch, h.leader)
        h.leader = owner
        if not in_step:
            self.ready.clear()
            if h.epoch or h.written:
                h.gaps += 1
            h.epoch = new_epoch
            self.say(f"written {new_epoch} 0 {new_epoch}")
        return self._granted(owner, self.lease, h.before)

    def _better(self) -> bool:
        """Whether one who is not in step has to wait for one who may be."""
        return any(self._fresh(owner) for owner in self.ready) or self._waits_for(self.silent())

    def _fresh(self, owner: str) -> bool:
        return abs(self.now_ms - self.ready[owner]) <= TTL_MS

    def silent(self) -> list[str]:
        """Bridges whose subscriptions stand, but that could not say anything in an outage."""
        return [owner for owner in self.ready if owner in self.inboxes and not self._fresh(owner)]

    def _waits_for(self, silent: Sequence[str]) -> bool:
        """Call them; whether they have had less than one lease time to ask since."""
        h = self.hash
        if not silent:
            return False
        if h.called is None or self.now_ms - h.asked > TTL_MS / 2:
            h.called = self.now_ms
            self.say("free")
        h.asked = self.now_ms
        return self.now_ms - h.called <= TTL_MS

    def _granted(self, owner: str, value: str, before: tuple[str, str]) -> Claim:
        h = self.hash
        return Claim(value, h.written, h.epoch, before[0], before[1] == owner, 0)

    def renew(self, owner: str, value: str, *, epoch: str, mark: str, confirmed: int | None = None) -> Renewal | None:
        if self.lease != value:
            return None
        in_step = bool(mark) and self.hash.epoch == epoch
        self._ready(owner, in_step and owner in self.inboxes)
        if in_step:
            self.say(f"written {epoch} {self.hash.written if confirmed is None else confirmed} {mark}")
        return Renewal(self.hash.written, owner in self.inboxes)

    def release(self, owner: str, value: str) -> None:
        self._ready(owner, False)
        if self.lease == value:
            self.lease = ""
            self.say("free")

    def broken(self, owner: str, value: str, *, new_epoch: str, gap: bool, may_yield: bool) -> Break:
        h = self.hash
        if self.lease != value:
            return Break("fenced")
        if new_epoch and h.epoch == new_epoch:
            return Break("renumbered", h.written)
        self._ready(owner, False)
        if may_yield:
            successors = [other for other in self.ready if other in self.inboxes and self._fresh(other)]
            if successors:
                self.lease = ""
                self.say("free")
                return Break("yielded", successor=successors[0])
            silent = self.silent()
            if self._waits_for(silent):
                return Break("called", successor=silent[0])
        if not new_epoch:
            return Break("alone")
        self.ready.clear()
        h.called = None
        h.epoch, h.leader = new_epoch, owner
        h.gaps += gap
        self.say(f"written {new_epoch} 0 {new_epoch}")
        return Break("renumbered", h.written)

    def announce(self, value: str, message: str) -> bool:
        if self.lease == value:
            self.say(message)
        return self.lease == value

    def write(self, value: str, *, epoch: str, batch: Batch, confirmed: int | None = None) -> Written:
        h = self.hash
        if self.lease != value:
            return Written("fenced", h.written)
        if h.epoch != epoch or batch.given_up_from > h.written + 1:
            return Written("hole", h.written)
        given_up = max(0, batch.first - h.written - 1)
        h.given_up += given_up
        last = batch.first + len(batch.events) - 1
        for position in range(max(h.written + 1, batch.first), last + 1):
            self._append(batch.events[position - batch.first][1])
        h.written = max(h.written, last)
        self.say(f"written {epoch} {h.written if confirmed is None else confirmed}")
        return Written("written", h.written, given_up)

    def _append(self, event: bytes) -> None:
        self.stream.append(event)
        self.wrote(event)

    def _ready(self, owner: str, in_step: bool) -> None:
        self.ready.pop(owner, None)
        if in_step:
            self.ready[owner] = self.now_ms

    # What befalls it -----------------------------------------------------------------------------------------------

    def outage(self) -> None:
        """No script has run for longer than the lease's time; subscriptions stand."""
        self.now_ms += 2 * TTL_MS
        self.lease = ""

    def call_in_vain(self) -> None:
        """A lease time passes in which those who were called do not ask, and others do."""
        if self.hash.called is not None:
            self.hash.called -= TTL_MS + 1

    def flush(self) -> None:
        """Everything is forgotten, also what gaps there were; subscriptions stand."""
        self.forgotten += 1 + len(self.stream)
        self.hash, self.lease = Hash(gaps=self.hash.gaps, given_up=self.hash.given_up), ""
        self.fence += 1_000  # it starts at the time of the day
        self.ready.clear()
        self.stream.clear()

    def crash(self, lost: int) -> None:
        """The last writes are forgotten, and every subscription is cut."""
        lost = min(lost, len(self.stream))
        self.forgotten += lost
        if lost:
            del self.stream[-lost:]
        self.hash.written -= lost
        self.cut(list(self.inboxes))

    def durable(self) -> Durable:
        """All that there is now is there for good."""
        self.kept.clear()
        self.note()
        return Durable(self.hash.epoch, self.hash.written)

    def note(self) -> None:
        """This state may be the one that a failover leads to."""
        self.kept.append((copy(self.hash), self.lease, dict(self.ready), list(self.stream), self.fence))

    def durable_stream(self) -> set[bytes]:
        """What is in the stream for good."""
        return set(self.kept[0][3]) if self.kept else set(self.stream)

    def fail_over(self, age: float) -> None:
        """A replica takes over that lacks the last scripts: of those that are not there for good, this share."""
        if self.kept:
            index = int((len(self.kept) - 1) * (1 - age))
            found, self.lease, ready, stream, self.fence = self.kept[index]
            self.hash, self.ready, self.stream = copy(found), dict(ready), list(stream)
            del self.kept[index + 1 :]
        self.cut(list(self.inboxes))

    def cut(self, owners: Sequence[str], keep: int = 0) -> None:
        """End subscriptions; of what was on its way, so many messages still arrive."""
        for owner in owners:
            inbox = self.inboxes.pop(owner)
            while len(inbox) > keep:
                inbox.pop()
            inbox.append(None)


class ClusterModel(ServerModel):
    """A partition of a cluster: bridges listen to another node than the one that its scripts run on.

    So nobody knows whose subscription stands, and a failover ends none.
    """

    def claim(self, owner: str, *, epoch: str, new_epoch: str) -> Claim | None:
        with self._everybody_listens(owner):
            return super().claim(owner, epoch=epoch, new_epoch=new_epoch)

    def renew(self, owner: str, value: str, *, epoch: str, mark: str, confirmed: int | None = None) -> Renewal | None:
        with self._everybody_listens(owner):
            return super().renew(owner, value, epoch=epoch, mark=mark, confirmed=confirmed)

    def broken(self, owner: str, value: str, *, new_epoch: str, gap: bool, may_yield: bool) -> Break:
        with self._everybody_listens(owner):
            return super().broken(owner, value, new_epoch=new_epoch, gap=gap, may_yield=may_yield)

    @contextlib.contextmanager
    def _everybody_listens(self, owner: str) -> Iterator[None]:
        """As the scripts see it; what is said meanwhile goes only to those who do."""
        listening = self.inboxes
        unheard: dict[str, deque[tuple[str, bytes] | None]] = {
            name: deque() for name in (owner, *self.ready) if name not in listening
        }
        self.inboxes = {**listening, **unheard}
        try:
            yield
        finally:
            self.inboxes = listening

    def fail_over(self, age: float) -> None:
        listening, self.inboxes = self.inboxes, {}
        super().fail_over(age)
        self.inboxes = listening

    def state(self) -> tuple[Any, ...]:
        """What one server has, to be given back to `become`."""
        return copy(self.hash), self.lease, dict(self.ready), list(self.stream), self.fence, list(self.kept)

    def become(self, state: tuple[Any, ...]) -> None:
        """Be the server that has this."""
        self.hash, self.lease, self.ready, self.stream, self.fence, self.kept = state
