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

from redis_agent.criteria.lexicon import GENERIC
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
_SAME: Final = {
    **dict.fromkeys(("schedul", "set"), "book"),
    **dict.fromkeys(("hold", "conduct", "perform", "finish", "host"), "complet"),
    **dict.fromkeys(("percentag", "percent", "pct"), "rat"),
    "avg": "averag",
}
_DEMO_NOUNS: Final = frozenset({"call", "meeting", "session"})

FILLERS: Final = frozenset(
    [
        *("total", "overall", "number", "count", "of", "th", "new", "so", "far", "receiv", "book", "send"),
        *("sign", "win", "publish", "get", "mak", "secur", "land", "clos", "complet", "generat", "creat", "earn"),
        *("acquir", "collect", "join", "recruit", "gain", "start", "scor"),
    ]
)
"""Stems that may be left out on one side, when one candidate is left."""

_COUNTING: Final = frozenset({"total", "overall", "number", "count", "of", "th", "new", "so", "far"})
"""Those that say nothing at all, on either side."""

_IN_NAMES: Final = frozenset(
    [
        *("averag", "usd", "eur", "gbp", "dollar", "euro", "github", "linkedin", "twitter", "instagram", "youtub"),
        *("tiktok", "facebook", "reddit", "slack", "discord", "google"),
    ]
)
"""Stems that a name may have besides: people do not say them, or say them with the number."""

_TIMES: Final = frozenset({"tim", "duration", "length", "cycl", "delai", "latenci", "payback", "period"})
_UNITS: Final = frozenset({"second", "sec", "minut", "min", "hour", "hr", "dai", "week", "month"})
"""Stems of units, which the name of a time may have besides."""

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


def infinitive(verb: str) -> str:
    """``losing`` gives ``lose``, ``booking`` gives ``book``; any other word is left as it is."""
    if len(verb) < 6 or not verb.endswith("ing"):
        return verb
    base = _DOUBLED.sub(r"\1", verb[:-3])
    return next((whole for whole in (base, f"{base}e", verb[:-3]) if whole in PARTICIPLES or whole in GENERIC), base)


def participle(verb: str) -> str:
    """``book`` gives ``booked``, ``win`` gives ``won``."""
    if verb in PARTICIPLES:
        return PARTICIPLES[verb]
    if verb in _INFINITIVES or (len(verb) > 4 and verb.endswith("ed")):
        return verb
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
        (``sign-ups``, ``signups``), the same words in any order, the same but for fillers on one side, the
        initials of one of three words or more (``CTR``, ``click_through_rate``).
    """
    phrase = [word for part in words for word in words_in(part)]
    if not phrase:
        return []
    candidates = list(dict.fromkeys(names))
    name = "_".join(phrase)
    if name in candidates:
        return [name]
    key, letters, stems = name_key(name), "".join(map(stem, phrase)), _stems(name)
    joined = stem("".join(phrase))
    tiers: tuple[Callable[[str], bool], ...] = (
        lambda other: name_key(other) == key,
        lambda other: "".join(map(stem, words_in(other))) == letters or stem(other.replace("_", "")) == joined,
        lambda other: _stems(other) == stems,
        lambda other: rate and _stems(other) - stems <= _RATE and stems <= _stems(other),
        lambda other: _differ_by_fillers(stems, _stems(other)),
        lambda other: _abbreviates(phrase, words_in(other)) or _abbreviates(words_in(other), phrase),
    )
    for same in tiers:
        found = {name_key(other): other for other in reversed(candidates) if same(other)}
        if found:
            return list(reversed(found.values()))
    if any("-" in word for word in words):  # follow-up meetings, followup_meetings
        return matching([word.replace("-", "") for word in words], candidates, rate=rate)
    return []


@lru_cache(maxsize=8_192)
def _stems(name: str) -> frozenset[str]:
    stems = {stem(word) for word in words_in(name)}
    return frozenset(stems - _DEMO_NOUNS if "demo" in stems else stems)


def _differ_by_fillers(phrase: frozenset[str], name: frozenset[str]) -> bool:
    """Whether one has all words of the other, and besides them fillers only."""
    if not phrase & name - FILLERS:
        return False
    phrase, name = phrase - _COUNTING, name - _COUNTING
    units = _UNITS if name & _TIMES else frozenset()
    return (name <= phrase and phrase - name <= FILLERS) or (
        phrase <= name and name - phrase <= FILLERS | _IN_NAMES | units
    )


def _abbreviates(short: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a single word is the initials of others."""
    return len(short) == 1 and len(words) > 2 and short[0] == "".join(word[0] for word in words)
