"""The grammar reads what people write, prints it back, and refuses the rest readably."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_agent.criteria import CriterionError, parse, parse_flag, parse_formula, understand

CANONICAL = [
    ("response_rate > 0.1", "response_rate > 0.1"),
    ("response_rate < 0.02 after 100 sends", "response_rate < 0.02 after 100 sends"),
    ("accept_rate < 0.15 after 30 requests", "accept_rate < 0.15 after 30 requests"),
    ("spam_complaints > 2", "spam_complaints > 2"),
    ("a<1", "a < 1"),
    ("a = 1", "a == 1"),
    ("a ≥ 1 and b ≤ 2 and c ≠ 3", "a >= 1 and b <= 2 and c != 3"),
    ("a <> 1", "a != 1"),
    ("0.1 < x <= 0.3", "0.1 < x <= 0.3"),
    ("a > 1 AND b > 2 Or c > 3", "a > 1 and b > 2 or c > 3"),
    ("a > 1 && (b > 2 || c > 3)", "a > 1 and (b > 2 or c > 3)"),
    ("(a > 1 and b > 2) and c > 3", "a > 1 and b > 2 and c > 3"),
    ("not a > 1", "not a > 1"),
    ("!(a > 1 or b)", "not (a > 1 or b: true)"),
    ("replies / emails_sent * 100 >= 8%", "replies / emails_sent * 100 >= 8%"),
    ("(a + b) * c > 1", "(a + b) * c > 1"),
    ("a - (b - c) > 1", "a - (b - c) > 1"),
    ("(a - b) - c > 1", "a - b - c > 1"),
    ("a / (b * c) > 1", "a / (b * c) > 1"),
    ("-a > -1", "-a > -1"),
    ("-(a + b) < 0", "-(a + b) < 0"),
    ("a > 1,000", "a > 1000"),
    ("a > 1_000_000", "a > 1000000"),
    ("a > 1e3", "a > 1000"),
    ("a > .5", "a > 0.5"),
    ("a > 10 %", "a > 10%"),
    ("sent-bounced > 3", "sent - bounced > 3"),
    ("`click-through` > 3", "`click-through` > 3"),
    ("latency.p99 > 3", "latency.p99 > 3"),
    ("account_restricted", "account_restricted: true"),
    ("account_restricted: true", "account_restricted: true"),
    ("account_restricted == true", "account_restricted: true"),
    ("account_restricted != TRUE", "account_restricted: false"),
    ("account_restricted: no", "account_restricted: false"),
    ("true == account_restricted", "account_restricted: true"),
    ("a > 1 after 7 days", "a > 1 after 7 days"),
    ("a > 1 after 7d", "a > 1 after 7 days"),
    ("a > 1 after 24 hours", "a > 1 after 24 hours"),
    ("a > 1 after 30 min", "a > 1 after 30 minutes"),
    ("a > 1 after 1 day", "a > 1 after 1 day"),
    ("a > 1 within 2 weeks", "a > 1 within 2 weeks"),
    ("a > 1 after 100 sends within 2 weeks", "a > 1 after 100 sends within 2 weeks"),
    ("a > 1 after 100 emails sent or b", "a > 1 after 100 emails sent or b: true"),
    ("(a > 1 or b > 2) after 7 days", "(a > 1 or b > 2) after 7 days"),
    ("(not a > 1) after 7 days", "(not a > 1) after 7 days"),
    ("a > 1 after 1,000 messages", "a > 1 after 1000 messages"),
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL)
def test_a_criterion_prints_in_one_canonical_form_that_reads_back(text: str, canonical: str) -> None:
    criterion = parse(text)
    assert criterion.text == canonical
    assert parse(canonical) == criterion


REFUSED = [
    ("", "nothing here"),
    ("   ", "nothing here"),
    ("a >", "too soon"),
    ("> 3", "unexpected '>'"),
    ("reply rate > 8%", "unexpected 'rate'"),
    ("(a > 1", "expected ')'"),
    ("a > 1)", "unexpected ')'"),
    ("a > 0,5", "0.5"),
    ("1 < 2", "names no metric"),
    ("true", "no condition"),
    ("3", "no condition"),
    ("a + b", "no condition"),
    ("(a > 1) + 2 > 3", "no number"),
    ("(0.1 < x) <= 0.3", "no number"),
    ("a: 5", "name: true"),
    ("a > true", "true and false"),
    ("a > 1 after days", "needs a number"),
    ("a > 1 after 10% sends", "needs a number"),
    ("a > 1 after 100", "what to count"),
    ("a > 1 within 100 sends", "needs a time"),
    ("a > 1 within 3m", "minutes or months"),
    ("a > 1 after 3 m", "minutes or months"),
    ("a > 1 after 7 days of work", "'of'"),
    ("a > 1 after 1000 years", "100 years"),
    ("after 7 days", "unexpected 'after'"),
    ("a > 1e999", "too large"),
    ("a > 5 $", "'$'"),
    ("`a > 5", "backtick"),
    ("a > __import__('os')", "unexpected"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_is_not_understood_is_refused_in_one_readable_line(text: str, words: str) -> None:
    with pytest.raises(CriterionError) as refused:
        parse(text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert 0 <= refused.value.position <= len(text)


def test_an_error_names_the_place() -> None:
    with pytest.raises(CriterionError) as refused:
        parse("a > 1 and reply rate > 2")
    assert refused.value.position == 16
    assert "character 17" in str(refused.value)


def test_clauses_bind_tighter_than_and_and_or() -> None:
    assert parse("a > 1 and b > 2 after 7 days") == parse("a > 1 and (b > 2 after 7 days)")
    assert parse("a > 1 and b > 2 after 7 days") != parse("(a > 1 and b > 2) after 7 days")


def test_a_flag_object_reads_like_the_flag_and_takes_any_name() -> None:
    assert parse_flag("blocked_by_twitter", True) == parse("blocked_by_twitter: true")
    assert parse_flag("blocked by twitter", False).text == "`blocked by twitter`: false"
    assert parse_flag("and", True).names == ("and",)
    for name in ("", "  ", "a`b", "x" * 3_000):
        with pytest.raises(CriterionError):
            parse_flag(name, True)


def test_a_criterion_says_what_it_reads_and_whether_the_clock_matters() -> None:
    assert parse("a > b and not c after 7 days and a < 3").names == ("a", "b", "c")
    assert parse("a > 1 or (b > 2 and not (c > 3 within 1 week))").has_time_clause
    assert not parse("a > 1 after 100 sends").has_time_clause


def test_a_formula_is_arithmetic_with_a_scale() -> None:
    assert parse_formula("(replies / emails_sent) * 100").scale == 100.0
    assert parse_formula("100 * replies / emails_sent").scale == 100.0
    assert parse_formula("replies / emails_sent").scale == 1.0
    assert parse_formula("replies / emails_sent").names == ("replies", "emails_sent")
    for text in ("a > 1", "a and b", "", "a: true", "true"):
        with pytest.raises(CriterionError):
            parse_formula(text)


def test_long_and_deep_texts_are_refused_at_once() -> None:
    hostile = [
        "a > 1 and " * 1_000,
        "(" * 1_900 + "a",
        "not " * 400 + "a",
        "-" * 1_900 + "a > 1",
        "+".join("a" * 900) + " > 1",
        "a" * 1_000_000,
    ]
    for text in hostile:
        started = time.perf_counter()
        with pytest.raises(CriterionError):
            parse(text)
        assert time.perf_counter() - started < 0.1


def test_many_alternatives_are_not_deep() -> None:
    text = " or ".join(f"m{index} > {index}" for index in range(120))
    assert len(parse(text).names) == 120
    assert parse(parse(text).text) == parse(text)


def test_what_is_no_text_is_refused_like_any_other() -> None:
    for value in (None, 3, b"a > 1", ["a > 1"]):
        with pytest.raises(CriterionError):
            understand(value)  # type: ignore[arg-type]


names = st.sampled_from(["a", "emails_sent", "latency.p99", "click-through", "not", "ünï"])
numbers = st.one_of(st.integers(0, 10**20), st.floats(0, 1e300, allow_nan=False, allow_infinity=False))


def quoted(name: str) -> str:
    return f"`{name}`"


terms = st.recursive(
    st.one_of(names.map(quoted), numbers.map(str), st.integers(0, 200).map(lambda n: f"{n}%")),
    lambda inner: st.one_of(
        inner.map(lambda text: f"-({text})"),
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
    ),
    max_leaves=8,
)
operators = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
clauses = st.sampled_from(["", " after 10 sends", " after 2.5 days", " within 3 weeks after 1 h"])
atoms = st.one_of(
    st.tuples(names.map(quoted), operators, terms).map(" ".join),
    st.tuples(terms, operators, names.map(quoted), operators, terms).map(" ".join),
    names.map(lambda name: f"`{name}`: false"),
)
conditions = st.recursive(
    st.tuples(atoms, clauses).map("".join),
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner, clauses).map(
            lambda parts: f"(({parts[0]}) {parts[1]} ({parts[2]})){parts[3]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(conditions)
def test_parsing_printing_and_parsing_again_changes_nothing(text: str) -> None:
    criterion = parse(text)
    assert parse(criterion.text) == criterion
    assert parse(criterion.text).text == criterion.text


symbols = ["<", ">=", "==", "=", "!", "(", ")", "+", "-", "*", "/", "%", ",", ":", "`", "≥", "."]
keywords = ["not", "and", "or", "true", "false", "after", "within", "days", "sends"]
words = st.sampled_from([*symbols, *keywords, "a", "b", "10", "0.5", "1e3", "7d"])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(words, max_size=40).map(" ".join)))
def test_any_text_is_either_understood_or_refused(text: str) -> None:
    try:
        criterion = parse(text)
    except CriterionError:
        return
    assert parse(criterion.text) == criterion
