"""Where a run took place, and whether somebody else was using the machine meanwhile."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redis_agent.embedded import ServerBinary

_PACKAGES = ("redis", "hiredis", "pydantic", "pydantic-core")


def describe(binary: ServerBinary) -> dict[str, Any]:
    """The machine and the versions, as far as they matter to speed."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "server": str(binary),
        **{name: version(name) for name in _PACKAGES},
    }


def revision() -> str:
    """The commit that is measured; "" where there is no repository."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def busy_seconds() -> float | None:
    """CPU time that the machine has spent so far, by everybody; None where the system does not say (not Linux)."""
    try:
        fields = Path("/proc/stat").read_text("ascii").split()
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def process_seconds(pid: int) -> float:
    """CPU time that a process has spent so far; 0 where the system does not say (not Linux)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0


def resident_bytes(pid: int) -> int:
    """Memory that a process has now; 0 where the system does not say (not Linux)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
