"""Reads windows: what the events of a minute or an hour added up to."""

from collections.abc import Iterable, Sequence

from redis.asyncio import Redis

from redis_agent.store import keys
from redis_agent.store.failures import is_wrong_type
from redis_agent.windows import Window, WindowSums

# Windows asked for in one go.
_PAGE = 2_000


class Windows:
    """The windows of all experiments, as the gate wrote them."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def some(self, wanted: Sequence[tuple[str, Window, Sequence[str]]]) -> list[WindowSums]:
        """Parts of windows, for each (experiment, window, fields of its hash); what they cost depends on the fields."""
        found = []
        for first in range(0, len(wanted), _PAGE):
            page = wanted[first : first + _PAGE]
            async with self._client.pipeline(transaction=False) as pipe:
                for experiment_id, window, fields in page:
                    pipe.hmget(keys.window(experiment_id, window.kind, window.start_s), list(fields))
                replies = await pipe.execute(raise_on_error=False)
            for (_, _, fields), reply in zip(page, replies, strict=True):
                sums = WindowSums()
                if isinstance(reply, Exception):
                    if not is_wrong_type(reply):
                        raise reply
                else:
                    sums.add({f.encode(): value for f, value in zip(fields, reply, strict=True) if value is not None})
                found.append(sums)
        return found

    async def sums(self, wanted: Sequence[tuple[str, Iterable[Window]]]) -> list[WindowSums]:
        """What some windows of an experiment add up to, for each (experiment, its windows)."""
        flat = [(n, experiment_id, window) for n, (experiment_id, windows) in enumerate(wanted) for window in windows]
        found = [WindowSums() for _ in wanted]
        for first in range(0, len(flat), _PAGE):
            page = flat[first : first + _PAGE]
            async with self._client.pipeline(transaction=False) as pipe:
                for _, experiment_id, window in page:
                    # Not by redis-py's method: there may be a hundred for one alert.
                    pipe.execute_command("HGETALL", keys.window(experiment_id, window.kind, window.start_s))
                replies = await pipe.execute(raise_on_error=False)
            for (n, _, _), reply in zip(page, replies, strict=True):
                if isinstance(reply, Exception):
                    if not is_wrong_type(reply):
                        raise reply
                elif reply:
                    found[n].add(reply)
        return found
