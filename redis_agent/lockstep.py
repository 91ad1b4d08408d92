"""The bridges' lockstep: which published messages this bridge holds, and where in the stream they belong.

Pub/sub forgets and numbers nothing. Redis gives every subscriber of one node the same messages in the same order,
across channels too. So messages are numbered by counting: an *epoch* fixes the position of one mark in that order, and
everybody who sees the mark and each message after it knows the position of each. A bridge that does is *in step*: it
keeps what is not yet known to be written, and can go on where a leader stopped.

What is said on the control channel, each published by a script that checks the lease:

    written <epoch> <position> [<mark>]    the stream has every message up to this position; here stands a mark
    at <epoch> <mark> <position>           the leader met that mark after the message with this position
    free                                   nobody leads

In a cluster bridges subscribe to one node that they agree on, and each node has an order of its own. So an epoch's name
says in which node's order it counts (`<name>@<node>`), and marks of another node's epochs place nothing.

This module decides and holds; it neither reads nor writes anything (bridge.py does), so that a state explorer can try
every order of events on it. Why nothing is lost or doubled: docs/adr/0005-the-bridges-hand-over.md.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

# An event and when it was received, ms.
Received = tuple[int, bytes]

# What Python needs for an event beside its bytes.
_OVERHEAD_BYTES = 130
# Marks remembered while their position is not announced. The leader sets one a second or so.
_MARKS = 32
# When the epoch before was another node's, so many marks are let pass before this leader writes what comes: what came
# to that node, and was written, may come to this one a moment later.
_UNSETTLED_MARKS = 3


def epoch_of(name: str, node: str) -> str:
    """The name of an epoch that counts in the order of this node; "" is the one server there is."""
    return f"{name}@{node}" if node else name


def node_of(epoch: str) -> str:
    """In which node's order an epoch counts; "" is the one server there is."""
    return epoch.partition("@")[2]


@dataclass(frozen=True, slots=True)
class Claim:
    """What the server said when it gave the lease.

    Attributes:
        value: the lease's value, "token.claim:owner"; never given twice.
        written: the position that the stream had reached.
        epoch: the epoch from now on.
        epoch_before: the epoch until then, "" when there was none.
        continues: whether the one who led before was this same process.
        silent_ms: how long no leader had given a sign of life.
    """

    value: str
    written: int
    epoch: str
    epoch_before: str
    continues: bool
    silent_ms: int

    @property
    def begins_epoch(self) -> bool:
        """Whether the numbering starts anew."""
        return self.epoch != self.epoch_before

    @property
    def gap(self) -> bool:
        """Whether something may have been missed: the numbering was broken, and not by the very first start."""
        return self.begins_epoch and not self.virgin

    @property
    def virgin(self) -> bool:
        """Whether nothing was ever written, or the server has forgotten all."""
        return not self.epoch_before and not self.written


