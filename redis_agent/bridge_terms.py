"""A bridge's terms: how it comes to lead, writes, mends a break, hands over and follows.

`bridge.py` receives; what it receives goes into the `Lockstep`, and what is said on the control channel comes here.
Nothing here waits for anything but the server's answers to the bridge's scripts, so that the tests' state explorer can
run this very code with every order of messages, answers, losses and deaths.
"""

import asyncio
import uuid
from collections import deque
from itertools import count

from redis_agent import log
from redis_agent.lockstep import Announcement, Claim, Lockstep, OutOfStepError, epoch_of, node_of
from redis_agent.log import Throttle
from redis_agent.store import keys
from redis_agent.store.lease import Leadership
from redis_agent.store.mirror import DeafError, Mirror
from redis_agent.telemetry import Telemetry
from redis_agent.tracing import OFF, Receipts, Tracing

# One batch holds the server up for about this many bytes at most.
BATCH_BYTES = 1_048_576
# Events that wait for longer than this to be written are a hindrance.
LATE_SECONDS = 5.0
# The server says so many times in a row that it knows no subscription of this bridge before the bridge believes it: one
# that was only cut is seen to end before that, with all that it still brings.
DEAF_ANSWERS = 3


def _new_epoch(node: str) -> str:
    return epoch_of(uuid.uuid4().hex[:16], node)


class BridgeTenure:
    """The bridge's lease as `Leadership` keeps it: claims say whether this bridge is in step, renewals set marks."""

    def __init__(self, mirror: Mirror, lockstep: Lockstep) -> None:
        self._mirror = mirror
        self._lockstep = lockstep
        self._marks = (f"{uuid.uuid4().hex[:8]}.{n}" for n in count(1))
        self.claim: Claim | None = None
        # The server has forgotten positions that this leader knows to have been written: a new numbering is due.
        self.regressed = False
        # How often the lease was prolonged.
        self.renewals = 0
        self._deaf_subscription = -1
        self._deaf_answers = 0

    @property
    def elsewhere(self) -> bool:
        """Whether the subscription stands, but not on the server that the scripts run on."""
        lockstep = self._lockstep
        here = self._deaf_subscription == lockstep.subscriptions and lockstep.listening
        return here and self._deaf_answers >= DEAF_ANSWERS

    def _subscription(self) -> int | None:
        return self._lockstep.subscriptions if self._lockstep.listening else None

    def _heard(self, subscription: int | None, *, heard: bool) -> None:
        """What the server said of the subscription that stood when it was asked."""
        if subscription is None:
            return
        if heard or subscription != self._deaf_subscription:
            self._deaf_answers = 0
        if not heard:
            self._deaf_subscription = subscription
            self._deaf_answers += 1

    @property
    def name(self) -> str:
        """The lease's key."""
        return keys.LEASE_BRIDGE

    async def acquire(self) -> str | None:
        """Claim the lease; what the server said is in `claim` then."""
        # Never the same name twice: a server that has forgotten an epoch would set its mark a second time.
        new_epoch = _new_epoch(self._lockstep.node)
        self._lockstep.offer(new_epoch)
        subscription = self._subscription()
        try:
            claim = await self._mirror.claim(epoch=self._lockstep.epoch, new_epoch=new_epoch)
        except DeafError:
            self._heard(subscription, heard=False)
            return None
        if claim is None:
            self._heard(subscription, heard=True)
            return None
        self.claim = claim
        return claim.value

    async def renew(self, value: str) -> bool:
        """Prolong the lease, and let those who are not in step know where they are."""
        epoch = self._lockstep.marks_epoch
        mark = next(self._marks) if epoch else ""
        known = self._lockstep.sent
        confirmed = self._lockstep.written if self._mirror.waits else None
        subscription = self._subscription()
        renewal = await self._mirror.renew(value, epoch=epoch, mark=mark, confirmed=confirmed)
        if renewal is None:
            return False
        self.renewals += 1
        self._heard(subscription, heard=renewal.heard)
        self.regressed = self.regressed or (bool(epoch) and renewal.written < known)
        return True

    async def release(self, value: str) -> None:
        """Give the lease back."""
        await self._mirror.release(value)


