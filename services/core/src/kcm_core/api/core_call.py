"""One request of a Gateway: what it has in clear, and the opening of what it sealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from kcm_schemas import data_subjects, limits
from kcm_schemas.asks import Asked, AskedKeys
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Instance
from kcm_schemas.vault import CoreRequest
from kcm_sealing.memory import wipe
from kcm_sealing.session import plain_size, sealed_size
from kcm_sealing.xaes import count_prefixes
from kcm_sessions.sessions import OpenSession

from kcm_core.api.asks import Outcome


@dataclass(slots=True)
class Call:
    """One request: its content, its clear part, and the caller's session.

    ``taken`` says that the caller sealed it, and that its counter was taken for it.
    """

    asked: data_subjects.DataSubject
    request: CoreRequest
    clear: bytes
    session: OpenSession
    caller: Instance
    taken: bool = False
    outcomes: Sequence[Outcome] = field(default_factory=tuple)
    """What an unwrap that was done gave each application."""

    @property
    def digest(self) -> bytes:
        """What the reply is bound to."""
        return self.session.keys.request_digest(self.request.counter, self.clear)


def copied() -> KcmError:
    """Return the error for a request whose counter was taken before."""
    return KcmError(Code.REPLAYED, "the request was sent before; make a new one")


def open_keys(call: Call, out: memoryview) -> None:
    """Open the keys of a wrap into exactly ``out``; raises ``malformed`` if they do not fit."""
    if len(call.request.sealed) != sealed_size(len(out)):
        raise KcmError(Code.MALFORMED, "the columns are not as long as their count says")
    _open(call, out)


def open_blobs(call: Call) -> tuple[memoryview, Sequence[Asked]]:
    """Return the wrapped keys of an unwrap, which are not secret, and who asks for them.

    Raises ``malformed``, also if they have too many prefixes.
    """
    request = call.request
    size, plain = request.count * limits.WRAPPED_SIZE, plain_size(request.sealed)
    if plain < size:
        raise KcmError(Code.MALFORMED, "the columns are not as long as their count says")
    inside = memoryview(bytearray(plain))
    _open(call, inside)
    blobs = inside[:size]
    if request.count > limits.PREFIXES_MAX and count_prefixes(blobs) > limits.PREFIXES_MAX:
        raise KcmError(Code.MALFORMED, "the keys have too many different nonce prefixes")
    return blobs, decode(AskedKeys, inside[size:].tobytes()).asked if plain > size else ()


def check_version(operation: str, version: int) -> None:
    """Refuse a wrap under an old version, and an unwrap under "the current version" (0)."""
    if operation == "wrap" and version:
        raise KcmError(Code.MALFORMED, "keys are wrapped under the current version")
    if operation == "unwrap" and not version:
        raise KcmError(Code.KEY_DESTROYED, "versions of a service key count from 1")


def _open(call: Call, out: memoryview) -> None:
    """Open a request, and take its counter the first time."""
    request = call.request
    try:
        call.session.keys.open_request(request.counter, call.clear, request.sealed, out)
    except InvalidTag:
        raise KcmError(Code.FORBIDDEN, "the request was not sealed for this subject") from None
    if not call.taken and not call.session.window.take(request.counter):
        wipe(out)
        raise copied()
    call.taken = True
