"""What the bridges do on the server: who writes, how far the stream is written, and what they say to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from redis.asyncio import Redis

from redis_agent.lockstep import Announcement, Batch, Claim
from redis_agent.store import keys, scripts
from redis_agent.store.durability import Durability
from redis_agent.store.namespace import namespace_of
from redis_agent.store.stream import text

NO_TRACES: Mapping[int, str] = {}


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch.

    Attributes:
        outcome: "written"; "fenced" (the lease is not ours); "hole" (the server lost its state).
        position: how many positions have been used up, as the server has it.
        given_up: positions skipped for ever with this batch.
    """

    outcome: str
    position: int
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class Break:
    """What becomes of a leader whose row of messages has an end.

    Attributes:
        outcome: "yielded" to one in step; "renumbered" (a new epoch has begun); "alone" (nothing was done);
            "called" (nothing was done yet: one that may be in step was called, so ask again); "fenced" (the lease is
            not ours).
        written: the position that the stream had reached.
        successor: the bridge that was yielded to, or called.
    """

    outcome: str
    written: int = 0
    successor: str = ""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a leader learns when its lease is prolonged.

    Attributes:
        written: the position that the stream has reached.
        heard: whether the leader's subscription is on the server that the scripts run on.
    """

    written: int
    heard: bool = True


@dataclass(frozen=True, slots=True)
class Durable:
    """What is as durable as asked for: the position that the stream has reached, in which numbering."""

    epoch: str
    written: int


class DeafError(Exception):
    """The server knows no subscription of this bridge, so that it is not in step."""


class Mirror:
    """Writes batches as the holder of the bridge's lease, and speaks on the bridges' control channel.

    Args:
        client: for scripts.
        owner: unique for this start of the process; the lease is held under it.
        ttl_ms: the lease's time to live.
        durability: what counts as written.
        elsewhere: whether bridges subscribe to another node than the scripts run on, as in a cluster: then the scripts
            cannot see whose subscription stands, and believe every bridge.
        sharded: whether bridges hear by sharded pub/sub, in the slot that the scripts run in.
    """

    def __init__(
        self,
        client: Redis,
        *,
        durability: Durability,
        owner: str,
        ttl_ms: int,
        elsewhere: bool = False,
        sharded: bool = False,
    ) -> None:
        self._client = client
        self._durability = durability
        self._owner = owner
        self._ttl_ms = ttl_ms
        self._publish = "SPUBLISH" if sharded else "PUBLISH"
        # Channels know no databases; two agents on two databases of one server must not heed each other.
        database = int(client.connection_pool.connection_kwargs.get("db") or 0)
        self.channel = keys.bridge_control(database, namespace_of(client))
        self._alive = "" if elsewhere else keys.bridge_alive(database)
        # To subscribe to beside the others, so that the server knows that this subscription stands.
        self.alive = keys.bridge_alive(database) + owner

    @property
    def waits(self) -> bool:
        """Whether what the server has written is confirmed only later."""
        return self._durability.waits

    async def durable(self) -> Durable | None:
        """Wait until what the server has written so far is durable; None when that was not reached in time.

        The server is asked in the same call what that is: one that took over meanwhile may lack what was written.
        """
        answers = await self._durability.reached(("HMGET", keys.BRIDGE, "epoch", "written"))
        if answers is None:
            return None
        epoch, written = answers[0]
        return Durable(text(epoch or b""), int(written or 0))

    async def claim(self, *, epoch: str, new_epoch: str) -> Claim | None:
        """Ask for the lease, and say whether this bridge is in step.

        Args:
            epoch: in which this bridge is in step, "" when it is not.
            new_epoch: the epoch that begins if this bridge gets the lease without being in step.

        Returns:
            the claim if it was granted; None while another holds the lease or is a better one to hold it.

        Raises:
            DeafError: no claim was granted, and the server knows no subscription of this bridge.
        """
        reply = await self._run(
            "bridge_claim",
            [keys.LEASE_BRIDGE, keys.fence(keys.LEASE_BRIDGE), keys.BRIDGE, keys.BRIDGE_READY],
            [self._owner, self._ttl_ms, epoch, new_epoch, self.channel, self._alive, self._publish],
        )
        if reply[0] == b"deaf":
            raise DeafError
        if reply[0] != b"taken":
            return None
        _, value, written, begun, before, leader_before, silent_ms = reply
        return Claim(
            value=text(value),
            written=int(written),
            epoch=text(begun),
            epoch_before=text(before),
            continues=text(leader_before) == self._owner,
            silent_ms=int(silent_ms),
        )

    async def renew(self, value: str, *, epoch: str, mark: str, confirmed: int | None) -> Renewal | None:
        """Prolong the lease; set a mark, unless it is "" because this leader is not in step.

        None when the lease is not ours.
        """
        written, heard = await self._run(
            "bridge_renew",
            [keys.LEASE_BRIDGE, keys.BRIDGE, keys.BRIDGE_READY],
            [
                value,
                self._ttl_ms,
                self._owner,
                self.channel,
                epoch,
                mark,
                _or_empty(confirmed),
                self._alive,
                self._publish,
            ],
        )
        return None if written < 0 else Renewal(int(written), bool(heard))

    async def release(self, value: str) -> None:
        """Give the lease back; the others hear of it at once."""
        args = [value, self._owner, self.channel, self._publish]
        await self._run("bridge_release", [keys.LEASE_BRIDGE, keys.BRIDGE_READY], args)

    async def broken(self, value: str, *, new_epoch: str, gap_ms: int | None, may_yield: bool) -> Break:
        """Hand over to a bridge in step if there is one, else begin a new epoch (see `lua/bridge_broken.lua`).

        Args:
            value: the lease's.
            new_epoch: "" while nothing is received, so that only a hand-over is possible; otherwise the same one
                until the answer was seen.
            gap_ms: how long messages may have been missed by now; None when none were.
            may_yield: whether a hand-over would help.
        """
        outcome, *rest = await self._run(
            "bridge_broken",
            [keys.LEASE_BRIDGE, keys.BRIDGE, keys.BRIDGE_READY],
            [
                value,
                self._ttl_ms,
                self._owner,
                self.channel,
                new_epoch,
                _or_empty(gap_ms),
                int(may_yield),
                self._alive,
                self._publish,
            ],
        )
        if outcome == b"renumbered":
            return Break("renumbered", written=int(rest[0]))
        return Break(text(outcome), successor=text(rest[0]) if rest else "")

    async def announce(self, value: str, announcement: Announcement) -> bool:
        """Say where a mark stands; False when the lease is not ours."""
        args = [value, self.channel, str(announcement), self._publish]
        return bool(await self._run("bridge_announce", [keys.LEASE_BRIDGE], args))

    async def write(
        self,
        value: str,
        *,
        epoch: str,
        batch: Batch,
        confirmed: int | None = None,
        traces: Mapping[int, str] = NO_TRACES,
    ) -> Written:
        """Append a batch to the stream, each position once, as long as the lease is ours.

        Args:
            value: the lease's.
            epoch: the numbering of the batch.
            batch: what to write.
            confirmed: the position that the others may rely on; None for all that is written.
            traces: the contexts of those events that are traced, by position.
        """
        contexts = " ".join(f"{position} {context}" for position, context in traces.items())
        args: list[Any] = [
            value,
            epoch,
            batch.first,
            batch.given_up_from,
            self.channel,
            self._publish,
            _or_empty(confirmed),
            contexts,
        ]
        for at_ms, received in groupby(batch.events, key=itemgetter(0)):
            together = [event for _, event in received]
            args += (at_ms, len(together), *together)
        outcome, position, given_up = await self._run(
            "mirror_write",
            [keys.LEASE_BRIDGE, keys.STREAM, keys.BRIDGE, keys.ACCOUNT],
            args,
        )
        return Written(text(outcome), int(position), int(given_up))

    async def _run(self, name: str, names: Sequence[str], args: Sequence[Any]) -> Any:
        return await scripts.run(self._client, name, list(names), list(args))


def _or_empty(position: int | None) -> int | str:
    return "" if position is None else position
