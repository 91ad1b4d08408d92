"""The demo on a terminal: a live view."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from redis_agent.cli.demonstration.board import Board, Panel
from redis_agent.cli.output import age, number, printable
from redis_agent.experiments import Verdict

_BARS = "▁▂▃▄▅▆▇█"
# Columns of the terminal from which there is room for more.
_WIDE, _MEDIUM = 130, 100
_ALERT_STYLES = {
    "success_threshold": ("success", "bold green"),
    "failure_threshold": ("failure", "bold red"),
    "error": ("error", "bold magenta"),
    "periodic_summary": ("summary", "bold cyan"),
    "anomaly": ("anomaly", "bold yellow"),
}


class Screen:
    """Draws the board on the whole terminal, and leaves the last picture behind."""

    # Seconds between two pictures.
    every_seconds = 0.5

    def __init__(self, board: Board) -> None:
        self._board = board
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> "Screen":
        self._live.start()
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._console.print(self._picture(rows=10_000, alerts=8))

    def alert(self, alert: dict[str, Any]) -> None:  # noqa: ARG002 - the board has it
        """The Orchestrator received an alert: show it at once."""
        self.refresh()

    def refresh(self) -> None:
        """Draw the present state."""
        self._live.update(self._picture(rows=self._console.size.height), refresh=True)

    def _picture(self, *, rows: int, alerts: int | None = None) -> RenderableType:
        experiments = self._experiments()
        # Title, blank, experiments with their heading, blank, heading, alerts, blank, footer of 2.
        left = max(1, rows - experiments.row_count - 8)
        return Group(
            self._title(),
            Text(),
            experiments,
            Text(),
            Text("What the Orchestrator receives", style="bold"),
            *self._alerts(left if alerts is None else alerts, fill=alerts is None),
            Text(),
            *self._footer(),
        )

    def _title(self) -> Text:
        board = self._board
        up = age((datetime.now(UTC) - board.started).total_seconds())
        lag = "unknown" if board.lag is None else f"{board.lag:,}"
        recent = list(board.rates)[-4:]
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append("Redis Agent demo ", style="bold")
        line.append(f" {up}   ")
        line.append(f"{board.published:,} events ", style="bold")
        line.append(f"{sum(recent) / len(recent):,.0f}/s ")
        if self._console.width >= _MEDIUM:
            line.append(sparkline(board.rates), style="cyan")
        line.append("   lag ")
        line.append(lag, style="bold" if board.lag else "bold green")
        line.append("   pending ")
        line.append(f"{board.pending:,}", style="bold")
        line.append("   alerts ")
        line.append(f"{sum(board.kinds.values()):,}", style="bold")
        return line

    def _experiments(self) -> Table:
        width = self._console.width
        # What there is room for; the criterion takes what is left.
        spark, bar_width = (24, 20) if width >= _WIDE else (12, 14) if width >= _MEDIUM else (0, 8)
        fixed = (
            ("experiment", "left", 13),
            ("events", "right", 7),
            ("a second", "left", spark),
            ("value", "right", 7),
            ("", "left", bar_width + 1),
            ("state", "left", 14 if width >= _MEDIUM else 7),
        )
        left = width - sum(size + 2 for _, _, size in fixed if size)
        table = Table(box=None, header_style="bold dim", padding=(0, 2, 0, 0), pad_edge=False)
        for title, justify, size in fixed:
            if title == "value":
                table.add_column("criterion", no_wrap=True, overflow="ellipsis", width=min(40, left))
            if size:
                table.add_column(title, justify="right" if justify == "right" else "left", no_wrap=True, width=size)
        for experiment_id, panel in self._board.panels.items():
            for n, verdict in enumerate(panel.verdicts):
                first = n == 0
                cells = [
                    Text(experiment_id, style="bold") if first else _last_event(panel) if n == 1 else Text(),
                    Text(f"{panel.events:,}" if first else ""),
                    Text(sparkline(list(panel.rates)[-spark:]) if first else "", style="cyan"),
                    Text(printable(verdict.text)),
                    Text(number(None if verdict.evaluation is None else verdict.evaluation.value, 3)),
                    bar(verdict, bar_width),
                    _state(verdict, short=width < _MEDIUM),
                ]
                if not spark:
                    del cells[2]
                table.add_row(*cells)
        return table

    def _alerts(self, count: int, *, fill: bool) -> Iterable[Text]:
        shown = 0
        for alert in list(self._board.alerts)[:count]:
            kind = str(alert.get("type"))
            word, style = _ALERT_STYLES.get(kind, (kind, "bold"))
            line = Text(no_wrap=True, overflow="ellipsis")
            line.append(f"{str(alert.get('timestamp', ''))[11:19]}  ", style="dim")
            line.append(f"{word:<8} ", style=style)
            line.append(printable(str(alert.get("message", ""))))
            yield line
            shown += 1
        if not shown:
            yield Text("nothing yet", style="dim")
            shown = 1
        if fill:
            yield from (Text() for _ in range(count - shown))

    def _footer(self) -> Iterable[Text]:
        board = self._board
        look = Text(no_wrap=True, overflow="ellipsis")
        look.append("look around: ", style="dim")
        look.append(f"redis-cli -p {board.port}")
        if self._console.width >= _MEDIUM:
            look.append("  or  ", style="dim")
            look.append(f"redis-agent experiments exp_winner --redis-url {board.url}")
        yield look
        yield Text(
            f"Ctrl-C ends it   {self._board.wording}",
            style="dim",
            no_wrap=True,
            overflow="ellipsis",
        )


def sparkline(values: Iterable[float]) -> str:
    """The values as bars, the highest being the tallest.

    >>> sparkline([0, 1, 2])
    '▁▄█'
    """
    found = list(values)
    top = max(found, default=0.0)
    if top <= 0:
        return _BARS[0] * len(found)
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in found)


def bar(verdict: Verdict, width: int) -> Text:
    """The value against its threshold, which is the mark in the middle."""
    evaluation = verdict.evaluation
    if evaluation is None or evaluation.value is None or not evaluation.threshold:
        return Text("·" * (width + 1), style="dim")
    middle = width // 2
    filled = min(width, round(middle * max(0.0, evaluation.value) / evaluation.threshold))
    text = Text()
    style = _style(verdict) or "blue"
    for n in range(width):
        if n == middle:
            text.append("┃", style="bold")
        text.append("█" if n < filled else "·", style=style if n < filled else "dim")
    return text


def _style(verdict: Verdict) -> str:
    if verdict.state != "met":
        return ""
    return "green" if verdict.kind == "success" else "red"


def _state(verdict: Verdict, *, short: bool) -> Text:
    if verdict.state != "met":
        return Text(verdict.state.replace("_", " ")[:11], style="dim" if verdict.state == "not_met" else "yellow")
    if verdict.evaluation is not None and verdict.evaluation.evidence == "early":
        return Text("early" if short else f"early {verdict.kind}", style=_style(verdict))
    return Text(verdict.kind, style=f"bold {_style(verdict)}")


def _last_event(panel: Panel) -> Text:
    if panel.last_event is None:
        return Text("no event yet", style="dim")
    seconds = (datetime.now(UTC) - panel.last_event).total_seconds()
    return Text(f"quiet for {age(seconds)}" if seconds >= 5 else "", style="yellow")
