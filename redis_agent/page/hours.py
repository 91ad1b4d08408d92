"""What the experiments' last 24 hours added up to, hour by hour, at a cost that does not depend on how many look."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis_agent.store.windows import Windows
from redis_agent.windows import SECONDS, Window, WindowSums

HOURS: Final = 24
_HOUR_S: Final = SECONDS["hour"]
# Series of an experiment that are drawn besides all its events: the largest counts, the gauges with most values.
MAX_COUNTS: Final = 6
MAX_GAUGES: Final = 4
# An hour that is over changes only by what comes late. It is read again after so long.
_OVER_SECONDS: Final = 60


class Hours:
    """Reads the hours of the experiments that it was asked for last."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._read_s: dict[tuple[str, int], int] = {}
        self._sums: dict[tuple[str, int], WindowSums] = {}

    async def read(self, aggregates: Mapping[str, Mapping[str, str]], now_s: int) -> dict[str, dict[str, Any]]:
        """The series of each experiment, the present hour last.

        Args:
            aggregates: id -> aggregate hash, which says what there is.
            now_s: seconds since the epoch.

        Raises:
            RedisError, OSError: windows could not be read.
        """
        present = now_s // _HOUR_S * _HOUR_S
        starts = range(present - (HOURS - 1) * _HOUR_S, present + 1, _HOUR_S)
        series = {experiment_id: _series(fields) for experiment_id, fields in aggregates.items()}
        wanted = []
        for experiment_id, (counts, gauges) in series.items():
            fields = ["events", *(f"{name}_count" for name in counts)]
            fields += [f"{name}_{part}" for name in gauges for part in ("sum", "samples", "min", "max")]
            for start in starts:
                age = now_s - self._read_s.get((experiment_id, start), -_OVER_SECONDS)
                if start == present or age >= _OVER_SECONDS:
                    wanted.append((experiment_id, Window("hour", start), fields))
        found = await self._windows.some(wanted)
        for (experiment_id, window, _), sums in zip(wanted, found, strict=True):
            self._sums[experiment_id, window.start_s] = sums
            self._read_s[experiment_id, window.start_s] = now_s
        for gone in [key for key in self._sums if key[0] not in series or key[1] not in starts]:
            del self._sums[gone], self._read_s[gone]
        return {
            experiment_id: _drawn([self._sums[experiment_id, start] for start in starts], *names)
            for experiment_id, names in series.items()
        }


def _series(fields: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The names of the largest counts, and of the gauges with most values."""
    counts, gauges = [], []
    for field, text in fields.items():
        name, _, part = field.rpartition("_")
        if name and text.isdecimal() and len(text) < 25:
            if part == "count":
                counts.append((-int(text), name))
            elif part == "samples":
                gauges.append((-int(text), name))
    return [name for _, name in sorted(counts)[:MAX_COUNTS]], [name for _, name in sorted(gauges)[:MAX_GAUGES]]


def _drawn(columns: Sequence[WindowSums], counts: Sequence[str], gauges: Sequence[str]) -> dict[str, Any]:
    return {
        "events": [column.events for column in columns],
        "counts": [{"name": name, "values": [c.counts.get(name, 0) for c in columns]} for name in counts],
        "gauges": [
            {"name": name, "values": [_mean(column, name) for column in columns]}
            for name in gauges
            if any(name in column.gauges for column in columns)
        ],
    }


def _mean(column: WindowSums, name: str) -> float | None:
    sums = column.gauges.get(name)
    return None if sums is None else float(f"{sums.mean:.6g}")
