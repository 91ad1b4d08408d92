"""Metrics are found under the names that people use, and say why when they are not."""

from __future__ import annotations

import pytest

from redis_agent.criteria import Metrics, MetricSpec, Number, Reading, parse_formula
from redis_agent.criteria.names import name_key


def counter(name: str) -> MetricSpec:
    return MetricSpec(name, "counter")


def formula(name: str, text: str) -> MetricSpec:
    return MetricSpec(name, "percentage", parse_formula(text))


def read(name: str, fields: dict[str, str], *specs: MetricSpec) -> Reading:
    return Metrics.from_hash(fields, specs).read(name)


RATE = formula("reply_rate", "replies / emails_sent")


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("email_sent", "emails_sent"),
        ("reply", "replies"),
        ("bounce", "bounces"),
        ("match", "matches"),
        ("response", "responses"),
        ("status", "statuses"),
        ("address", "addresses"),
        ("Positive_Reply", "positive-replies"),
        ("dm_sent", "dms_sent"),
    ],
)
def test_singular_and_plural_have_one_key(singular: str, plural: str) -> None:
    assert name_key(singular) == name_key(plural)


@pytest.mark.parametrize(
    ("one", "other"),
    [("class", "clas"), ("status", "statu"), ("analysis", "analysi"), ("reply", "reply_sent")],
)
def test_words_that_only_look_alike_stay_apart(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)


def test_each_kind_of_field_is_read_under_its_metric_name() -> None:
    fields = {
        "email_sent_count": "25",
        "bounce_rate_latest": "0.04",
        "bounce_rate_samples": "3",
        "bounce_rate_max": "0.06",
        "open_rate": "0.3",
        "events_total": "28",
    }
    assert read("email_sent", fields) == Reading("email_sent", 25.0, kind="counter")
    assert read("bounce_rate", fields) == Reading("bounce_rate", 0.04, kind="gauge")
    assert read("open_rate", fields) == Reading("open_rate", 0.3, kind="fact")
    assert read("bounce_rate_max", fields).value == 0.06
    assert read("email_sent_count", fields).kind == "counter"
    assert read("events_total", fields).kind == "counter"


def test_a_plural_metric_reads_its_singular_event() -> None:
    assert read("emails_sent", {"email_sent_count": "25"}).value == 25.0
    assert read("replies", {"reply_count": "3"}).value == 3.0
    assert read("Bounces", {"bounce_latest": "2"}).value == 2.0


def test_the_exact_name_wins_over_a_similar_one() -> None:
    fields = {"replies_count": "7", "reply_count": "3"}
    assert read("replies", fields).value == 7.0
    assert read("reply", fields).value == 3.0


def test_two_similar_names_are_not_guessed_between() -> None:
    reading = read("Reply", {"replies_count": "7", "reply_count": "3"})
    assert reading.value is None
    assert reading.reason == "Reply could be replies or reply"


def test_a_rate_over_counts_keeps_its_counts_and_its_scale() -> None:
    fields = {"email_sent_count": "250", "reply_count": "28"}
    rate = read("reply_rate", fields, RATE)
    assert (rate.kind, rate.successes, rate.trials, rate.scale) == ("rate", 28, 250, 1.0)
    assert rate.value == pytest.approx(0.112)
    percent = read("reply_rate", fields, formula("reply_rate", "(replies / emails_sent) * 100"))
    assert (percent.kind, percent.successes, percent.trials) == ("rate", 28, 250)
    assert percent.scale == 100.0
    assert percent.value == pytest.approx(11.2)
    first = read("reply_rate", fields, formula("reply_rate", "100 * replies / emails_sent"))
    assert (first.kind, first.successes, first.scale) == ("rate", 28, 100.0)


def test_a_rate_of_sums_of_counts_is_a_rate() -> None:
    fields = {"bounce_count": "3", "complaint_count": "2", "email_sent_count": "100"}
    rate = read("trouble", fields, formula("trouble", "(bounces + complaints) / emails_sent"))
    assert (rate.kind, rate.successes, rate.trials) == ("rate", 5, 100)


