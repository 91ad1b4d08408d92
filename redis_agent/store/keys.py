"""Every key and channel that the agent uses, each in one place, with its Redis type.

The names are promises (docs/redis.md lists them for operators). No key literal stands anywhere else.
"""

from zlib import crc32

# The channels are configurable (METRICS_CHANNEL, ORCHESTRATOR_CHANNEL); the keys are not.

STREAM = "fullsend:metrics:stream"  # STREAM: data, at; one entry an event
GROUP = "redis_agent"  # consumer group of STREAM
DEAD_LETTERS = "fullsend:metrics:dead"  # STREAM: data, reason, source_id, deliveries, at
OUTBOX = "fullsend:alerts"  # STREAM: data (the alert's JSON), at (ms of the event that caused it)
DISPATCHER_GROUP = "dispatcher"  # consumer group of OUTBOX
OUTBOX_FLOOR = "redis_agent:alerts:floor"  # STRING: every alert up to this OUTBOX id was delivered or given up
UNDELIVERED = "redis_agent:alerts:undelivered"  # SET of OUTBOX ids given up after their TTL, or superseded
NEWEST_SUMMARY = "redis_agent:alerts:newest_summary"  # STRING: OUTBOX id of the newest periodic summary
ANALYSES = "redis_agent:alerts:analyses"  # HASH OUTBOX id -> JSON of the analysis that is delivered with the alert

# STRING, in no namespace: how many partitions there are, where more than one; while that is changed, also to how many
PARTITIONS = "redis_agent:partitions"
ARRIVED = "redis_agent:arrived"  # STRING: while the number of partitions changes, that all of `arriving` is there
EXPERIMENTS = "redis_agent:experiments"  # ZSET experiment -> ms of its last event
TOUCHED = "redis_agent:touched"  # HASH, in partitions: experiment -> how often it was changed since it was copied
FLOOR = "redis_agent:floor"  # STRING: every stream entry up to this id has been applied
# HASH: last_id given out, owed (entries not acked), lost (entries deleted before they were acked), unsaid among them
ACCOUNT = "redis_agent:account"
ABOVE = "redis_agent:applied_above"  # HASH: first id -> ids of a batch applied above FLOOR, "a..b" or "a b c"
OUTBOX_ACCOUNT = "redis_agent:alerts:account"  # HASH: as ACCOUNT, of the OUTBOX
OUTBOX_ABOVE = "redis_agent:alerts:applied_above"  # never written: alerts leave in order, so FLOOR says all
RECLAIM = (
    "redis_agent:reclaim"  # HASH: cursor, done_ms, seen_ms, rested, rebase, deleted; the scan that all workers share
)
PARKED = "parked"  # consumer that holds what nobody is known to hold when a group is recreated
UNAPPLIED = "redis_agent:unapplied"  # SET of readable stream ids that went to the dead letters
# HASH: written (position reached), epoch, leader, at (ms), gaps, gap_ms, given_up; and of the last claim: epoch_before,
# leader_before, silent_ms; while bridges in step are waited for: called, asked (ms)
BRIDGE = "redis_agent:bridge"
BRIDGE_READY = "redis_agent:bridge:ready"  # ZSET owner of a bridge in step -> ms of its last sign of life
BRIDGE_NODE = (
    "redis_agent:bridge:node"  # STRING, of the home partition in a cluster: the node that bridges subscribe to
)
BRIDGE_PUBSUB = "redis_agent:bridge:pubsub"  # STRING, of the home partition in a cluster: "plain" or "sharded"
# HASH: swept_ms, summary_slot, _ms and _floor, the same of summary_day, stream_dropped_unread, buried, anomalies
SCHEDULER = "redis_agent:scheduler"
FINALS = "redis_agent:finals"  # HASH completed experiment -> when it was judged finally
COMPLETIONS = "redis_agent:completions"  # HASH experiment -> id of the alert that told its completion
BARRIER = "redis_agent:barrier"  # STRING, always "1": the last write before a wait for disk or replicas
# HASH: day, calls and tokens_in, tokens_out of that day (UTC); failures in a row, opened how often in a row, open_until
# and trial_until (ms)
LLM = "redis_agent:llm"
LLM_CALLS = "redis_agent:llm:calls"  # LIST: ms of the newest calls, as many as a minute may have
OWNERS = "redis_agent:owners"  # ZSET name|start of the process -> ms of its last sign of life
REPLICAS = "redis_agent:replicas"  # ZSET replica|roles -> ms of its last sign of life

LEASE_BRIDGE = "redis_agent:lease:bridge"  # STRING "token.claim:owner" with a TTL
LEASE_SCHEDULER = "redis_agent:lease:scheduler"  # STRING "token:owner" with a TTL
LEASE_DISPATCHER = "redis_agent:lease:dispatcher"  # STRING "token:owner" with a TTL

# What readers list as metrics_aggregated:* and experiments:*; the rest of the key is the id.
AGGREGATE_PREFIX = "metrics_aggregated:"
EXPERIMENT_PREFIX = "experiments:"
ADOPTED_PREFIX = "redis_agent:adopted:"
SILENCE_PREFIX = "redis_agent:silence:"
COOLDOWN_PREFIX = "redis_agent:cooldown:"
WINDOW_PREFIX = "metrics_windows:"
ARRIVING_PREFIX = "redis_agent:arriving:"
ANY_TYPE = "any"


def namespace(partition: int) -> str:
    """What stands in front of a partition's keys: a hash tag, which puts them all in one slot of a cluster.

    These texts spread partitions evenly over the nodes of a cluster whose slots are divided evenly, also small numbers
    of both.
    """
    return f"{{redis_agent-{partition}}}:"


