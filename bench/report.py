"""What a run found, as Markdown that also reads well on a terminal.

The ratios come first: they travel between machines.
"""

import re
from collections.abc import Iterator, Sequence

from bench.goals import goals
from bench.growth import KINDS
from bench.rates import QUIET_CORES
from bench.run import Compared, Run

LOOPS = {
    "api": "bare loop (redis-py)",
    "api_large": "bare loop, 2,000 at once",
    "bare": "bare loop, raw replies",
    "bare_large": "bare loop, raw replies, 2,000 at once",
    "by_hand": "redis-py, the same sums by hand",
    "worker": "redis-agent worker",
    "no_windows": "the same without windows",
    "naive": "a round trip per write, fewest",
    "naive_full": "a round trip per write, same fields",
    "faststream_batch": "FastStream, batches",
    "faststream_folded": "FastStream, batches summed by hand",
    "faststream_single": "FastStream, one at a time",
    "taskiq": "taskiq-redis, a task an event",
    "streaq": "streaQ, a task an event",
    "docket": "Docket, a task an event",
}
WAYS = {
    "alone": "PUBLISH to subscriber, no agent",
    "bare": "PUBLISH to subscriber, beside the agent",
    "applied": "PUBLISH to applied",
    "alert": "PUBLISH to alert",
}
GROWTH = {
    "experiments": "events spread evenly over so many experiments",
    "defined": "so many experiments defined, events of 20 of them",
    "criteria": "criteria of each of 20 experiments",
    "backlog": "entries in the stream, of which the first 100,000 at most are worked off",
    "bytes": "bytes of an event",
}
_NUMBER = re.compile(r"[\d.,]*")
_PROGRAMS = ("redis", "hiredis", "pydantic")


def as_markdown(run: Run) -> str:
    """All tables."""
    lines = [*_head(run), "", *_goals(run)]
    for compared in run.compared.values():
        lines += ["", *_compared(compared)]
    for section in (_processes, _growth, _latency, _bridge):
        lines += section(run)
    return "\n".join(lines)


def _head(run: Run) -> Iterator[str]:
    machine = run.machine
    where = f"{machine['cores']} cores, {machine['cpu']}; {machine['system']}"
    yield f"{machine['at']}; {where}; {run.seconds / 60:.0f} minutes."
    programs = ", ".join(f"{name} {machine[name]}" for name in _PROGRAMS)
    yield f"Python {machine['python']}, {programs}, {machine['server']}."
    if "peers" in machine:
        yield f"Peers: {', '.join(f'{name} {version}' for name, version in machine['peers'].items())}."
    disturbed = run.disturbed()
    if disturbed >= QUIET_CORES:
        yield ""
        busy = f"up to {disturbed:.1f} cores (column `others`)"
        yield f"**Others used this machine meanwhile**, {busy}: those rates are too low."


def _goals(run: Run) -> Iterator[str]:
    rows = [(goal.name, f"{goal.ratio:.2f}", goal.wanted, goal.verdict) for goal in goals(run)]
    if rows:
        yield from _table(("ratio", "found", "goal", ""), rows)


def _compared(compared: Compared) -> Iterator[str]:
    workload, rates = compared.workload, compared.rates
    judged = f", all judged by {workload.criteria} criteria" if workload.criteria else ""
    experiments = f"{workload.experiments} experiment{'s' * (workload.experiments != 1)}"
    yield f"**{workload.events:,} events, {experiments}{judged}**"
    yield ""
    by_loop = {rate.loop: rate for rate in rates}
    bare = by_loop["api"]
    head = ("loop", "/ bare", "events/s", "server us", "/ bare", "client us", "MB", "others", "lost")
    rows = [
        (
            LOOPS[rate.loop],
            f"{rate.per_second / bare.per_second:.3f}",
            f"{rate.per_second:,.0f}",
            f"{rate.server_us:.2f}",
            f"{rate.server_us / bare.server_us:.2f}",
            f"{rate.client_us:.2f}",
            f"{rate.megabytes:.0f}",
            f"{rate.others:.1f}",
            f"{rate.lost:,}" if rate.lost else "",
        )
        for rate in rates
    ]
    yield from _table(head, rows)