def test_formulas_in_formulas_keep_the_rate() -> None:
    fields = {"email_sent_count": "250", "reply_count": "28"}
    rate = read("percent", fields, RATE, formula("percent", "reply_rate * 100"))
    assert (rate.kind, rate.successes, rate.trials, rate.scale) == ("rate", 28, 250, 100.0)


def test_other_arithmetic_on_a_rate_only_remembers_the_fewest_trials() -> None:
    fields = {"email_sent_count": "250", "reply_count": "28"}
    value = read("quiet", fields, RATE, formula("quiet", "1 - reply_rate"))
    assert (value.kind, value.successes, value.trials) == ("derived", None, 250)


def test_a_formula_over_gauges_is_no_rate_over_counts() -> None:
    fields = {"revenue_latest": "50", "costs_latest": "20"}
    value = read("margin", fields, formula("margin", "revenue / costs"))
    assert (value.kind, value.value, value.trials) == ("derived", 2.5, None)


def test_a_formula_whose_operand_was_never_seen_is_unknown() -> None:
    reading = read("reply_rate", {"email_sent_count": "250"}, RATE)
    assert reading.value is None
    assert reading.reason == "no data for replies yet; declared as a counter, it would be 0"


def test_a_declared_counter_is_zero_once_there_are_events_and_unknown_before() -> None:
    specs = (RATE, counter("replies"), counter("emails_sent"))
    later = {"email_sent_count": "250", "events_total": "250"}
    assert read("replies", later, *specs).value == 0.0
    assert read("reply_rate", later, *specs).value == 0.0
    assert read("reply", later, *specs).value == 0.0
    before = read("replies", {}, *specs)
    assert (before.value, before.reason) == (None, "replies is unknown before the first event")
    assert read("replies", {"events_total": "0"}, *specs).value is None


def test_a_gauge_wins_over_a_formula_with_assumed_zeros() -> None:
    specs = (RATE, counter("replies"), counter("emails_sent"))
    fields = {"reply_rate_latest": "0.15", "events_total": "1"}
    assert read("reply_rate", fields, *specs).value == 0.15
    fields["email_sent_count"] = "100"
    assert read("reply_rate", fields, *specs).value == 0.15
    fields["reply_count"] = "3"
    assert read("reply_rate", fields, *specs).value == pytest.approx(0.03)


def test_a_plain_field_stands_in_for_a_formula_without_operands() -> None:
    assert read("reply_rate", {"reply_rate": "0.2"}, RATE).value == 0.2


def test_nothing_over_nothing_is_unknown() -> None:
    fields = {"email_sent_count": "0", "reply_count": "0"}
    reading = read("reply_rate", fields, RATE)
    assert reading.value is None
    assert "emails_sent is 0" in reading.reason
    fields["reply_count"] = "3"
    assert read("reply_rate", fields, RATE).value is None


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "twelve", "", "1e999"])
def test_what_is_no_finite_number_is_unknown(text: str) -> None:
    reading = read("x", {"x_latest": text})
    assert (reading.value, reading.reason) == (None, "x is not a number")


def test_a_result_beyond_all_numbers_is_unknown() -> None:
    reading = read("x", {"a_latest": "1e300"}, formula("x", "a * a"))
    assert reading.value is None
    assert "too large" in reading.reason


def test_formulas_in_a_circle_are_unknown() -> None:
    specs = (formula("a", "b + 1"), formula("b", "c + 1"), formula("c", "a + 1"))
    for name in "abc":
        reading = read(name, {"x_count": "1"}, *specs)
        assert reading.value is None
        assert "refers to itself" in reading.reason
    assert read("d", {}, formula("d", "d * 2")).value is None


def test_a_long_chain_of_formulas_costs_no_recursion() -> None:
    specs = [formula(f"m{index}", f"m{index + 1} + 1") for index in range(2_000)]
    assert read("m0", {"m2000_count": "5"}, *specs).value == 2_005.0


def test_a_percentage_without_a_formula_takes_its_scale_from_its_thresholds() -> None:
    fields = {"open_rate_latest": "35"}
    percent = MetricSpec("open_rate", "percentage", success_threshold=Number(40.0))
    ratio = MetricSpec("open_rate", "percentage", success_threshold=Number(0.4))
    assert read("open_rate", fields, percent).scale == 100.0
    assert read("open_rate", fields, ratio).scale == 1.0
    assert read("open_rate", fields).scale == 1.0


