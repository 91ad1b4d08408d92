"""Success and failure criteria: their grammar, their judging, and how sure one can be.

Pure: no clock, no client, no settings. ``understand`` reads a text, ``evaluate`` judges it on a
``Metrics`` view of the aggregate hash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from redis_agent.criteria.evaluation import Evaluation, evaluate
from redis_agent.criteria.evidence import Evidence, rate_evidence
from redis_agent.criteria.expression import Criterion, CriterionError, Formula, Number, print_name
from redis_agent.criteria.grammar import parse, parse_flag, parse_formula
from redis_agent.criteria.metrics import Metrics, MetricSpec, is_base_field
from redis_agent.criteria.reading import Reading

READERS: Final[tuple[Callable[[str], Criterion], ...]] = (parse,)
"""Who tries to understand a text, in order. The patterns of prose join behind the grammar."""


def understand(text: str) -> Criterion:
    """Reads a criterion as people write it: the formal grammar first, then the other readers.

    Raises:
        CriterionError: Nobody understands it; the error is the formal grammar's.
    """
    first: CriterionError | None = None
    for reader in READERS:
        try:
            return reader(text)
        except CriterionError as error:
            first = first or error
    raise first or CriterionError("nobody reads criteria")


__all__ = [
    "READERS",
    "Criterion",
    "CriterionError",
    "Evaluation",
    "Evidence",
    "Formula",
    "MetricSpec",
    "Metrics",
    "Number",
    "Reading",
    "evaluate",
    "is_base_field",
    "parse",
    "parse_flag",
    "parse_formula",
    "print_name",
    "rate_evidence",
    "understand",
]
