"""Silences: what an operator does not want to hear for a time. Each is one key that goes by itself."""

from dataclasses import dataclass

from redis.asyncio import Redis

from redis_agent.store import keys
from redis_agent.store.stream import text

# Silences that are listed: far more than anybody sets by hand.
_MAX_LISTED = 1_000
_SCAN_COUNT = 1_000


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence that lasts.

    Attributes:
        experiment_id: whose alerts are muted.
        type: which of them; None for all.
        left_seconds: how long it still lasts; None for ever, which only somebody else can have set.
        since: when it was set, as text.
    """

    experiment_id: str
    type: str | None
    left_seconds: float | None
    since: str


class Silences:
    """Sets, lists and removes silences."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def add(self, experiment_id: str, alert_type: str | None, *, seconds: int, since: str) -> None:
        """Mute an experiment, or one type of its alerts; an older silence of the same is replaced."""
        await self._client.set(keys.silence(experiment_id, alert_type), since, ex=seconds)

    async def remove(self, experiment_id: str, alert_type: str | None) -> bool:
        """Whether there was such a silence."""
        return bool(await self._client.delete(keys.silence(experiment_id, alert_type)))

    async def all(self) -> list[Silence]:
        """The silences that last, by experiment and type. Scans the key space: for commands only."""
        names: set[str] = set()
        async for key in self._client.scan_iter(match=keys.SILENCE_PREFIX + "*", count=_SCAN_COUNT, _type="string"):
            names.add(text(key))
            if len(names) >= _MAX_LISTED:
                break
        found = []
        for name in names:
            left_ms, since = await self._client.pttl(name), await self._client.get(name)
            kind, _, experiment_id = name.removeprefix(keys.SILENCE_PREFIX).partition(":")
            if since is not None:
                left = left_ms / 1000 if left_ms >= 0 else None
                found.append(Silence(experiment_id, None if kind == keys.ANY_TYPE else kind, left, text(since)))
        return sorted(found, key=lambda silence: (silence.experiment_id, silence.type or ""))
