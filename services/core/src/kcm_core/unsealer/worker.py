"""A child's work: one operation, one frame, and the end of the process.

Everything that it learned, a plaintext or an access token, ends with it. Output of a vendor's
library is discarded, because an error's text or a traceback may contain any of it.

Its own timer kills it at the deadline, even in a system call or in a vendor's C code: the signal
keeps its default action, because a Python handler would not run there.
"""

from __future__ import annotations

import gc
import hashlib
import hmac
import os
import resource
import signal
from dataclasses import dataclass
from typing import Final, NoReturn, assert_never

from kcm_core.providers.catalog import open_provider
from kcm_core.providers.port import L1Provider
from kcm_core.providers.requirements import packed
from kcm_core.providers.state import L1Error, L1State, safe_text
from kcm_core.providers.uri import EXTRAS, L1Uri, scheme
from kcm_core.unsealer.confinement.confine import Confinement
from kcm_core.unsealer.frames import (
    BLOB_MAX,
    MECHANISM_MAX,
    PLAINTEXT_MAX,
    Operation,
    Request,
    Told,
    answer_parts,
)

MEMORY_MAX: Final = 512 * 2**20
"""Bytes of data that a child may allocate: several times what any library here takes."""

_STDIN, _STDOUT, _STDERR = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Answer:
    """The content of an answer's frame."""

    state: L1State
    told: Told
    payload: bytes | bytearray = b""


def run(
    request: Request, uri: L1Uri, pipe: int, confinement: Confinement, *, development: bool
) -> NoReturn:
    """Run in a freshly forked process: answer into ``pipe``, then end the process in any case."""
    gc.disable()  # it ends soon, and a collection would copy every shared page
    try:
        _arm(request.ask.deadline_ms)
        # The provider decides the length of its answer, which must not exhaust the machine.
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))
        _keep_only(pipe)
        confinement.enter_child(uri)
        write(pipe, answer(request, uri, development=development))
    except OSError as error:
        write(pipe, failure(unknown(error, request.ask.uri)))
    finally:
        # No exit handler, no destructor, no traceback with a plaintext in its frames.
        os._exit(0)


def _arm(deadline_ms: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, deadline_ms / 1000)


def _keep_only(pipe: int) -> None:
    """Close every inherited descriptor but this request's pipe, and discard all output."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (_STDIN, _STDOUT, _STDERR):
        os.dup2(nowhere, standard)
    os.closerange(_STDERR + 1, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))


def answer(request: Request, uri: L1Uri, *, development: bool) -> Answer:
    """Perform the operation; every error becomes exactly one state."""
    try:
        return _perform(request, open_provider(uri, development=development))
    except L1Error as error:
        return failure(error)
    except BaseException as error:  # noqa: BLE001 - unknown exceptions are no explicit denial
        return failure(unknown(error, request.ask.uri))


def failure(error: L1Error) -> Answer:
    """Return the answer for an error."""
    return Answer(error.state, Told(detail=error.detail, cls=error.cls))


def unknown(error: BaseException, uri: str) -> L1Error:
    """Return the error for an unmapped exception; its text is dropped."""
    if isinstance(error, ImportError):
        extra = EXTRAS.get(scheme(uri), "")
        hint = f"the provider's library is not installed: pip install 'kcm-core[{extra}]'"
        return L1Error(L1State.UNREACHABLE, hint, cls=type(error).__name__)
    return L1Error(L1State.UNREACHABLE, "unexpected", cls=type(error).__name__)


def _perform(request: Request, provider: L1Provider) -> Answer:
    match request.operation:
        case Operation.WRAP:
            return _wrap(request, provider)
        case Operation.UNWRAP:
            opened = provider.unwrap(
                bytes(request.payload), request.ask.context, request.ask.mechanism
            )
            told = _told(opened.key_version, opened.principal)
            return Answer(L1State.ENABLED, told, opened.plaintext)
        case Operation.PROBE:
            opened = provider.unwrap(
                bytes(request.payload), request.ask.context, request.ask.mechanism
            )
            if not hmac.compare_digest(_sha256(opened.plaintext), request.ask.digest):
                raise L1Error(L1State.INVALID, "the canary unwrapped to another value")
            return Answer(L1State.ENABLED, _told(opened.key_version, opened.principal))
        case Operation.INSPECT:
            return Answer(L1State.ENABLED, Told(), packed(provider.facts()))
        case Operation.PING:
            return Answer(L1State.ENABLED, Told())
        case _:
            assert_never(request.operation)


def _wrap(request: Request, provider: L1Provider) -> Answer:
    """Wrap, and unwrap again, so that a provider that wraps wrongly cannot lose a key."""
    context = request.ask.context
    made = provider.wrap(request.payload, context)
    if len(made.blob) > BLOB_MAX or len(made.mechanism) > MECHANISM_MAX:
        raise L1Error(L1State.UNREACHABLE, "the provider's answer is too long to be stored")
    opened = provider.unwrap(made.blob, context, made.mechanism)
    if not hmac.compare_digest(opened.plaintext, request.payload):
        raise L1Error(L1State.INVALID, "the wrapped key unwrapped to another value")
    if opened.key_version != made.key_version:
        raise L1Error(L1State.UNREACHABLE, "the key was rotated during the wrap; try again")
    told = _told(made.key_version, made.principal, made.mechanism)
    return Answer(L1State.ENABLED, told, made.blob)


def _told(key_version: str, principal: str, mechanism: str = "") -> Told:
    return Told(
        key_version=safe_text(key_version), principal=safe_text(principal), mechanism=mechanism
    )


def _sha256(plaintext: bytes | bytearray) -> bytes:
    return hashlib.sha256(plaintext).digest()


def write(pipe: int, answer: Answer) -> None:
    """Write one frame: it fits into an empty pipe, so a slow reader cannot block the writer."""
    if answer.state is L1State.ENABLED and len(answer.payload) > max(BLOB_MAX, PLAINTEXT_MAX):
        answer = failure(L1Error(L1State.INVALID, "the plaintext is too long"))
    header, meta = answer_parts(answer.state, answer.told, len(answer.payload))
    parts = [memoryview(part) for part in (header, answer.payload, meta)]
    while parts:
        done = os.writev(pipe, parts)
        while parts and done >= len(parts[0]):
            done -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][done:]