@pytest.mark.parametrize(
    ("spec", "scale"),
    [
        (MetricSpec("open_rate", "gauge", success_threshold=Number(40.0)), 100.0),
        (MetricSpec("open_rate", "gauge", success_threshold=Number(0.4)), 1.0),
        (MetricSpec("open_rate", "gauge", unit="%"), 100.0),
        (MetricSpec("open_rate", "gauge", unit="%", success_threshold=Number(0.4)), 1.0),
        (MetricSpec("click_pct", "gauge"), 100.0),
        (MetricSpec("roas", "gauge", success_threshold=Number(3.0)), 1.0),
        (MetricSpec("hourly_rate", "gauge", unit="USD", success_threshold=Number(80.0)), 1.0),
        (MetricSpec("cost_per_conversion", "gauge", success_threshold=Number(20.0)), 1.0),
        (MetricSpec("conversion", "counter", success_threshold=Number(20.0)), 1.0),
    ],
)
def test_a_share_has_a_scale_whatever_its_type_is_called(spec: MetricSpec, scale: float) -> None:
    assert spec.scale == scale


def test_a_named_value_that_is_declared_a_counter_counts() -> None:
    fields = {"emails_sent_latest": "40", "replies_latest": "4"}
    rate = read("reply_rate", fields, RATE, counter("emails_sent"), counter("replies"))
    assert (rate.kind, rate.successes, rate.trials) == ("rate", 4, 40)


COUNTS = {
    "email_sent_count": "37",
    "email_opened_count": "20",
    "connection_request_sent_count": "30",
    "dm_sent_count": "12",
    "reply_count": "4",
    "message_sent_count": "9",
    "events_total": "112",
}


@pytest.mark.parametrize(
    ("noun", "prefer", "value"),
    [
        ("sends", ("reply_rate",), 37),
        ("emails", ("reply_rate",), 37),
        ("emails sent", (), 37),
        ("emails", (), 37),
        ("messages", (), 9),
        ("requests", (), 30),
        ("connection requests", (), 30),
        ("dms", (), 12),
        ("replies", (), 4),
        ("opens", (), 20),
        ("email_sent", (), 37),
        ("events", (), 112),
        ("sends", ("dm_rate",), 12),
    ],
)
def test_what_is_counted_is_found_by_its_noun(noun: str, prefer: tuple[str, ...], value: int) -> None:
    metrics = Metrics.from_hash(COUNTS, (RATE, formula("dm_rate", "replies / dms_sent")))
    assert metrics.count_for(noun, prefer).value == value


def test_a_noun_that_fits_several_counters_or_none_is_unknown() -> None:
    metrics = Metrics.from_hash(COUNTS)
    several = metrics.count_for("sends")
    assert several.value is None
    assert "could be" in several.reason
    none = metrics.count_for("parcels")
    assert (none.value, none.reason) == (None, "no counter is known for parcels yet")


def test_the_noun_falls_back_from_the_rates_own_denominator_to_the_only_candidate() -> None:
    spec = formula("response_rate", "replies / emails_delivered")
    fields = {"email_sent_count": "120", "email_delivered_count": "110", "reply_count": "2"}
    metrics = Metrics.from_hash(fields, [spec])
    assert metrics.count_for("sends", ["response_rate"]).value == 120
    assert metrics.count_for("emails", ["response_rate"]).value == 110


def test_samples_are_whatever_the_rate_is_divided_by() -> None:
    metrics = Metrics.from_hash(COUNTS, (RATE, formula("dm_rate", "replies / dms_sent")))
    assert metrics.count_for("samples", ["reply_rate"]).value == 37
    assert metrics.count_for("samples", ["dm_rate"]).value == 12
    assert metrics.count_for("samples", ["bounce_rate"]).value is None


def test_a_declared_counter_can_be_waited_for() -> None:
    metrics = Metrics.from_hash({"events_total": "3", "x_count": "3"}, [counter("emails_sent")])
    assert metrics.count_for("sends").value == 0.0
