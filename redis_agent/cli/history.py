"""`redis-agent experiments ID --history`: how an experiment's counts and gauges went, drawn in the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.output import Table, age, number, print_json, say, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.windows import WindowKind, WindowSums

DEFAULT_SECONDS = 172_800
# Columns of a drawing, at most.
_COLUMNS = 60
# Up to so long a history is drawn from minutes; they are not kept for much longer than two days.
_MINUTES_UP_TO = 3 * 3_600
_BARS = "▁▂▃▄▅▆▇█"
_NOTHING = "·"


@dataclass(frozen=True, slots=True)
class Grid:
    """Into what a history is divided.

    Attributes:
        kind: the windows that it is made of.
        first_s: beginning of the first column, seconds since the epoch.
        step_s: length of a column.
        columns: how many.
    """

    kind: "WindowKind"
    first_s: int
    step_s: int
    columns: int

    @classmethod
    def over(cls, seconds: int, now_s: int) -> "Grid":
        """The grid of the last `seconds`; the present column is the last."""
        from redis_agent.windows import SECONDS

        kind: WindowKind = "minute" if seconds <= _MINUTES_UP_TO else "hour"
        windows = -(-seconds // SECONDS[kind])
        step_s = SECONDS[kind] * -(-windows // _COLUMNS)
        columns = -(-seconds // step_s)
        return cls(kind, now_s // step_s * step_s - (columns - 1) * step_s, step_s, columns)


def show_history(redis_url: str | None, experiment_id: str, seconds: int, *, as_json: bool) -> None:
    """Print the history of an experiment.

    Raises:
        click.ClickException: it has none.
    """
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> dict[str, Any]:
        return await read_history(session, experiment_id, seconds, datetime.now(UTC))

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
    else:
        _draw(document)


async def read_history(session: "Session", experiment_id: str, seconds: int, now: datetime) -> dict[str, Any]:
    """The document that `--json` prints.

    Raises:
        click.ClickException: nothing is known of the experiment.
    """
    from redis_agent.clock import iso_from_ms
    from redis_agent.store.aggregates import Aggregates
    from redis_agent.store.windows import Windows
    from redis_agent.windows import SECONDS, Window

    grid = Grid.over(seconds, int(now.timestamp()))
    starts = [grid.first_s + n * grid.step_s for n in range(grid.columns)]
    length = SECONDS[grid.kind]
    wanted = [
        (experiment_id, [Window(grid.kind, s) for s in range(start, start + grid.step_s, length)]) for start in starts
    ]
    client = session.partitions.of(experiment_id).client
    columns = await Windows(client).sums(wanted)
    if not any(column.events for column in columns):
        known = await Aggregates(client).read([experiment_id])
        if not known:
            raise click.ClickException(f"{experiment_id} is unknown: it has had no event")
    return {
        "experiment_id": experiment_id,
        "from": iso_from_ms(1000 * grid.first_s),
        "step_seconds": grid.step_s,
        "starts": [iso_from_ms(1000 * start) for start in starts],
        "counts": {name: [c.counts.get(name, 0) for c in columns] for name in _names(columns, "counts")},
        "gauges": {name: [_gauge(c, name) for c in columns] for name in _names(columns, "gauges")},
    }


def _names(columns: "Sequence[WindowSums]", what: str) -> list[str]:
    return sorted({name for column in columns for name in getattr(column, what)})


def _gauge(column: "WindowSums", name: str) -> dict[str, float | int] | None:
    sums = column.gauges.get(name)
    if sums is None:
        return None
    return {"mean": sums.mean, "min": sums.low, "max": sums.high, "samples": sums.samples}


def _draw(document: dict[str, Any]) -> None:
    columns, step_s = len(document["starts"]), document["step_seconds"]
    first, last = (f"{document['starts'][n][:16].replace('T', ' ')}" for n in (0, -1))
    say(f"{document['experiment_id']}, {age(columns * step_s)} in steps of {age(step_s)}, UTC", "bold")
    say()
    if not document["counts"] and not document["gauges"]:
        say("no event in this time; --last shows more of it")
        return
    ruler = f"{first} {'-' * max(0, columns - len(first) - len(last) - 2)} {last}" if columns > len(first) else first
    table = Table(["name", ruler, ">sum", ">least", ">most", ">latest"])
    for name, counts in document["counts"].items():
        bars = _bars([count or None for count in counts], floor=0.0)
        table.add(name, bars, f"{sum(counts):,}", f"{min(counts):,}", f"{max(counts):,}", f"{counts[-1]:,}")
    for name, points in document["gauges"].items():
        known = [point for point in points if point]
        means = [point and point["mean"] for point in points]
        least, most = min(point["min"] for point in known), max(point["max"] for point in known)
        table.add(name, _bars(means), "", number(least), number(most), number(known[-1]["mean"]))
    show(table)
    say()
    say(f"{_NOTHING} is no event; bars of counts are sums of a step from 0, those of gauges means from the least.")


def _bars(values: Sequence[float | None], floor: float | None = None) -> str:
    """One character a value, its height between the floor (the least value unless given) and the largest."""
    known = [value for value in values if value is not None]
    low = min(known) if floor is None else floor
    spread = max(known, default=0.0) - low
    return "".join(_bar(value, low, spread) for value in values)


def _bar(value: float | None, low: float, spread: float) -> str:
    if value is None:
        return _NOTHING
    share = (value - low) / spread if spread > 0 else 0.5
    return _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))]
