"""`publish` sends what it is given, and says who received it."""

import json

import pytest
import redis.asyncio

from tests.cli.conftest import Cli

CHANNEL = "fullsend:metrics"


@pytest.fixture
async def listener(client: redis.asyncio.Redis):
    async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(CHANNEL)
        await pubsub.get_message(timeout=5)
        yield pubsub


async def next_event(listener: redis.asyncio.client.PubSub) -> str:
    while (message := await listener.get_message(timeout=5)) is None:
        pass
    return message["data"]


async def test_an_event_from_options_has_the_form_of_the_contract(cli: Cli, listener) -> None:
    done = await cli("publish", "--experiment", "exp_test", "--event", "email_sent", "--count", "25")
    assert done.code == 0
    assert done.out == "1 event published on fullsend:metrics: received by 1 subscriber\n"
    assert json.loads(await next_event(listener)) == {
        "experiment_id": "exp_test",
        "event": "email_sent",
        "count": 25,
    }


async def test_gauges_are_numbers_and_flags(cli: Cli, listener) -> None:
    gauges = ["a=1", "b=0.25", "c=true", "d=-3e2"]
    args = [part for gauge in gauges for part in ("--gauge", gauge)]
    assert (await cli("publish", "--experiment", "e", *args)).code == 0
    event = await next_event(listener)
    assert json.loads(event) == {"experiment_id": "e", "a": 1, "b": 0.25, "c": True, "d": -300.0}


async def test_json_goes_out_as_it_stands(cli: Cli, listener) -> None:
    raw = '{"experiment_id": "é",   "event":"x"} trailing'
    assert (await cli("publish", raw)).code == 0
    assert await next_event(listener) == raw


async def test_stdin_is_one_event_a_line(cli: Cli, listener) -> None:
    lines = [f'{{"experiment_id":"e","event":"x","count":{n}}}' for n in range(1_200)]
    done = await cli("publish", "-", "--json", stdin="\n\n".join(lines).encode())
    assert done.document == {"published": 1_200, "receivers": 1, "unheard": 0}
    assert [await next_event(listener) for _ in lines] == lines


async def test_an_event_that_nobody_receives_is_a_failure_with_a_hint(cli: Cli) -> None:
    done = await cli("publish", "--experiment", "e", "--event", "x", "--json")
    assert done.code == 1
    assert done.document == {"published": 1, "receivers": 0, "unheard": 1}
    assert "no bridge listens on fullsend:metrics" in done.err
    assert "redis-agent run" in done.err


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--event", "x"),
        ("--experiment", "e"),
        ("{}", "--experiment", "e", "--event", "x"),
        ("--experiment", "e", "--gauge", "a"),
        ("--experiment", "e", "--gauge", "a=b"),
        ("--experiment", "e", "--gauge", "a=nan"),
        ("--experiment", "e", "--gauge", "a=1", "--count", "2"),
        ("--experiment", "e", "--event", "x", "--count", "-1"),
    ],
    ids=" ".join,
)
async def test_what_makes_no_event_is_refused(cli: Cli, args: tuple[str, ...]) -> None:
    done = await cli("publish", *args)
    assert done.code == 2
    assert done.out == ""
