"""Offers a criterion that nobody understands to Gemini, and believes only what our own parser says of the answer."""

from collections.abc import Sequence

from redis_agent.analyst.answers import CriterionTranslation
from redis_agent.analyst.asking import Asker
from redis_agent.analyst.question import NoAnswer
from redis_agent.criteria import CriterionError, CriterionKind, parse

# What a prompt tells whole. Half of a criterion is another criterion.
_MOST_NAMES = 60
_MOST_CHARACTERS = 400


async def translate(
    gemini: Asker, text: str, metrics: Sequence[str], kind: CriterionKind, *, deadline: float
) -> str | None:
    """One criterion in our grammar.

    Args:
        gemini: who is asked.
        text: as its author wrote it.
        metrics: the names that the experiment has.
        kind: whether meeting it is a success or a failure.
        deadline: on the event loop's clock.

    Returns:
        Its canonical text, which reads only known metrics and has only numbers of the text; None if there is none.
    """
    known = list(dict.fromkeys(metrics))[:_MOST_NAMES]
    if not known or not 0 < len(text.strip()) <= _MOST_CHARACTERS:
        return None
    facts = {"kind": kind, "criterion": text, "metrics": known}
    answer = await gemini.ask("translate", facts, CriterionTranslation, deadline=deadline)
    if isinstance(answer, NoAnswer) or not isinstance(answer.value, CriterionTranslation):
        return None
    return understood(answer.value.criterion, known)


def understood(criterion: str, metrics: Sequence[str]) -> str | None:
    """The canonical text of a criterion that reads only these metrics; None if it does not parse or reads others."""
    try:
        parsed = parse(criterion)
    except CriterionError:
        return None
    return parsed.text if parsed.names and set(parsed.names) <= set(metrics) else None
