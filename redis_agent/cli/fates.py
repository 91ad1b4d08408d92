"""Waiting for what becomes of entries: what `pending --claim` and `dead-letters replay` share."""

import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from redis_agent.store.fates import Fates

    _Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

_POLL_SECONDS = 0.1
_OPEN = ("waiting", "held")
STYLES = {"applied": "green", "waiting": "yellow", "held": "yellow", "gone": "yellow"}


def wait_option(command: "_Decorated") -> "_Decorated":
    """`--wait SECONDS`: the parameter is `wait_seconds`."""
    return click.option(
        "--wait",
        "wait_seconds",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="Wait so long for what becomes of them; 0 does not wait.",
    )(command)


async def follow(followed: "Sequence[tuple[Fates, dict[str, dict[str, Any]]]]", seconds: float) -> None:
    """Write into each document what becomes of its entry, until all are done or the time is over.

    Args:
        followed: of each partition what watches since before the entries were touched, and entry id -> its document,
            which gets `outcome` and what else is known.
        seconds: 0 does not look at all.
    """
    import asyncio

    deadline = time.monotonic() + seconds
    waiting = [(fates, dict(documents)) for fates, documents in followed if documents and seconds]
    while waiting:
        for fates, documents in waiting:
            for entry_id, fate in (await fates.of(list(documents))).items():
                known = {"consumer": fate.consumer, "reason": fate.reason, "dead_letter_id": fate.dead_letter_id}
                document = documents[entry_id]
                document |= {"outcome": fate.outcome, **{name: value for name, value in known.items() if value}}
                if fate.outcome not in _OPEN:
                    del documents[entry_id]
        waiting = [(fates, documents) for fates, documents in waiting if documents]
        if not waiting or time.monotonic() >= deadline:
            return
        await asyncio.sleep(_POLL_SECONDS)


def in_words(document: dict[str, Any], seconds: float) -> str:
    """What became of an entry, for people."""
    outcome = document["outcome"]
    if outcome == "gone":
        return "gone from the stream: trimmed after it was applied, or deleted before"
    if outcome == "dead_letter":
        return f"dead letter: {document['reason']}"
    if outcome == "held":
        return f"taken by {document['consumer']}, not finished within {seconds:g} s"
    if outcome == "waiting":
        if not seconds:
            return "waits for a worker; not waited for"
        return f"waits, not read within {seconds:g} s: is a worker running?"
    return str(outcome)
