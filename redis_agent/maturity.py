"""Maturity: what an experiment's counts were without the trials that are too young to have succeeded.

A reply takes its time, and a rate of replies over all emails is low for as long as emails go out. What is too
young is known from the windows; of experiments without windows all counts as old.
"""

from collections.abc import Mapping
from typing import Final

from redis_agent.clock import Clock
from redis_agent.store.windows import Windows
from redis_agent.windows import MINUTE_MS, WindowSums, younger_than

# Experiments that are remembered; beyond it they are counted anew.
_MEMORY: Final = 10_000
_COUNT: Final = "_count"


def without(fields: Mapping[str, str], young: WindowSums) -> dict[str, str]:
    """An aggregate's fields without the counts of some windows."""
    old = dict(fields)
    for name, times in young.counts.items():
        field = name + _COUNT
        known = fields.get(field, "")
        if known.isdecimal():
            old[field] = str(max(0, int(known) - times))
    return old


class Maturity:
    """Knows which counts are old enough.

    Args:
        windows: of all experiments.
        clock: the time.
        seconds: how long a trial needs; 0: none at all.
    """

    def __init__(self, windows: Windows, clock: Clock, seconds: int) -> None:
        self._windows = windows
        self._clock = clock
        self._seconds = seconds
        self._minute = 0
        self._known: dict[str, dict[str, str]] = {}

    @property
    def matters(self) -> bool:
        """Whether anything is ever too young."""
        return self._seconds > 0

    async def fields(self, experiments: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """Each experiment's fields without what is too young; empty where everything counts at once.

        Args:
            experiments: id -> aggregate hash, as it is now.

        Raises:
            RedisError, OSError: windows could not be read.
        """
        if not self._seconds:
            return {}
        now_ms = self._clock.now_ms()
        # What was counted serves for the rest of its minute: nothing that came since is old enough anyway.
        if now_ms // MINUTE_MS != self._minute or len(self._known) > _MEMORY:
            self._minute = now_ms // MINUTE_MS
            self._known.clear()
        missing = [experiment_id for experiment_id in experiments if experiment_id not in self._known]
        windows = younger_than(self._seconds, now_ms // 1000)
        young = await self._windows.sums([(experiment_id, windows) for experiment_id in missing])
        for experiment_id, sums in zip(missing, young, strict=True):
            self._known[experiment_id] = without(experiments[experiment_id], sums)
        return {experiment_id: self._known[experiment_id] for experiment_id in experiments}
