"""Which metric some words mean: the same words in another order, form, or with a filler.

``demos booked`` means ``demo_booked``, ``replies`` means ``total_replies`` and ``sign 20 partners``
means ``partners_signed``. A word that tells one thing from another is never left out: ``replies``
does not mean ``positive_replies``, and ``emails sent`` does not mean ``emails_opened``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

from redis_agent.criteria.names import name_key

PARTICIPLES: Final[dict[str, str]] = {
    "send": "sent",
    "make": "made",
    "win": "won",
    "pay": "paid",
    "sell": "sold",
    "get": "got",
    "hold": "held",
    "build": "built",
    "lose": "lost",
    "meet": "met",
    "find": "found",
    "run": "run",
    "write": "written",
    "spend": "spent",
    "give": "given",
    "take": "taken",
    "buy": "bought",
    "ship": "shipped",
    "submit": "submitted",
    "refer": "referred",
    "upsell": "upsold",
    "keep": "kept",
    "hear": "heard",
    "teach": "taught",
    "bring": "brought",
    "set": "set",
    "cut": "cut",
    "plan": "planned",
}
"""Of verbs whose participle is not their name with -ed."""

_INFINITIVES: Final = {participle: verb for verb, participle in PARTICIPLES.items()}
_DOUBLED: Final = re.compile(r"([bdgmnprt])\1$")
_BREAK: Final = re.compile(r"[\W_]+")
_SAME: Final = {"schedul": "book", "percentag": "rat"}
_DEMO_NOUNS: Final = frozenset({"call", "meeting", "session"})

_FILLERS: Final = frozenset(
    [
        *("total", "overall", "number", "count", "of", "th", "new", "so", "far", "receiv", "book", "send"),
        *("sign", "win", "publish", "get", "mak", "secur", "land", "clos", "complet", "generat", "creat", "earn"),
        *("acquir", "collect"),
    ]
)
"""Stems that may be left out on one side, when one candidate is left."""

_RATE: Final = frozenset({"rat", "ratio"})


def words_in(text: str) -> list[str]:
    """The words of a name or a phrase, in lower case."""
    return [word for word in _BREAK.split(text.lower()) if word]


@lru_cache(maxsize=8_192)
def stem(word: str) -> str:
    """One form for singular and plural, and for a verb and its participle; for comparing only."""
    word = _INFINITIVES.get(word, word)
    if len(word) > 4 and word.endswith("ed") and not word.endswith("eed"):
        word = _DOUBLED.sub(r"\1", word[:-2]) + "e"  # name_key takes any final e away
    key = name_key(word)
    return _SAME.get(key, key)


def participle(verb: str) -> str:
    """``book`` gives ``booked``, ``win`` gives ``won``."""
    if verb in PARTICIPLES:
        return PARTICIPLES[verb]
    if verb.endswith("e"):
        return f"{verb}d"
    if len(verb) > 2 and verb[-1] == "y" and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ied"
    return f"{verb}ed"


def matching(words: Sequence[str], names: Iterable[str], *, rate: bool = False) -> list[str]:
    """The names that some words mean; more than one is an ambiguity.

    Args:
        words: A phrase, or a name in its words.
        names: The candidates; of those that differ in number only, the first counts.
        rate: The words are said of a percentage: ``60% activation`` means ``activation_rate``.

    Returns:
        The best tier that has any: the same name, the same words in their order, the same letters
        (``sign-ups``, ``signups``), the same words in any order, the same but for fillers on one side.
    """
    phrase = [word for part in words for word in words_in(part)]
    if not phrase:
        return []
    candidates = list(dict.fromkeys(names))
    name = "_".join(phrase)
    if name in candidates:
        return [name]
    key, letters, stems = name_key(name), "".join(map(stem, phrase)), _stems(name)
    tiers: tuple[Callable[[str], bool], ...] = (
        lambda other: name_key(other) == key,
        lambda other: "".join(map(stem, words_in(other))) == letters,
        lambda other: _stems(other) == stems,
        lambda other: rate and _stems(other) - stems <= _RATE and stems <= _stems(other),
        lambda other: _differ_by_fillers(stems, _stems(other)),
    )
    for same in tiers:
        found = {name_key(other): other for other in reversed(candidates) if same(other)}
        if found:
            return list(reversed(found.values()))
    return []


@lru_cache(maxsize=8_192)
def _stems(name: str) -> frozenset[str]:
    stems = {stem(word) for word in words_in(name)}
    return frozenset(stems - _DEMO_NOUNS if "demo" in stems else stems)


def _differ_by_fillers(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether one has all words of the other, and besides them fillers only."""
    if not one & other - _FILLERS:
        return False
    return (one <= other or other <= one) and one ^ other <= _FILLERS
