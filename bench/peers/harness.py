"""The peers' environment, made when it is first needed, and what starts them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from bench.rates import Loop

_ROOT = Path(__file__).resolve().parents[2]
_REQUIREMENTS = _ROOT / "requirements" / "peers.txt"
_ENVIRONMENT = _ROOT / ".cache" / "peers"
_VERSIONS = ("faststream", "taskiq", "taskiq-redis", "streaq", "coredis", "pydocket", "redis", "hiredis")

# Peer, module and mode, events in a round: about a second or two of work.
_PEERS = (
    ("faststream_batch", ("bench.peers.faststream", "batch"), 40_000),
    ("faststream_folded", ("bench.peers.faststream", "folded"), 40_000),
    ("faststream_single", ("bench.peers.faststream", "single"), 3_000),
    ("taskiq", ("bench.peers.taskiq",), 3_000),
    ("streaq", ("bench.peers.streaq",), 3_000),
    ("docket", ("bench.peers.docket",), 3_000),
)


def peers() -> list[Loop]:
    """All of them, ready to run."""
    python = _environment()
    return [Loop(name, events, (f"{python}:{module[0]}", *module[1:])) for name, module, events in _PEERS]


def versions() -> dict[str, str]:
    """What the peers' environment holds."""
    code = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {_VERSIONS!r}}}))"
    answer = subprocess.run([_environment(), "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def _environment() -> Path:
    """The Python of the environment, installed anew when the pinned requirements have changed."""
    python, mark = _ENVIRONMENT / "bin" / "python", _ENVIRONMENT / "requirements.sha256"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    if not mark.exists() or mark.read_text("ascii") != wanted:
        print(f"installing the peers into {_ENVIRONMENT.relative_to(_ROOT)}: once", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", _ENVIRONMENT], check=True)
        install = ("-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes")
        subprocess.run([python, *install, "-r", _REQUIREMENTS], check=True)
        mark.write_text(wanted, "ascii")
    return python
