"""One comparison of a sentence: the patterns of prose, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile
from typing import Final, Literal

from redis_agent.criteria.anatomy import Anatomy, anatomy_of
from redis_agent.criteria.expression import UNITS, Comparison, ComparisonOperator, Condition, Name, print_condition
from redis_agent.criteria.lexicon import (
    ARTICLES,
    ATTAIN,
    DOWN,
    EXCEED,
    FALL,
    GENERIC,
    KEEP,
    LIMITING,
    LINKS,
    MONEY,
    PURPOSES,
    QUALITIES,
    RISE,
    SPEAKERS,
    STAY,
    TAILS,
    UNCOUNTED,
    UP,
)
from redis_agent.criteria.matching import infinitive, stem
from redis_agent.criteria.pieces import NotUnderstoodError, Piece, Quantity
from redis_agent.criteria.vocabulary import Subject, Vocabulary, threshold

_NEGATED: Final[dict[ComparisonOperator, ComparisonOperator]] = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}
_UPPER_BOUNDS: Final = frozenset({"<", "<=", "=="})
_CUTS: Final = DOWN - {"cap", "limit"}

MISSED: Final = frozenset({"can not", "fails to"})
"""Negations of what has been tried."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a comparison says.

    Attributes:
        subject: The metric.
        operator: Before any negation.
        quantity: Its number.
        value: The number that counts: of a range the lower, of ``from 5% to 8%`` the second.
        counted: The number stands before what it counts: ``5 replies``.
        negation: As in ``Anatomy``.
        wish: As in ``Anatomy``.
        upper: The other end of ``between 20% and 40%``.
        manner: ``falls`` (``drops below 3%``) or ``stays`` (``stays under 5%``), or "" when it just is so.
    """

    subject: Subject
    operator: ComparisonOperator
    quantity: Quantity
    value: float
    counted: bool
    negation: str = ""
    wish: bool = False
    upper: float | None = None
    manner: Literal["", "falls", "stays"] = ""

    @property
    def asked(self) -> ComparisonOperator:
        """The operator with the negation in it.

        Raises:
            NotUnderstoodError: ``not exactly 5``, or ``not between``.
        """
        if not self.negation:
            return self.operator
        if self.operator not in _NEGATED or self.upper is not None:
            raise NotUnderstoodError("it is not clear what the negation leaves")
        return _NEGATED[self.operator]

    @property
    def is_upper_bound(self) -> bool:
        """Whether less is better here: true while nothing has happened yet."""
        return self.asked in _UPPER_BOUNDS

    @property
    def grows(self) -> bool:
        """Whether what it is about can only become more: things counted, in whatever words, unless they ``drop``."""
        plain = not (self.quantity.percent or self.quantity.money or self.quantity.unit)
        return self.manner != "falls" and (self.counted or (plain and self.subject.is_count))

    def condition(self) -> Comparison:
        """The comparison that it is."""
        if self.value == 0 and self.asked == ">=":
            raise NotUnderstoodError(f"{self.subject.name} is always at least 0")
        number = threshold(self.subject, self.value, self.quantity)
        name = Name(self.subject.name)
        if self.upper is not None:
            upper = threshold(self.subject, self.upper, self.quantity)
            return Comparison((number, name, upper), ("<=", "<="))
        return Comparison((name, number), (self.asked,))


@dataclass(frozen=True, slots=True)
class Pattern:
    """One way in which people write a comparison.

    Attributes:
        title: What it is called in the documentation.
        examples: Sentences that it reads.
        read: Gives the statement, or None when the comparison is not of this form.
    """

    title: str
    examples: tuple[str, ...]
    read: Callable[[Anatomy, Vocabulary], Statement | None]


def read_zero(anatomy: Anatomy, vocabulary: Vocabulary) -> Statement | None:
    """``Zero refund requests``, ``Get no complaints``, ``Refunds are zero``."""
    if not anatomy.zero and (anatomy.quantity.value != 0 or anatomy.operator is not None):
        return None
    if not EXCEED.isdisjoint(anatomy.before):
        return None
    if anatomy.negation:
        raise NotUnderstoodError("it is not clear what 'not' and zero leave")
    zero = replace(anatomy, operator="==")
    return read_count(zero, vocabulary) if anatomy.behind else read_subject(zero, vocabulary)


def read_subject(anatomy: Anatomy, vocabulary: Vocabulary) -> Statement | None:
    """``Reply rate >= 8%``, ``Keep bounce rate under 5%``, ``Open rate drops to 10%``."""
    quantity, behind = _with_unit(anatomy)
    words = [word for word in anatomy.before if word not in ("number", "count")]
    lead = ""
    while words and words[0] in SPEAKERS and vocabulary.declared(words) is None:
        words.pop(0)
    if words and words[0] in QUALITIES and vocabulary.declared(words) is None:
        named = list(dropwhile(QUALITIES.__contains__, words))
        words = words if vocabulary.declared(_without_link(named)[1]) is None else named
    if len(words) > 1 and words[0] in (*KEEP, *UP, *DOWN, *ATTAIN) and vocabulary.declared(words) is None:
        lead = words.pop(0)
    link, words = _without_link(words)
    declared = vocabulary.declared(_bare(words), rate=quantity.percent, money=quantity.money != "")
    spec = None if declared is None else declared.spec
    if spec is not None and spec.unit and behind and stem(behind[0]) == stem(spec.unit):  # 4.5 stars
        behind = behind[1:]
    if declared is not None and behind and behind[0] not in TAILS and anatomy.operator is not None:
        nearest = f"{declared.name} {anatomy.operator} {quantity.text}"
        raise NotUnderstoodError(f"'{' '.join(behind)[:60]}' behind the number may change it", nearest)
    if not words or (behind and (behind[0] not in TAILS or declared is None)):
        return None
    value, operator = quantity.value, anatomy.operator
    if quantity.upper is not None and "from" in link and lead in (*UP, *DOWN):
        value, quantity = quantity.upper, replace(quantity, upper=None)
        link.append("to")
    elif "from" in link or "by" in link:
        raise NotUnderstoodError("it is relative to something that is not known")
    _check_movement(anatomy, [lead, *link])
    operator = operator or _direction(lead, link) or (">=" if anatomy.negation in MISSED else None)
    subject = declared or vocabulary.measured(_bare(words))
    if operator is None and not quantity.between:
        raise _no_direction(subject, quantity)
    upper = quantity.upper if quantity.between else None
    statement = Statement(
        subject,
        operator or ">=",
        quantity,
        value,
        counted=False,
        negation=anatomy.negation,
        wish=anatomy.wish,
        upper=upper,
        manner="falls" if not FALL.isdisjoint(link) else "" if STAY.isdisjoint((lead, *link)) else "stays",
    )
    return _with_tail(statement, behind)


def read_count(anatomy: Anatomy, vocabulary: Vocabulary) -> Statement | None:
    """``At least 3 demo calls booked``, ``Win 4+ renewals``, ``Reach 60%+ activation rate``."""
    before = [word for word in anatomy.before if word not in SPEAKERS]
    if before in (["aim", "for"], ["hear", "from"]):
        before.pop()
    behind = [word for word in anatomy.behind if word not in ARTICLES]
    if behind[:2] == ["worth", "of"] or (behind[:1] in (["in"], ["of"]) and anatomy.quantity.money):
        behind = behind[2 if behind[0] == "worth" else 1 :]
    if behind and behind[-1] in ("target", "goal", "mark", "threshold"):
        behind.pop()
    if not behind or len(before) > 1:
        return None
    if behind[0] == "out":
        raise NotUnderstoodError("it is a share: name the rate and write it in percent")
    verb = infinitive(before[0]) if before else ""
    quantity, operator = anatomy.quantity, anatomy.operator
    if verb in EXCEED - {"pass", "cross", "beat"}:  # pass 3 audits
        operator, verb = operator or ">", ""
    elif verb in (*UP, *RISE) and "to" in anatomy.before:
        operator, verb = operator or ">=", ""
    elif verb in (*UP, *DOWN, *RISE, *FALL, "keep", "maintain"):
        if operator is None or "to" in anatomy.before:
            raise NotUnderstoodError(f"it is not clear from where to '{verb}' it")
        verb = ""
    subject, cut = _counted(behind, verb, anatomy, vocabulary)
    unsaid = operator is None and verb not in GENERIC and not anatomy.negation
    if quantity.percent and unsaid and behind[0] != "of":
        raise _no_direction(subject, quantity)
    statement = Statement(
        subject,
        operator or ">=",
        quantity,
        quantity.value,
        counted=not quantity.percent,
        negation=anatomy.negation,
        wish=anatomy.wish,
    )
    return _with_tail(statement, behind[cut:])


PATTERNS: Final = (
    Pattern("nothing", ("Zero refund requests", "No spam complaints", "Refund requests: 0"), read_zero),
    Pattern(
        "a measure compared",
        ("Reply rate >= 8%", "Keep bounce rate under 5%", "Reply rate drops below 3%", "Revenue of $10k or more"),
        read_subject,
    ),
    Pattern(
        "things counted",
        ("At least 3 demo calls booked", "Win 4+ renewals", "Publish a dozen posts", "Reach 60%+ activation rate"),
        read_count,
    ),
)
"""Tried in this order; the first that reads a comparison decides."""


def read_statement(pieces: Sequence[Piece], vocabulary: Vocabulary) -> Statement:
    """Reads one comparison with the first pattern that fits.

    Raises:
        NotUnderstoodError: None fits.
    """
    anatomy = anatomy_of(pieces)
    for pattern in PATTERNS:
        statement = pattern.read(anatomy, vocabulary)
        if statement is not None:
            return statement
    raise NotUnderstoodError("this is no comparison that is known")


def _no_direction(subject: Subject, quantity: Quantity) -> NotUnderstoodError:
    text = f"{subject.name} >= {quantity.text} or {subject.name} <= {quantity.text}"
    return NotUnderstoodError("it does not say whether more or less is meant", text)


def _with_unit(anatomy: Anatomy) -> tuple[Quantity, tuple[str, ...]]:
    """A unit of time behind the number belongs to it."""
    behind = tuple(word for word in anatomy.behind if word not in ("total", "overall"))
    if behind and behind[0] in UNITS and not anatomy.quantity.percent:
        return replace(anatomy.quantity, unit=UNITS[behind[0]]), behind[1:]
    return anatomy.quantity, behind


def _without_link(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The verb between a subject and its number, and the subject."""
    verbs = LINKS | ATTAIN | EXCEED | RISE | FALL | {"from", "by", "for", "between"}
    end = len(words)
    while end > 0 and words[end - 1] in verbs:
        end -= 1
    return list(words[end:]), list(words[:end])


