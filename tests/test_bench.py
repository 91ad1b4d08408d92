"""The benchmarks measure what they say: every event is counted, and what is published is what was found."""

import json
from collections.abc import Iterator

import pytest
import redis
from redis.asyncio import Redis

from bench import page, rates
from bench.crews import Crew
from bench.goals import goals
from bench.growth import Point
from bench.latency import Latency
from bench.peers.work import FOLD_ONE, fold_many, fold_one
from bench.pubsub import Step
from bench.rates import Loop, Rate
from bench.report import as_markdown
from bench.run import Compared, Run
from bench.workload import Workload, events
from redis_agent.store import keys
from tests.conftest import OwnServerFactory

WORKLOAD = Workload("small", 200, 3)


@pytest.fixture
def own_client(own_server: OwnServerFactory) -> Iterator[tuple[redis.Redis, str]]:
    """A server that a benchmark may empty."""
    server = own_server()
    with redis.Redis.from_url(server.url, protocol=2) as client:
        yield client, server.url


def test_what_folds_a_stream_folds_all_of_it(own_client: tuple[redis.Redis, str]) -> None:
    client, url = own_client
    loops = [Loop(name, 1_000) for name in ("by_hand", "worker")]

    found = rates.measure(client, url, WORKLOAD, loops, rounds=1)

    assert [(rate.loop, rate.events, rate.lost) for rate in found] == [(loop.name, 200, 0) for loop in loops]


async def test_an_event_and_a_batch_are_folded_into_the_same_fields(client: Redis) -> None:
    texts = [event.decode() for event in events(WORKLOAD)]
    sha = await client.script_load(FOLD_ONE)
    for text in texts:
        names, arguments = fold_one(text, json.loads(text))
        await client.evalsha(sha, len(names), *names, *arguments)
    one_by_one = await _state(client)
    await client.flushdb()

    for n in range(0, len(texts), 30):
        await fold_many(client, [(text, json.loads(text)) for text in texts[n : n + 30]])

    assert await _state(client) == one_by_one
    assert sum(state["events_total"] for state, _ in one_by_one) == WORKLOAD.events


async def _state(client: Redis) -> list[tuple[dict[str, float], list[str]]]:
    found = []
    for n in range(WORKLOAD.experiments):
        fields = await client.hgetall(keys.aggregate(f"exp_{n:04d}"))
        numbers = {
            n: round(float(text), 6) for n, text in fields.items() if n not in ("first_event_at", "last_updated")
        }
        found.append((numbers, await client.lrange(keys.raw_events(f"exp_{n:04d}"), 0, -1)))
    return found


def rate(loop: str, per_second: float, server_us: float = 2.0, client_us: float = 3.0) -> Rate:
    return Rate(loop, 100, per_second, server_us, client_us, 0.0, 70.0, 9.0, 0, [int(per_second)])


def crews(*, bare: float, workers: float) -> list[Crew]:
    """One process of each and two."""
    one = [Crew(1, rate("api", 100)), Crew(1, rate("worker", 70))]
    return [*one, Crew(2, rate("api", bare)), Crew(2, rate("worker", workers))]


def step(reader: str, per_second: int, problem: str = "") -> Step:
    return Step(reader, 300, per_second, 1.0, 0, 0.0, problem)


@pytest.fixture
def run() -> Run:
    """A run whose worker does 70 where the bare loop does 100."""
    peers = {"faststream_batch": 14.0, "faststream_folded": 30.0, "faststream_single": 2.0}
    peers |= {"taskiq": 3.0, "streaq": 2.0, "docket": 1.0}
    loops = {
        "api": 100.0,
        "api_large": 90.0,
        "bare": 130.0,
        "bare_large": 140.0,
        "by_hand": 40.0,
        "worker": 70.0,
        "naive_full": 1.0,
        **peers,
    }
    machine = {"at": "2026-01-01", "cores": 2, "cpu": "c", "system": "s", "python": "3", "server": "valkey"}
    machine |= {"redis": "8", "hiredis": "3", "pydantic": "2"}
    return Run(
        machine=machine,
        compared={"main": Compared(WORKLOAD, [rate(*loop) for loop in loops.items()])},
        crews=crews(bare=150, workers=112),
        growth=[Point("experiments", n, rate("api", 100), rate("worker", 70, n)) for n in (1, 10)],
        latency=[Latency(way, 1_000, 10, 0, 1.0, p99, p99, p99) for way, p99 in (("alone", 1.0), ("alert", 9.0))],
        bridge=[step("raw", 100), step("bridge", 60, "falls behind"), step("bridge", 40)],
    )


def test_each_goal_is_held_against_what_was_found(run: Run) -> None:
    verdicts = {goal.name.partition(",")[0]: (round(goal.ratio, 3), goal.met) for goal in goals(run)}

    assert verdicts["worker / bare loop"] == (0.7, True)
    assert verdicts["worker / bare loop with raw replies"] == (0.5, False)
    assert verdicts["worker / FastStream"] == (35.0, True)
    assert verdicts["two workers / one"] == (1.6, True)
    assert verdicts["highest / lowest CPU per event: events spread over 1 to 10 experiments"] == (3.25, False)
    assert verdicts["p99 publish to alert at 1"] == (1.125, False)
    assert verdicts["bridge / raw reader"] == (0.4, False)


def test_two_processes_need_not_gain_more_than_two_bare_loops(run: Run) -> None:
    run.crews = crews(bare=110, workers=77)

    (goal,) = (goal for goal in goals(run) if goal.name == "two workers / one")

    assert (goal.goal, goal.met) == (pytest.approx(1.1), True)


def test_a_run_comes_back_from_its_json(run: Run) -> None:
    assert Run.from_json(json.loads(json.dumps(run.as_json()))) == run


def test_tables_are_put_between_the_marks_alone() -> None:
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"

    assert page.replaced(text, "new") == f"before\n{page.BEGIN}\n\nnew\n\n{page.END}\nafter\n"
    with pytest.raises(ValueError, match="lacks"):
        page.replaced("before\nafter\n", "new")


def test_the_published_tables_are_those_of_the_published_run() -> None:
    published = Run.from_json(json.loads((page.DOCS / "benchmarks.json").read_text("utf-8")))

    assert as_markdown(published) in (page.DOCS / "benchmarks.md").read_text("utf-8")
