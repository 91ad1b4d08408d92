"""Which events are traced, and that a batch that is written again carries the same contexts."""

from collections.abc import Mapping, Sequence

import pytest
from structlog.testing import capture_logs

from redis_agent.app import tracing_of
from redis_agent.config import Settings
from redis_agent.otel import Budget, OpenTelemetry
from redis_agent.tracing import OFF, UNTRACED, Attribute, Receipts, Span, Step, Tracing

EVENTS = [(1, b"{}")] * 4


class Noted(Span):
    def __init__(self, context: str) -> None:
        self.context = context
        self.ended = 0

    def end(self, problem: str = "", **attributes: Attribute) -> None:  # noqa: ARG002 - as a span's
        self.ended += 1


class EverySecond(Tracing):
    """Traces every second event that it is asked about."""

    def __init__(self) -> None:
        self.spans: list[Noted] = []
        self.asked = 0

    def received(self, events: Sequence[tuple[int, bytes]]) -> Mapping[int, Span]:
        found = {}
        for n in range(len(events)):
            self.asked += 1
            if self.asked % 2 == 0:
                self.spans.append(Noted(f"c{self.asked}"))
                found[n] = self.spans[-1]
        return found

    def ended(self) -> list[int]:
        return [span.ended for span in self.spans]


def test_batch_that_is_written_again_has_the_same_contexts_and_further_events_their_own() -> None:
    tracing = EverySecond()
    receipts = Receipts(tracing)
    assert receipts.contexts("e1", 11, EVENTS) == {12: "c2", 14: "c4"}
    assert receipts.contexts("e1", 11, [*EVENTS, *EVENTS]) == {12: "c2", 14: "c4", 16: "c6", 18: "c8"}
    receipts.written(16)
    assert tracing.ended() == [1, 1, 1, 0]
    assert receipts.contexts("e1", 17, EVENTS[:2]) == {18: "c8"}
    receipts.written(18)
    assert tracing.ended() == [1, 1, 1, 1]


def test_what_another_bridge_may_have_written_is_not_said_to_be_written_by_this_one() -> None:
    tracing = EverySecond()
    receipts = Receipts(tracing)
    receipts.contexts("e1", 1, EVENTS)
    receipts.forget()
    assert receipts.contexts("e1", 1, EVENTS) == {}
    receipts.written(4)
    assert tracing.ended() == [0, 0]


def test_another_numbering_decides_anew() -> None:
    receipts = Receipts(EverySecond())
    receipts.contexts("e1", 1, EVENTS)
    assert receipts.contexts("e2", 1, EVENTS) == {2: "c6", 4: "c8"}


def test_without_tracing_nothing_is_remembered() -> None:
    assert Receipts(OFF).contexts("e1", 1, EVENTS) == {}


def test_budget_lets_through_so_many_a_second_and_no_more_at_once() -> None:
    budget = Budget(10)
    assert len(list(budget.choose(1_000, 100.0))) == 10
    assert list(budget.choose(1_000, 100.0)) == []
    chosen = [n for step in range(1, 101) for n in budget.choose(500, 100 + step / 100)]
    assert 9 <= len(chosen) <= 10
    assert all(0 <= n < 500 for n in chosen)
    assert len(list(budget.choose(1_000, 999.0))) == 10


def test_budget_traces_all_that_fits_it_and_nothing_at_all_for_none() -> None:
    assert sorted(Budget(10).choose(3, 0.0)) == [0, 1, 2]
    assert list(Budget(0).choose(1_000, 1e9)) == []
    assert len(list(Budget(0.5).choose(1_000, 1e9))) == 1


async def test_what_is_no_context_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    tracing = OpenTelemetry(instance="me", channel="c", per_second=None)
    try:
        for parent in ("", "x", f"00-{0:032x}-{0:016x}-01", f"00-{1:032x}-{1:016x}", "\u00e9" * 100_000):
            assert tracing.begin(Step.APPLY, parent) is UNTRACED
        assert tracing.begin(Step.APPLY, f"00-{1:032x}-{1:016x}-01").context.startswith(f"00-{1:032x}-")
        assert sorted(tracing.received(EVENTS)) == [0, 1, 2, 3]
    finally:
        await tracing.close(1)


async def test_a_sampler_that_is_set_to_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "")
    with capture_logs() as lines:
        tracing = OpenTelemetry(instance="me", channel="c", per_second=2)
    try:
        assert len(tracing.received(EVENTS)) == 2
    finally:
        await tracing.close(1)
    assert lines == []


async def test_the_sampler_of_the_variables_decides_about_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    tracing = OpenTelemetry(instance="me", channel="c", per_second=None)
    try:
        traced = tracing.received([(1, b"{}")] * 1_000)
        assert 350 < len(traced) < 650
        assert len({span.context for span in traced.values()}) == len(traced)
    finally:
        await tracing.close(1)


def test_variables_that_the_sdk_refuses_are_said_and_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    with capture_logs() as lines:
        assert tracing_of(Settings(otel_traces_exporter="otlp"), "me") is OFF
        assert tracing_of(Settings(otel_traces_exporter="zipkin"), "me") is OFF
    assert [line["event"] for line in lines] == ["not_traced", "not_traced"]
    assert "ValueError" in lines[0]["why"]
    assert "OTEL_TRACES_EXPORTER='zipkin'" in lines[1]["why"]


@pytest.mark.parametrize(
    ("given", "asked", "fault"),
    [
        ({}, False, ""),
        ({"otel_traces_exporter": "otlp"}, True, ""),
        ({"otel_exporter_otlp_endpoint": "http://collector:4318"}, True, ""),
        ({"otel_exporter_otlp_traces_endpoint": "http://collector:4318/v1/traces"}, True, ""),
        ({"otel_exporter_otlp_endpoint": "http://collector:4318", "otel_traces_exporter": "none"}, False, ""),
        ({"otel_exporter_otlp_endpoint": "http://collector:4318", "otel_sdk_disabled": "TRUE"}, False, ""),
        ({"otel_traces_exporter": "otlp", "otel_sdk_disabled": "1"}, True, ""),
        ({"otel_traces_exporter": "console, otlp"}, True, ""),
        ({"otel_traces_exporter": "console"}, True, "OTEL_TRACES_EXPORTER='console': only otlp and none are known"),
        (
            {"otel_traces_exporter": "otlp", "otel_exporter_otlp_traces_protocol": "grpc"},
            True,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL='grpc': only http/protobuf is spoken",
        ),
    ],
)
def test_the_standard_variables_say_whether_traces_are_asked_for(
    given: dict[str, str], asked: bool, fault: str
) -> None:
    settings = Settings(**given)  # type: ignore[arg-type]
    assert settings.asks_for_traces is asked
    assert settings.trace_fault == fault
    assert "collector" not in repr(settings)
