"""Clocks that a test sets: processes that run under libfaketime (Debian's package `faketime`).

Their time of day is the machine's and an offset, which can be changed meanwhile; monotonic clocks go on as they do.
"""

import os
from pathlib import Path

import pytest

from tests.conftest import REQUIRE_SERVER

# Where Debian, Fedora and the makers put it.
_PLACES = ("/usr/lib/*/faketime", "/usr/lib64/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")
_LIBRARY = "libfaketime.so.1"


class FakeClock:
    """The clock of the processes that are started with `env`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._file = directory / f"{name}.offset"
        self.set(0)

    def set(self, offset_seconds: int) -> None:
        """Jump to this offset from the machine's clock, at once."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset_seconds:+d}\n")
        fresh.replace(self._file)

    @property
    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def library() -> Path:
    """libfaketime; the test is skipped where it is missing, and fails where everything must be there."""
    for place in _PLACES:
        for found in sorted(Path("/").glob(f"{place}/{_LIBRARY}".lstrip("/"))):
            return found
    missing = f"{_LIBRARY} is missing: apt-get install faketime"
    if os.environ.get(REQUIRE_SERVER) == "1":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
