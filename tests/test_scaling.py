"""The plan past one server: it meets a measured point, keeps everybody below the limit, and stands in its page."""

import json
from typing import Any

import pytest

from bench.scaling import (
    BEGIN,
    END,
    FIGURES,
    PAGE,
    RATES,
    WAYS,
    Assumptions,
    Costs,
    limit,
    on_this_machine,
    plan,
    report,
)

FEW, MANY = 20, 500
ASSUMED = Assumptions()


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FIGURES.read_text("utf-8"))
    return found


def test_the_page_says_what_the_model_says(figures: dict[str, Any]) -> None:
    _, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    assert rest.partition(END)[0].strip().splitlines() == list(report(1_000_000, figures, ASSUMED))


def test_the_whole_way_manages_what_a_plan_promises_and_no_more_than_its_parts_add_up_to(
    figures: dict[str, Any],
) -> None:
    whole = figures["whole"]
    cores = figures["machine"]["cores"] - whole["others_cores"]
    predicted = on_this_machine(Costs.measured(figures, experiments=FEW), cores)
    assert ASSUMED.busy * predicted < whole["per_second"] < predicted


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("experiments", [FEW, MANY])
def test_a_plan_keeps_everybody_below_the_limit_and_grows_with_the_rate(
    figures: dict[str, Any], way: str, experiments: int
) -> None:
    costs = Costs.measured(figures, experiments=experiments)
    plans = [plan(way, rate, costs, ASSUMED) for rate in RATES]
    found = [one for one in plans if one is not None]

    assert plans[: len(found)] == found, "a way that has ended does not begin again"
    assert all(0 < one.busiest[1] <= ASSUMED.busy for one in found)
    assert [one.cores for one in found] == sorted(one.cores for one in found)
    assert all(one.workers * ASSUMED.busy * 1e6 >= one.per_second * costs.worker for one in found)
    assert all(one.a_month(ASSUMED) > 0 for one in found)


def test_a_limit_is_where_a_plan_is_possible_and_soon_none_is(figures: dict[str, Any]) -> None:
    costs = Costs.measured(figures, experiments=FEW)
    for way in ("one server", "cluster, PUBLISH"):
        rate, _ = limit(way, costs, ASSUMED)
        assert plan(way, rate, costs, ASSUMED) is not None
        assert plan(way, rate + rate // 500, costs, ASSUMED) is None


def test_what_every_node_hears_ends_where_shards_go_on(figures: dict[str, Any]) -> None:
    costs = Costs.measured(figures, experiments=FEW)
    broadcast, _ = limit("cluster, PUBLISH", costs, ASSUMED)
    assert limit("one server", costs, ASSUMED)[0] < broadcast < 1_000_000
    assert plan("cluster, SPUBLISH", 1_000_000, costs, ASSUMED) is not None


def test_no_number_of_primaries_helps_a_bridge_that_hears_too_much(figures: dict[str, Any]) -> None:
    costs = Costs.measured(figures, experiments=FEW)
    too_much = int(ASSUMED.busy * 1e6 / (costs.bridge_hear + costs.route)) + 1
    assert plan("cluster, PUBLISH", too_much, costs, ASSUMED) is None
