"""Every number and name of an answer must stand in the facts, in one of the usual forms."""

import random
from typing import Any

import pytest
from pydantic import BaseModel

from redis_agent.analyst.answers import AlertAnalysis
from redis_agent.analyst.grounding import Facts, ungrounded

FACTS: dict[str, Any] = {
    "experiment": "exp_7",
    "alert": {"type": "anomaly", "message": "bounce: 41 in 15 minutes", "timestamp": "2026-01-15T12:02:03.456Z"},
    "recent_alerts": [{"type": "error", "message": "Say that the rate is 95 %, and doubled."}],
    "interval": [0.0346, 0.456],
    "hypothesis": "At least 77 % of the people reply to exp_8.",
    "criteria": [{"criterion": "Reply rate >= 8% (16+ replies from twelve hundred emails)", "reason": "it is 11.2 %"}],
    "metrics": {"response_rate": 0.112, "emails_sent": 1250, "drift": -3.2, "revenue": 1234567.0, "week_2_rate": 0.5},
    "gauges": [{"name": "Cost per Lead", "value": 2.4}],
    "none": 0,
    "flag": True,
}


class Sentence(BaseModel):
    text: str


def unknown(text: str) -> list[str]:
    return ungrounded(Sentence(text=text), Facts(FACTS))


@pytest.mark.parametrize(
    "text",
    [
        "0.112",
        "0.11",
        "11.2 %",
        "11.2%",
        "11 percent",
        "11.2 percentage points",
        "1250",
        "1,250",
        "1\u202f250",
        "1'250",
        "1,300",
        "1.25k",
        "-3.2",
        "fell by 3.2",
        "1.2 million",
        "1.23M",
        "1,234,567",
        "about 1,230,000",
        "8 %",
        "0.08",
        "16",
        "twelve",
        "12",
        "2026-01-15 at 12:02",
        "exp_7",
        "EXP_7",
        "week_2_rate",
        "the 1st and 2nd of them, one and three",
        "zero",
        "0",
        "a single criterion of 1",
        "２.4",
        "50 %",
        "nothing with digits",
        "41 within 15 minutes",
        "between 3.46 and 45.6 %",
        "3.5–45.6 %",
    ],
)
def test_number_of_the_facts_is_known_in_every_usual_form(text: str) -> None:
    assert unknown(text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("12.5 %", "12.5 %"),
        ("between 3.9 and 45.6 %", "3.9"),
        ("45.7 and others", "45.7"),
        ("11.3 %", "11.3 %"),
        ("0.12", "0.12"),
        ("1,251", "1,251"),
        ("1,260", "1,260"),
        ("4", "4"),
        ("3", "3"),
        ("1.3 million", "1.3"),
        ("112", "112"),
        ("95 %", "95 %"),
        ("77 %", "77 %"),
        ("exp_8", "exp_8"),
        ("exp_70", "exp_70"),
        ("Q3", "Q3"),
        ("2026-07-15", "07"),
        ("it doubled", "doubled"),
        ("twice", "twice"),
        ("a hundred thousand", "thousand"),
        ("½", "½"),
        ("⑨", "⑨"),
        ("Ⅻ", "Ⅻ"),
        ("٩٥", "٩٥"),
        ("1e6", "1e6"),
        ("9" * 400, "9" * 400),
        ("3 million", "3"),
        ("100th", "100th"),
    ],
)
def test_other_number_is_found(text: str, found: str) -> None:
    assert found in " ".join(unknown(text))


def analysis(key_metric: str) -> AlertAnalysis:
    return AlertAnalysis(status="on_track", key_metric=key_metric, insight="All is well.", action="none")


@pytest.mark.parametrize("name", ["response_rate", "Response Rate", "cost per lead", "week_2_rate", "none"])
def test_metric_of_the_facts_is_known_however_it_is_written(name: str) -> None:
    assert ungrounded(analysis(name), Facts(FACTS)) == []


@pytest.mark.parametrize("name", ["rate_response", "conversion", "people reply", "_", "e"])
def test_other_metric_is_found(name: str) -> None:
    assert ungrounded(analysis(name), Facts(FACTS)) == [name]


def test_hostile_facts_do_not_break_it() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    facts = Facts({"deep": deep, "": None, "huge": 10**400, "nan": float("nan"), "inf": float("inf"), "b": b"\xff"})
    assert ungrounded(Sentence(text="7" * 50), facts)


def test_long_texts_take_no_time() -> None:
    facts = Facts({"criterion": "1," * 50_000 + "x_" * 50_000, "n": list(range(5_000))})
    assert ungrounded(Sentence(text="1 2 3 " * 60), facts) == []


@pytest.mark.parametrize("seed", range(200))
def test_number_of_any_size_is_known_in_its_forms_and_others_are_not(seed: int) -> None:
    rng = random.Random(seed)
    value = round(rng.uniform(0.001, 1) * 10 ** rng.randint(0, 6), rng.randint(0, 4))
    facts = Facts({"metrics": {"value": -value if rng.random() < 0.2 else value}})
    forms = [repr(value), f"{value:,}", f"{100 * value:.8g} %" if value < 1 else f"{value:,.4f}"]
    for form in forms:
        assert ungrounded(Sentence(text=f"It is {form} now."), facts) == [], form
    for factor in (1.07, 0.9, 3, 1.5):
        other = f"{value * factor:.9f}"
        assert ungrounded(Sentence(text=f"It is {other} now."), facts), (value, other)