def _check_movement(anatomy: Anatomy, words: Sequence[str]) -> None:
    """What ``drops more than 5%`` is relative to, nobody knows; ``drops below 5%`` says where.

    Raises:
        NotUnderstoodError: It moves by so much, or the other way.
    """
    rises, falls = not RISE.isdisjoint(words) or words[0] in UP, not FALL.isdisjoint(words) or words[0] in _CUTS
    if anatomy.operator is None or not (rises or falls):
        return
    if not anatomy.place and "to" not in words:
        raise NotUnderstoodError("it is relative to something that is not known")
    if (falls and anatomy.operator[0] == ">") or (rises and anatomy.operator[0] == "<"):
        raise NotUnderstoodError("it moves one way and is compared the other")


def _direction(lead: str, link: Sequence[str]) -> ComparisonOperator | None:
    if not EXCEED.isdisjoint(link):
        return ">"
    if not ATTAIN.isdisjoint(link) or (not RISE.isdisjoint(link) and "to" in link):
        return ">="
    if not FALL.isdisjoint(link) and "to" in link:
        return "<="
    if lead in UP and "to" in link:
        return ">="
    if lead in DOWN and ("to" in link or "at" in link):
        return "<="
    return ">=" if lead in ATTAIN and link[-1:] in (["of"], ["to"]) else None


