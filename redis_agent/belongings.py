"""To which partition each key of the agent belongs, by its name and by how many partitions there are. Pure.

A key of the agent is of one experiment, or stands once, or is one that each partition has of its own. What of the
latter is about single experiments (streams, indexes, sets of ids) is divided, what is not begins anew.
"""

from redis_agent.alerts import ALL_EXPERIMENTS, AlertType
from redis_agent.store import keys
from redis_agent.store.partitions import partition_of_bytes

HOME = 0

_ALL = ALL_EXPERIMENTS.encode()
_COPIED = (keys.AGGREGATE_PREFIX.encode(), keys.raw_events("").encode())
# The experiment's id is the rest of the name.
_BY_REST = (*_COPIED, *(of("").encode() for of in (keys.fold_state, keys.alert_state, keys.anomalies)))
_SILENCE = keys.SILENCE_PREFIX.encode()
# The id stands before the last two parts, in which no colon is: kind and start, type and fingerprint.
_BEFORE_TWO = (keys.WINDOW_PREFIX.encode(), keys.COOLDOWN_PREFIX.encode())
_ONCE = frozenset(key.encode() for key in (keys.LLM, keys.LLM_CALLS, keys.BRIDGE_PUBSUB))
_ONCE_PREFIXES = (keys.llm_answer("").encode(), keys.translation("").encode())
# What a partition has of its own, beside the shared keys whose types are known.
_BESIDES = (keys.ACCOUNT, keys.OUTBOX_ACCOUNT, keys.OUTBOX_ABOVE, keys.BARRIER, keys.ARRIVED)
_OWN = frozenset(key.encode() for key in (*keys.SHARED_TYPES, *_BESIDES)) - _ONCE
# Of no meaning without the process that wrote it.
_PASSING = frozenset(key.encode() for key in (keys.OWNERS, keys.REPLICAS, keys.BARRIER))
_OWN_PREFIXES = (keys.ARRIVING_PREFIX.encode(), keys.ADOPTED_PREFIX.encode())


def places(key: bytes, partitions: int) -> frozenset[int]:
    """The partitions that a key belongs to, if it can move: one of an experiment, or one that stands once.

    Empty for what each partition has of its own, and for what is not the agent's.
    """
    if key in _ONCE or key.startswith(_ONCE_PREFIXES):
        return frozenset({HOME})
    found = _experiment(key)
    if found is None:
        return frozenset()
    experiment, kind = found
    if experiment == _ALL and kind == AlertType.SUMMARY.value.encode():
        return frozenset({HOME})
    number = partition_of_bytes(experiment, partitions)
    # `all` is what silences of summaries name, and may be an experiment, too.
    return frozenset({number, HOME} if experiment == _ALL and key.startswith(_SILENCE) else {number})


def is_ours(key: bytes) -> bool:
    """Whether it is a key of the agent, as it is named within a partition."""
    return key in _OWN or key.startswith(_OWN_PREFIXES) or bool(places(key, 1))


def is_passing(key: bytes) -> bool:
    """Whether it means nothing without the process that wrote it."""
    return key in _PASSING


def is_copied(key: bytes) -> bool:
    """Whether there is a copy of it for others under its name without a namespace, where there are partitions."""
    return key.startswith(_COPIED)


def _experiment(key: bytes) -> tuple[bytes, bytes] | None:
    """Whose key it is, and the type of alert that it is about, if it is one."""
    for prefix in _BY_REST:
        if key.startswith(prefix):
            return key[len(prefix) :], b""
    if key.startswith(_SILENCE):
        kind, _, experiment = key[len(_SILENCE) :].partition(b":")
        return experiment, kind
    for prefix in _BEFORE_TWO:
        if key.startswith(prefix):
            experiment, *parts = key[len(prefix) :].rsplit(b":", 2)
            return (experiment, parts[0]) if len(parts) == 2 else None
    return None
