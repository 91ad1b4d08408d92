"""YAML as people write experiments in it, read into plain values and nothing else.

PyYAML gives the events of a text; the values are built here, so that nothing is constructed by tag, nothing recurses
and everything has a limit: characters, depth, nodes (an alias costs what it stands for, so that a billion laughs are
refused at the first thousands) and aliases. Beside the limits this differs from ``yaml.safe_load`` in what surprises
authors: a date stays the text that it is, so do ``yes``, ``no``, ``on``, ``off``, ``1:30`` and ``007``; keys are texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

MAX_CHARACTERS: Final = 262_144
"""Characters of a text. The experiments of the field have 2,000 to 20,000."""
MAX_DEPTH: Final = 32
"""Levels of lists and objects."""
MAX_NODES: Final = 20_000
"""Values, keys, lists and objects, those that aliases stand for included."""
MAX_ALIASES: Final = 200
"""Uses of anchors."""

# With libyaml, which the wheels carry, ten times as quick; the events are the same.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG: Final = "tag:yaml.org,2002:"
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,29})")
_FRACTION: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,29})?(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?")


class YamlError(ValueError):
    """A text is not YAML, or more of it than is read; one line that says where and why."""


def from_yaml(text: str, problems: list[str]) -> object:
    """Reads a whole text.

    Args:
        text: One document.
        problems: Gets a line for a key that stands twice; the last counts.

    Raises:
        YamlError: It is not YAML, or beyond a limit.
    """
    value, fault = from_cut_yaml(text, problems)
    if fault is not None:
        raise fault
    return value


def from_cut_yaml(text: str, problems: list[str]) -> tuple[object, YamlError | None]:
    """Reads a text as far as it goes.

    Returns:
        What stands before the first fault, None for nothing; and the fault.
    """
    builder = _Builder(problems)
    try:
        for event in _events(text):
            builder.take(event)
    except YamlError as fault:
        return builder.value, fault
    return builder.value, None


def _events(text: str) -> Iterator[Any]:
    """The events of a text.

    Raises:
        YamlError: Where the text is too long, or no YAML from there on.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"it is longer than {MAX_CHARACTERS:,} characters")
    try:
        yield from yaml.parse(text.removeprefix("\ufeff"), Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark is not None else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(_line(f"{place}{said}")) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlError(_line(str(error))) from error


@dataclass(slots=True)
class _Open:
    """A list or an object that is not complete yet.

    Attributes:
        value: What is in it so far.
        anchor: Its name for aliases, or None.
        first: The number of nodes before it.
        key: Of the value that comes next, in an object; None before a key.
        merged: What ``<<`` brings in, where the object itself says nothing.
    """

    value: list[Any] | dict[str, Any]
    anchor: str | None
    first: int
    key: str | None = None
    merged: list[Any] = field(default_factory=list)


# The key `<<`, written without quotes; the character cannot stand in YAML.
_MERGE: Final = "\x00<<"


class _Builder:
    """Builds values from events on a stack of its own."""

    def __init__(self, problems: list[str]) -> None:
        self.value: object = None
        self._problems = problems
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[object, int]] = {}
        self._documents = self._nodes = self._aliases = 0

    def take(self, event: Any) -> None:
        """The next event."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _fault(event, "a second document begins, and only one is read")

    def _scalar(self, event: Any) -> None:
        self._count(event, 1)
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self._key(top, event)
            return
        value = _value_of(event)
        self._add(value)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)

    def _key(self, top: _Open, event: Any) -> None:
        _writable(event)
        top.key = _MERGE if event.value == "<<" and not event.style else event.value
        if top.key in top.value:
            where = event.start_mark.line + 1
            self._problems.append(f"line {where}: {event.value[:80]} stands twice; the last counts")

    def _begin(self, event: Any) -> None:
        self._count(event, 1)
        if len(self._open) >= MAX_DEPTH:
            raise _fault(event, f"it is nested too deep: more than {MAX_DEPTH} levels")
        if event.tag not in (None, "!", f"{_TAG}map", f"{_TAG}seq"):
            raise _fault(event, f"the tag {event.tag[:80]} is not read")
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise _fault(event, "a key is a list or an object; what begins with { or [ and is a text needs quotes")
        value: list[Any] | dict[str, Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        # Into its parent at once, so that what a cut text still holds is there.
        self._add(value)
        self._open.append(_Open(value, event.anchor, self._nodes - 1))

    def _end(self) -> None:
        done = self._open.pop()
        if isinstance(done.value, dict):
            for source in done.merged:
                for one in source if isinstance(source, list) else [source]:
                    if isinstance(one, dict):
                        done.value.update((key, value) for key, value in one.items() if key not in done.value)
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.value, self._nodes - done.first)

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise _fault(event, f"it has more than {MAX_ALIASES} aliases")
        if event.anchor not in self._anchors:
            raise _fault(event, f"the alias {event.anchor[:80]} stands for nothing before it")
        value, nodes = self._anchors[event.anchor]
        self._count(event, nodes)
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise _fault(event, "a key is an alias")
        self._add(value)

    def _add(self, value: object) -> None:
        if not self._open:
            self.value = value
            return
        top = self._open[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key == _MERGE:
            top.merged.append(value)
            top.key = None
        elif top.key is not None:
            top.value[top.key] = value
            top.key = None

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _fault(event, f"it has more than {MAX_NODES:,} values, those that aliases stand for included")


def _value_of(event: Any) -> object:
    """A scalar by its tag, or by what it looks like when it is plain and has none."""
    _writable(event)
    text: str = event.value
    tag = event.tag.removeprefix(_TAG) if event.tag not in (None, "!") else ""
    if tag not in ("", "str", "int", "float", "bool", "null", "timestamp"):
        raise _fault(event, f"the tag {event.tag[:80]} is not read")
    if tag in ("str", "timestamp") or (not tag and (event.style or not event.implicit[0])):
        return text
    return _plain(text)


def _plain(text: str) -> object:
    """What a plain scalar is: nothing, a truth, a number, or the text itself."""
    if text in _NULLS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if text[-1:].isdigit() and _FRACTION.fullmatch(text):
        try:
            number = float(text)
        except ValueError:
            return text
        return number if math.isfinite(number) else text
    return text


def _writable(event: Any) -> None:
    """Refuses half of a surrogate pair, which an escape may make and nothing can write."""
    try:
        event.value.encode()
    except UnicodeEncodeError:
        raise _fault(event, "half of a surrogate pair, which is no text") from None


def _fault(event: Any, what: str) -> YamlError:
    return YamlError(_line(f"line {event.start_mark.line + 1}: {what}"))


def _line(text: str) -> str:
    """One readable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
