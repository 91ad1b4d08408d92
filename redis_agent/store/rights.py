"""Whether a worker's user may do what its scripts do: asked at the start, because they are checked one by one.

A script that finds out half-way that it may not ack has already added its sums, and would add them again.
"""

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_agent.store import keys
from redis_agent.store.stream import text

_ID = "0-1"
_AGGREGATE, _RAW, _COOLDOWN = keys.aggregate("any"), keys.raw_events("any"), keys.cooldown("any", "error", "any")
_WINDOW = keys.window("any", "minute", 0)

# One well-formed call of each command that a worker uses, mostly in scripts, on a key it is used on. Where what may be
# done differs from key to key (deploy/redis/users.acl.template), the same command stands here with more than one.
_CALLS: tuple[tuple[str, ...], ...] = (
    ("XADD", keys.STREAM, "*", "data", "x"),
    ("XADD", keys.DEAD_LETTERS, "*", "data", "x"),
    ("XADD", keys.OUTBOX, "*", "data", "x"),
    ("XACK", keys.STREAM, keys.GROUP, _ID),
    ("XCLAIM", keys.STREAM, keys.GROUP, "any", "0", _ID),
    ("XPENDING", keys.STREAM, keys.GROUP),
    ("XREADGROUP", "GROUP", keys.GROUP, "any", "STREAMS", keys.STREAM, ">"),
    ("XAUTOCLAIM", keys.STREAM, keys.GROUP, "any", "0", "0-0"),
    ("XGROUP", "CREATE", keys.STREAM, keys.GROUP, "0"),
    ("XINFO", "GROUPS", keys.STREAM),
    ("XLEN", keys.STREAM),
    ("XRANGE", keys.STREAM, "-", "+"),
    ("TIME",),
    ("HMGET", keys.RECLAIM, "cursor"),
    ("HSET", keys.RECLAIM, "cursor", _ID),
    ("HSET", _AGGREGATE, "field", "1"),
    ("HGET", _AGGREGATE, "field"),
    ("HMGET", _AGGREGATE, "field"),
    ("HGETALL", _AGGREGATE),
    ("HLEN", _AGGREGATE),
    ("EXISTS", keys.ABOVE),
    ("HGETALL", keys.ABOVE),
    ("HLEN", keys.ABOVE),
    ("HSET", keys.ABOVE, _ID, _ID),
    ("HDEL", keys.ABOVE, _ID),
    ("DEL", keys.FLOOR, keys.ABOVE),
    ("SET", keys.FLOOR, _ID),
    ("HINCRBY", keys.ACCOUNT, "owed", "1"),
    ("HSET", keys.ACCOUNT, "owed", "0"),
    ("HSET", keys.OUTBOX_ACCOUNT, "last_id", _ID),
    ("HGET", keys.alert_state("any"), "field"),
    ("HSET", keys.alert_state("any"), "field", "x"),
    ("HEXISTS", keys.fold_state("any"), "field"),
    ("HINCRBY", keys.fold_state("any"), "field", "1"),
    ("HMGET", _WINDOW, "field"),
    ("HSET", _WINDOW, "field", "1"),
    ("EXPIRE", _WINDOW, "1"),
    ("RPUSH", _RAW, "x"),
    ("LTRIM", _RAW, "-1", "-1"),
    ("LLEN", _RAW),
    ("ZADD", keys.EXPERIMENTS, "1", "any"),
    ("ZCARD", keys.EXPERIMENTS),
    ("SADD", keys.UNAPPLIED, _ID),
    ("SCARD", keys.UNAPPLIED),
    ("SET", _COOLDOWN, "any"),
    ("GET", keys.FLOOR),
    ("EXISTS", _COOLDOWN),
    ("EXPIRE", _COOLDOWN, "1"),
    ("PTTL", _COOLDOWN),
    ("INCR", keys.error_burst("any")),
)


async def missing_rights(client: Redis) -> list[str]:
    """Commands of a worker that this user may not run, or not on the agent's keys.

    Empty also where the server does not say: it lets this user not ask (`ACL DRYRUN`), or does not know the question.
    """
    try:
        user = await client.execute_command("ACL", "WHOAMI")
        answers = [text(await client.execute_command("ACL", "DRYRUN", user, *call)) for call in _CALLS]
    except ResponseError:
        return []
    return sorted({call[0] for call, answer in zip(_CALLS, answers, strict=True) if answer != "OK"})
