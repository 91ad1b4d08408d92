"""The oldest server that is promised to do: Redis 7.0. Later ones give scripts and commands what it has not.

Debian 12 has it, built with TLS: as `redis-server`, or in `redis-tools` as one program that does what it is called.
"""

import shutil
from pathlib import Path

from redis_agent.embedded import OLDEST_VERSION, ServerBinary, _examine

VERSION = ".".join(map(str, OLDEST_VERSION))
WHERE = f"no Redis {VERSION} is here; Debian 12 has it in redis-tools"


def oldest_server(folder: Path) -> ServerBinary | None:
    """It, under a name of its own in this directory; None where there is none."""
    for name in ("redis-server", "redis-check-rdb"):
        if program := shutil.which(name):
            link = folder / "redis-server"
            link.unlink(missing_ok=True)
            link.symlink_to(Path(program).resolve())
            found = _examine(link, origin=program)
            if isinstance(found, ServerBinary) and found.version.startswith(f"{VERSION}."):
                return found
    return None
