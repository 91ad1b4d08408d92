"""Which models are asked, in what order, and what each takes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DEFAULT: Final = "gemini-3.5-flash-lite"

# Shut down for everybody: asking for them costs a call and says 404.
_RETIRED = re.compile(
    r"gemini-(?:1\.0|1\.5|2\.0)(?:-.*)?|gemini-(?:pro|ultra)(?:-vision)?|gemini-exp-.*"
    r"|(?:text|chat|code)-bison.*|learnlm-1\..*"
)
_GENERATION = re.compile(r"gemini-(\d+)(?:\.\d+)?-(\w+)")
# Names that always mean the newest model, which are of Gemini 3 or later by now.
_ALIAS = re.compile(r"gemini-(flash|flash-lite|pro)-latest")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a model is asked for besides the answer; None is not sent.

    Attributes:
        temperature: 0.2 for facts, where the model's makers do not advise against it.
        thinking_level: of Gemini 3 and later.
        thinking_budget: of Gemini 2.5: 0 tokens.
    """

    temperature: float | None = None
    thinking_level: str | None = None
    thinking_budget: int | None = None


NOTHING: Final = Tuning()


@dataclass(frozen=True, slots=True)
class Chain:
    """The models to ask, the preferred one first.

    Attributes:
        models: each once; the next is asked when one is gone (404).
        retired: names that were given and are no more.
    """

    models: tuple[str, ...]
    retired: tuple[str, ...]


def chain(model: str, fallbacks: Iterable[str]) -> Chain:
    """The models that were configured, without those that were shut down.

    >>> chain("gemini-2.0-flash-exp", ["gemini-3.6-flash"])
    Chain(models=('gemini-3.5-flash-lite', 'gemini-3.6-flash'), retired=('gemini-2.0-flash-exp',))
    """
    given = [name.strip().removeprefix("models/") for name in (model, *fallbacks)]
    retired = tuple(dict.fromkeys(name for name in given if is_retired(name)))
    chosen = [DEFAULT if place == 0 and is_retired(name) else name for place, name in enumerate(given)]
    return Chain(tuple(dict.fromkeys(name for name in chosen if name and not is_retired(name))), retired)


def is_retired(model: str) -> bool:
    """Whether a model of this name has been shut down."""
    return _RETIRED.fullmatch(_bare(model)) is not None


def is_alias(model: str) -> bool:
    """Whether it is a name of whatever is newest; the Gemini API knows these as `v1beta` only."""
    return _ALIAS.fullmatch(_bare(model)) is not None


def _bare(model: str) -> str:
    return model.rpartition("/")[2].lower()


def tuning(model: str) -> Tuning:
    """What this model takes.

    Google's prompting guide for Gemini 3 recommends the default temperature: lower ones can make these models loop and
    answer worse. Their thinking is set to the least, since an alert waits for seconds: `minimal`, and `low` for the Pro
    models, which know no `minimal`. Gemini 2.5 takes both a temperature and a budget of 0 thinking tokens, but for its
    Pro, which cannot stop thinking. Of other models nothing is known, so nothing is sent.
    """
    name = _bare(model)
    alias, found = _ALIAS.fullmatch(name), _GENERATION.match(name)
    if alias is None and found is None:
        return NOTHING
    is_pro = (alias[1] if alias else found[2] if found else "") == "pro"
    if found is None or int(found[1]) >= 3:
        return Tuning(thinking_level="low" if is_pro else "minimal")
    return Tuning(temperature=0.2, thinking_budget=None if is_pro else 0)
