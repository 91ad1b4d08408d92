"""Loads lua/*.lua and runs them by their hash, so that a flushed script cache costs one round trip.

Scripts rather than functions: docs/adr/0003-scripts-not-functions.md.
"""

import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

_INCLUDE = re.compile(r"^-- include (\w+)\n", re.MULTILINE)


@cache
def source(name: str) -> str:
    """The text of `lua/<name>.lua`; where a line says `-- include x`, `lua/shared/x.lua` stands instead."""
    folder = resources.files(__package__) / "lua"
    text = (folder / f"{name}.lua").read_text("utf-8")
    return _INCLUDE.sub(lambda line: (folder / "shared" / f"{line[1]}.lua").read_text("utf-8"), text)


@cache
def digest(name: str) -> str:
    """SHA-1 of the script's text, as EVALSHA wants it."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


async def run(client: Redis, name: str, keys: list[str], args: list[Any]) -> Any:
    """Run one script. Atomic, and sent once: a lost reply is the caller's to resolve.

    NOSCRIPT means that nothing ran, so sending the text instead is not a retry of an effect.

    Raises:
        redis.exceptions.RedisError: as the server or the connection reports it.
    """
    try:
        return await client.evalsha(digest(name), len(keys), *keys, *args)
    except NoScriptError:
        return await client.eval(source(name), len(keys), *keys, *args)
