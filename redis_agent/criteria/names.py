"""Names of metrics matched word by word: events are singular, metrics plural.

``email_sent`` and ``emails_sent``, ``reply`` and ``replies``, ``Bounce`` and ``bounces`` have the
same key. A key is for comparing only; it is no word.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_BREAK: Final = re.compile(r"[\W_]+")
_IRREGULAR: Final = {"sent": "send", "made": "make", "won": "win", "paid": "pay"}
_FILLERS: Final = frozenset({"of", "the", "total"})


@lru_cache(maxsize=8_192)
def name_key(name: str) -> str:
    """The name in lower case with every word in the singular, joined by ``_``."""
    return "_".join(_singular(word) for word in _BREAK.split(name.lower()) if word)


@lru_cache(maxsize=8_192)
def name_stems(name: str) -> frozenset[str]:
    """The stems of the words of a name: ``emails_sent`` has ``email`` and ``send``."""
    words = {word for word in _BREAK.split(name.lower()) if word}
    return frozenset(_stem(word) for word in (words - _FILLERS or words))


def _singular(word: str) -> str:
    """One form for singular and plural.

    A plural ``s`` goes, except in ss/us/is words (address, status, analysis); then a final ``e``
    and ``y`` are levelled, so that -ies (replies), -ses (responses, statuses), -ches (matches) and
    -es (bounces, boxes) meet their singular without a dictionary.
    """
    if len(word) > 2 and word[-1] == "s" and word[-2:] not in ("ss", "us", "is"):
        word = word[:-1]
    if len(word) > 2 and word[-1] == "e":
        word = word[:-1]
    if len(word) > 2 and word[-1] == "y":
        word = word[:-1] + "i"
    return word


def _stem(word: str) -> str:
    """The singular form of a word, or of the verb it is a past tense of."""
    word = _IRREGULAR.get(word, word)
    if len(word) > 4 and word.endswith("ed"):
        return _singular(word[:-2])
    return _singular(word)
