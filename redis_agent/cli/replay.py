"""`redis-agent replay`: the proof that the aggregates are what the stream makes of them."""

from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import Command, json_option, redis_url_option
from redis_agent.cli.output import Cell, Table, counted, print_json, say, show

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.replay import Moment, Outcome, Replay
    from redis_agent.store.inspection import Inspection
    from redis_agent.store.partitions import Partition

# Experiments in one snapshot: bounds how long a script holds the server up.
_CHUNK = 50
_PEOPLE_SEE = 50


@click.command(cls=Command)
@click.option("--experiment", metavar="ID", help="Compare only this experiment.")
@json_option
@redis_url_option
def replay(*, experiment: str | None, as_json: bool, redis_url: str | None) -> None:
    """Rebuild the aggregates from the stream, in memory, and compare. Exits with 1 when they differ.

    Each of several partitions is compared with its own stream.
    Nothing is changed, and the comparison is exact also while the agent runs: every aggregate is
    compared with what had been applied at the moment it was read.

    Examples:
        redis-agent replay
        redis-agent replay --experiment exp_test --json | jq .differences
    """
    from redis_agent.cli.session import with_redis

    async def work(session: "Session") -> dict[str, Any]:
        return await compare(session, experiment)

    document = with_redis(redis_url, work)
    if as_json:
        print_json(document)
    else:
        _show(document)
    if not document["agree"]:
        raise SystemExit(1)


async def compare(session: "Session", only: str | None = None) -> dict[str, Any]:
    """The document that `--json` prints.

    Raises:
        click.ClickException: the one experiment asked for has left no trace.
    """
    from redis_agent.replay import Outcome

    partitions = session.partitions
    outcome, entries = Outcome(), 0
    for partition in partitions.all if only is None else [partitions.of(only)]:
        found, replayed = await _compare(partition, only, session.settings.max_event_bytes)
        outcome.add(found)
        entries += replayed
    if only is not None and not outcome.experiments and not outcome.not_comparable:
        raise click.ClickException(f"{only} is unknown: it has neither an event nor an aggregate")
    return {
        "agree": outcome.agree,
        "experiments": outcome.experiments,
        "entries": entries,
        "not_comparable": len(outcome.not_comparable),
        "differences": [
            {
                "experiment_id": d.experiment_id,
                "field": d.field,
                "aggregate": d.aggregate,
                "replayed": d.replayed,
            }
            for d in outcome.differences
        ],
    }


async def _compare(partition: "Partition", only: str | None, max_event_bytes: int) -> "tuple[Outcome, int]":
    """What a partition's stream says of its aggregates, and how many entries were replayed."""
    from redis_agent.replay import Replay
    from redis_agent.store.aggregates import Aggregates
    from redis_agent.store.inspection import Inspection

    inspection = Inspection(partition.client)
    replayed = Replay()
    ids = list(await Aggregates(partition.client).all()) if only is None else [only]
    await _expect(ids, replayed, inspection)
    await _read_stream(replayed, inspection, max_event_bytes)
    unexpected = replayed.unexpected
    if only is None and unexpected:
        # Events of experiments that the index does not know: once more, for these alone.
        others = Replay()
        await _expect(sorted(unexpected), others, inspection)
        await _read_stream(others, inspection, max_event_bytes)
    else:
        others = None
    complete_after_ms = await _complete_after(inspection)
    outcome = replayed.outcome(complete_after_ms)
    if others is not None:
        outcome.add(others.outcome(complete_after_ms))
    return outcome, replayed.entries + (0 if others is None else others.entries)


async def _expect(ids: list[str], replayed: "Replay", inspection: "Inspection") -> None:
    """Take the snapshots of these experiments."""
    last = max(0, len(ids) - 1) // _CHUNK * _CHUNK
    for first in range(0, last + 1, _CHUNK):
        chunk = ids[first : first + _CHUNK]
        # What was left out at one moment is left out at every later one: the last says all.
        snapshot = await inspection.snapshot(chunk, with_unapplied=first == last)
        moment = _moment(snapshot.delivered, snapshot.pending)
        replayed.as_of(moment)
        for experiment_id, found in snapshot.experiments.items():
            replayed.expect(
                experiment_id,
                moment=moment,
                aggregate=found.aggregate,
                refused=found.refused,
            )
        replayed.leave_out(snapshot.unapplied)


def _moment(delivered: str, pending: frozenset[str]) -> "Moment":
    from redis_agent.clock import stream_id
    from redis_agent.replay import Moment

    return Moment(stream_id(delivered), pending)


async def _read_stream(replayed: "Replay", inspection: "Inspection", max_bytes: int) -> None:
    from redis_agent.events import MetricEvent, read

    async for page in inspection.entries():
        for entry in page:
            event = read(entry.data, max_bytes=max_bytes)
            if isinstance(event, MetricEvent):
                replayed.take(entry.id, entry.at_ms, event)


async def _complete_after(inspection: "Inspection") -> int | None:
    """The stream holds every event received after this (ms); None when it holds all there were.

    Asked after reading: what was trimmed meanwhile counts as trimmed.
    """
    length, added = (await inspection.group()).length, await inspection.entries_added()
    bridge = await inspection.bridge()
    # Fewer than were added: some were trimmed. Fewer added than mirrored: the stream was lost.
    if length >= added >= bridge.written:
        return None
    first = await inspection.first_entry()
    if first is None:
        return 2**63
    return max(first.at_ms, int(first.id.partition("-")[0]))


def _show(document: dict[str, Any]) -> None:
    experiments, entries = counted(document["experiments"], "experiment"), counted(document["entries"], "entry")
    compared = f"{experiments}, {entries} replayed"
    if document["agree"]:
        say(f"the aggregates agree with the stream: {compared}", "green")
    else:
        count = counted(len(document["differences"]), "difference")
        say(f"the aggregates do NOT agree with the stream: {count}; {compared}", "red")
    if document["not_comparable"]:
        say(
            f"{counted(document['not_comparable'], 'experiment')} could not be compared: the stream no longer "
            "holds their first events",
            "yellow",
        )
    if document["agree"]:
        return
    table = Table(["experiment", "field", ">aggregate", ">replayed"])
    for difference in document["differences"][:_PEOPLE_SEE]:
        table.add(
            difference["experiment_id"],
            difference["field"],
            _value(difference["aggregate"]),
            _value(difference["replayed"]),
        )
    show(table)
    left = len(document["differences"]) - _PEOPLE_SEE
    if left > 0:
        say(f"and {left:,} more; --json shows all")


def _value(value: str | None) -> Cell:
    return Cell("missing", "yellow") if value is None else Cell(value)
