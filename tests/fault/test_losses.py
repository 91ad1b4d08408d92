"""Keys deleted under load: what nobody can save is counted and said, nothing is twice, and everything goes on."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.conftest import OwnServerFactory
from tests.fault.havoc import OUTBOX, STREAM
from tests.fault.losses import COME_AND_GO, KEYS, Losses
from tests.ledger import EXPERIMENTS
from tests.seeds import SEED
from tests.waiting import eventually


@pytest.mark.timeout(300)
async def test_deleted_stream_and_outbox_lose_what_is_said_and_nothing_else(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    await delete_streams(own_server, tmp_path, times=2)


@pytest.mark.fault
@pytest.mark.timeout(1_800)
async def test_stream_and_outbox_deleted_twenty_times_each(own_server: OwnServerFactory, tmp_path: Path) -> None:
    await delete_streams(own_server, tmp_path, times=20)


async def delete_streams(own_server: OwnServerFactory, directory: Path, *, times: int) -> None:
    losses = Losses(own_server(), directory, seed=SEED)
    losses.lists_whole = True

    async def schedule(rng: random.Random) -> None:
        for _ in range(times):
            await losses.at_work()
            await losses.delete_unread(STREAM, "worker")
            await losses.at_work()
            await losses.delete_unread(OUTBOX, "dispatcher")
            await losses.at_work()
            for key in (STREAM, OUTBOX):
                await losses.delete(key)
                await losses.at_work()

    toll = await losses.run(schedule)
    said = sum(line["lost"] for line in losses.said("stream_deleted"))
    said_alerts = sum(line["lost"] for line in losses.said("outbox_deleted"))
    untold = [error for error in toll.errors if not toll.told[error]]
    print(
        dict(losses.done), f"lost {toll.lost} of {len(toll.published)}, alerts {toll.alerts_lost}, twice {toll.twice}"
    )
    assert toll.twice == 0
    assert toll.lost == toll.stream_lost > 0
    # A worker may lose the reply that tells it what it has to say; what is counted in Redis is all of it.
    assert 0 < said <= toll.stream_lost
    assert len(untold) >= toll.alerts_lost >= said_alerts > 0, "an error that was lost raised no alert either"
    assert max(toll.told.values()) == 1


@pytest.mark.timeout(300)
async def test_everything_deleted_at_once_is_said_once_and_begins_anew(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    losses = Losses(own_server(), tmp_path, seed=SEED)

    async def schedule(rng: random.Random) -> None:
        for _ in range(3):
            await losses.at_work()
            await losses.flush()
        await losses.at_work()

    toll = await losses.run(schedule)
    print(dict(losses.done), f"lost {toll.lost} of {len(toll.published)}, twice {toll.twice}")
    assert toll.twice == 0
    assert toll.lost < len(toll.published)
    assert len(losses.said("stream_state_lost")) == 3
    assert 0 < losses.replayed()["entries"] <= sum(toll.in_stream.values())
    assert losses.replayed()["agree"]


@pytest.mark.timeout(300)
async def test_any_other_key_deleted_under_load_loses_no_event_and_repeats_none(
    own_server: OwnServerFactory, tmp_path: Path
) -> None:
    losses = Losses(
        own_server(), tmp_path, seed=SEED, env={"SUMMARY_INTERVAL_SECONDS": 2, "ALERT_COOLDOWN_SECONDS": 9_000}
    )
    found: dict[str, int] = {}

    async def schedule(rng: random.Random) -> None:
        await losses.at_work()
        await losses.give_one_up()
        for pattern in rng.sample(sorted(KEYS), len(KEYS)):
            if pattern not in COME_AND_GO:
                await eventually(lambda: losses.matching(pattern), 30, what=f"there is {pattern}")  # noqa: B023
            found[pattern] = await losses.delete(pattern)
            await losses.at_work()
        await asyncio.sleep(1)

    toll = await losses.run(schedule)
    print(found, f"lost {toll.lost} of {len(toll.published)}, twice {toll.twice}")
    assert (toll.lost, toll.twice) == (0, 0)
    assert toll.told.keys() == toll.errors, "every error was told"
    again = {alert for alert, times in toll.told.items() if times > 1}
    assert len(again) < len(toll.errors) / 2, "again only where its cooldown was deleted"
    missing = {pattern for pattern, count in found.items() if not count}
    assert missing <= COME_AND_GO
    assert len(EXPERIMENTS) <= found["metrics_aggregated:*"]
