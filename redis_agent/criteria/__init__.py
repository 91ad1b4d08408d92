"""Success and failure criteria: their grammar, their judging, and how sure one can be.

Pure: no clock, no client, no settings. ``understand`` reads a text, ``evaluate`` judges it on a
``Metrics`` view of the aggregate hash.
"""

from __future__ import annotations

from redis_agent.criteria.evaluation import Evaluation
from redis_agent.criteria.evidence import Evidence, rate_evidence
from redis_agent.criteria.expression import Criterion, CriterionError, Formula, Number, print_name, print_number
from redis_agent.criteria.grammar import parse, parse_flag, parse_formula
from redis_agent.criteria.judging import evaluate
from redis_agent.criteria.metrics import Metrics, MetricSpec, is_base_field
from redis_agent.criteria.pieces import WrongScaleError
from redis_agent.criteria.prose import CriterionKind, is_prose, looks_formal, read_prose
from redis_agent.criteria.reading import Reading
from redis_agent.criteria.vocabulary import Vocabulary


def understand(text: str, vocabulary: Vocabulary | None = None, kind: CriterionKind = "success") -> Criterion:
    """Reads a criterion as people write it: the formal grammar first, then the patterns of prose.

    Args:
        text: A criterion.
        vocabulary: The metrics of its experiment, which the words of prose are matched to.
        kind: A failure criterion in prose describes the failure.

    Raises:
        CriterionError: Nobody understands it. Where the text looks like the grammar, the error is
            the grammar's and names the place; else it says what the prose lacks, and the nearest
            thing that could be understood.
    """
    try:
        criterion = parse(text)
    except CriterionError as error:
        formal = error
    else:
        return _sentence(text, criterion, vocabulary, kind) or criterion
    if not is_prose(text):
        raise formal
    try:
        return read_prose(text, vocabulary or Vocabulary(), kind)
    except CriterionError as error:
        if looks_formal(text):
            raise formal from error
        raise error from formal


def _sentence(text: str, criterion: Criterion, vocabulary: Vocabulary | None, kind: CriterionKind) -> Criterion | None:
    """A short sentence that is of the grammar by chance, ``Conversion < 1%``, where its words mean declared metrics.

    Raises:
        CriterionError: ``Finish within 30 days``, or ``CTR > 5`` of a metric that goes from 0 to 1.
    """
    if not any(name[0].isupper() and name.isalpha() for name in criterion.names):
        return None
    known = vocabulary or Vocabulary()
    try:
        read = read_prose(text, known, kind)
    except WrongScaleError:
        raise
    except CriterionError:
        word = criterion.names[0]
        bare = criterion.is_bare_flag and word.istitle() and ":" not in text and "=" not in text
        if bare and known.declared([word.lower()]) is None:
            raise
        return None
    return None if read.spoken else read


__all__ = [
    "Criterion",
    "CriterionError",
    "CriterionKind",
    "Evaluation",
    "Evidence",
    "Formula",
    "MetricSpec",
    "Metrics",
    "Number",
    "Reading",
    "Vocabulary",
    "evaluate",
    "is_base_field",
    "parse",
    "parse_flag",
    "parse_formula",
    "print_name",
    "print_number",
    "rate_evidence",
    "understand",
]
