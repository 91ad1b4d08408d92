"""What people see off a terminal is plain, aligned and whole."""

import pytest

from redis_agent.cli.output import Cell, Table, age, counted, number, printable, show


def test_columns_are_aligned_and_nothing_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(["name", ">count", "why"])
    table.add("a" * 200, "1", Cell("because", "red"))
    table.add("b", "1,000", "")
    show(table)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == f"{'NAME':<200}  COUNT  WHY"
    assert first == f"{'a' * 200}      1  because"
    assert second == f"{'b':<200}  1,000"


def test_what_could_steer_a_terminal_is_shown_and_not_obeyed() -> None:
    assert printable("a\x1b[2J\r\nb\u202e") == "a\\x1b[2J\\r b\\u202e"
    assert printable("Grüße 👋") == "Grüße 👋"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m 0s"), (3_599, "59m 59s"), (3_600, "1h 0m"), (90_000, "1d 1h")],
)
def test_ages_have_two_units(seconds: float, said: str) -> None:
    assert age(seconds) == said


def test_numbers_and_counts_read_well() -> None:
    assert [number(None), number(3.0), number(12345.6), number(0.123456)] == ["-", "3", "12,346", "0.1235"]
    assert [counted(1, "entry"), counted(2, "entry"), counted(1_000, "event")] == [
        "1 entry",
        "2 entries",
        "1,000 events",
    ]
