"""Sorts what Redis and the network can answer into what to do about it: one table for the whole program."""

from dataclasses import dataclass
from enum import StrEnum

from redis import exceptions


class Remedy(StrEnum):
    """What helps after a failure."""

    RETRY = "retry"  # the same again, after a pause
    RECONNECT = "reconnect"  # a new connection, after a pause
    RECREATE = "recreate"  # the consumer group is gone: create it at its floor
    PAUSE = "pause"  # the server cannot write for now: wait longer
    FATAL = "fatal"  # trying again changes nothing: say what is wrong


@dataclass(frozen=True, slots=True)
class Failure:
    """A sorted failure.

    Attributes:
        remedy: what helps.
        kind: short and from a fixed set, fit to be a metric's label.
    """

    remedy: Remedy
    kind: str


# Matched by the reply's first word; a script's error keeps the word of the command that failed in it.
_BY_CODE: dict[str, tuple[Remedy, str]] = {
    "NOGROUP": (Remedy.RECREATE, "nogroup"),
    "UNBLOCKED": (Remedy.RECREATE, "unblocked"),
    "LOADING": (Remedy.PAUSE, "loading"),
    "OOM": (Remedy.PAUSE, "oom"),
    "MISCONF": (Remedy.PAUSE, "misconf"),
    "READONLY": (Remedy.PAUSE, "readonly"),
    "MASTERDOWN": (Remedy.PAUSE, "masterdown"),
    "CLUSTERDOWN": (Remedy.PAUSE, "clusterdown"),
    "NOREPLICAS": (Remedy.PAUSE, "noreplicas"),
    "BUSY": (Remedy.PAUSE, "busy"),
    "TRYAGAIN": (Remedy.RETRY, "tryagain"),
    "NOAUTH": (Remedy.FATAL, "noauth"),
    "WRONGPASS": (Remedy.FATAL, "wrongpass"),
    "NOPERM": (Remedy.FATAL, "noperm"),
    "WRONGTYPE": (Remedy.FATAL, "wrongtype"),
}

# redis-py turns some replies into classes and cuts their first word off.
_BY_CLASS: list[tuple[type[Exception], Remedy, str]] = [
    (exceptions.AuthenticationError, Remedy.FATAL, "auth"),
    (exceptions.AuthorizationError, Remedy.FATAL, "noperm"),
    (exceptions.NoPermissionError, Remedy.FATAL, "noperm"),
    (exceptions.BusyLoadingError, Remedy.PAUSE, "loading"),
    (exceptions.ReadOnlyError, Remedy.PAUSE, "readonly"),
    (exceptions.OutOfMemoryError, Remedy.PAUSE, "oom"),
    (exceptions.TimeoutError, Remedy.RECONNECT, "timeout"),
    (exceptions.ConnectionError, Remedy.RECONNECT, "connection"),
    (OSError, Remedy.RECONNECT, "connection"),
    (TimeoutError, Remedy.RECONNECT, "timeout"),
]


# The rights of a script's user are checked command by command, and every server says it in other words.
_NOT_PERMITTED = (
    "NOPERM",
    "ACL failure",
    "has no permissions",
    "can't run this command",
    "can't access at least one of the keys",
)


def classify(error: Exception) -> Failure:
    """What an error of redis-py or the network calls for."""
    for kind_of, remedy, kind in _BY_CLASS:
        if isinstance(error, kind_of):
            return Failure(remedy, kind)
    said = str(error)
    if isinstance(error, exceptions.ResponseError) and any(words in said for words in _NOT_PERMITTED):
        return Failure(Remedy.FATAL, "noperm")
    code = said.partition(" ")[0].rstrip(":")
    if code in _BY_CODE:
        return Failure(*_BY_CODE[code])
    if isinstance(error, exceptions.ResponseError):
        return Failure(Remedy.RETRY, "response")
    return Failure(Remedy.RETRY, "other")
