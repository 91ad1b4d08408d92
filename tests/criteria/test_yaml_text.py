"""YAML comes in as plain values, and nothing hostile costs time, memory or more than a line."""

import contextlib
import re
import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_agent.criteria import yaml_text
from redis_agent.criteria.yaml_text import YamlError, from_cut_yaml, from_yaml

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


@pytest.fixture(params=["libyaml", "python"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without the C library, which not every platform's wheel carries."""
    if request.param == "python":
        monkeypatch.setattr(yaml_text, "_LOADER", yaml.SafeLoader)
    return str(request.param)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("On", "On"),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("-3", -3),
        ("1_000", 1000),
        ("0.08", 0.08),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("007", "007"),
        ("0x1f", "0x1f"),
        ("1:30", "1:30"),
        (".nan", ".nan"),
        ("-.inf", "-.inf"),
        ("1e999", "1e999"),
        ("9" * 40, "9" * 40),
        ("8%", "8%"),
        ("2026-02-01", "2026-02-01"),
        ("2026-02-01T10:00:00Z", "2026-02-01T10:00:00Z"),
        ("2026-02-01 10:00:00 +01:00", "2026-02-01 10:00:00 +01:00"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("!!str 12", "12"),
        ("!!int 12", 12),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("{a: 1, b: [2, ~]}", {"a": 1, "b": [2, None]}),
    ],
)
def test_a_value_is_what_its_author_sees(either: str, written: str, value: object) -> None:
    loaded = from_yaml(f"x: {written}", [])
    assert loaded == {"x": value}
    assert isinstance(loaded, dict)
    assert type(loaded["x"]) is type(value)


def test_keys_are_texts_and_the_last_of_two_counts_and_is_said(either: str) -> None:
    problems: list[str] = []
    assert from_yaml("404: a\nno: b\ntrue: c\n404: d\n", problems) == {"404": "d", "no": "b", "true": "c"}
    assert problems == ["line 4: 404 stands twice; the last counts"]


def test_aliases_and_merges_are_read(either: str) -> None:
    text = "base: &base {type: counter, unit: x}\nmore: &more [1, 2]\na: {<<: *base, unit: y}\nb: *more\n'<<': z\n"
    assert from_yaml(text, []) == {
        "base": {"type": "counter", "unit": "x"},
        "more": [1, 2],
        "a": {"type": "counter", "unit": "y"},
        "b": [1, 2],
        "<<": "z",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 20,000 values"),
        ("a: &a [*a]", "stands for nothing before it"),
        ("x: &x 1\ny: [" + "*x, " * 300 + "]", "more than 200 aliases"),
        ("[" * 100_000, "too deep"),
        ("- " * 100_000, "too deep"),
        ("{a: " * 60_000, "too deep"),
        ("? " * 100_000, "a key is a list or an object"),
        ("a: {{ template }}", "a key is a list or an object"),
        ("[" + "a, " * 87_000, "more than 20,000 values"),
        ("x" * 262_145, "longer than 262,144 characters"),
        ("!!python/object/apply:os.system [ls]", "the tag tag:yaml.org,2002:python/object/apply:os.system is not read"),
        ("!!python/name:os.system", "is not read"),
        ("a: !!binary aGk=", "is not read"),
        ("!own {a: 1}", "the tag !own is not read"),
        ("a: 1\n---\na: 2", "line 2: a second document"),
        ("a:\n\t- b", "line 2"),
        ("a:\n  - @b", "line 2"),
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("a\x00b", "special characters are not allowed|control characters are not allowed"),
        ("a: \ud800", "surrogates not allowed|special characters are not allowed"),
        ('a: "\\ud800"', "surrogate|invalid Unicode"),
        ("%" * 1_000, "line 1"),
        ("!" * 100_000, "not read|line 1"),
    ],
)
def test_what_is_hostile_or_broken_is_one_short_line_soon(either: str, text: str, said: str) -> None:
    started = time.process_time()
    with pytest.raises(YamlError, match=said) as refused:
        from_yaml(text, [])
    assert time.process_time() - started < 2  # of a millisecond as a rule; 0.3 s for the longest without libyaml
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) <= 300


@pytest.mark.parametrize("end", range(0, 130, 7))
def test_of_a_text_cut_anywhere_everything_before_is_kept(either: str, end: int) -> None:
    whole = (
        '  metrics:\n    - name: "reply_rate"\n      formula: "replies / sent"\n    - name: "replies"\n      type: x\n'
    )
    value, _ = from_cut_yaml(whole[:end], [])
    metrics: list[Any] = (value.get("metrics") or []) if isinstance(value, dict) else []
    names = [metric["name"] for metric in metrics if isinstance(metric, dict) and metric.get("name")]
    assert names == [name for name in ("reply_rate", "replies") if f'"{name}"' in whole[:end]]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab:-?[]{}&*!|>'\"%@`#,<\n \t0123.~\\ue\u2028")), max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(YamlError):
        from_yaml(text, [])


# A number to us and to YAML 1.2; to PyYAML, which follows YAML 1.1, a text that needs no quotes.
EXPONENT = re.compile(r"[-+]?[0-9_.]+[eE][-+]?[0-9_]+")


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(10**9), 10**9),
            st.text(max_size=12).filter(lambda text: not EXPONENT.fullmatch(text)),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.text(min_size=1, max_size=6).filter(lambda key: key != "<<"), inner, max_size=4),
        ),
        max_leaves=12,
    )
)
def test_what_another_library_writes_is_read_as_it_was(value: Any) -> None:
    try:
        text = yaml.safe_dump({"value": value})
    except yaml.YAMLError:
        return
    assert from_yaml(text, []) == {"value": value}
