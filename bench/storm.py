"""`python -m bench.storm [--alerts N] [--seconds S]`: an alert storm with a key: calls, order, delays, memory.

A real dispatcher process with the real SDK, and the stub of Gemini's API on loopback, which answers well. Alerts of a
hundred experiments enter the outbox evenly; a subscriber hears them.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median

from redis.asyncio import Redis

from redis_agent.embedded import EmbeddedServer
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from tests.analyst.askers import alert, raise_
from tests.gemini_stub import KEY, answer, running
from tests.integration.flow import ORCHESTRATOR
from tests.processes import Agents

_PATIENCE_SECONDS = 60.0
_WORDS = {"status": "failing", "key_metric": "bounce_rate", "insight": "It bounces at 24 %.", "action": "none"}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.storm", description=__doc__)
    parser.add_argument("--alerts", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="over which they come (60)")
    options = parser.parse_args()
    with EmbeddedServer() as server, tempfile.TemporaryDirectory() as directory:
        asyncio.run(_storm(server.url, Path(directory), options.alerts, options.seconds))


async def _storm(url: str, directory: Path, alerts: int, seconds: float) -> None:
    client = connect(Address(url), name="bench")
    agents = Agents(url, directory)
    heard: dict[int, float] = {}
    order: list[int] = []
    sources: dict[str, int] = {}
    async with running() as stub, client.pubsub(ignore_subscribe_messages=True) as listener:
        stub.standing = answer(_WORDS)
        await listener.subscribe(ORCHESTRATOR)
        agent = agents.start("dispatcher", GOOGLE_API_KEY=KEY, GOOGLE_GEMINI_BASE_URL=stub.url)
        try:
            await agent.ready()
            listening = asyncio.create_task(_listen(listener, alerts, heard, order, sources))
            sent: dict[int, float] = {}
            sizes: list[int] = []
            began = time.monotonic()
            for n in range(alerts):
                await asyncio.sleep(max(0.0, began + n * seconds / alerts - time.monotonic()))
                sent[n] = time.monotonic()
                await _raise(client, n)
                if n % max(1, alerts // 10) == alerts // 20:
                    sizes.append(_resident_kb(agent.pid))
            await asyncio.wait_for(listening, _PATIENCE_SECONDS)
            sizes.append(_resident_kb(agent.pid))
        finally:
            agents.end()
        delays = sorted(heard[n] - sent[n] for n in sent)
        print(f"{alerts} alerts in {seconds:.0f} s: {stub.calls} calls; worded by {sources}")
        print(f"in order {order == sorted(order)}, each once {len(set(order)) == len(order) == alerts}")
        print(f"delay: median {median(delays):.3f} s, longest {delays[-1]:.3f} s")
        print(f"resident memory of the dispatcher, MB: {', '.join(f'{size / 1024:.1f}' for size in sizes)}")
    await client.aclose()


async def _raise(client: Redis, number: int) -> None:
    await raise_(client, alert(number, experiment=f"exp_{number % 100}"))


async def _listen(listener: object, alerts: int, heard: dict[int, float], order: list[int], by: dict[str, int]) -> None:
    while len(order) < alerts:
        message = await listener.get_message(timeout=1.0)  # type: ignore[attr-defined]
        if message is None:
            continue
        found = json.loads(message["data"])
        number = int(found["alert_id"])
        heard[number] = time.monotonic()
        order.append(number)
        source = found.get("analysis", {}).get("source", "nobody")
        by[source] = by.get(source, 0) + 1


def _resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


if __name__ == "__main__":
    main()
