"""`python -m bench.analyst`: what comes of every way in which Gemini can answer: reason, delay, calls made."""

import argparse
import asyncio
from dataclasses import dataclass

from redis.asyncio import Redis

from redis_agent import log
from redis_agent.analyst.answers import AlertAnalysis
from redis_agent.analyst.gemini import Access, Answer, Gemini
from redis_agent.analyst.models import chain
from redis_agent.embedded import EmbeddedServer
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.spending import Spending
from redis_agent.telemetry import Telemetry
from tests.gemini_stub import KEY, GeminiStub, Serve, modes, running

FACTS = {
    "experiment": "exp_cold_email",
    "criteria": [{"criterion": "response_rate < 8% after 100 emails_sent", "kind": "failure", "state": "met"}],
    "metrics": {"response_rate": 0.042, "emails_sent": 1250, "replies": 52},
}
MODELS = ("gemini-3.5-flash-lite", "gemini-3.6-flash", "gemini-2.5-flash-lite")


@dataclass(frozen=True, slots=True)
class Row:
    """One case.

    Attributes:
        case: how the stub answered, every time.
        came: "answer", or the reason why there was none.
        seconds: until `ask` returned.
        calls: that it made.
        again: what the same question came to right after that; with more calls in all.
    """

    case: str
    came: str
    seconds: float
    calls: int
    again: str
    calls_again: int


def main() -> None:
    """Print the table of docs/analyst-gemini.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.analyst", description=__doc__)
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds for one question (5)")
    options = parser.parse_args()
    log.configure(level="error", form="text")
    with EmbeddedServer() as server:
        rows = asyncio.run(_measured(server.url, options.deadline))
    print("| Gemini answers | what comes of it | after | calls | the same question again | calls |")
    print("|---|---|---:|---:|---|---:|")
    for row in rows:
        print(
            f"| {row.case} | {row.came} | {row.seconds:.2f} s | {row.calls} | {row.again} | {row.calls_again} |",
            flush=True,
        )


async def _measured(url: str, deadline: float) -> list[Row]:
    client = connect(Address(url), name="bench")
    try:
        async with running() as stub:
            await _asked(stub, client, modes()["good"], deadline)  # imports the SDK, once
            return [await _row(stub, client, case, serve, deadline) for case, serve in modes().items()]
    finally:
        await client.aclose()


async def _row(stub: GeminiStub, client: Redis, case: str, serve: Serve, deadline: float) -> Row:
    (came, seconds, calls), (again, _, calls_again) = await _asked(stub, client, serve, deadline)
    return Row(case, came, seconds, calls, again, calls_again)


async def _asked(stub: GeminiStub, client: Redis, serve: Serve, deadline: float) -> list[tuple[str, float, int]]:
    """Ask twice, of a server that knows nothing."""
    await client.flushall()
    stub.standing = serve
    gemini = Gemini(
        access=Access(api_key=KEY, base_url=stub.url),
        models=chain(MODELS[0], MODELS[1:]),
        spending=Spending(client, per_minute=10, per_day=2_000),
        telemetry=Telemetry(),
    )
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(2):
        stub.asked.clear()
        began = loop.time()
        answer = await gemini.ask("analyze", FACTS, AlertAnalysis, deadline=began + deadline)
        seconds = loop.time() - began
        came = ("known answer" if answer.cached else "answer") if isinstance(answer, Answer) else answer.reason
        found.append((came, seconds, stub.calls))
    await gemini.aclose()
    return found


if __name__ == "__main__":
    main()
