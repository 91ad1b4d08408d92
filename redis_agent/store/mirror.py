"""What the bridges do on the server: who writes, how far the stream is written, and what they say to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from redis_agent.lockstep import Announcement, Batch, Claim
from redis_agent.store import keys, scripts
from redis_agent.store.stream import text


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
            "fenced" (the lease is not ours).
        written: the position that the stream had reached.
        successor: the bridge that was yielded to.
    """

    outcome: str
    written: int = 0
    successor: str = ""


class Mirror:
    """Writes batches as the holder of the bridge's lease, and speaks on the bridges' control channel.

    Args:
        client: for scripts.
        owner: unique for this start of the process; the lease is held under it.
        ttl_ms: the lease's time to live.
    """

    def __init__(self, client: Redis, *, owner: str, ttl_ms: int) -> None:
        self._client = client
        self._owner = owner
        self._ttl_ms = ttl_ms
        # Channels know no databases; two agents on two databases of one server must not heed each other.
        self.channel = keys.bridge_control(int(client.connection_pool.connection_kwargs.get("db") or 0))

    async def claim(self, *, epoch: str, new_epoch: str) -> Claim | None:
        """Ask for the lease, and say whether this bridge is in step.

        Args:
            epoch: in which this bridge is in step, "" when it is not.
            new_epoch: the epoch that begins if this bridge gets the lease without being in step; the same one until
                a claim was answered.

        Returns:
            the claim if it was granted; None while another holds the lease or is a better one to hold it.
        """
        reply = await self._run(
            "bridge_claim",
            [keys.LEASE_BRIDGE, keys.fence(keys.LEASE_BRIDGE), keys.BRIDGE, keys.BRIDGE_READY],
            [self._owner, self._ttl_ms, epoch, new_epoch, self.channel],
        )
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

    async def renew(self, value: str, *, epoch: str, mark: str, confirmed: int | None) -> int | None:
        """Prolong the lease; set a mark, unless it is "" because this leader is not in step.

        Returns:
            the position that the stream has reached; None when the lease is not ours.
        """
        args = [value, self._ttl_ms, self._owner, self.channel, epoch, mark, _or_empty(confirmed)]
        written = int(await self._run("bridge_renew", [keys.LEASE_BRIDGE, keys.BRIDGE, keys.BRIDGE_READY], args))
        return None if written < 0 else written

    async def release(self, value: str) -> None:
        """Give the lease back; the others hear of it at once."""
        args = [value, self._owner, self.channel]
        await self._run("bridge_release", [keys.LEASE_BRIDGE, keys.BRIDGE_READY], args)

    async def broken(self, value: str, *, new_epoch: str, gap_ms: int | None, may_yield: bool) -> Break:
        """Hand over to a bridge in step if there is one, else begin a new epoch (see `lua/bridge_broken.lua`).

        Args:
            value: the lease's.
            new_epoch: "" while nothing is received, so that only a hand-over is possible; otherwise the same one
                until the answer was seen.
            gap_ms: how long messages may have been missed; None when none were.
            may_yield: whether a hand-over would help.
        """
        outcome, *rest = await self._run(
            "bridge_broken",
            [keys.LEASE_BRIDGE, keys.BRIDGE, keys.BRIDGE_READY],
            [value, self._ttl_ms, self._owner, self.channel, new_epoch, _or_empty(gap_ms), int(may_yield)],
        )
        if outcome == b"renumbered":
            return Break("renumbered", written=int(rest[0]))
        return Break(text(outcome), successor=text(rest[0]) if rest else "")

    async def announce(self, value: str, announcement: Announcement) -> bool:
        """Say where a mark stands; False when the lease is not ours."""
        args = [value, self.channel, str(announcement)]
        return bool(await self._run("bridge_announce", [keys.LEASE_BRIDGE], args))

    async def write(self, value: str, *, epoch: str, batch: Batch, confirmed: int | None = None) -> Written:
        """Append a batch to the stream, each position once, as long as the lease is ours.

        Args:
            value: the lease's.
            epoch: the numbering of the batch.
            batch: what to write.
            confirmed: the position that the others may rely on; None for all that is written.
        """
        pairs = [part for event in batch.events for part in event]
        outcome, position, given_up = await self._run(
            "mirror_write",
            [keys.LEASE_BRIDGE, keys.STREAM, keys.BRIDGE],
            [value, epoch, batch.first, batch.given_up_from, self.channel, _or_empty(confirmed), *pairs],
        )
        return Written(text(outcome), int(position), int(given_up))

    async def _run(self, name: str, names: Sequence[str], args: Sequence[Any]) -> Any:
        return await scripts.run(self._client, name, list(names), list(args))


def _or_empty(position: int | None) -> int | str:
    return "" if position is None else position
