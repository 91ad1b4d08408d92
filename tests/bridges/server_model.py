"""What the bridges' scripts do, as a model: `test_server_model.py` compares it with the scripts themselves."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from redis_agent.lockstep import Batch, Claim
from redis_agent.store.mirror import Break, Written


@dataclass
class Hash:
    """`redis_agent:bridge`."""

    written: int = 0
    epoch: str = ""
    leader: str = ""
    before: tuple[str, str] = ("", "")
    gaps: int = 0
    given_up: int = 0


@dataclass
class ServerModel:
    """One server: its keys, and who listens.

    Attributes:
        ready: owners of bridges in step that have given a sign of life lately.
        inboxes: what each subscriber has not received yet, in order; None as the last is the end of a subscription.
        forgotten: positions that were written and then lost by the server.
    """

    hash: Hash = field(default_factory=Hash)
    fence: int = 0
    lease: str = ""
    ready: list[str] = field(default_factory=list)
    stream: list[bytes] = field(default_factory=list)
    inboxes: dict[str, deque[tuple[str, bytes] | None]] = field(default_factory=dict)
    forgotten: int = 0
    wrote: Callable[[bytes], None] = lambda _event: None

    def publish(self, channel: str, message: bytes) -> int:
        for inbox in self.inboxes.values():
            inbox.append((channel, message))
        return len(self.inboxes)

    def say(self, message: str) -> None:
        self.publish("control", message.encode())

    def claim(self, owner: str, *, epoch: str, new_epoch: str) -> Claim | None:
        h = self.hash
        in_step = bool(epoch) and epoch == h.epoch
        self._ready(owner, in_step)
        if self.lease:
            if self.lease.partition(":")[2] != owner:
                return None
            return self._granted(owner, self.lease, h.before)
        if not in_step and self.ready:
            return None
        self.fence += 1
        self.lease = f"{self.fence}:{owner}"
        h.before = (h.epoch, h.leader)
        h.leader = owner
        if not in_step:
            self.ready.clear()
            if h.epoch or h.written:
                h.gaps += 1
            h.epoch = new_epoch
            self.say(f"written {new_epoch} {h.written} {new_epoch}")
        return self._granted(owner, self.lease, h.before)

    def _granted(self, owner: str, value: str, before: tuple[str, str]) -> Claim:
        h = self.hash
        return Claim(value, h.written, h.epoch, before[0], before[1] == owner, 0)

    def renew(self, owner: str, value: str, *, epoch: str, mark: str) -> int | None:
        if self.lease != value:
            return None
        in_step = bool(mark) and self.hash.epoch == epoch
        self._ready(owner, in_step)
        if in_step:
            self.say(f"written {epoch} {self.hash.written} {mark}")
        return self.hash.written

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
        if may_yield and self.ready:
            self.lease = ""
            self.say("free")
            return Break("yielded", successor=self.ready[0])
        if not new_epoch:
            return Break("alone")
        self.ready.clear()
        h.epoch, h.leader = new_epoch, owner
        h.gaps += gap
        self.say(f"written {new_epoch} {h.written} {new_epoch}")
        return Break("renumbered", h.written)

    def announce(self, value: str, message: str) -> bool:
        if self.lease == value:
            self.say(message)
        return self.lease == value

    def write(self, value: str, *, epoch: str, batch: Batch) -> Written:
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
        self.say(f"written {epoch} {h.written}")
        return Written("written", h.written, given_up)

    def _append(self, event: bytes) -> None:
        self.stream.append(event)
        self.wrote(event)

    def _ready(self, owner: str, in_step: bool) -> None:
        if owner in self.ready:
            self.ready.remove(owner)
        if in_step:
            self.ready.append(owner)

    # What befalls it -----------------------------------------------------------------------------------------------

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

    def cut(self, owners: Sequence[str], keep: int = 0) -> None:
        """End subscriptions; of what was on its way, so many messages still arrive."""
        for owner in owners:
            inbox = self.inboxes.pop(owner)
            while len(inbox) > keep:
                inbox.pop()
            inbox.append(None)