def _bare(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in ("the", "a", "an", "our")]


def _counted(words: Sequence[str], verb: str, anatomy: Anatomy, vocabulary: Vocabulary) -> tuple[Subject, int]:
    """What is counted, and how many words say it; an undeclared thing needs them all."""
    rate, money = anatomy.quantity.percent, anatomy.quantity.money != ""
    generic = not verb or verb in GENERIC
    if rate and generic and words[0] == "of" and (share := vocabulary.share(words[1:])) is not None:
        return share, len(words)
    if money and words[0] == "per":
        words = ["cost", *words]
    for cut in _cuts(words):
        head = words[:cut]
        subject = vocabulary.declared([verb, *head], rate=rate) if verb else None
        if subject is None and generic:
            subject = vocabulary.declared(head, rate=rate, money=money)
        if subject is not None:
            return subject, cut
    stripped = [word for word in words if word not in ("total", "overall")]
    if rate and generic:
        return vocabulary.measured(stripped, strict=True), len(words)
    if rate:
        raise NotUnderstoodError(f"nothing is known that is a share of '{' '.join(words)[:80]}'")
    if money:
        amount = stripped[:-1] if stripped[-1].endswith("ed") else stripped
        if not amount or amount[-1] not in MONEY:
            raise NotUnderstoodError(f"it is not clear what the money of '{' '.join(words)[:80]}' is")
        return vocabulary.measured(stripped, strict=True), len(words)
    _check_limits(words, anatomy, vocabulary)
    if anatomy.article or not anatomy.quantity.value.is_integer():  # 4.5 stars are not counted
        raise NotUnderstoodError(f"nothing is known that counts '{' '.join(words)[:80]}'")
    purpose = _purpose(stripped)
    one = anatomy.quantity.value == 1
    return vocabulary.counted(stripped[:purpose], verb="" if generic else verb, one=one), len(words)


