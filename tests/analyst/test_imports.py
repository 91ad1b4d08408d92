"""The SDK costs half a second and 40 MB: only a process that asks Gemini pays for it."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
{statements}
heavy = [name for name in sys.modules if name == "google.genai" or name.startswith(("google.genai.", "google.auth"))]
print(",".join(sorted(heavy)))
"""


def heavy_modules(statements: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statements=statements)], capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


@pytest.mark.parametrize(
    "statements",
    [
        "import redis_agent.app",
        "import redis_agent.worker",
        "import redis_agent.dispatcher, redis_agent.scheduler, redis_agent.bridge, redis_agent.endpoint",
        "import redis_agent.analyst.gemini, redis_agent.analyst.translator",
        "import redis_agent.cli",
    ],
)
def test_importing_the_agent_does_not_import_the_sdk(statements: str) -> None:
    assert heavy_modules(statements) == ""


def test_process_with_a_key_that_asks_nothing_does_not_import_it() -> None:
    statements = """
from redis.asyncio import Redis
from redis_agent.app import gemini_for
from redis_agent.config import Settings
from redis_agent.telemetry import Telemetry

async def main():
    gemini = gemini_for(Settings(google_api_key="some-key-of-google"), Redis(), Telemetry())
    assert gemini.available
    await gemini.aclose()

asyncio.run(main())
"""
    assert heavy_modules(statements) == ""
