"""A comparison in its parts: the one number, what stands around it, and which way it points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from redis_agent.criteria.expression import ComparisonOperator
from redis_agent.criteria.lexicon import WISHES
from redis_agent.criteria.pieces import NotUnderstoodError, Piece, Quantity

_PLACES: Final = frozenset(
    {"above", "at or above", "at or below", "at or over", "at or under", "below", "beneath", "over", "under"}
)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A comparison in its parts, before anybody knows what it is about.

    Attributes:
        before: The words before the number.
        behind: The words behind it.
        quantity: The number; 0 of ``no replies``.
        operator: ``at least``, ``>=``, ``or more``, None when nobody says.
        place: The operator says where something is (``below``, ``<``), not how much it is (``less than``).
        negation: ``can not``, ``fails to``, ``not``, ``is not``, ``do not`` (at the beginning) or "".
        wish: It says what somebody wants (``keep``, ``must``), which is no failure.
        zero: ``zero`` or ``no``.
        article: The number is an article: ``can't close a deal``.
    """

    before: tuple[str, ...]
    behind: tuple[str, ...]
    quantity: Quantity
    operator: ComparisonOperator | None
    place: bool
    negation: str
    wish: bool
    zero: bool
    article: bool


def anatomy_of(pieces: Sequence[Piece]) -> Anatomy:
    """Finds the one number of a comparison and what stands around it.

    Raises:
        NotUnderstoodError: There are several, or a piece stands where it means nothing.
    """
    at = [index for index, piece in enumerate(pieces) if piece.kind in ("number", "zero")]
    if len(at) != 1:
        raise NotUnderstoodError("there is more than one number" if at else "there is no number to compare with")
    number = pieces[at[0]]
    before, behind = list(pieces[: at[0]]), list(pieces[at[0] + 1 :])
    if behind and behind[-1].text in ("minimum", "min", "at least", "maximum", "max", "at most"):  # 25 signups minimum
        behind[-1] = replace(behind[-1], kind="suffix")
    suffixes = [piece for piece in behind if piece.kind == "suffix"]
    if suffixes and len(suffixes) == 1 and suffixes[0] in (behind[0], behind[-1]):
        behind.remove(suffixes[0])
    while len(before) > 1 and before[-1].text in ("a", "an", "of", "the", "just") and before[-2].kind == "operator":
        before.pop()
    sign = before.pop() if before and before[-1].kind == "operator" else None
    operator = None if sign is None else sign.operator
    negations = [piece.text for piece in before if piece.kind == "negation"]
    if negations == ["not"] and before[0].kind == "negation":
        negations = ["do not"]
    before = [piece for piece in before if piece.kind != "negation"]
    strange = [piece.text.strip("'\"") or piece.text for piece in (*before, *behind) if piece.kind != "word"]
    if strange or len(negations) > 1:
        raise NotUnderstoodError(f"'{[*strange, *negations][0]}' means nothing that is clear where it stands")
    zero = number.kind == "zero" and (operator in (None, "==") or number.text != "zero")
    quantity = number.quantity or Quantity(0.0)
    if number.kind == "zero" and (suffixes or (operator is not None and number.text != "zero")):
        raise NotUnderstoodError("it is not clear how nothing is compared")
    return Anatomy(
        tuple(piece.text for piece in before),
        tuple(piece.text for piece in behind),
        quantity,
        "==" if zero else _operator(operator, suffixes[0].operator if suffixes else None, quantity),
        sign is not None and (sign.text in _PLACES or not sign.text[0].isalpha()),
        negations[0] if negations else "",
        not WISHES.isdisjoint(piece.text for piece in before),
        zero,
        number.text in ("a", "an") and quantity.value == 1,
    )


def _operator(
    before: ComparisonOperator | None, behind: ComparisonOperator | None, quantity: Quantity
) -> ComparisonOperator | None:
    """The direction that ``at least``, ``+``, ``or more`` and a range give together."""
    lower = quantity.plus or behind == ">="
    if before is not None:
        clash = (lower and before not in (">", ">=")) or (behind == "<=" and before not in ("<", "<="))
        if clash or (quantity.upper is not None and before != ">="):
            raise NotUnderstoodError("two directions, or two ends, are said at once")
        return before
    if behind is not None and quantity.plus and behind != ">=":
        raise NotUnderstoodError("two directions are said at once")
    return ">=" if lower else behind
