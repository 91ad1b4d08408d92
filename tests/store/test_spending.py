"""Budget and circuit breaker are one for all replicas, and hold whatever they do at once."""

import asyncio
import time

from redis.asyncio import Redis

from redis_agent.store import keys
from redis_agent.store.spending import Breaker, Refusal, Spending
from tests.waiting import eventually

QUICK = Breaker(threshold=3, open_ms=200, most_ms=60_000, trial_ms=300)


def spending(client: Redis, *, per_minute: int = 100, per_day: int = 1_000, breaker: Breaker = QUICK) -> Spending:
    return Spending(client, per_minute=per_minute, per_day=per_day, breaker=breaker)


async def refused_by(one: Spending) -> str:
    refusal = await one.admit()
    return "" if refusal is None else refusal.by


async def until_admitted(one: Spending) -> float:
    """Seconds until then."""
    began = time.monotonic()

    async def is_admitted() -> bool:
        return await one.admit() is None

    await eventually(is_admitted)
    return time.monotonic() - began


async def test_budget_of_the_minute_is_never_exceeded_by_many_at_once(raw: Redis) -> None:
    replicas = [spending(raw, per_minute=10) for _ in range(3)]
    refusals = await asyncio.gather(*(replicas[n % 3].admit() for n in range(200)))
    assert refusals.count(None) == 10
    assert {refusal.by for refusal in refusals if refusal is not None} == {"minute"}
    assert all(0 < refusal.left_ms <= 60_000 for refusal in refusals if refusal is not None)


async def test_minute_slides_so_that_no_two_bursts_stand_side_by_side(raw: Redis) -> None:
    one = spending(raw, per_minute=2)
    assert [await refused_by(one) for _ in range(3)] == ["", "", "minute"]
    # As if the first of the two had been made a minute ago, and the second just before.
    now_ms = time.time_ns() // 1_000_000
    await raw.delete(keys.LLM_CALLS)
    await raw.rpush(keys.LLM_CALLS, now_ms - 60_001, now_ms - 100)
    assert [await refused_by(one) for _ in range(2)] == ["", "minute"]


async def test_budget_of_the_day_holds_and_begins_anew_with_the_day(raw: Redis) -> None:
    one = spending(raw, per_day=3)
    assert [await refused_by(one) for _ in range(4)] == ["", "", "", "day"]
    await one.settle("ok", tokens_in=70, tokens_out=7)
    assert await raw.hmget(keys.LLM, ["calls", "tokens_in", "tokens_out"]) == [b"3", b"70", b"7"]
    await raw.hincrby(keys.LLM, "day", -1)
    assert await refused_by(one) == ""
    assert await raw.hmget(keys.LLM, ["calls", "tokens_in", "tokens_out"]) == [b"1", None, None]


async def test_budget_of_nothing_allows_nothing(raw: Redis) -> None:
    assert await refused_by(spending(raw, per_minute=0)) == "minute"
    assert await refused_by(spending(raw, per_day=0)) == "day"


async def test_lowered_budget_counts_the_calls_that_were_made_before(raw: Redis) -> None:
    for _ in range(5):
        assert await refused_by(spending(raw, per_minute=10)) == ""
    assert await refused_by(spending(raw, per_minute=5)) == "minute"


async def test_clock_that_was_set_back_refuses_nobody_for_long(raw: Redis) -> None:
    far_ms = time.time_ns() // 1_000_000 + 10 * 86_400_000
    await raw.rpush(keys.LLM_CALLS, far_ms, far_ms)
    await raw.hset(keys.LLM, mapping={"open_until": far_ms, "opened": 1, "trial_until": far_ms})
    assert await refused_by(spending(raw, per_minute=2)) == ""


async def test_circuit_opens_after_failures_in_a_row_of_all_replicas(raw: Redis) -> None:
    ann, bob = spending(raw), spending(raw)
    await ann.settle("failed")
    await bob.settle("failed")
    assert await refused_by(ann) == ""
    assert await ann.settle("failed") > 0
    assert await refused_by(bob) == "open"


async def test_success_between_failures_keeps_the_circuit_closed(raw: Redis) -> None:
    one = spending(raw)
    for outcome in ("failed", "failed", "ok", "failed", "failed"):
        assert await one.settle(outcome) == 0
    assert await refused_by(one) == ""


async def test_one_call_at_a_time_tries_whether_the_service_is_back(raw: Redis) -> None:
    one = spending(raw)
    for _ in range(3):
        await one.settle("failed")
    await until_admitted(one)
    assert await refused_by(one) == "open", "the trial is under way"
    assert await one.settle("ok") == 0
    assert [await refused_by(one) for _ in range(3)] == ["", "", ""]


async def test_circuit_opens_for_twice_as_long_each_time_in_a_row(raw: Redis) -> None:
    one = spending(raw)
    opened = [await one.settle("failed") for _ in range(3)][-1:]
    for _ in range(3):
        await until_admitted(one)
        opened.append(await one.settle("failed"))
    assert opened == [0.2, 0.4, 0.8, 1.6]
    assert await raw.ttl(keys.LLM) > 0


async def test_trial_that_never_ends_is_followed_by_another(raw: Redis) -> None:
    one = spending(raw)
    for _ in range(3):
        await one.settle("failed")
    await until_admitted(one)
    assert await until_admitted(one) >= 0.2


async def test_calls_that_were_under_way_do_not_keep_the_circuit_open_for_longer(raw: Redis) -> None:
    one = spending(raw)
    for _ in range(3):
        await one.settle("failed")
    assert [await one.settle("failed") for _ in range(20)] == [0] * 20
    assert await raw.hget(keys.LLM, "opened") == b"1"


async def test_rate_limit_opens_at_once_for_as_long_as_the_service_asks(raw: Redis) -> None:
    one = spending(raw)
    assert await one.settle("limited", asked_seconds=34.5) == 34.5
    refusal = await one.admit()
    assert isinstance(refusal, Refusal)
    assert (refusal.by, 30_000 < refusal.left_ms <= 34_500) == ("open", True)
    assert await one.settle("limited", asked_seconds=1e6) == 60, "no longer than the bound"


async def test_late_short_rate_limit_does_not_shorten_a_long_one(raw: Redis) -> None:
    one = spending(raw)
    await one.settle("limited", asked_seconds=30)
    await one.settle("limited", asked_seconds=1)
    refusal = await one.admit()
    assert refusal is not None
    assert refusal.left_ms > 20_000


async def test_answers_are_kept_for_their_time(raw: Redis) -> None:
    one = spending(raw)
    assert await one.known("f") is None
    await one.keep("f", '{"a": 1}', seconds=50)
    assert await one.known("f") == b'{"a": 1}'
    assert 0 < await raw.ttl(keys.llm_answer("f")) <= 50
