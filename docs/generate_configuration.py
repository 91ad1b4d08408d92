"""Writes docs/configuration.md from redis_agent/config.py; `--check` says if it is up to date."""

import sys
from pathlib import Path

from redis_agent.config import markdown_table

PAGE = Path(__file__).with_name("configuration.md")

INTRODUCTION = """\
# Configuration

<!-- Generated from redis_agent/config.py by `make fmt`. Change it there. -->

Every setting is an environment variable. A wrong value stops the start with one line that names
the variable and says what is allowed. An empty variable counts as one that is not set. A variable
that begins with `REDIS_AGENT_` and is none of these is warned about at the start.

A secret may stand in a file, as Docker and Kubernetes hand them out: name the file in the variable
with `_FILE` at its end, and leave the other unset.

"""


def page() -> str:
    return INTRODUCTION + markdown_table()


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print(f"docs/{PAGE.name} is not up to date: run `make fmt`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
