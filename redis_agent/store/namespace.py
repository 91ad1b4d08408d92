"""A namespace in front of every key that a client names, so that whatever is one today can be one a partition.

The client does it, by the command, and not who calls it: nobody can forget it, and what is written against one server's
keys works in a partition as it stands. A command that is not known here is refused, never sent as it is.
"""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from redis_agent.store.tuned import TunedClient, TunedPipeline


def _named(commands: str) -> frozenset[str]:
    return frozenset(commands.split())


# By where a command names keys: nowhere; in its first argument; in all of them; in the second, behind a subcommand.
_NO_KEYS = _named(
    "ACL CLIENT CLUSTER COMMAND CONFIG DBSIZE ECHO FLUSHALL FLUSHDB INFO LASTSAVE PING PUBLISH PUBSUB ROLE SCRIPT"
    " SPUBLISH TIME WAIT WAITAOF"
)
_FIRST = _named(
    "DUMP EXPIRE GET GETRANGE HDEL HEXISTS HGET HGETALL HINCRBY HKEYS HLEN HMGET HSCAN HSET HSETNX INCR LLEN LPUSH"
    " LRANGE LTRIM PERSIST PEXPIRE PTTL RESTORE RPUSH SADD SCARD SET SISMEMBER SMEMBERS SMISMEMBER SREM SSCAN TTL TYPE"
    " XACK XADD XAUTOCLAIM XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XSETID XTRIM ZADD ZCARD ZRANGE ZRANGEBYSCORE"
    " ZREM ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZSCAN ZSCORE"
)
_ALL = _named("DEL EXISTS MGET UNLINK")
_SECOND = _named("MEMORY OBJECT XGROUP XINFO")
_SCRIPTS = _named("EVAL EVALSHA")
_STREAMS = _named("XREAD XREADGROUP")


def namespace_of(client: Redis) -> str:
    """What stands in front of every key that this client names; "" for a client of a whole server."""
    return client.namespace if isinstance(client, NamespacedClient) else ""


def in_namespace(namespace: str, args: Sequence[Any]) -> Sequence[Any]:
    """A command with the namespace in front of its keys.

    Args:
        namespace: "" changes nothing.
        args: the command and its arguments; "XINFO STREAM" may be one word of it, as redis-py has it, or two.

    Raises:
        ValueError: it is not known where this command names keys.
    """
    if not namespace:
        return args
    words = str(args[0]).split()
    command = [*words, *args[1:]]
    name = words[0].upper()
    if name == "ACL" and str(command[1]).upper() == "DRYRUN":
        command[3:] = in_namespace(namespace, command[3:])  # a trial of a command is about its keys
    elif name == "SCAN":
        command = _scan(namespace, command)
    elif name not in _NO_KEYS:
        for n in _places(name, command):
            command[n] = _prefixed(namespace, command[n])
    # redis-py knows how to read a reply by the command's name as it was given.
    return [args[0], *command[len(words) :]]


def keys_of(args: Sequence[Any]) -> list[str | bytes]:
    """The keys that a command names.

    Raises:
        ValueError: it is not known where it does.
    """
    command = [*str(args[0]).split(), *args[1:]]
    return [command[n] for n in _places(command[0].upper(), command)]


def _places(name: str, command: Sequence[Any]) -> range:
    if name in _FIRST:
        return range(1, 2)
    if name in _SCRIPTS:
        return range(3, 3 + int(command[2]))
    if name in _ALL:
        return range(1, len(command))
    if name in _SECOND:
        return range(2, 3)
    if name in _STREAMS:
        first = _words(command).index("STREAMS") + 1
        return range(first, first + (len(command) - first) // 2)
    raise ValueError(f"it is not known where the command {name} names keys")


def _scan(namespace: str, command: list[Any]) -> list[Any]:
    words = _words(command)
    if "MATCH" in words:
        at = words.index("MATCH") + 1
        command[at] = _prefixed(namespace, command[at])
        return command
    return [*command, "MATCH", namespace + "*"]


def _words(command: Sequence[Any]) -> list[str]:
    """The command's words in capitals; redis-py gives some of them as bytes."""
    return [(word.decode("ascii", "replace") if isinstance(word, bytes) else str(word)).upper() for word in command]


def _prefixed(namespace: str, key: Any) -> Any:
    return namespace.encode() + key if isinstance(key, bytes) else f"{namespace}{key}"


class NamespacedClient(TunedClient):
    """A client whose keys have a namespace, "" by default. Channels, groups and members have none."""

    namespace = ""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command on the keys of the namespace; keys that SCAN finds come back as they are named here."""
        reply = await super().execute_command(*in_namespace(self.namespace, args), **options)
        if self.namespace and str(args[0]).upper() == "SCAN":
            cursor, found = reply
            reply = cursor, [key[len(self.namespace) :] for key in found]
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "NamespacedPipeline":
        """A pipeline on the keys of the namespace."""
        pipe = NamespacedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.namespace = self.namespace
        return pipe


class NamespacedPipeline(TunedPipeline):
    """A pipeline whose keys have a namespace."""

    namespace = ""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add one command on the keys of the namespace."""
        return super().execute_command(*in_namespace(self.namespace, args), **options)
