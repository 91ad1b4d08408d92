"""What prose is cut into: words, numbers with what belongs to them, and phrases that mean one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from redis_agent.criteria.expression import ComparisonOperator, CriterionError, print_number

PieceKind: TypeAlias = Literal[
    "word", "number", "operator", "suffix", "negation", "zero", "and", "or", "comma", "break", "quote", "odd"
]


class NotUnderstoodError(CriterionError):
    """Prose that says nothing that can be judged; the text is the reason, and the nearest that could."""

    def __init__(self, reason: str, nearest: str = "") -> None:
        """Builds one line without a place: prose is wrong as a whole."""
        super().__init__(reason, 0, f"nearest: {nearest}" if nearest else "")
        self.args = (f"{reason}; {self.hint}" if self.hint else reason,)


class WrongScaleError(NotUnderstoodError):
    """A number that a share on its scale cannot mean."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what belongs to it.

    Attributes:
        value: The number, multiplied out; of a range, the first one.
        percent: ``%`` or the word stood behind it.
        upper: The second number of a range.
        between: The range was written with ``between``.
        plus: ``8+``.
        unit: A unit of time, of ``72h``.
        money: The currency that stood before or behind it, as in ``CURRENCIES``.
        times: ``3x``, a multiple of something.
    """

    value: float
    percent: bool = False
    upper: float | None = None
    between: bool = False
    plus: bool = False
    unit: str = ""
    money: str = ""
    times: bool = False

    @property
    def text(self) -> str:
        """As the grammar writes it."""
        return print_number(self.value) + ("%" if self.percent else "")


@dataclass(frozen=True, slots=True)
class Piece:
    """A word, number or phrase.

    Attributes:
        kind: What it is.
        text: In lower case.
        quantity: Of a number.
        operator: Of ``operator`` (``at least`` before a number) and ``suffix`` (``or more`` behind).
        joined: It is one that stood in the text without space before it.
    """

    kind: PieceKind
    text: str
    quantity: Quantity | None = None
    operator: ComparisonOperator | None = None
    joined: bool = False
