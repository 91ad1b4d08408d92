"""What is published goes to the partition of the experiment that a worker would read in it."""

import pytest

from redis_agent.routing import router
from redis_agent.store.partitions import partition_of, partition_of_bytes

ROUTE = router(8, max_event_bytes=1024)


@pytest.mark.parametrize(
    "data",
    [
        b'{"experiment_id":"exp_1","event":"email_sent","count":2}',
        b'{"experiment_id":"exp_1","response_rate":0.15}',
        b'{"event":"error","message":"x","experiment_id":"exp_1"}',
        b"{'experiment_id': 'exp_1', 'metric': 'emails_sent', 'value': 20}",
        b'{"\\u0065xperiment_id":"exp_1","event":"a"}',
        b'{"experiment_id":"exp_2","experiment_id":"exp_1","event":"a"}',
    ],
)
def test_an_event_goes_with_its_experiment(data: bytes) -> None:
    assert ROUTE(data) == partition_of("exp_1", 8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b'{"event":"a"}',
        b'{"experiment_id":"","event":"a"}',
        b'{"experiment_id":"exp_1"}',
        b'{"experiment_id":"exp_1","event":"a","count":-1}',
        b'{"experiment_id":"exp_1","event":"' + b"a" * 1024 + b'"}',
        b"\xff\xfe",
        b"[" * 900,
    ],
)
def test_what_is_no_event_goes_by_its_bytes(data: bytes) -> None:
    assert ROUTE(data) == partition_of_bytes(data, 8)