@dataclass(frozen=True, slots=True)
class Announcement:
    """To be said by the leader: it met a mark after the message with this position."""

    epoch: str
    mark: str
    position: int

    def __str__(self) -> str:
        return f"at {self.epoch} {self.mark} {self.position}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages to be written next.

    Attributes:
        first: the position of the first.
        given_up_from: positions from here to `first` are not held any more; equal to `first` when none were dropped.
        events: the messages, in order.
    """

    first: int
    given_up_from: int
    events: Sequence[Received]


class Lockstep:
    """What one bridge holds.

    Messages are *placed* (their positions are known, in one row up to `_end`) or *loose* (received since, and not in
    step). A subscription that breaks leaves the placed ones as they are: they are a valid row that has an end.

    Args:
        max_bytes: how much is held; beyond it the oldest are dropped.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._placed: deque[Received] = deque()
        self._end = 0
        self._released = 0
        # What this leader has written; held on from `_released`, while it is not confirmed.
        self._sent = 0
        self._epoch = ""
        self._loose: deque[Received] = deque()
        # (mark, epoch, how many loose messages came before it), and for those in step: mark -> position.
        self._marks: list[tuple[str, str, int]] = []
        self._expected: dict[str, int] = {}
        self._listening = False
        self._subscriptions = 0
        self._attached = False
        # Whether everything up to the first placed message is known to be written; if not, up to where it must be.
        self._complete = True
        self._joined_at = 0
        self._awaits = False
        self._node = ""
        # Marks of its own epoch that a leader that awaits one still lets pass.
        self._unsettled = 0
        self._offered: deque[str] = deque(maxlen=_MARKS)
        self._leads = False
        self._resyncs = 0

    # What is known ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._placed) + len(self._loose)

    @property
    def size_bytes(self) -> int:
        """Size of what is held."""
        return self._bytes

    @property
    def epoch(self) -> str:
        """The epoch in which this bridge is in step, so that it could lead; "" when it is not.

        One that joined late is placed before it is in step: what was published before it came is to be written first.
        """
        return self._epoch if self._attached and self._complete else ""

    @property
    def numbering(self) -> str:
        """The epoch that the placed messages are numbered in, in step or not."""
        return self._epoch

    @property
    def marks_epoch(self) -> str:
        """The epoch whose marks may be set: by a bridge in step, and by a leader that waits for one; else ""."""
        return self._epoch if self._attached or self._awaits else ""

    @property
    def leads(self) -> bool:
        """Whether a term has begun and not ended."""
        return self._leads

    @property
    def broken(self) -> bool:
        """Whether a new epoch must begin: this leader's row of messages has an end, because the subscription broke.

        Or the epoch, named when the lease was claimed, counts in the order of another node than is listened to by now.
        """
        misplaced = self._listening and node_of(self._epoch) != self._node
        return self._leads and (misplaced or not (self._attached or self._awaits))

    @property
    def listening(self) -> bool:
        """Whether a subscription stands."""
        return self._listening

    @property
    def node(self) -> str:
        """The node of the last subscription; "" is the one server there is."""
        return self._node

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there were, to tell one from another."""
        return self._subscriptions

    @property
    def resyncs(self) -> int:
        """How often this bridge was in step and found that it was not."""
        return self._resyncs

    @property
    def written(self) -> int:
        """The position up to which everything is known to be written, and as durable as asked for."""
        return self._released

    @property
    def sent(self) -> int:
        """The position up to which this leader has written everything, durable yet or not."""
        return max(self._sent, self._released)

    @property
    def given_up(self) -> int:
        """How many positions in front of the oldest held one were dropped unwritten."""
        return max(0, self.dropped_to - self.sent)

    @property
    def dropped_to(self) -> int:
        """The position in front of the oldest held one."""
        return self._end - len(self._placed)

    # What is received ------------------------------------------------------------------------------------------

    def subscribed(self, node: str = "") -> None:
        """A subscription stands, on this node; what comes from now on is one row."""
        self._node = node
        self._listening = True
        self._subscriptions += 1

    def broke(self) -> None:
        """The subscription broke: what comes next does not follow what came last."""
        self._listening = self._attached = False
        self._marks.clear()
        self._expected.clear()
        if self._awaits:
            # Received before an own mark, so perhaps another's; what a later subscription brings is not.
            self._awaits = False
            self._clear_loose()

    def receive(self, at_ms: int, event: bytes) -> int:
        """Hold a message; how many of the oldest were dropped for it, unwritten as far as is known."""
        size = len(event) + _OVERHEAD_BYTES
        if self._attached:
            self._end += 1
            if self._end <= self._released:
                return 0  # written already: this bridge reads behind the one that wrote it
            self._placed.append((at_ms, event))
        else:
            self._loose.append((at_ms, event))
        self._bytes += size
        return self._drop_oldest() if self._bytes > self._max_bytes else 0

    def _drop_oldest(self) -> int:
        dropped = 0
        while self._bytes > self._max_bytes and len(self) > 1:
            if self._placed:
                dropped += self._end - len(self._placed) >= self.sent
                self._bytes -= len(self._placed.popleft()[1]) + _OVERHEAD_BYTES
            else:
                dropped += 1
                self._drop_loose(1)
        return dropped

    def control(self, message: bytes) -> Announcement | None:
        """Heed what was said on the control channel; what the leader is to say next.

        What is not understood is somebody else's and ignored.
        """
        try:
            match message.decode().split(" "):
                case ["written", epoch, position]:
                    self._heard_written(epoch, int(position))
                case ["written", epoch, position, mark]:
                    self._heard_written(epoch, int(position))
                    return self._met(epoch, mark) if node_of(epoch) == self._node else None
                case ["at", epoch, mark, position] if node_of(epoch) == self._node:
                    self._heard_at(epoch, mark, int(position))
        except ValueError:
            return None
        return None

    def _heard_written(self, epoch: str, position: int) -> None:
        if not self._epoch:
            return
        if epoch == self._epoch:
            if self._attached and position > self._end and not self._leads:
                self._fall_out()  # written before it was received: something was missed
            else:
                self._complete = self._complete or position >= self._joined_at
                self._release(position)
        elif not self._leads and epoch not in self._offered:
            # Another numbering has begun. A leader hears only of those before its own, or is fenced soon.
            if self._attached:
                self._resyncs += 1
            self._forget()

    def _met(self, epoch: str, mark: str) -> Announcement | None:
        if self._awaits:
            if epoch != self._epoch:
                return None
            if self._unsettled:
                self._unsettled -= 1
                return None
            # From any mark of its own epoch on, everything is this leader's to write.
            self._awaits = False
            self._clear_loose()
            self._attached = True
        if self._attached:
            if epoch != self._epoch:
                return None
            if self._leads:
                return Announcement(epoch, mark, self._end)
            self._expected[mark] = self._end
            while len(self._expected) > _MARKS:
                del self._expected[next(iter(self._expected))]
            return None
        self._marks.append((mark, epoch, len(self._loose)))
        if len(self._marks) > _MARKS:
            del self._marks[0]
            if not self._leads:
                self._drop_loose(self._marks[0][2])
        return None

    def _heard_at(self, epoch: str, mark: str, position: int) -> None:
        if self._leads:
            return
        if self._attached:
            if epoch == self._epoch and self._expected.pop(mark, position) != position:
                self._fall_out()
            return
        found = [n for n, known in enumerate(self._marks) if known[:2] == (mark, epoch)]
        if not found or not self._listening:
            return
        before = self._marks[found[0]][2]
        later = self._marks[found[0] + 1 :]
        self._drop_loose(before)
        self._clear_placed()
        self._place_loose(position)
        self._epoch, self._released = epoch, position
        self._attached, self._awaits = True, False
        self._complete, self._joined_at = False, position
        self._expected = {known: position + after - before for known, of, after in later if of == epoch}
        self._marks.clear()

    def _fall_out(self) -> None:
        """In step no more: wait for the next mark."""
        self._resyncs += 1
        self._forget()

    def _forget(self) -> None:
        self._clear_placed()
        self._clear_loose()
        self._marks.clear()
        self._expected.clear()
        self._epoch = ""
        self._attached = self._awaits = False
        self._complete = True

    # Leading ---------------------------------------------------------------------------------------------------

    def offer(self, epoch: str) -> None:
        """This epoch begins if a claim that is under way is granted; its mark may be met before the answer is seen.

        Or after a claim whose answer was lost; so those that were offered before count as well.
        """
        self._offered.append(epoch)

    def resume(self) -> None:
        """A term goes on, or begins in the epoch that this bridge is in step with.

        What is not confirmed is written again: the server knows what it has.
        """
        self._leads = True
        self._sent = 0
        self._expected.clear()

    def begin(self, claim: Claim) -> Announcement | None:
        """A term begins.

        Args:
            claim: what the server said. Its epoch is either the one that was offered because this bridge was in step,
                or a new one whose mark (of the same name) the server published when it gave the lease.

        Returns:
            what to announce at once, if the new epoch's mark was met already.

        Raises:
            OutOfStepError: this bridge was in step when it asked, and is no more; the lease must be given back.
        """
        if claim.epoch == self._epoch:
            # Also a term of long ago, whose answer a server gives again that has forgotten what came after it.
            self.resume()
            self._sent = claim.written
            return None
        if not claim.begins_epoch:
            raise OutOfStepError(f"in step with {self._epoch or 'nobody'}, the lease is for {claim.epoch}")
        self._leads = True
        numbered = bool(self._epoch) and claim.epoch_before == self._epoch
        moved = self._moved(claim.epoch_before) and not claim.virgin
        mine = claim.virgin or (numbered and not moved and (claim.continues or self._attached))
        self._sent = claim.written
        if claim.virgin:
            self._end, self._released = len(self._placed), 0
        elif not numbered:
            # Positions of another numbering, or of one that was forgotten, say nothing about what is written.
            self._clear_placed()
            self._end = self._released = claim.written
            self._attached = False
        elif not self._complete:
            # What lies between was never received here.
            self._released = min(self._released, claim.written)
        self._complete = True
        if not self._attached and self._end < claim.written:
            # What lies between the end of this row and what comes next is written, and was never received here.
            self._release(claim.written)
            self._end = claim.written
        self._epoch = claim.epoch
        self._expected.clear()
        if mine and not self._awaits:
            return self._take_loose(claim.epoch)
        met = [] if moved else [before for _, epoch, before in self._marks if epoch == claim.epoch]
        self._awaits = not met
        if not met:
            # What comes until a mark is met may have been written by another leader.
            self._marks.clear()
            return None
        self._drop_loose(met[0])
        return self._take_loose(claim.epoch)

    def _moved(self, epoch_before: str) -> bool:
        """Whether the epoch before was another node's; then marks must pass before this one's order is relied on."""
        if epoch_before and node_of(epoch_before) != self._node:
            self._unsettled = _UNSETTLED_MARKS
        return self._unsettled > 0

    def renumbered(self, epoch: str, written: int, *, subscription: int) -> tuple[int, Announcement | None]:
        """The leader's new epoch has begun on the server: all that is held follows the last one written.

        Args:
            epoch: the new epoch, also the name of the mark that was published with it.
            written: the position that the stream had reached.
            subscription: `subscriptions` when the server was asked.

        Returns:
            how many positions the server has forgotten, and what to announce at once.
        """
        forgotten = max(0, self._released - written)
        if self._end < written:
            self._release(written)
        unwritten = min(len(self._placed), max(0, self._end - written))
        self._released = min(self._released, written)
        self._sent, self._end = written, written + unwritten
        if self._moved(self._epoch):
            self._clear_loose()
            self._attached, self._awaits = False, True
        self._epoch = epoch
        if self._awaits:
            return forgotten, None  # what is loose may be another's as much as before
        announcement = self._take_loose(epoch)
        if subscription != self._subscriptions:
            self._attached = False  # broken once more since; what the new epoch's mark has met is not known
            return forgotten, None
        return forgotten, announcement

    def _take_loose(self, mark: str) -> Announcement | None:
        """All loose messages follow the placed ones; the position of the mark, if it was met among them."""
        met = [before for known, _, before in self._marks if known == mark]
        base = self._end
        self._place_loose(base)
        self._marks.clear()
        self._attached = self._listening
        return Announcement(self._epoch, mark, base + met[0]) if met and self._attached else None

    def end_term(self) -> None:
        """The lease is lost or given back; what is held is kept until somebody has written it for good."""
        self._leads = False
        self._sent = 0

    def batch(self, count: int, max_bytes: int) -> Batch | None:
        """The oldest placed messages that are not written, at least one; None when there are none."""
        events: list[Received] = []
        size = 0
        held_from = self._end - len(self._placed) + 1
        first = max(held_from, self.sent + 1)
        for received in islice(self._placed, first - held_from, first - held_from + count):
            size += len(received[1])
            if events and size > max_bytes:
                break
            events.append(received)
        if not events:
            return None
        return Batch(first, self.sent + 1, events)

    def wrote(self, position: int) -> None:
        """The server has written everything up to this position; it is held until that is confirmed."""
        self._sent = max(self._sent, position)

    def confirmed(self, position: int) -> None:
        """The server has written everything up to this position, and it is as durable as asked for."""
        self._release(position)

    # Held messages ---------------------------------------------------------------------------------------------

    def _release(self, position: int) -> None:
        """Let go of what is written."""
        if position <= self._released:
            return
        self._released = position
        placed = self._placed
        start = self._end - len(placed) + 1
        while placed and start <= position:
            self._bytes -= len(placed.popleft()[1]) + _OVERHEAD_BYTES
            start += 1

    def _place_loose(self, base: int) -> None:
        self._placed.extend(self._loose)
        self._end = base + len(self._loose)
        self._loose.clear()

    def _drop_loose(self, count: int) -> None:
        for _ in range(min(count, len(self._loose))):
            self._bytes -= len(self._loose.popleft()[1]) + _OVERHEAD_BYTES
        # A mark whose following messages are not all held any more places nothing.
        self._marks = [(mark, epoch, before - count) for mark, epoch, before in self._marks if before >= count]

    def _clear_placed(self) -> None:
        self._bytes -= sum(len(event) + _OVERHEAD_BYTES for _, event in self._placed)
        self._placed.clear()

    def _clear_loose(self) -> None:
        self._bytes -= sum(len(event) + _OVERHEAD_BYTES for _, event in self._loose)
        self._loose.clear()
        self._marks.clear()


class OutOfStepError(Exception):
    """A lease was taken for an epoch that this bridge is no more in step with."""
