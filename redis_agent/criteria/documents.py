"""Values out of documents that others wrote: decoded with care, and shown in messages bounded."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime
from typing import Final

MAX_SHOWN: Final = 2_000
"""Characters of a written text that are kept for people."""


_ZONE: Final = re.compile(r"(\d) +([+-]\d{2}:?\d{2}|Z)$")
"""A zone behind a space, as YAML and ``strftime`` write it."""


def decoded(value: object, name: str, problems: list[str]) -> object:
    """A field's value, out of its JSON where it is JSON text; None when there is none."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] in ("[", "{", '"'):
        return from_json(text, name, problems)
    return text if text and text != "null" else None


def from_json(text: str, name: str, problems: list[str]) -> object:
    """Loads JSON text; None, and a line in ``problems``, when it is none."""
    try:
        loaded: object = json.loads(text)
    except RecursionError:
        problems.append(f"{name} is nested too deep")
    except ValueError as error:
        problems.append(f"{name} is not JSON: {error}")
    else:
        if _is_text(text, loaded):
            return loaded
        problems.append(f"{name} holds half of a surrogate pair, which is no text")
    return None


def _is_text(text: str, loaded: object) -> bool:
    r"""Whether the texts in a document can be written anywhere: JSON may hold a lone \ud800."""
    if "\\ud" not in text.lower():
        return True
    try:
        json.dumps(loaded, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def text_of(value: object) -> str:
    """A scalar as bounded text, "" for anything else."""
    if isinstance(value, str):
        return value.strip()[:MAX_SHOWN]
    if isinstance(value, (bool, int, float, date)):
        try:
            return str(value)[:MAX_SHOWN]
        except ValueError:  # an integer of more digits than Python prints
            return ""
    return ""


def shown(value: object) -> str:
    """A value as a short text for a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = text_of(value)
    return text if text and len(text) <= 80 else (f"{text[:80]}..." if text else kind_of(value))


def kind_of(value: object) -> str:
    """What a value is, in words for a message."""
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "nothing",
    }
    return kinds.get(type(value), "something else")


def parse_moment(value: object) -> datetime | None:
    """A time with a zone from epoch seconds or milliseconds or ISO 8601 (UTC without a zone)."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    try:
        seconds = float(value) if isinstance(value, (int, float)) else float(text_of(value))
    except (ValueError, OverflowError):
        try:
            moment = datetime.fromisoformat(_ZONE.sub(r"\1\2", text_of(value)[:64]))
        except ValueError:
            return None
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if not math.isfinite(seconds):
        return None
    if abs(seconds) > 1e11:  # milliseconds: as seconds this would be the year 5138
        seconds /= 1_000
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
