"""`python -m bench.page [PATH]`: the tables of docs/benchmarks.md and its plots, written anew from a run's JSON."""

import json
import sys
from pathlib import Path

from bench.report import as_markdown
from bench.run import Run

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN = "<!-- written by `python -m bench.page` from benchmarks.json -->"
END = "<!-- the end of what is written -->"


def write(run: Run, directory: Path) -> None:
    """Put the run's plots and tables into a directory that has benchmarks.md; needs matplotlib."""
    from bench import plots  # noqa: PLC0415  # measuring does without

    pictures = "\n\n".join(f"![{caption}]({name})" for name, caption in plots.draw(run, directory))
    page = directory / "benchmarks.md"
    page.write_text(replaced(page.read_text("utf-8"), f"{pictures}\n\n{as_markdown(run)}"), "utf-8")


def replaced(text: str, tables: str) -> str:
    """The page with other tables between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN!r} or {END!r}")
    return f"{before}{begin}\n\n{tables}\n\n{end}{after}"


def main() -> int:
    """Read the JSON, write the page."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "benchmarks.json"
    write(Run.from_json(json.loads(path.read_text("utf-8"))), DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
