"""How commands name entries of streams: by their id, and where there are several partitions by these before it.

Two partitions may have entries of the same id. `3:1769940000000-0` is that of partition 3; without a partition it is
the one that there is, and where there are two, a command that changes something refuses to choose.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from redis_agent.cli.options import checked_id

if TYPE_CHECKING:
    from redis_agent.cli.session import Session
    from redis_agent.store.partitions import Partition, Partitions


@dataclass(frozen=True, slots=True)
class Named:
    """An entry as somebody named it.

    Attributes:
        id: of the entry, in full.
        partition: its number, where it was given.
    """

    id: str
    partition: int | None = None

    def __str__(self) -> str:
        """As it was given."""
        return self.id if self.partition is None else f"{self.partition}:{self.id}"

    def within(self, partition: "Partition") -> bool:
        """Whether it can be there."""
        return self.partition in (None, partition.number)


def named(texts: Sequence[str], what: str, *, partitions: int) -> list[Named]:
    """The entries that arguments name, each once.

    Args:
        texts: the arguments.
        what: what they are, with its article.
        partitions: how many there are.

    Raises:
        click.BadParameter: one of them is no such id, or of no such partition.
    """
    return list(dict.fromkeys(_named(text, what, partitions) for text in texts))


def _named(text: str, what: str, partitions: int) -> Named:
    number, separator, entry_id = text.rpartition(":")
    if not separator or partitions == 1:
        return Named(checked_id(text, what))
    if not (number.isascii() and number.isdecimal() and len(number) <= 3 and int(number) < partitions):
        raise click.BadParameter(f"{text!r} names no partition: there are 0 to {partitions - 1}")
    return Named(checked_id(entry_id, what), int(number))


async def located(
    session: "Session", names: Sequence[Named], there: "Callable[[Partition, str], Awaitable[object]]"
) -> "dict[Named, Partition | None]":
    """The partition of each; None for one that is nowhere.

    Args:
        session: of the command.
        names: which.
        there: whether a partition has an entry of this id. Not asked where there is but one.

    Raises:
        click.ClickException: more than one has it.
    """
    partitions = session.partitions
    if not partitions.several:
        return dict.fromkeys(names, partitions.home)
    found: dict[Named, Partition | None] = {}
    for name in names:
        having = [p for p in partitions.all if name.within(p) and await there(p, name.id)]
        found[name] = only(name, having, partitions)
    return found


def only(name: Named, having: "Sequence[Partition]", partitions: "Partitions") -> "Partition | None":
    """The one partition that has an entry, if there is one.

    Raises:
        click.ClickException: there are more.
    """
    if len(having) > 1:
        choices = " or ".join(partitions.entry(partition, name.id) for partition in having)
        raise click.ClickException(f"{name} is in {len(having)} partitions: say which, {choices}")
    return having[0] if having else None


def placed(partitions: "Partitions", number: int | None, document: dict[str, Any]) -> dict[str, Any]:
    """A document about an entry, with the number of its partition where there are several; None if it is nowhere."""
    return {**document, "partition": number} if partitions.several else document


def label(document: dict[str, Any], name: str = "id") -> str:
    """What people see of such a document's entry, and can give to a command."""
    number = document.get("partition")
    return str(document[name]) if number is None else f"{number}:{document[name]}"
