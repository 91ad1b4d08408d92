"""What is kept of analyses stays with its alert: the first that is made counts, and it goes when the alert goes."""

import pytest
from redis.asyncio import Redis

from redis_agent.store import keys
from redis_agent.store.analyses import KeptAnalyses
from redis_agent.store.outbox import Delivery, Outbox, Raise


async def raised(raw: Redis, count: int, *, first: int = 0) -> list[str]:
    """Ids of the alerts in the outbox, after so many more were raised."""
    alerts = [Raise("e", "error", f"f{n}", 100, f"e{n}", "{}", 0) for n in range(first, first + count)]
    await Outbox(raw).raise_(alerts)
    return [entry_id.decode() for entry_id, _ in await raw.xrange(keys.OUTBOX)]


async def test_the_first_analysis_of_an_alert_is_the_one_that_counts(raw: Redis) -> None:
    kept = KeptAnalyses(raw)
    assert await kept.keep("1-1", "first") == "first"
    assert await kept.keep("1-1", "second") == "first"
    assert await kept.of(["1-0", "1-1"]) == {"1-1": "first"}
    assert await kept.of([]) == {}


async def test_analyses_go_with_the_alerts_that_are_trimmed(raw: Redis) -> None:
    kept = KeptAnalyses(raw)
    ids = await raised(raw, 30)
    for entry_id in ids:
        await kept.keep(entry_id, "{}")
    await Outbox(raw).trim(10)
    assert {field.decode() for field in await raw.hkeys(keys.ANALYSES)} == set(ids[20:])


async def test_what_belongs_to_no_alert_any_more_is_swept_away(raw: Redis) -> None:
    kept = KeptAnalyses(raw)
    (entry_id,) = await raised(raw, 1)
    for name in (entry_id, "1-1", "2-7", "not an id"):
        await kept.keep(name, "{}")
    await kept.sweep()
    assert await raw.hkeys(keys.ANALYSES) == [entry_id.encode()]
    await raw.delete(keys.OUTBOX)
    await kept.sweep()
    assert not await raw.exists(keys.ANALYSES)


@pytest.mark.parametrize("in_the_way", [keys.ANALYSES, keys.OUTBOX])
async def test_key_of_another_type_costs_nothing_but_what_it_holds(raw: Redis, in_the_way: str) -> None:
    await raw.set(in_the_way, "x")
    kept = KeptAnalyses(raw)
    assert await kept.keep("1-1", "own") == "own"
    assert await kept.of(["1-1"]) == ({} if in_the_way == keys.ANALYSES else {"1-1": "own"})
    await kept.sweep()


async def test_alerts_behind_one_are_seen_without_anything_being_changed(raw: Redis) -> None:
    delivery = Delivery(reader=raw, client=raw, consumer="me", channel="c")
    await delivery.ensure_group()
    ids = await raised(raw, 5)
    assert [entry.id for entry in await delivery.ahead(ids[1], 2)] == ids[2:4]
    assert await delivery.ahead(ids[-1], 10) == []
    (group,) = await raw.xinfo_groups(keys.OUTBOX)
    assert (group["pending"], group["lag"]) == (0, 5)
