"""The Core's side of the unsealer: sends requests with a deadline, and checks every answer.

One call, one pipe, one child. Whatever happens to the server, the child or the caller's task, the
call ends by its deadline in exactly one state, with its descriptors closed and its output either
complete or zeros.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from typing import Final

from kcm_runtime.tasks import TaskSet
from pydantic import ValidationError

from kcm_core.providers.requirements import Facts, unpacked
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import L1UriError, parse, scheme
from kcm_core.unsealer.child_slots import ChildSlots
from kcm_core.unsealer.frames import (
    DEADLINE_MAX_MS,
    Ask,
    FrameError,
    Operation,
    request_parts,
)
from kcm_core.unsealer.isolation import Isolation
from kcm_core.unsealer.key_gate import Turns
from kcm_core.unsealer.kinds import kind_of
from kcm_core.unsealer.pin_lockout import PinLockout
from kcm_core.unsealer.pipe_reader import Frame, read_frame
from kcm_core.unsealer.port import Probe, UnsealResult, Wrapped
from kcm_core.unsealer.servers import ServerHandle, Servers, fork_servers

CALLS_IN_FLIGHT_MAX: Final = 16
"""Calls at once, as many as the server has children; further ones wait, within their deadlines."""

START_DEADLINE_S: Final = 20.0
"""Seconds for the first answer: a cold interpreter on a busy machine takes long."""

PING_DEADLINE_S: Final = 10.0
"""Seconds after which an unresponsive server is killed; importing an SDK takes up to 3."""

_log: Final = logging.getLogger(__name__)


class Unsealer:
    """Implements `UnsealerPort` with fork servers, which it closes at its end.

    ``environment`` is all that the servers and the SDKs in their children get, each one the part of
    its provider: ``KCM_DEVELOPMENT=1`` to allow softkeys, ``SOFTHSM2_CONF``, a cloud's credentials.
    ``servers`` replaces servers of its own.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        servers: Servers | None = None,
        ping_deadline_s: float = PING_DEADLINE_S,
    ) -> None:
        self._servers = fork_servers(environment) if servers is None else servers
        self._lacks = ""
        self._slots = ChildSlots(CALLS_IN_FLIGHT_MAX)
        self._logins = PinLockout()
        self._turns = Turns(time.monotonic)
        self._ping_deadline_s = ping_deadline_s
        self._checks: Final = TaskSet()

    @property
    def server_pid(self) -> int | None:
        """The process id of the fork server that was used last, for status and tests."""
        return self._servers.pid

    @property
    def isolation(self) -> Isolation:
        """How the servers are separated from this process."""
        return self._servers.isolation(self._lacks)

    async def start(self) -> None:
        """Start a server and wait until it answers; raises `L1Error` if it does not."""
        server = await self._servers.of(self._servers.first)
        self._lacks = await self._ping(server, START_DEADLINE_S)

    async def close(self) -> None:
        """End the servers and their children; calls in progress end as ``unreachable``."""
        self._checks.close()
        await self._checks.join()
        await self._servers.close()

    async def wrap(
        self,
        uri: str,
        plaintext: bytes | bytearray | memoryview,
        context: bytes,
        *,
        deadline_s: float,
    ) -> Wrapped:
        """Implement `UnsealerPort.wrap`."""
        ask = _ask(uri, context, deadline_s)
        frame = await self._call(Operation.WRAP, ask, memoryview(plaintext), None)
        told = frame.told
        if not frame.payload or not told.mechanism:
            raise L1Error(L1State.INVALID, "the answer lacks a blob or a mechanism")
        return Wrapped(bytes(frame.payload), told.mechanism, told.key_version, told.principal)

    async def unwrap_into(
        self,
        uri: str,
        blob: bytes,
        context: bytes,
        mechanism: str,
        out: memoryview,
        *,
        deadline_s: float,
    ) -> UnsealResult:
        """Implement `UnsealerPort.unwrap_into`: from the pipe into ``out`` and nowhere else."""
        with out.cast("B") as target:
            try:
                ask = _ask(uri, context, deadline_s, mechanism)
                frame = await self._call(Operation.UNWRAP, ask, memoryview(blob), target)
            except BaseException:
                target[:] = bytes(len(target))
                raise
        return UnsealResult(frame.told.key_version, frame.told.principal)

    async def probe(
        self,
        uri: str,
        blob: bytes,
        context: bytes,
        mechanism: str,
        digest: bytes,
        *,
        deadline_s: float,
    ) -> Probe:
        """Implement `UnsealerPort.probe`: the canary stays in the child."""
        ask = _ask(uri, context, deadline_s, mechanism, digest)
        frame = await self._call(Operation.PROBE, ask, memoryview(blob), None)
        if frame.payload:
            raise L1Error(L1State.INVALID, "the answer to a probe has a payload")
        return Probe(frame.state, frame.told.key_version, frame.told.principal)

    async def inspect(self, uri: str, *, deadline_s: float) -> Facts:
        """Implement `UnsealerPort.inspect`."""
        ask = _ask(uri, b"", deadline_s)
        frame = await self._call(Operation.INSPECT, ask, memoryview(b""), None)
        return unpacked(frame.payload)

    async def _call(
        self, operation: Operation, ask: Ask, payload: memoryview, out: memoryview | None
    ) -> Frame:
        try:
            uri = parse(ask.uri)
            probe = operation is Operation.PROBE
            async with self._turns.take(ask.uri, probe=probe), self._logins.attempt(uri):
                server = await self._servers.of(kind_of(uri))
                return await self._within_deadline(server, operation, ask, payload, out)
        except L1UriError as error:
            raise L1Error(L1State.UNREACHABLE, str(error), cls="L1UriError") from None
        except L1Error as error:
            if error.cls and error.state is L1State.UNREACHABLE:
                # The class of an unmapped exception must be logged; the caller reports the rest.
                _log.warning("%s of %s: %s", operation.name, scheme(ask.uri), error)
            raise

    async def _within_deadline(
        self,
        server: ServerHandle,
        operation: Operation,
        ask: Ask,
        payload: memoryview,
        out: memoryview | None,
    ) -> Frame:
        ends = asyncio.get_running_loop().time() + ask.deadline_ms / 1000
        silent = self._turns.silent(ask.uri)
        try:
            async with asyncio.timeout_at(ends), self._slots.take(ask.uri, silent=silent):
                return await self._exchange(server, operation, ask, payload, out, ends)
        except TimeoutError:
            self._suspect(server)
            hint = "no answer within the deadline"
            raise L1Error(L1State.UNREACHABLE, hint, cls="TimeoutError") from None

    async def _exchange(
        self,
        server: ServerHandle,
        operation: Operation,
        ask: Ask,
        payload: memoryview,
        out: memoryview | None,
        ends: float,
    ) -> Frame:
        if self._checks.closed:
            raise L1Error(L1State.UNREACHABLE, "the unsealer is closed")
        left_ms = max(1, round((ends - asyncio.get_running_loop().time()) * 1000))
        ask = ask.model_copy(update={"deadline_ms": min(left_ms, DEADLINE_MAX_MS)})
        try:
            header, meta = request_parts(operation, ask, len(payload))
        except FrameError as error:
            hint = f"malformed request: {error}"
            raise L1Error(L1State.INVALID, hint, cls="FrameError") from None
        read_end, write_end = _pipe()
        try:
            try:
                await server.send([header, payload, meta], write_end)
            finally:
                os.close(write_end)  # the child's copy is then the last: its end is the answer's
            frame = await read_frame(read_end, out)
        finally:
            os.close(read_end)
        server.answered()
        if frame.state is not L1State.ENABLED:
            raise L1Error(frame.state, frame.told.detail, cls=frame.told.cls)
        return frame

    def _suspect(self, server: ServerHandle) -> None:
        """Check in the background whether the server itself has stopped answering."""
        if not self._checks.closed and not self._checks:
            self._checks.spawn(self._kill_unless_alive(server))

    async def _kill_unless_alive(self, server: ServerHandle) -> None:
        try:
            await self._ping(server, self._ping_deadline_s)
        except L1Error:
            _log.error("the unsealer's server (pid %s) does not answer: killing it", server.pid)
            server.kill()

    async def _ping(self, server: ServerHandle, deadline_s: float) -> str:
        """Return what the server says that its confinement lacks."""
        ends = asyncio.get_running_loop().time() + deadline_s
        ask = _ask("", b"", deadline_s)
        try:
            async with asyncio.timeout_at(ends):
                payload = memoryview(b"")
                frame = await self._exchange(server, Operation.PING, ask, payload, None, ends)
        except TimeoutError:
            raise L1Error(L1State.UNREACHABLE, "the unsealer does not answer") from None
        return frame.told.detail


def _ask(
    uri: str, context: bytes, deadline_s: float, mechanism: str = "", digest: bytes = b""
) -> Ask:
    try:
        return Ask(
            uri=uri,
            context=context,
            mechanism=mechanism,
            digest=digest,
            deadline_ms=round(deadline_s * 1000),
        )
    except (ValidationError, ValueError, OverflowError):
        raise L1Error(
            L1State.INVALID, "malformed request: an argument is out of bounds", cls="FrameError"
        ) from None


def _pipe() -> tuple[int, int]:
    try:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise L1Error(L1State.UNREACHABLE, "no pipe", cls=type(error).__name__) from None
    os.set_blocking(read_end, False)
    return read_end, write_end
