"""What commands print: one JSON document for programs, tables with colours or plain columns for people."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with a style of rich, such as "green"; the style is left out where there are no colours."""

    text: str
    style: str = ""


@dataclass(slots=True)
class Table:
    """Columns of texts.

    Attributes:
        columns: their headings; one that begins with ">" is aligned to the right.
        rows: texts or cells.
    """

    columns: Sequence[str]
    rows: list[Sequence[str | Cell]] = field(default_factory=list)

    def add(self, *cells: str | Cell) -> None:
        """Add a row."""
        self.rows.append(cells)


def print_json(document: Any) -> None:
    """Print one JSON document; ASCII, so that no terminal and no locale can stumble over it."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def say(message: str = "", style: str = "") -> None:
    """Print a line for people; coloured on a terminal only."""
    if style and sys.stdout.isatty():
        from rich.text import Text

        _console().print(Text(printable(message), style=style), soft_wrap=True)
    else:
        click.echo(printable(message))


def show(table: Table) -> None:
    """Print a table: with rich on a terminal, else as plain aligned columns with nothing cut off."""
    if sys.stdout.isatty():
        _show_rich(table)
        return
    rows = [[printable(_text(cell)) for cell in row] for row in table.rows]
    heads = [column.lstrip(">").upper() for column in table.columns]
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        padded = [
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _show_rich(table: Table) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for column in table.columns:
        shown.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
        )
    for row in table.rows:
        shown.add_row(*(Text(printable(_text(c)), style=c.style if isinstance(c, Cell) else "") for c in row))
    _console().print(shown)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell


def printable(text: str) -> str:
    """The text without what could steer a terminal: other people's bytes end up on this screen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() if c != "\n" else " " for c in text)


def shortened(text: str, limit: int) -> str:
    """At most so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def age(seconds: float) -> str:
    """A duration for people.

    >>> age(75)
    '1m 15s'
    """
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    if left < 3_600:
        return f"{left // 60}m {left % 60}s"
    if left < 86_400:
        return f"{left // 3_600}h {left % 3_600 // 60}m"
    return f"{left // 86_400}d {left % 86_400 // 3_600}h"


def number(value: float | None, digits: int = 4) -> str:
    """A number for people: a fraction with so many significant digits, a whole or large number without any."""
    if value is None:
        return "-"
    if float(value).is_integer() or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "entry"), counted(1200, "event")
    ('1 entry', '1,200 events')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def joined(parts: Iterable[str]) -> str:
    """Parts in one cell, or a dash when there are none."""
    return ", ".join(parts) or "-"
