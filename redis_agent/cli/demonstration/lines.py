"""The demo off a terminal: lines that a person or a program can read."""

import json
from typing import Any

import click

from redis_agent.cli.demonstration.board import Board
from redis_agent.cli.output import printable
from redis_agent.store import keys


class Lines:
    """Prints aggregates under their keys, and alerts as they come."""

    # Seconds between two looks at the aggregates.
    every_seconds = 2.0

    def __init__(self, board: Board) -> None:
        self._board = board
        self._shown: dict[str, dict[str, str]] = {}

    def __enter__(self) -> "Lines":
        board = self._board
        click.echo(f"redis-agent demo on a private {board.server}, {board.url}")
        click.echo(f"look around with: redis-cli -p {board.port}")
        click.echo(board.wording)
        return self

    def __exit__(self, *_: object) -> None:
        return

    def alert(self, alert: dict[str, Any]) -> None:
        """The Orchestrator received an alert."""
        click.echo(f"alert {json.dumps(alert)}")

    def refresh(self) -> None:
        """Print the aggregates that have changed."""
        board = self._board
        for experiment_id, panel in board.panels.items():
            if not panel.fields or panel.fields == self._shown.get(experiment_id):
                continue
            self._shown[experiment_id] = panel.fields
            pairs = " ".join(f"{name}={value}" for name, value in sorted(panel.fields.items()))
            click.echo(printable(f"{keys.aggregate(experiment_id)} {pairs}"))
        lag = "unknown" if board.lag is None else board.lag
        rate = round(board.rates[-1], 1)
        click.echo(f"events_per_second={rate} stream_lag={lag} pending={board.pending}")
