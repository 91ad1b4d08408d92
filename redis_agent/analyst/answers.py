"""What Gemini may answer: the schemas, checked as strictly as input from anybody else.

The texts go to people, and into the prompt of another language model. So they are single lines of plain words: no
addresses, no markup, no commands, whatever a text among the facts has talked the model into.
"""

import re
import unicodedata
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Status = Literal["on_track", "at_risk", "failing", "succeeded"]

# What the grounding check asks of a schema: the fields that must name something in the facts.
NAMES_OF_FACTS: Final = "NAMES_OF_FACTS"

_ADDRESS = re.compile(
    r"\w+://|\bwww\.|\bmailto:|\S@\S+\.\w|\b[\w-]+\.(?:com|org|net|io|dev|ai|app|xyz|ru|cn|me|co|info|sh|ly)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[`{}\\]|<\s*[/!a-zA-Z]|\]\(|\*\*|\$\(|^\s*#")
_COMMAND = re.compile(
    r"\b(?:curl|wget|sudo|chmod|bash|powershell|eval|exec|redis-cli|flushall|flushdb|drop\s+table|delete\s+from|rm\s+-\w+)\b"
    r"|&&",
    re.IGNORECASE,
)
# Whoever gives orders to the reader's own model, or speaks of its prompt, does not speak of an experiment.
_ORDER = re.compile(
    r"\b(?:ignor\w*|disregard\w*|forget\w*|overrid\w*)\b.{0,40}\b(?:instruction|prompt|rule|guideline|above|previous)"
    r"|\bsystem\s+(?:prompt|message|instruction)|\b(?:api|secret|access)[ _-]?key|\bpassword|\bcredential",
    re.IGNORECASE,
)
_TWO_SENTENCES = re.compile(r"[.!?]\s+[A-Z0-9]")
_ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|vs|approx|no|etc)\.", re.IGNORECASE)


def _plain(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    if any(unicodedata.category(sign) in {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"} for sign in text):
        raise ValueError("is more than one line of plain text")
    for pattern, what in ((_ADDRESS, "an address"), (_MARKUP, "markup"), (_COMMAND, "a command"), (_ORDER, "an order")):
        if pattern.search(text):
            raise ValueError(f"holds {what}")
    return text


def _one_sentence(text: str) -> str:
    if _TWO_SENTENCES.search(_ABBREVIATIONS.sub("", text)):
        raise ValueError("is more than one sentence")
    return text


def _none_as_such(text: str) -> str:
    return "none" if text.rstrip(".").casefold() == "none" else text


Line = Annotated[str, Field(max_length=240), AfterValidator(_plain)]
Lines = Annotated[list[Line], Field(max_length=12)]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", str_strip_whitespace=True)


class AlertAnalysis(_Answer):
    """What an alert's numbers mean.

    Attributes:
        status: how the experiment stands.
        key_metric: the one metric that says most, as the facts name it.
        insight: what it says, in one sentence.
        action: what to do, or "none" where the data support nothing.
    """

    NAMES_OF_FACTS: ClassVar[frozenset[str]] = frozenset({"key_metric"})

    status: Status = Field(description="How the experiment stands against its criteria.")
    key_metric: Annotated[str, Field(max_length=120), AfterValidator(_plain)] = Field(
        description="The name of one metric, copied from the facts."
    )
    insight: Annotated[str, Field(max_length=400), AfterValidator(_plain), AfterValidator(_one_sentence)] = Field(
        description="One sentence: what the numbers say."
    )
    action: Annotated[Line, AfterValidator(_none_as_such)] = Field(
        description="One short recommendation that the data support, or the word none."
    )


class SummaryAnalysis(_Answer):
    """What all experiments together have done since the last summary.

    Attributes:
        headline: the one thing to know.
        wins: what went well.
        concerns: what did not.
        changes: what differs from the last summary.
        quiet: what has gone silent.
    """

    headline: Line = Field(description="One sentence: the one thing to know.")
    wins: Lines = Field(description="What went well, one line each; empty if nothing did.")
    concerns: Lines = Field(description="What needs attention, one line each.")
    changes: Lines = Field(description="What changed since the last summary, one line each.")
    quiet: Lines = Field(description="What has gone silent, one line each.")


class CriterionTranslation(_Answer):
    """A criterion in our grammar.

    Attributes:
        criterion: the text, "" where it cannot be said.
    """

    criterion: str = Field(max_length=400, description="The criterion in the grammar, or an empty text.")
