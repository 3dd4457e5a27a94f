"""Reading one answer from a pipe straight into the caller's memory.

``add_reader`` and ``readv``, not a stream: copies of a StreamReader or a BufferedReader were found
in memory long afterwards. The plaintext goes from the kernel's pipe into the arena, and never
becomes a ``bytes`` here.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.frames import (
    HEADER_SIZE,
    FrameError,
    Header,
    Told,
    read_told,
    state_of,
)


@dataclass(frozen=True, slots=True)
class Frame:
    """A complete answer. ``payload`` is empty if the caller provided memory for it."""

    state: L1State
    told: Told
    payload: bytearray


async def read_frame(pipe: int, out: memoryview | None) -> Frame:
    """Read one frame from a non-blocking descriptor, its payload into ``out`` if that is given.

    Raises `L1Error`: ``unreachable`` if the writer ended before it had finished, ``invalid`` if it
    wrote no valid frame, or a payload that is not exactly as long as ``out``. After a failure the
    caller wipes ``out``.
    """
    loop = asyncio.get_running_loop()
    reading = _Reading(pipe, out, loop.create_future())
    loop.add_reader(pipe, reading.ready)
    try:
        return await reading.done
    finally:
        loop.remove_reader(pipe)
        reading.release()


class _Reading:
    """Fills the header first, which determines the rest."""

    def __init__(self, pipe: int, out: memoryview | None, done: asyncio.Future[Frame]) -> None:
        self.done = done
        self._pipe = pipe
        self._out = out
        self._header = bytearray(HEADER_SIZE)
        self._payload = bytearray()
        self._meta = bytearray()
        self._state: L1State | None = None
        self._missing = [memoryview(self._header)]

    def ready(self) -> None:
        """Read what the pipe has; called by the loop for data and for the end."""
        if self.done.done():
            return
        try:
            frame = self._take()
        except FrameError as error:
            self._fail(L1Error(L1State.INVALID, f"malformed answer: {error}", cls="FrameError"))
        except OSError as error:
            self._fail(L1Error(L1State.UNREACHABLE, "the pipe failed", cls=type(error).__name__))
        else:
            if frame is not None:
                self.done.set_result(frame)

    def _take(self) -> Frame | None:
        while self._missing:
            try:
                got = os.readv(self._pipe, self._missing)
            except BlockingIOError:
                return None
            if got == 0:
                hint = "the child ended without an answer"
                self._fail(L1Error(L1State.UNREACHABLE, hint))
                return None
            self._advance(got)
            if not self._missing and self._state is None:
                self._expect(Header.unpack(self._header))
        assert self._state is not None
        return Frame(self._state, read_told(self._meta), self._payload)

    def _expect(self, header: Header) -> None:
        self._state = state_of(header)
        self._meta = bytearray(header.meta_size)
        if self._state is not L1State.ENABLED:
            if header.payload_size:
                raise FrameError("a payload beside an error")
            target = memoryview(b"")
        elif self._out is not None:
            if header.payload_size != len(self._out):
                raise FrameError("the plaintext's length")
            target = self._out[:]
        else:
            self._payload = bytearray(header.payload_size)
            target = memoryview(self._payload)
        self._missing = [view for view in (target, memoryview(self._meta)) if len(view)]

    def _advance(self, got: int) -> None:
        while self._missing and got >= len(self._missing[0]):
            first = self._missing.pop(0)
            got -= len(first)
            first.release()
        if got:
            first = self._missing[0]
            self._missing[0] = first[got:]
            first.release()

    def _fail(self, error: L1Error) -> None:
        self.done.set_exception(error)

    def release(self) -> None:
        """Release every view, so that the caller's memory can be unmapped."""
        for view in self._missing:
            view.release()
        self._missing = []
        self._out = None
