"""Reads what others wrote about an experiment, in whatever form the key has."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from redis.asyncio import Redis

from redis_agent.store import keys
from redis_agent.store.failures import is_wrong_type
from redis_agent.store.stream import text

# A definition larger than this is not judged; people are told instead.
MAX_DEFINITION_BYTES = 1_048_576

# Definitions that are decoded before others in the process get their turn.
_SLICE = 32

Document = dict[str, str] | str


@dataclass(frozen=True)
class Definition:
    """An experiment's two documents as they stand in Redis; None where there is no such key.

    Attributes:
        document: `experiments:{id}`.
        specs: `metrics_specs:{id}`.
        problem: why a document could not be read (a key of another type, too large); "" if all were.
        too_large: whether one was too large: to read it again costs as much.
    """

    document: Document | None
    specs: Document | None
    problem: str = ""
    too_large: bool = False

    @cached_property
    def digest(self) -> bytes:
        """Stands for all of it, where it is only asked whether it has changed."""
        parts: list[str] = [self.problem]
        for document in (self.document, self.specs):
            if isinstance(document, dict):
                parts += ("hash", *(part for pair in document.items() for part in pair))
            else:
                parts += ("string", document) if document is not None else ("none",)
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            encoded = part.encode()
            digest.update(b"%d:" % len(encoded))
            digest.update(encoded)
        return digest.digest()

    @property
    def exists(self) -> bool:
        """Whether there is something to read, understood or not."""
        return self.document is not None or self.specs is not None


def is_experiment(experiment_id: str) -> bool:
    """Whether an id can be an experiment's: `experiments:exp_1:results` is something that exp_1 has."""
    return ":" not in experiment_id


class Definitions:
    """Reads definitions, many in two round trips."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def read(self, experiment_ids: Sequence[str]) -> dict[str, Definition]:
        """The definitions of these experiments; one without any key, or that can be none, has both documents None."""
        found = dict.fromkeys(experiment_ids, Definition(None, None))
        experiment_ids = [i for i in found if is_experiment(i)]
        names = [keys.experiment(i) for i in experiment_ids]
        names += [keys.metrics_specs(i) for i in experiment_ids]
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(name)
            replies = await pipe.execute(raise_on_error=False)
        # A STRING answers WRONGTYPE to HGETALL; so does what is neither.
        strings = [n for n, reply in enumerate(replies) if is_wrong_type(reply)]
        if strings:
            async with self._client.pipeline(transaction=False) as pipe:
                for n in strings:
                    pipe.getrange(names[n], 0, MAX_DEFINITION_BYTES)
                for n, reply in zip(strings, await pipe.execute(raise_on_error=False), strict=True):
                    replies[n] = reply
        half = len(experiment_ids)
        for n, experiment_id in enumerate(experiment_ids):
            if n % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            found[experiment_id] = _definition(replies[n], replies[half + n])
        return found


def _definition(document: object, specs: object) -> Definition:
    problems: list[str] = []
    return Definition(
        _document(document, "experiments", problems),
        _document(specs, "metrics_specs", problems),
        "; ".join(problems),
        any("holds more than" in problem for problem in problems),
    )


def _document(reply: object, kind: str, problems: list[str]) -> Document | None:
    if is_wrong_type(reply):
        problems.append(f"the {kind} key is neither a hash nor a string")
        return None
    if isinstance(reply, Exception):
        raise reply
    if isinstance(reply, dict):
        if sum(map(len, reply.values())) > MAX_DEFINITION_BYTES:
            problems.append(f"the {kind} key holds more than {MAX_DEFINITION_BYTES} bytes")
            return None
        return {text(field): text(value) for field, value in reply.items()} or None
    if isinstance(reply, bytes):
        if len(reply) > MAX_DEFINITION_BYTES:
            problems.append(f"the {kind} key holds more than {MAX_DEFINITION_BYTES} bytes")
            return None
        return text(reply) or None
    return None
