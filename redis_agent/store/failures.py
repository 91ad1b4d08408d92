"""Sorts what Redis and the network can answer into what to do about it: one table for the whole program.

`docs/errors.md` is generated from it. A failure is recognised, in this order, by the operating system's error behind
it, by the reply's code and words in it, by its class.
"""

import asyncio
import errno
import re
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum

import hiredis
from redis import exceptions, sentinel
from redis.asyncio import sentinel as async_sentinel

from redis_agent.store.topology import SlotMovedError, SlotMovingError


class Remedy(StrEnum):
    """What helps after a failure."""

    RETRY = "retry"  # the same again, after a pause
    RECONNECT = "reconnect"  # a new connection, after a pause
    RECREATE = "recreate"  # the consumer group is gone: create it at its floor
    PAUSE = "pause"  # the server cannot do it for now: wait longer
    FATAL = (
        "fatal"  # trying again changes nothing until somebody repairs it: say what is wrong, look again now and then
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """A sorted failure.

    Attributes:
        remedy: what helps.
        kind: short and from a fixed set, fit to be a metric's label.
        meaning: one sentence for people: what it means, or what helps.
        of_server: whether whatever is sent meets it; else it is about one command or key.
    """

    remedy: Remedy
    kind: str
    meaning: str
    of_server: bool = False


def _failures(remedy: Remedy, of_server: dict[str, str], of_one: dict[str, str]) -> list[Failure]:
    return [
        Failure(remedy, kind, meaning, whole)
        for whole, rows in ((True, of_server), (False, of_one))
        for kind, meaning in rows.items()
    ]


# Every kind of failure there is. Of each remedy: first what all commands meet, then what one command or key meets.
FAILURES: dict[str, Failure] = {
    failure.kind: failure
    for failure in (
        *_failures(
            Remedy.RECONNECT,
            {
                "connection": "the connection broke, or could not be made",
                "refused": "nobody listens at that address: is the server started, and REDIS_URL right?",
                "unreachable": "there is no way to that machine: look at the network and at REDIS_URL",
                "dns": "the host's name is not known (yet): look at REDIS_URL and the name service",
                "tls": "no TLS with this server: does it speak TLS at this port, and is REDIS_URL's scheme right?",
                "timeout": "no answer in time: the server, a script or the network hangs",
                "protocol": "the answer is not what a Redis server says: is that port one's?",
                "instance_changed": "the server has become a replica: a failover",
                "slot_moved": "the node is not the primary of the slot any more: a failover, or the slot was moved",
            },
            {},
        ),
        *_failures(
            Remedy.PAUSE,
            {
                "loading": "the server reads its data set: it answers when that is done",
                "oom": "maxmemory is reached: free memory or raise it; nothing is lost while it lasts",
                "misconf": "the server cannot save to disk and refuses writes: free the disk, see the server's log",
                "readonly": "the server is a replica: REDIS_URL must name the primary",
                "masterdown": "a replica without a link to its primary",
                "noreplicas": "too few replicas in sync (min-replicas-to-write)",
                "clusterdown": "the cluster does not serve this slot or has no majority",
                "slot_moving": "the slot is on its way to another node of the cluster",
                "busy": "a script of somebody's runs for long: SCRIPT KILL, if it is none of the agent's",
                "maxclients": "the server takes no more connections: raise maxclients or close some",
                "no_master": "Sentinel knows no primary at the moment: a failover, or a wrong name",
                "failover": "a failover is under way or not possible now",
                "too_many_files": "this process has too many open files: raise its limit (ulimit -n)",
                "disk": "the server's disk failed it",
            },
            {},
        ),
        *_failures(
            Remedy.RECREATE,
            {},
            {
                "nogroup": "the consumer group or its stream is gone; it is created anew at its floor",
                "unblocked": "the stream was deleted while it was read; it is created anew",
            },
        ),
        *_failures(
            Remedy.RETRY,
            {},
            {
                "tryagain": "keys are being moved between servers",
                "noscript": "the server forgot the script; its text is sent anew",
                "script_killed": "somebody stopped the script before it wrote anything",
                "execabort": "a transaction was given up before it did anything",
                "unblocked_by_hand": "somebody ended the blocked read (CLIENT UNBLOCK)",
                "exists": "what was to be created exists already",
                "pool": "all connections of the pool are in use",
                "response": "the server refuses this one command: its content is the cause, or a fault of ours",
                "other": "nothing that this table knows",
            },
        ),
        *_failures(
            Remedy.FATAL,
            {
                "noauth": "the server asks for a password: put it into REDIS_URL",
                "wrongpass": "user or password in REDIS_URL are wrong, or the user is disabled",
                "auth": "the login was refused: compare REDIS_URL with the server's users",
                "denied": "protected mode: the server takes only local connections until it has a password",
                "tls_certificate": "the server's certificate is not trusted: its name, its authority or its date",
                "permission": "this process may not use the server's socket",
                "database": "the server has no database of that number: look at the end of REDIS_URL",
                "cluster": "this is a server of a cluster: name its nodes in REDIS_AGENT_CLUSTER_NODES",
                "noproto": "the server does not speak this protocol version: Redis 7.0 or later is needed",
            },
            {
                "noperm": "the user may not run that command or touch that key: give the right (ACL SETUSER)",
                "wrongtype": "a key holds something of another type: rename or delete it",
                "corrupt": "what the key holds is damaged",
                "unknown_command": "the server does not know the command: too old, or it was renamed away",
                "misuse": "a fault of the program: please report it",
            },
        ),
    )
}

# By the reply's code. A command that failed inside a script leaves its code there, in one place or another.
CODES: dict[str, str] = {
    "NOGROUP": "nogroup",
    "UNBLOCKED": "unblocked",
    "LOADING": "loading",
    "OOM": "oom",
    "MISCONF": "misconf",
    "READONLY": "readonly",
    "MASTERDOWN": "masterdown",
    "NOMASTERLINK": "masterdown",
    "STALE": "masterdown",
    "CLUSTERDOWN": "clusterdown",
    "NOREPLICAS": "noreplicas",
    "BUSY": "busy",
    "UNKILLABLE": "busy",
    "NOTBUSY": "response",
    "IOERR": "disk",
    "INPROG": "failover",
    "NOGOODSLAVE": "failover",
    "NOGOODPRIMARY": "failover",
    "NOQUORUM": "failover",
    "IDONTKNOW": "no_master",
    "REDIRECT": "instance_changed",
    "TRYAGAIN": "tryagain",
    "NOSCRIPT": "noscript",
    "EXECABORT": "execabort",
    "BUSYGROUP": "exists",
    "BUSYKEY": "exists",
    "NOAUTH": "noauth",
    "WRONGPASS": "wrongpass",
    "NOPERM": "noperm",
    "DENIED": "denied",
    "WRONGTYPE": "wrongtype",
    "INVALIDOBJ": "corrupt",
    "NOPROTO": "noproto",
    "MOVED": "cluster",
    "ASK": "cluster",
    "CROSSSLOT": "cluster",
}

# By words, where a code has several reasons, where there is none but ERR, and where versions use different words.
PHRASES: tuple[tuple[str, str, str], ...] = (
    ("UNBLOCKED", "instance state changed", "instance_changed"),
    ("UNBLOCKED", "unblocked via CLIENT UNBLOCK", "unblocked_by_hand"),
    ("ERR", "max number of clients", "maxclients"),
    ("ERR", "cript killed by user", "script_killed"),
    ("ERR", "nknown command", "unknown_command"),
    ("ERR", "unknown subcommand", "unknown_command"),
    ("ERR", "Unknown Redis command", "unknown_command"),
    ("ERR", "Protocol error", "protocol"),
    ("ERR", "DB index is out of range", "database"),
    ("ERR", "Invalid Database", "database"),
    ("ERR", "SELECT is not allowed in cluster mode", "cluster"),
    ("ERR", "do not hash to the same slot", "cluster"),
    ("ERR", "a non local key in a cluster node", "cluster"),
    ("ERR", "cluster is down", "clusterdown"),
    ("ERR", "stale replica", "masterdown"),
    ("ERR", "operation not permitted", "noauth"),
    ("ERR", "requires the key to exist", "nogroup"),
    ("ERR", "no such key", "nogroup"),
    # The rights of a script's user are checked command by command.
    ("ERR", "ACL failure", "noperm"),
    ("ERR", "has no permissions", "noperm"),
    ("ERR", "can't run this command", "noperm"),
    ("ERR", "can't access at least one of the keys", "noperm"),
    ("ERR", "can't access at least one of the channels", "noperm"),
)

# By the operating system's error, also where redis-py has wrapped it into one of its own; the first that fits.
OS_CODES: dict[int, str] = {
    errno.EMFILE: "too_many_files",
    errno.ENFILE: "too_many_files",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENOENT: "refused",  # a Unix socket that is not there
}
OS_CLASSES: tuple[tuple[type[BaseException], str], ...] = (
    (SlotMovedError, "slot_moved"),
    (SlotMovingError, "slot_moving"),
    (ssl.SSLCertVerificationError, "tls_certificate"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "dns"),
    (ConnectionRefusedError, "refused"),
    (PermissionError, "permission"),
    (TimeoutError, "timeout"),
    (OSError, "connection"),
    (asyncio.IncompleteReadError, "connection"),
    (asyncio.LimitOverrunError, "protocol"),
)

# By the class that redis-py makes of it, where nothing above has told more; the first that fits.
CLASSES: tuple[tuple[type[BaseException], str], ...] = (
    (SlotMovedError, "slot_moved"),
    (SlotMovingError, "slot_moving"),
    (sentinel.MasterNotFoundError, "no_master"),
    (sentinel.SlaveNotFoundError, "no_master"),
    (async_sentinel.MasterNotFoundError, "no_master"),
    (async_sentinel.SlaveNotFoundError, "no_master"),
    (exceptions.MaxConnectionsError, "pool"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "auth"),
    (exceptions.ExternalAuthProviderError, "auth"),
    (exceptions.AuthenticationError, "auth"),
    (exceptions.AuthorizationError, "noperm"),
    (exceptions.NoPermissionError, "noperm"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.ReadOnlyError, "readonly"),
    (exceptions.OutOfMemoryError, "oom"),
    (exceptions.NoScriptError, "noscript"),
    (exceptions.ExecAbortError, "execabort"),
    (exceptions.TryAgainError, "tryagain"),
    (exceptions.MasterDownError, "masterdown"),
    (exceptions.ClusterDownError, "clusterdown"),
    (exceptions.AskError, "cluster"),
    (exceptions.MovedError, "cluster"),
    (exceptions.ClusterCrossSlotError, "cluster"),
    (exceptions.ClusterError, "cluster"),
    (exceptions.CrossSlotTransactionError, "cluster"),
    (exceptions.SlotNotCoveredError, "clusterdown"),
    (exceptions.InvalidPipelineStack, "cluster"),
    (exceptions.RedisClusterException, "clusterdown"),
    (exceptions.ModuleError, "unknown_command"),
    (exceptions.NoSuchFieldsetError, "response"),
    (exceptions.InvalidResponse, "protocol"),
    (hiredis.ProtocolError, "protocol"),
    (exceptions.TimeoutError, "timeout"),
    (exceptions.ConnectionError, "connection"),
    (exceptions.ResponseError, "response"),
    (exceptions.WatchError, "execabort"),
    (exceptions.DataError, "misuse"),
    (exceptions.PubSubError, "misuse"),
    (exceptions.LockNotOwnedError, "misuse"),
    (exceptions.LockError, "misuse"),
    (exceptions.ChildDeadlockedError, "misuse"),
    (exceptions.IncorrectPolicyType, "misuse"),
    (exceptions.RedisError, "other"),
)

# Replies of Redis before 7, and of EXEC, that hold the code of the command that failed somewhere inside.
_WRAPPED = ("Error running script", "discarded because of")
# What redis-py puts before what a server said of one command in a pipeline.
_PIPELINE = re.compile(r"^Command # .* of pipeline caused error: \(['\"]", re.DOTALL)
_WORD = re.compile(r"[A-Z][A-Z0-9]+\b")


def classify(error: BaseException) -> Failure:
    """What an error of redis-py or the network calls for."""
    return FAILURES[_kind(error)]


def is_wrong_type(reply: object) -> bool:
    """Whether a command failed only because its key holds another type; any other failure is not about the key."""
    return isinstance(reply, exceptions.ResponseError) and _kind(reply) == "wrongtype"


def _kind(error: BaseException) -> str:
    system = _system_error(error)
    if system is not None:
        known = OS_CODES.get(getattr(system, "errno", None) or 0)
        return known or next(kind for cls, kind in OS_CLASSES if isinstance(system, cls))
    if isinstance(error, exceptions.RedisError):
        said = _PIPELINE.sub("", str(error))
        code = _code(error, said)
        for under, phrase, kind in PHRASES:
            if under == code and phrase in said:
                return kind
        if code in CODES:
            return CODES[code]
    return next((kind for cls, kind in CLASSES if isinstance(error, cls)), "other")


def _system_error(error: BaseException) -> BaseException | None:
    """The operating system's error, or the one that redis-py made a ConnectionError or TimeoutError of."""
    classes = tuple(cls for cls, _ in OS_CLASSES)
    if isinstance(error, classes):
        return error
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError):
        behind = error.__cause__ or error.__context__
        if isinstance(behind, classes):
            return behind
    return None


def _code(error: exceptions.RedisError, said: str) -> str:
    """The reply's code, ERR if it is none of ours; redis-py cuts off the codes that it has a class for."""
    wrapped = any(wording in said for wording in _WRAPPED)
    words = [getattr(error, "status_code", None), *_WORD.findall(said if wrapped else said.partition(" ")[0])]
    return next((word for word in words if word in CODES), "ERR")
