"""Waiting for a condition: what tests do where they would otherwise sleep."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    condition: Callable[[], T | Awaitable[T]],
    timeout: float = 10.0,
    *,
    interval: float = 0.01,
    what: str = "",
) -> T:
    """Polls a sync or async condition until its value is truthy, and returns that value.

    A condition may also assert: an AssertionError counts as "not yet".

    Raises:
        AssertionError: it did not come true in time; says what was awaited and the last value.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
        failure: AssertionError | None = None
        try:
            result = condition()
            value = await result if inspect.isawaitable(result) else result
            if value:
                return value
            last = value
        except AssertionError as error:
            failure, last = error, error
        if time.monotonic() > deadline:
            awaited = what or getattr(condition, "__name__", repr(condition))
            message = f"not within {timeout:g} s: {awaited}; the last value was {last!r}"
            raise AssertionError(message) from failure
        await asyncio.sleep(interval)
