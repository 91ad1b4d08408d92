"""To which partition each key belongs: every kind of key that the agent has, and nothing else."""

import pytest

from redis_agent.belongings import HOME, is_copied, is_ours, places
from redis_agent.store import keys
from redis_agent.store.division import OWN
from redis_agent.store.partitions import partition_of

COUNT = 8
ID = "exp:with:colons"
OF_AN_EXPERIMENT = [
    keys.aggregate(ID),
    keys.raw_events(ID),
    keys.window(ID, "minute", 1_769_940_000),
    keys.window(ID, "hour", 1_769_940_000),
    keys.fold_state(ID),
    keys.alert_state(ID),
    keys.anomalies(ID),
    keys.cooldown(ID, "error", "1f9c0a2b"),
    keys.cooldown(ID, "experiment_completed", ""),
    keys.error_burst(ID),
    keys.silence(ID, None),
    keys.silence(ID, "error"),
]
ONCE = [keys.LLM, keys.LLM_CALLS, keys.llm_answer("a"), keys.translation("a"), keys.BRIDGE_NODE]
# What nobody needs any more when no agent runs.
_LEASES = (keys.LEASE_BRIDGE, keys.LEASE_SCHEDULER, keys.LEASE_DISPATCHER)
PASSING = [keys.OWNERS, keys.REPLICAS, keys.BARRIER, keys.ARRIVED, *_LEASES, *map(keys.fence, _LEASES)]
OF_OTHERS = [
    keys.experiment(ID),
    keys.metrics_specs(ID),
    f"experiment_runs:{ID}:1",
    keys.PARTITIONS,
    keys.copied("e") or "",
    keys.namespace(1) + keys.STREAM,
    "metrics_windows:",
    "of somebody else",
]


@pytest.mark.parametrize("key", OF_AN_EXPERIMENT)
def test_key_of_an_experiment_belongs_where_its_experiment_does(key: str) -> None:
    assert places(key.encode(), COUNT) == {partition_of(ID, COUNT)}
    assert is_ours(key.encode())
    assert is_copied(key.encode()) == (key in OF_AN_EXPERIMENT[:2])


@pytest.mark.parametrize("key", [*ONCE, keys.cooldown("all", "periodic_summary", "7")])
def test_what_stands_once_stands_in_the_home_partition(key: str) -> None:
    assert places(key.encode(), COUNT) == {HOME}
    assert is_ours(key.encode())


def test_silence_of_all_is_of_summaries_and_of_an_experiment_of_that_name() -> None:
    number = partition_of("all", COUNT)
    assert number != HOME
    assert places(keys.silence("all", None).encode(), COUNT) == {HOME, number}
    assert places(keys.silence("all", "error").encode(), COUNT) == {HOME, number}
    assert places(keys.cooldown("all", "error", "f").encode(), COUNT) == {number}


@pytest.mark.parametrize("key", OF_OTHERS)
def test_what_others_write_stays_and_is_not_ours(key: str) -> None:
    assert places(key.encode(), COUNT) == frozenset()
    assert not is_ours(key.encode())


@pytest.mark.parametrize("key", [*OWN, *PASSING, keys.arriving(keys.STREAM)])
def test_what_each_partition_has_of_its_own_does_not_move(key: str) -> None:
    assert places(key.encode(), COUNT) == frozenset()
    assert is_ours(key.encode())


def test_every_shared_key_is_divided_or_begins_anew_or_stands_once() -> None:
    assert keys.SHARED_TYPES.keys() <= {*OWN, *PASSING, *ONCE}
