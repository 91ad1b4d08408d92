"""`experiments ID --history`: what the windows hold, as a drawing and as JSON."""

import time

import pytest
import redis.asyncio

from redis_agent.cli.history import Grid
from redis_agent.store import keys
from tests.cli.conftest import Cli

MINUTE, HOUR = 60, 3_600


async def put(client: redis.asyncio.Redis, kind: str, ago: int, **fields: object) -> None:
    """A window of so many minutes or hours ago, as the gate writes it."""
    length = {"minute": MINUTE, "hour": HOUR}[kind]
    start = (int(time.time()) // length - ago) * length
    await client.hset(keys.window("exp", kind, start), mapping={"events": 1, **fields})


async def test_two_days_are_shown_by_the_hour_and_nothing_is_a_dot(cli: Cli, client: redis.asyncio.Redis) -> None:
    await put(client, "hour", 47, email_sent_count=8)
    await put(client, "hour", 2, email_sent_count=4, rate_sum="0.5", rate_samples=2, rate_min="0.2", rate_max="0.3")
    await put(client, "hour", 1, email_sent_count=1)
    await put(client, "hour", 60, email_sent_count=999)  # older than what is asked for

    document = (await cli("experiments", "exp", "--history", "--json")).document
    assert document["step_seconds"] == HOUR
    assert len(document["starts"]) == 48
    assert document["counts"]["email_sent"] == [8, *[0] * 44, 4, 1, 0]
    assert document["gauges"]["rate"][45] == {"mean": 0.25, "min": 0.2, "max": 0.3, "samples": 2}
    assert document["gauges"]["rate"].count(None) == 47

    drawn = (await cli("experiments", "exp", "--history")).out
    (row,) = [line for line in drawn.splitlines() if line.startswith("email_sent")]
    assert row.split() == ["email_sent", "█" + "·" * 44 + "▅▂·", "13", "0", "8", "0"]
    (row,) = [line for line in drawn.splitlines() if line.startswith("rate")]
    assert row.split() == ["rate", "·" * 45 + "▅··", "0.2", "0.3", "0.25"]


async def test_an_hour_is_shown_by_the_minute(cli: Cli, client: redis.asyncio.Redis) -> None:
    await put(client, "minute", 5, reply_count=3)
    document = (await cli("experiments", "exp", "--last", "1h", "--json")).document
    assert (document["step_seconds"], len(document["starts"])) == (MINUTE, 60)
    assert sum(document["counts"]["reply"]) == 3


@pytest.mark.parametrize("seconds", [60, 3_599, 3_600, 10_800, 10_801, 86_400, 172_800, 604_800, 7_776_000])
def test_grid_ends_with_the_present_and_goes_as_far_back_as_was_asked(seconds: int) -> None:
    now = 1_769_941_805
    grid = Grid.over(seconds, now)
    last = grid.first_s + (grid.columns - 1) * grid.step_s
    assert last <= now < last + grid.step_s
    assert grid.columns <= 61
    assert grid.columns * grid.step_s >= seconds
    assert grid.first_s % grid.step_s == 0


async def test_window_that_somebody_else_made_costs_only_itself(cli: Cli, client: redis.asyncio.Redis) -> None:
    await client.set(keys.window("exp", "hour", int(time.time()) // HOUR * HOUR), "mine")
    await put(client, "hour", 1, a_count="many", b_count=2, g_sum="much", g_samples=1, g_min="0", g_max="1")
    document = (await cli("experiments", "exp", "--history", "--json")).document
    assert {name: sum(points) for name, points in document["counts"].items()} == {"a": 0, "b": 2}
    assert document["gauges"] == {}


async def test_unknown_experiment_and_missing_id_are_said(cli: Cli, client: redis.asyncio.Redis) -> None:
    unknown = await cli("experiments", "nobody", "--history")
    assert (unknown.code, unknown.out) == (1, "")
    assert "nobody is unknown" in unknown.err
    assert "which experiment's history?" in (await cli("experiments", "--history")).err
    assert "a history lasts between 60 seconds and 365 days" in (await cli("experiments", "e", "--last", "5s")).err
    await client.hset(keys.aggregate("old"), mapping={"events_total": 1})
    assert "no event in this time" in (await cli("experiments", "old", "--history")).out
