"""Options that commands share."""

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST_SECONDS = 365 * 86_400


class Duration(click.ParamType[int]):
    """A time such as `2h`, `90s` or `1d12h`, in seconds.

    Args:
        what: what has this duration, with its verb: "a silence lasts".
        least: the shortest, in seconds.
    """

    name = "duration"

    def __init__(self, what: str, *, least: int = 1) -> None:
        self._what = what
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it.

        Raises:
            click.BadParameter: it is none, too short, or longer than a year.
        """
        if isinstance(value, int):
            return value
        text = str(value).strip().lower()
        parts = re.findall(r"([0-9]{1,9})([smhdw])", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{value!r} is no time such as 90s, 30m, 2h, 1d12h or 1w", param, ctx)
        seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
        if not self._least <= seconds <= _LONGEST_SECONDS:
            least = "a second" if self._least == 1 else f"{self._least} seconds"
            self.fail(f"{self._what} between {least} and 365 days", param, ctx)
        return seconds


def _with_examples(options: dict[str, Any]) -> dict[str, Any]:
    """Keep click from filling the lines of examples into a paragraph."""
    if options.get("help"):
        text = inspect.cleandoc(options["help"])
        for heading in ("Example:", "Examples:", "Start with:"):
            text = text.replace(f"\n\n{heading}\n", f"\n\n\b\n{heading}\n")
        options["help"] = text
    return options


class Command(click.Command):
    """A command whose docstring ends with examples."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **_with_examples(options))


class Group(click.Group):
    """Lists its commands as they were added: what is needed first comes first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **_with_examples(options))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of the commands."""
        return list(self.commands)


def redis_url_option(command: _Decorated) -> _Decorated:
    """`--redis-url`, before or after the command's name."""
    return click.option(
        "--redis-url",
        metavar="URL",
        help="The server, instead of REDIS_URL.",
    )(command)


def json_option(command: _Decorated) -> _Decorated:
    """`--json`: the parameter is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(command)


def limit_option(what: str) -> Callable[[_Decorated], _Decorated]:
    """`--limit N`: the parameter is `limit`, None when it was not given."""
    return click.option("--limit", type=click.IntRange(min=1), metavar="N", help=what)


def yes_option(command: _Decorated) -> _Decorated:
    """`--yes`: a command that asks on a terminal does not."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)


def checked_id(entry_id: str, what: str) -> str:
    """The id of a stream entry as an argument, in full.

    Args:
        entry_id: as given; the part after the dash may be missing.
        what: whose id it is, with its article.

    Raises:
        click.BadParameter: it is no such id.
    """
    ms, separator, seq = entry_id.partition("-")
    parts = (ms, seq) if separator else (ms, "0")
    if not all(part.isascii() and part.isdecimal() and len(part) <= 20 and int(part) < 2**64 for part in parts):
        raise click.BadParameter(f"{entry_id!r} is no id of {what} (such as 1769940000000-0)")
    return "-".join(str(int(part)) for part in parts)
