"""Ctrl-C and SIGTERM, from the first moment of the demo to the last: always a complete clean-up, never a traceback."""

import signal
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Interrupts:
    """While a loop runs, a signal asks it to end; before, it raises KeyboardInterrupt; at the end it is ignored.

    One handler for the whole time: between those of asyncio and the default ones there would be gaps.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._ending = False
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._handle)

    def end_instead(self, ended: "asyncio.Event", loop: "asyncio.AbstractEventLoop") -> None:
        """From now on a signal sets this event of the running loop."""
        self._ended, self._loop = ended, loop

    def ignore(self) -> None:
        """From now on nothing interrupts: what is left to do is short."""
        self._ending = True

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's signature
        if self._ending:
            return
        if self._loop is None or self._ended is None:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._ended.set)
