"""The ledger counts what is lost and what is twice, event by event: fault runs rely on it."""

import random

from redis.asyncio import Redis

from tests.fault.havoc import Verdict
from tests.ledger import Ledger, account


async def test_lost_and_repeated_events_are_counted_one_by_one(redis_url: str) -> None:
    ledger = Ledger(random.Random(1))
    events = [ledger.next_event() for _ in range(300)]
    lost, not_applied, written_twice, applied_twice = 7, 30, 100, 200
    async with Redis.from_url(redis_url) as client:
        for number, event in enumerate(events, 1):
            for _ in range((number != lost) + (number == written_twice)):
                await client.xadd("fullsend:metrics:stream", {"data": event})
            for _ in range((number not in (lost, not_applied)) + (number in (written_twice, applied_twice))):
                if event in ledger.hostile:
                    await client.xadd("fullsend:metrics:dead", {"data": event})
                else:
                    experiment = next(e for e, known in ledger.raw.items() if event in known)
                    await client.rpush(f"metrics:{experiment}", event)
        found = await account(client, ledger)

    assert (found.lost, found.twice) == ([lost, not_applied], [written_twice, applied_twice])
    assert found.alerts_lost == len(ledger.errors) > 0
    verdict = Verdict(300, [(0, "first"), (90, "second"), (90, "third")], found, gaps=0, redelivered=0)
    assert not verdict.faultless
    assert [line.split() for line in str(verdict).splitlines()[1:5]] == [
        ["first", "1", "2", "0"],
        ["second", "1", "0", "2"],
        ["third", "1", "0", "2"],
        ["all", "3", "2", "2"],
    ]