class Terms:
    """What a bridge does as leader and as follower.

    `arrived` is set whenever there is something to do, `wrote` whenever there is something to confirm.

    Args:
        mirror: writes, and speaks to the other bridges.
        lockstep: what this bridge holds.
        tenure: the bridge's lease.
        leadership: of that lease.
        batch_size: events written at once, at most.
        tracing: where the traces of events begin.
    """

    def __init__(
        self,
        *,
        mirror: Mirror,
        lockstep: Lockstep,
        tenure: BridgeTenure,
        leadership: Leadership,
        telemetry: Telemetry,
        batch_size: int,
        tracing: Tracing = OFF,
    ) -> None:
        self._mirror = mirror
        self._lockstep = lockstep
        self._tenure = tenure
        self._leadership = leadership
        self._telemetry = telemetry
        self._batch_size = batch_size
        self._receipts = Receipts(tracing)
        self._log = log.get("bridge")
        self.arrived = asyncio.Event()
        self._term: str | None = None
        self._last_term = ""
        self._following = False
        self._to_say: deque[Announcement] = deque(maxlen=16)
        # The epoch that begins after a break, kept until the server has answered; and the break that was looked into.
        self._mending = ""
        self._looked_into = -1
        # One that may be in step was called to take over; it is asked for again with the next renewal of the lease.
        self._called_at = -1
        # The last position that was dropped and is counted.
        self._counted_to = 0
        self._throttle = Throttle()
        self._broken_at: float | None = None
        # Whether the last break was everybody's: then nobody is in step that could be handed over to.
        self._all_broken = False
        self._waiting_since: float | None = None
        # When the oldest of what is written, and not confirmed, was written at the latest.
        self._unconfirmed_since: float | None = None
        self.wrote = asyncio.Event()

    def hindrances(self) -> list[str]:
        """What keeps what is published now from being written, in words; nothing when all is well."""
        if not self._lockstep.listening:
            return ["the bridge's subscription does not stand"]
        if self.elsewhere:
            return ["the bridge's subscription is not on the server that is written to"]
        if self._term is None:
            return [] if self._leadership.held_by_other else ["no bridge leads"]
        since = self._waiting_since
        late = 0.0 if since is None else self._now() - since
        if late > LATE_SECONDS:
            held, size = len(self._lockstep), self._lockstep.size_bytes
            return [f"the stream could not be written for {late:.0f} s: {held} events held ({size} bytes)"]
        since = self._unconfirmed_since
        late = 0.0 if since is None else self._now() - since
        if late > LATE_SECONDS:
            return [f"what is written was not durable for {late:.0f} s: {self.unconfirmed} events held"]
        return []

    @property
    def unconfirmed(self) -> int:
        """How many positions are written, and not confirmed."""
        return self._lockstep.sent - self._lockstep.written

    @property
    def elsewhere(self) -> bool:
        """Whether the subscription stands, but not on the server that the scripts run on."""
        return self._tenure.elsewhere

    # Following -------------------------------------------------------------------------------------------

    def broke(self, heard: float, *, all_of_us: bool = False) -> None:
        """What was published after the last sign of life may have passed unseen.

        Args:
            heard: when that was.
            all_of_us: whether the subscriptions of all bridges broke with this one.
        """
        if not self._lockstep.listening:
            return
        self._lockstep.broke()
        self._all_broken = all_of_us
        if self._broken_at is None:
            self._broken_at = heard
        self._telemetry.bridge_in_step.set(0)
        self.arrived.set()
        if not self._lockstep.leads:
            self._leadership.hurry()  # nobody should count on this bridge

    def heed(self, message: bytes) -> None:
        """Another bridge, or this one, has said something on the control channel."""
        if message == b"free":
            self._leadership.hurry()
            return
        lockstep = self._lockstep
        was, resyncs = lockstep.epoch, lockstep.resyncs
        announcement = lockstep.control(message)
        if announcement is not None:
            self._say(announcement)
        if lockstep.resyncs != resyncs:
            self._telemetry.bridge_resyncs.inc()
            self._log.warning("bridge_out_of_step", meaning="waits for the leader's next mark")
        if lockstep.epoch != was:
            self._step_changed()

    def _step_changed(self) -> None:
        in_step = bool(self._lockstep.epoch)
        self._telemetry.bridge_in_step.set(int(in_step))
        if in_step:
            self._broken_at = None  # until then what comes may be let go, also by a leader that has begun an epoch
        if in_step and not self._lockstep.leads:
            self._log.info("bridge_in_step", position=self._lockstep.written)
        self._leadership.hurry()  # the server is to know it at once

    def _say(self, announcement: Announcement) -> None:
        self._to_say.append(announcement)
        self.arrived.set()

    def say_dropped(self, events: int) -> None:
        """The limit is reached: the oldest events had to go."""
        if not self._lockstep.leads:
            return  # the leader may still have them; it is counted when this bridge should write them
        self._telemetry.bridge_dropped.inc(events)
        self._counted_to = self._lockstep.dropped_to
        if self._throttle.due("dropped", self._now()):
            self._log.error(
                "bridge_buffer_full",
                dropped=events,
                holds_bytes=self._lockstep.size_bytes,
                meaning="the stream could not be written for too long; the oldest events are lost",
            )

    # Leading ---------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Not the leader (any more): what is held is kept until somebody has written it."""
        self._waiting_since = self._unconfirmed_since = None
        if self._term is not None:
            self._term = None
            self._lockstep.end_term()
            self._receipts.forget()
            self._following = False
        if not self._following and self._leadership.held_by_other:
            self._following = True
            self._log.info("bridge_follows", held=len(self._lockstep), in_step=bool(self._lockstep.epoch))

    async def round(self, lease: str) -> bool:
        """One round of the leader's work; whether nothing is left to do."""
        if lease != self._term:
            self._begin(lease)
            if self._term is None:
                return False
        while self._to_say:
            if not await self._mirror.announce(lease, self._to_say.popleft()):
                self._lose("fenced")
                return False
        if self._lockstep.broken and not await self._mend(lease):
            return False
        if self._tenure.regressed and not await self._renumber(lease, gap_ms=None):
            return False
        batch = self._lockstep.batch(self._batch_size, BATCH_BYTES)
        if batch is None:
            self._waiting_since = None
            return True
        if self._waiting_since is None:
            self._waiting_since = self._now()
        epoch = self._lockstep.numbering
        confirmed = self._lockstep.written if self._mirror.waits else None
        traces = self._receipts.contexts(epoch, batch.first, batch.events)
        result = await self._mirror.write(lease, epoch=epoch, batch=batch, confirmed=confirmed, traces=traces)
        if result.outcome == "fenced":
            self._lose("fenced")
        elif result.outcome == "hole":
            await self._renumber(lease, gap_ms=None)
        else:
            self._telemetry.bridge_written.inc(len(batch.events))
            self._receipts.written(result.position)
            self._wrote(result.position)
            self._waiting_since = None
        return False

    def _wrote(self, position: int) -> None:
        """The stream has everything up to this position; that is enough, unless it is to be durable first."""
        if not self._mirror.waits:
            self._lockstep.confirmed(position)
            return
        self._lockstep.wrote(position)
        if self.unconfirmed and self._unconfirmed_since is None:
            self._unconfirmed_since = self._now()
        self.wrote.set()

    async def confirm(self) -> bool:
        """Let go of what is durable by now, all at once; whether nothing is left to wait for."""
        lockstep = self._lockstep
        epoch, position, began = lockstep.numbering, lockstep.sent, self._now()
        if position <= lockstep.written:
            return True
        durable = await self._mirror.durable()
        if durable is None or not lockstep.leads or not epoch == lockstep.numbering == durable.epoch:
            return False
        self.arrived.set()
        if durable.written < position:
            # Another server has taken over, without it: it is still held, and written again.
            self._tenure.regressed = True
            return False
        lockstep.confirmed(position)
        self._unconfirmed_since = began if self.unconfirmed else None
        return not self.unconfirmed

    def _lose(self, why: str) -> None:
        self._leadership.lose(why)
        self.follow()

    def _begin(self, lease: str) -> None:
        """A term begins: continue after the position that the stream has reached."""
        claim = self._tenure.claim
        if claim is None or claim.value != lease:
            self._leadership.lose("unknown claim")
            return
        lockstep = self._lockstep
        if lease == self._last_term and claim.epoch in (lockstep.numbering, self._mending):
            # Lost here, but not on the server: nobody led in between, and what is known here is the newest. (A server
            # that has forgotten this term's last numbering names the one before.)
            self._term = lease
            lockstep.resume()
            return
        known, anew = lockstep.written, claim.epoch != lockstep.numbering
        try:
            announcement = lockstep.begin(claim)
        except OutOfStepError as problem:
            self._log.warning("bridge_resigns", why=str(problem))
            self._leadership.resign()
            return
        self._term = self._last_term = lease
        self._mending = ""  # never begun again: its mark would stand in two places
        self._called_at = -1
        self._following = False
        self._tenure.regressed = lockstep.written > claim.written
        self._wrote(claim.written)
        if claim.virgin and known:
            self._say_forgotten(known, 0)
        self._to_say.clear()
        if announcement is not None:
            self._say(announcement)
        if lockstep.given_up:
            # But for what it had to drop when it led before.
            known_to = min(max(self._counted_to, lockstep.sent), lockstep.dropped_to)
            self._telemetry.bridge_dropped.inc(lockstep.dropped_to - known_to)
            self._counted_to = lockstep.dropped_to
        self._log.info("bridge_leads", position=claim.written, held=len(lockstep), continues=not anew)
        if anew and claim.gap:
            self._say_gap(claim.silent_ms / 1000, "no_bridge_was_in_step")
        self._step_changed()

    async def _mend(self, lease: str) -> bool:
        """The subscription broke: hand over to a bridge in step, or begin anew; whether to go on leading."""
        lockstep = self._lockstep
        if self._called_at == self._tenure.renewals:
            return True  # write the rest of what is held
        broken_at = self._now() if self._broken_at is None else self._broken_at
        gap_ms = max(0, int((self._now() - broken_at) * 1000))
        if lockstep.listening:
            return await self._renumber(lease, gap_ms=gap_ms)
        if self._all_broken or self._looked_into == lockstep.subscriptions:
            return True  # write the rest of what is held
        subscription = lockstep.subscriptions
        result = await self._mirror.broken(lease, new_epoch="", gap_ms=gap_ms, may_yield=True)
        if result.outcome != "called":
            self._looked_into = subscription
        return self._stays(result.outcome, result.successor)

    async def _renumber(self, lease: str, *, gap_ms: int | None) -> bool:
        """Begin a new epoch with what is held; whether to go on leading.

        The gap's length is None when no subscription was broken, but the server lost its state.
        """
        lockstep = self._lockstep
        if not self._mending or node_of(self._mending) != lockstep.node:
            self._mending = _new_epoch(lockstep.node)
        lockstep.offer(self._mending)  # met as a follower, after a lost answer, it is not another's
        known, subscription_before = lockstep.written, lockstep.subscriptions
        may_yield = gap_ms is not None and not self._all_broken
        result = await self._mirror.broken(lease, new_epoch=self._mending, gap_ms=gap_ms, may_yield=may_yield)
        epoch, self._mending = self._mending, ""
        if result.outcome != "renumbered":
            return self._stays(result.outcome, result.successor)
        self._to_say.clear()
        self._tenure.regressed = False
        self._counted_to = 0
        forgotten, announcement = lockstep.renumbered(epoch, result.written, subscription=subscription_before)
        self._wrote(result.written)
        if announcement is not None:
            self._say(announcement)
        if forgotten:
            self._say_forgotten(known, result.written)
        if gap_ms is not None:
            self._say_gap(gap_ms / 1000, "subscription_broken")
        self._step_changed()
        return True

    def _stays(self, outcome: str, successor: str) -> bool:
        if outcome == "alone":
            return True
        if outcome == "called":
            self._called_at = self._tenure.renewals
            return True
        if outcome == "yielded":
            self._log.warning("bridge_hands_over", to=successor, held=len(self._lockstep))
        self._lose(outcome)
        return False

    def _say_gap(self, seconds: float, why: str) -> None:
        self._telemetry.bridge_gaps.inc()
        self._log.error(
            "bridge_gap",
            why=why,
            seconds=round(seconds, 3),
            meaning="events published in this time may have been missed",
        )

    def _say_forgotten(self, expected: int, found: int) -> None:
        self._telemetry.bridge_forgotten.inc(expected - found)
        self._log.error(
            "stream_state_lost",
            expected=expected,
            found=found,
            lost=expected - found,
            meaning="the server has forgotten events that it had confirmed",
        )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
