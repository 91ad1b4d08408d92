"""Everything that one run measured, to JSON and back."""

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.crews import Crew
from bench.growth import Point
from bench.latency import Latency
from bench.pubsub import Step
from bench.rates import Rate
from bench.workload import Workload


@dataclass(frozen=True, slots=True)
class Compared:
    """Loops on one stream."""

    workload: Workload
    rates: list[Rate]


@dataclass(slots=True)
class Run:
    """Attributes: where and with what, what each section found, and how long it took."""

    machine: dict[str, Any]
    compared: dict[str, Compared] = field(default_factory=dict)
    crews: list[Crew] = field(default_factory=list)
    growth: list[Point] = field(default_factory=list)
    latency: list[Latency] = field(default_factory=list)
    bridge: list[Step] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Run":
        """What `as_json` made."""
        return cls(
            machine=document["machine"],
            compared={
                name: Compared(Workload(**one["workload"]), [Rate(**rate) for rate in one["rates"]])
                for name, one in document["compared"].items()
            },
            crews=[Crew(one["processes"], Rate(**one["rate"])) for one in document["crews"]],
            growth=[
                Point(one["kind"], one["size"], Rate(**one["bare"]), Rate(**one["worker"]))
                for one in document["growth"]
            ],
            latency=[Latency(**one) for one in document["latency"]],
            bridge=[Step(**one) for one in document["bridge"]],
            seconds=document["seconds"],
        )

    def disturbed(self) -> float:
        """The most cores that others used in the rounds that count."""
        rates = [rate for one in self.compared.values() for rate in one.rates]
        rates += [crew.rate for crew in self.crews]
        rates += [rate for point in self.growth for rate in (point.bare, point.worker)]
        return max([rate.others for rate in rates] + [step.others or 0.0 for step in self.bridge], default=0.0)
