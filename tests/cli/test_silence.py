"""Somebody who wants quiet mutes an experiment, sees what is muted, and ends it."""

import pytest
import redis.asyncio

from tests.cli.conftest import Cli


async def test_silence_is_set_listed_and_removed(cli: Cli, client: redis.asyncio.Redis) -> None:
    done = await cli("silence", "exp:1", "--for", "2h", "--json")
    assert (done.code, done.document["experiment_id"], done.document["type"]) == (0, "exp:1", None)
    assert 7_000 < await client.ttl("redis_agent:silence:any:exp:1") <= 7_200
    assert "muted until" in (await cli("silence", "exp", "--type", "error", "--for", "1d12h")).out
    assert 129_000 < await client.ttl("redis_agent:silence:error:exp") <= 129_600

    listed = (await cli("silence", "--list", "--json")).document
    assert [(one["experiment_id"], one["type"]) for one in listed] == [("exp", "error"), ("exp:1", None)]
    assert "exp:1" in (await cli("silence", "--list")).out

    assert (await cli("silence", "exp:1", "--remove")).code == 0
    again = await cli("silence", "exp:1", "--remove")
    assert (again.code, "no such silence" in again.err) == (1, True)
    await client.delete("redis_agent:silence:error:exp")  # by hand
    assert (await cli("silence", "--list")).out == "no silences\n"


@pytest.mark.parametrize(
    "args",
    [
        ("exp",),
        ("--for", "2h"),
        ("exp", "--for", "2h", "--remove"),
        ("exp", "--for", "2 hours"),
        ("exp", "--for", "0s"),
        ("exp", "--for", "999999999w"),
        ("exp", "--for", "2h", "--type", "nonsense"),
    ],
)
async def test_what_makes_no_sense_is_refused(cli: Cli, args: tuple[str, ...]) -> None:
    done = await cli("silence", *args)
    assert done.code == 2
    assert "Error: " in done.err
