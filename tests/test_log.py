"""What the program says of what lasts: bounded, and nothing that is new is lost."""

import contextlib

import pytest
import structlog

from redis_agent.log import Bound
from redis_agent.telemetry import SAY_SECONDS, Conditions


class Said:
    """A bound with a clock of its own, and what got through it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[dict[str, object]] = []
        self._bound = Bound(clock=lambda: self.now)

    def say(self, **line: object) -> None:
        with contextlib.suppress(structlog.DropEvent):
            self.lines.append(dict(self._bound(None, "info", {"role": "bridge", **line})))


def test_what_comes_and_goes_makes_a_few_lines_at_once_and_then_two_a_minute() -> None:
    said = Said()
    for second in range(601):
        said.now = float(second)
        said.say(event="lease_lost", lease="a")
    assert 20 <= len(said.lines) <= 24
    assert [line["event"] for line in said.lines[:4]] == ["lease_lost"] * 4
    assert sum(int(str(line.get("unsaid", 0))) for line in said.lines) == 601 - len(said.lines)


def test_how_much_the_lines_were_about_that_did_not_get_through_is_said_with_the_next() -> None:
    said = Said()
    for n in range(10):
        said.say(event="bridge_gap", seconds=0.25 + n)
    said.say(event="stream_deleted", lost=7)
    said.now = 3600.0
    said.say(event="bridge_gap", seconds=1.0)
    assert [line.get("unsaid_seconds") for line in said.lines] == [None] * 5 + [0.25 * 6 + sum(range(4, 10))]
    said.now = 7200.0
    said.say(event="bridge_gap", seconds=1.0)
    assert "unsaid_seconds" not in said.lines[-1]


def test_lines_about_something_else_are_not_held_back() -> None:
    said = Said()
    for n in range(100):
        said.say(event="definition_problem", experiment_id=f"e{n}")
        said.say(event="alert_delivered", alert_id=f"a{n}")
        said.say(event="alert_raised", alert="{}")
    assert len(said.lines) == 300


def test_after_a_quiet_time_everything_is_said_again() -> None:
    said = Said()
    for _ in range(10):
        said.say(event="subscribed")
    assert len(said.lines) == 4
    said.now = 3600.0
    for _ in range(4):
        said.say(event="subscribed")
    assert len(said.lines) == 8
    assert said.lines[4]["unsaid"] == 6


@pytest.mark.parametrize("subjects", [30_000])
def test_memory_of_what_was_said_is_bounded(subjects: int) -> None:
    said = Said()
    for n in range(subjects):
        said.now += 1.0
        said.say(event="name_refused", experiment_id=f"e{n}")
    assert len(said.lines) == subjects
    assert len(said._bound._used) <= 10_001


def test_a_condition_is_said_once_a_minute_however_many_meet_it_and_counts_what_went_unsaid() -> None:
    conditions = Conditions()
    said = [times for second in range(180) for _ in range(3) if (times := conditions.met("oom", float(second)))]
    assert said == [1, 180, 180]


def test_its_end_is_said_once_for_each_time_it_was_said_and_not_while_others_meet_it() -> None:
    conditions = Conditions()
    assert conditions.met("oom", 0.0) == 1
    assert conditions.over("oom", 4.0, 5.0) is None
    assert conditions.over("oom", 5.0, 5.0) is True
    assert conditions.over("oom", 6.0, 5.0) is False
    assert conditions.met("oom", 10.0) == 0
    assert conditions.over("oom", 20.0, 5.0) is False
    assert conditions.met("oom", SAY_SECONDS) == 2
    assert conditions.over("oom", SAY_SECONDS + 9, 5.0) is True
