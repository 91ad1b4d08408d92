"""Keeps secrets out of prompts, logs and messages, also when the API repeats them in its errors."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "[hidden]"

# A shorter secret is no secret, and hiding it would hide half of the text.
_LEAST_LENGTH = 6

# What looks like a key or a password whoever it belongs to: events may carry those of others.
_PATTERNS: Final = (
    re.compile(r"\bAIza[\w-]{10,}"),  # an API key of Google
    re.compile(r"\bAQ\.[\w-]{20,}"),  # its newer form
    re.compile(r"\bya29\.[\w.-]{10,}"),  # an access token of Google
    # Of Stripe, OpenAI, GitHub, Slack and AWS. Names of experiments must not look like these.
    re.compile(r"\b(?:[spr]k[-_](?:live|test|proj|ant)[-_][\w-]{10,}|sk-[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,})"),
    re.compile(r"\b(?:xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16})"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),  # a JSON Web Token
    re.compile(r"(?<=://)[^/\s@'\"]*@"),  # what stands before the host in a URL
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}"),
    re.compile(r"(?i)(?<=[?&]key=)[^&\s'\"]+"),
    re.compile(
        r"(?i)\b(?:api[_-]?key|x-goog-api-key|password|passwd|secret|access_token)[\"']?\s*[=:]\s*[\"']?[^\s\"',;&}]+"
    ),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)


class Redactor:
    """Hides the given secrets, and whatever looks like one.

    Args:
        secrets: keys, passwords, and URLs that hold one; empty ones are left out.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        long_enough = [secret for secret in secrets if len(secret) >= _LEAST_LENGTH]
        forms = {form for secret in long_enough for form in (secret, quote(secret, safe=""))}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(re.escape(form) for form in longest_first)) if longest_first else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for pattern in _PATTERNS:
            text = pattern.sub(HIDDEN, text)
        return text