def _check_limits(words: Sequence[str], anatomy: Anatomy, vocabulary: Vocabulary) -> None:
    """Says what could be understood of ``10 replies in March``.

    Raises:
        NotUnderstoodError: A declared metric is limited by what stands behind it.
    """
    at = next((index for index, word in enumerate(words) if index and word in UNCOUNTED), 0)
    if not at or _purpose(words) == at:
        return
    subject = vocabulary.declared(words[:at])
    if subject is not None:
        nearest = f"{subject.name} {anatomy.operator or '>='} {anatomy.quantity.text}"
        raise NotUnderstoodError(f"'{' '.join(words[at:])[:60]}' limits it to what is not known", nearest)


def _purpose(words: Sequence[str]) -> int:
    """Where ``to validate the idea`` begins, or the end."""
    for index in range(1, len(words) - 1):
        if words[index] == "to" and words[index + 1] in PURPOSES:
            return index
    return len(words)


def _cuts(words: Sequence[str]) -> list[int]:
    """Ends of the thing counted, the longest first: all, then before each preposition."""
    return [len(words), *(index for index in range(len(words) - 1, 0, -1) if words[index] in TAILS)]


def _with_tail(statement: Statement, tail: Sequence[str]) -> Statement:
    """The statement, when what is left over (``from discovered contacts``) does not change it."""
    if tail and (not statement.subject.declared or not LIMITING.isdisjoint(tail)):
        raise NotUnderstoodError(
            f"'{' '.join(tail)[:60]}' limits it to what is not known", shown(statement.condition())
        )
    return statement


def shown(condition: Condition) -> str:
    """The text of what could be understood."""
    return print_condition(condition)