def _processes(run: Run) -> Iterator[str]:
    if not run.crews:
        return
    yield from ("", "**Several processes on one stream**", "")
    one = {crew.rate.loop: crew.rate.per_second for crew in run.crews if crew.processes == 1}
    head = ("processes", "loop", "/ one", "events/s", "server us", "client us", "MB, all", "others")
    rows = [
        (
            str(crew.processes),
            LOOPS[crew.rate.loop],
            f"{crew.rate.per_second / one[crew.rate.loop]:.2f}",
            f"{crew.rate.per_second:,.0f}",
            f"{crew.rate.server_us:.2f}",
            f"{crew.rate.client_us:.2f}",
            f"{crew.rate.megabytes:.0f}",
            f"{crew.rate.others:.1f}",
        )
        for crew in run.crews
    ]
    yield from _table(head, rows)


def _growth(run: Run) -> Iterator[str]:
    for kind in KINDS:
        points = [point for point in run.growth if point.kind == kind]
        if not points:
            continue
        yield from ("", f"**Growth: {GROWTH[kind]}**", "")
        head = (
            kind,
            "worker / bare",
            "worker/s",
            "bare/s",
            "server us",
            "client us",
            "CPU / first",
            "MB",
            "server MB",
            "others",
        )
        rows = [
            (
                f"{point.size:,}",
                f"{point.worker.per_second / point.bare.per_second:.3f}",
                f"{point.worker.per_second:,.0f}",
                f"{point.bare.per_second:,.0f}",
                f"{point.worker.server_us:.2f}",
                f"{point.worker.client_us:.2f}",
                f"{point.worker.cost_us / points[0].worker.cost_us:.2f}",
                f"{point.worker.megabytes:.0f}",
                f"{point.worker.server_megabytes:,.0f}",
                f"{max(point.worker.others, point.bare.others):.1f}",
            )
            for point in points
        ]
        yield from _table(head, rows)


def _latency(run: Run) -> Iterator[str]:
    if not run.latency:
        return
    yield from ("", "**Latency, milliseconds**", "")
    head = ("events/s", "way", "p50", "p99", "p99.9", "longest", "samples", "lost")
    rows = [
        (
            f"{one.per_second:,}",
            WAYS[one.way],
            f"{one.p50:.2f}",
            f"{one.p99:.2f}",
            f"{one.p999:.2f}",
            f"{one.longest:.2f}",
            f"{one.samples:,}",
            f"{one.lost:,}" if one.lost else "",
        )
        for one in run.latency
    ]
    yield from _table(head, rows)


def _bridge(run: Run) -> Iterator[str]:
    if not run.bridge:
        return
    yield from ("", "**The highest rate of PUBLISH that a reader keeps up with**", "")
    head = ("bytes", "reader", "events/s", "MB/s", "omem MB", "others", "the next higher rate tried")
    rows = []
    for size in sorted({step.size for step in run.bridge}):
        for reader in dict.fromkeys(step.reader for step in run.bridge):
            steps = [step for step in run.bridge if (step.size, step.reader) == (size, reader)]
            kept = next((step for step in steps if not step.problem), None)
            above = [step for step in steps if step.problem and (kept is None or step.per_second > kept.per_second)]
            next_higher = f"{above[-1].per_second:,}: {above[-1].problem}" if above else ""
            rows.append(
                (
                    f"{size:,}",
                    reader,
                    f"{kept.per_second:,}" if kept else "none",
                    f"{kept.per_second * size / 1e6:.0f}" if kept else "",
                    f"{kept.omem / 1e6:.1f}" if kept else "",
                    f"{kept.others or 0.0:.1f}" if kept else "",
                    next_higher,
                )
            )
    yield from _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of numbers are set to the right."""
    widths = [max(3, *(len(row[n]) for row in [head, *rows])) for n in range(len(head))]
    right = [all(_NUMBER.fullmatch(row[n]) for row in rows) for n in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(cells, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    yield line(head)
    yield "|" + "|".join("-" * (w + 1) + ":" if r else "-" * (w + 2) for w, r in zip(widths, right, strict=True)) + "|"
    yield from map(line, rows)