def without_namespace(name: str) -> str:
    """A key as it is named within its partition."""
    return name.partition("}:")[2] if name.startswith("{redis_agent-") else name


def arriving(key: str) -> str:
    """Of the type of the key: what will stand there when the number of partitions has been changed."""
    return ARRIVING_PREFIX + key


def bridge_control(database: int, namespace: str = "") -> str:
    """The channel on which the bridges speak to each other; each partition has its own."""
    return f"{namespace}redis_agent:bridge:control:{database}"


def shard_channel(channel: str, namespace: str) -> str:
    """Where events of a partition are published by sharded pub/sub: a channel in its slot."""
    return namespace + channel


def bridge_alive(database: int) -> str:
    """Followed by the owner, a channel that nobody speaks on: who listens to it says whose subscription stands."""
    return f"redis_agent:bridge:alive:{database}:"


def fence(lease: str) -> str:
    """STRING: counter of the fencing tokens given out for a lease."""
    return lease + ":fence"


def aggregate(experiment_id: str) -> str:
    """HASH: the experiment's aggregates under readable names."""
    return AGGREGATE_PREFIX + experiment_id


def raw_events(experiment_id: str) -> str:
    """LIST: the experiment's newest events as they came, bounded."""
    return "metrics:" + experiment_id


def copied(experiment_id: str) -> str | None:
    """STRING, in no namespace, in the slot of `raw_events`: the events_total that is copied there.

    None for an id that cannot stand in a hash tag.
    """
    return None if "{" in experiment_id or "}" in experiment_id else f"{{{raw_events(experiment_id)}}}:copied"


def window(experiment_id: str, kind: str, start_s: int) -> str:
    """HASH with a TTL: what the events of a minute or an hour add up to; its start is in seconds since the epoch."""
    return f"{WINDOW_PREFIX}{experiment_id}:{kind}:{start_s}"


def fold_state(experiment_id: str) -> str:
    """HASH: `latest:<gauge>` -> stream id that set it, `refused:<name>` -> times refused."""
    return "redis_agent:fold_state:" + experiment_id


def experiment(experiment_id: str) -> str:
    """HASH or STRING, written by others: the experiment's definition."""
    return EXPERIMENT_PREFIX + experiment_id


def metrics_specs(experiment_id: str) -> str:
    """HASH or STRING, written by others: the experiment's metrics."""
    return "metrics_specs:" + experiment_id


def adopted(partition: int, entry_id: str, data: bytes) -> str:
    """STRING with a TTL: as which entry a dead letter of another partition has entered this one's stream.

    Its data are in the name, because ids may come to another partition when their number is changed.
    """
    return f"{ADOPTED_PREFIX}{partition}:{entry_id}:{crc32(data):08x}"


def cooldown(experiment_id: str, alert_type: str, fingerprint: str) -> str:
    """STRING with a TTL: the id of the alert that started this cooldown."""
    return f"{COOLDOWN_PREFIX}{experiment_id}:{alert_type}:{fingerprint}"


def error_burst(experiment_id: str) -> str:
    """STRING with a TTL: how many different error alerts this experiment has had lately."""
    return f"{COOLDOWN_PREFIX}{experiment_id}:error:burst"


def silence(experiment_id: str, alert_type: str | None) -> str:
    """STRING with a TTL: when the silence began. None is every type; no type has a colon, but ids may."""
    return f"{SILENCE_PREFIX}{alert_type or ANY_TYPE}:{experiment_id}"


def alert_state(experiment_id: str) -> str:
    """HASH: criterion fingerprint -> JSON of its state (lifecycle.CriterionState)."""
    return "redis_agent:alert_state:" + experiment_id


def anomalies(experiment_id: str) -> str:
    """HASH with a TTL: `upto` (seconds), `told`, and of each series `<kind>:<name>` what its detectors remember."""
    return "redis_agent:anomalies:" + experiment_id


def llm_answer(fingerprint: str) -> str:
    """STRING with a TTL: the language model's answer to these facts, as JSON."""
    return "redis_agent:llm:answer:" + fingerprint


def translation(key: str) -> str:
    """STRING with a TTL: JSON of what a model has made of a criterion: `text`, and `criterion` ("" for nothing)."""
    return "redis_agent:translation:" + key


# What the shared keys hold when nobody else has written to them, as TYPE says it.
SHARED_TYPES = {
    STREAM: "stream",
    DEAD_LETTERS: "stream",
    OUTBOX: "stream",
    OUTBOX_FLOOR: "string",
    UNDELIVERED: "set",
    NEWEST_SUMMARY: "string",
    ANALYSES: "hash",
    EXPERIMENTS: "zset",
    FINALS: "hash",
    COMPLETIONS: "hash",
    FLOOR: "string",
    ABOVE: "hash",
    RECLAIM: "hash",
    UNAPPLIED: "set",
    BRIDGE: "hash",
    BRIDGE_READY: "zset",
    BRIDGE_NODE: "string",
    BRIDGE_PUBSUB: "string",
    TOUCHED: "hash",
    SCHEDULER: "hash",
    LLM: "hash",
    LLM_CALLS: "list",
    OWNERS: "zset",
    REPLICAS: "zset",
    LEASE_BRIDGE: "string",
    LEASE_SCHEDULER: "string",
    LEASE_DISPATCHER: "string",
    **{fence(lease): "string" for lease in (LEASE_BRIDGE, LEASE_SCHEDULER, LEASE_DISPATCHER)},
}
