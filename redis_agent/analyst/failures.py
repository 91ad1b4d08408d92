"""What each failure of Gemini calls for: pure, from the error to a remedy with a reason.

The SDK is not imported here. What it raises is told apart by what it carries: its own errors have `code`, `details`
and `response`; below them are those of aiohttp, of google-auth and of the system.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final, Literal

Reason = Literal[
    "off",
    "no_key",
    "budget",
    "circuit_open",
    "rate_limited",
    "forbidden",
    "no_model",
    "bad_request",
    "timeout",
    "unreachable",
    "server_error",
    "blocked",
    "truncated",
    "not_json",
    "wrong_schema",
    "ungrounded",
    "too_large",
]


class Remedy(StrEnum):
    """What is done about a failure."""

    AGAIN = "again"  # the same once more, after a wait drawn at random, if the deadline leaves time
    WAIT = "wait"  # the circuit opens, for everybody, for as long as the service asks
    NEXT_MODEL = "next_model"  # this model is gone: the next of the list
    PLAINLY = "plainly"  # the model may not take what tunes it: once more without
    OFF = "off"  # nobody asks any more until the process is started anew
    GIVE_UP = "give_up"  # the plain template, at once


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure.

    Attributes:
        reason: for the metric and the log.
        remedy: what to do.
        wait_seconds: how long the service asks us to wait; 0 where it does not say.
        said: what it said, for the log. Not redacted yet.
    """

    reason: Reason
    remedy: Remedy
    wait_seconds: float = 0.0
    said: str = ""


# More than this nobody reads in a log line.
_SAID_LENGTH = 300
# And more than this is not even looked through for secrets. Far above the other, so that no half of one is left over.
_READ_LENGTH = 20_000
# Reasons in which Gemini's answer itself was refused: the service is well.
_OF_SERVICE: Final = frozenset({"timeout", "unreachable", "server_error", "bad_request", "not_json", "forbidden"})
_KEY_WORDS = re.compile(r"API_KEY_INVALID|API key not valid|API key expired|API_KEY_SERVICE_BLOCKED", re.IGNORECASE)
_NO_MODEL_WORDS = re.compile(r"\bmodels?/\S+ (?:is not found|is no longer available|was not found)", re.IGNORECASE)
_TOO_LARGE_WORDS = re.compile(r"token count.*exceed|request payload size exceeds|too many tokens", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
_DAY_SECONDS = 86_400.0


def is_of_service(reason: Reason) -> bool:
    """Whether a failure speaks against the service, and counts for the circuit breaker."""
    return reason in _OF_SERVICE


def of_error(error: BaseException, now: datetime) -> Failure:
    """What an exception of the SDK calls for.

    Args:
        error: what `generate_content` raised.
        now: aware; for a `Retry-After` that is a date.
    """
    code = getattr(error, "code", None)
    if isinstance(code, int) and hasattr(error, "details"):
        return _of_status(code, error, now)
    if isinstance(error, TimeoutError):  # also aiohttp's, which is one
        return Failure("timeout", Remedy.AGAIN, said=type(error).__name__)
    if isinstance(error, json.JSONDecodeError) or type(error).__name__ == "UnknownApiResponseError":
        return Failure("not_json", Remedy.GIVE_UP, said="the reply is not JSON")
    origin = type(error).__module__.partition(".")[0]
    if type(error).__module__.startswith("google.auth") and type(error).__name__ != "TransportError":
        # Credentials that are not there yet: Google's metadata server may come up after us.
        return Failure("forbidden", Remedy.GIVE_UP, said=_shortened(f"{type(error).__name__}: {error}"))
    if isinstance(error, OSError) or origin in ("aiohttp", "httpx", "httpx2", "httpcore", "google"):
        return Failure("unreachable", Remedy.AGAIN, said=_shortened(f"{type(error).__name__}: {error}"))
    return Failure("server_error", Remedy.GIVE_UP, said=_shortened(f"{type(error).__name__}: {error}"))


def _of_status(code: int, error: BaseException, now: datetime) -> Failure:
    details = getattr(error, "details", None)
    message = getattr(error, "message", None)
    everything = f"{message} {details}"
    said = _shortened(f"{code} {getattr(error, 'status', None) or ''}: {message or ''}")
    wait = _asked_wait(error, details, now)
    if code == 429:
        return Failure("rate_limited", Remedy.WAIT, wait, said)
    if code in (401, 403) or (code == 400 and _KEY_WORDS.search(everything)):
        return Failure("forbidden", Remedy.OFF, said=said)
    if code == 400 and getattr(error, "status", None) == "FAILED_PRECONDITION":
        # The place or the account: no other request fares better.
        return Failure("forbidden", Remedy.OFF, said=said)
    if code == 404 or (code == 400 and _NO_MODEL_WORDS.search(everything)):
        return Failure("no_model", Remedy.NEXT_MODEL, said=said)
    if code == 413 or (code == 400 and _TOO_LARGE_WORDS.search(everything)):
        return Failure("too_large", Remedy.GIVE_UP, said=said)
    if code in (408, 499) or code >= 500:
        return Failure("timeout" if code in (408, 504) else "server_error", Remedy.AGAIN, wait, said)
    if code == 400:
        return Failure("bad_request", Remedy.PLAINLY, said=said)
    return Failure("bad_request", Remedy.GIVE_UP, said=said)


def _asked_wait(error: BaseException, details: Any, now: datetime) -> float:
    """What `Retry-After` or google.rpc.RetryInfo ask for, the longer of both; at most a day."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    header = headers.get("Retry-After", "") if isinstance(headers, Mapping) else ""
    return min(_DAY_SECONDS, max(_of_header(str(header).strip(), now), _of_retry_info(details)))


def _of_header(value: str, now: datetime) -> float:
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds())


def _of_retry_info(details: Any) -> float:
    error = details.get("error", details) if isinstance(details, Mapping) else None
    listed = error.get("details") if isinstance(error, Mapping) else None
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, Mapping) and str(item.get("@type", "")).endswith("google.rpc.RetryInfo"):
            delay = item.get("retryDelay")
            if isinstance(delay, Mapping):
                delay = f"{delay.get('seconds', 0)}s"
            found = _DURATION.fullmatch(str(delay)[:20])
            if found:
                return float(found[1])
    return 0.0


def _shortened(text: str) -> str:
    return text[:_READ_LENGTH]


def for_log(text: str) -> str:
    """One short line of what was said, when it is redacted."""
    line = " ".join(text.split())
    return line if len(line) <= _SAID_LENGTH else line[: _SAID_LENGTH - 3] + "..."
