"""The sealed channel between a caller and one instance, over a broker that neither trusts.

The callee makes an HPKE key for each incarnation, keeps it in memory, and signs its public form.
The caller generates 32 random bytes ``s`` and a ticket that this incarnation alone can open:

    info = ctx("kcm/v1/session", region, callee, key_id, caller, caller's incarnation, session_id,
               issued, expiry)
    ct   = HPKE(the callee's public key, s, info)
    sig  = Ed25519(ctx("kcm/v1/ticket", SHA-256(info), SHA-256(ct)))

The session's keys are ``HKDF-SHA256(s, salt = SHA-256(info || ct), info)``, with the info
``request`` and ``reply`` for the two directions, and ``ask`` for tags of the caller
(``kcm_schemas.asks``). Every body is XAES-256-GCM with a fresh random nonce. A request binds its
session, its counter and everything that travels beside it in clear; the callee accepts each counter
once. A reply binds the SHA-256 of its request's associated data, or of the ticket, the name of the
callee, and whether it is an answer or a refusal.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from kcm_schemas import labels
from kcm_schemas.labels import ctx
from kcm_schemas.limits import NONCE_SIZE, SKEW_MS, TAG_SIZE, TICKET_MAX_MS

from kcm_sealing import xaes
from kcm_sealing.hpke import HpkePrivate, HpkePublic, KeyClosed
from kcm_sealing.memory import SecretMemory

Outcome = Literal["answered", "refused"]
"""What a reply is: an answer cannot pass for a refusal, nor the other way round."""

_REQUEST: Final = slice(0, 32)
_REPLY: Final = slice(32, 64)
_SECRET: Final = slice(64, 96)
_ASK: Final = slice(96, 128)
_SCRATCH: Final = slice(128, 128 + xaes.SCRATCH_SIZE)

MEMORY_SIZE: Final = 192
"""Bytes of the memory of one session."""


@dataclass(frozen=True, slots=True)
class TicketInfo:
    """The clear part of a ticket; times in Unix milliseconds."""

    region: str
    callee: str
    key_id: bytes
    caller: str
    incarnation: bytes
    session_id: bytes
    issued_ms: int
    expiry_ms: int

    def encode(self) -> bytes:
        """Return the HPKE info, which is also the first thing that the signature covers."""
        return ctx(
            labels.SESSION,
            self.region,
            self.callee,
            self.key_id,
            self.caller,
            self.incarnation,
            self.session_id,
            self.issued_ms,
            self.expiry_ms,
        )

    def live(self, now_ms: int) -> bool:
        """Whether the ticket is valid at ``now_ms`` and its lifetime is within the maximum."""
        return (
            self.issued_ms <= now_ms + SKEW_MS
            and now_ms < self.expiry_ms <= self.issued_ms + TICKET_MAX_MS
        )


def to_sign(info: bytes, ciphertext: bytes) -> bytes:
    """Return the message that a caller signs for its ticket."""
    return ctx(labels.TICKET, hashlib.sha256(info).digest(), hashlib.sha256(ciphertext).digest())


class Session:
    """The keys of a session, in memory that belongs to it."""

    __slots__ = ("_closed", "_lock", "_memory", "info")

    def __init__(self, info: TicketInfo, memory: SecretMemory, salt: bytes) -> None:
        """Derive the keys from the secret in ``memory``, then wipe the secret."""
        self.info: Final = info
        self._memory: Final = memory
        self._closed = False
        # Both directions share one scratch. Without the lock, one thread could wipe it during
        # another thread's derivation, which would then seal under a key of zeros.
        self._lock: Final = threading.Lock()
        with memory.use() as view:
            for part, name in ((_REQUEST, b"request"), (_REPLY, b"reply"), (_ASK, b"ask")):
                HKDF(SHA256(), 32, salt, name).derive_into(view[_SECRET], view[part])
            # The library leaves half of what it derived last on the stack. So the last one is no
            # key: the same calls, from a secret that is public, overwrite the same place.
            HKDF(SHA256(), 32, salt, b"").derive_into(bytes(32), view[_SECRET])
            view[_SECRET] = bytes(32)

    def seal_request(self, counter: int, clear: bytes, plain: memoryview, nonce: bytes) -> bytes:
        """Seal the columns of a request; ``nonce`` is 24 fresh random bytes."""
        aad = ctx(labels.REQUEST, self.info.session_id, counter, clear)
        return self._seal(_REQUEST, plain, aad, nonce)

    def open_request(self, counter: int, clear: bytes, sealed: bytes, out: memoryview) -> None:
        """Open a request into exactly ``out``; on failure wipes ``out``, raises ``InvalidTag``."""
        aad = ctx(labels.REQUEST, self.info.session_id, counter, clear)
        self._open(_REQUEST, sealed, aad, out)

    def request_digest(self, counter: int, clear: bytes) -> bytes:
        """Return what the reply to a request is bound to: the SHA-256 of its associated data.

        That names the request: each counter of a session is used once.
        """
        aad = ctx(labels.REQUEST, self.info.session_id, counter, clear)
        return hashlib.sha256(aad).digest()

    def seal_reply(
        self, request: bytes, plain: memoryview, nonce: bytes, outcome: Outcome = "answered"
    ) -> bytes:
        """Seal the reply to ``request`` (``request_digest``, or the SHA-256 of a ticket).

        ``nonce`` is 24 fresh random bytes.
        """
        return self._seal(_REPLY, plain, self._reply_aad(request, outcome), nonce)

    def open_reply(
        self, request: bytes, sealed: bytes, out: memoryview, outcome: Outcome = "answered"
    ) -> None:
        """Open a reply into exactly ``out``; on failure wipes ``out``, raises ``InvalidTag``."""
        self._open(_REPLY, sealed, self._reply_aad(request, outcome), out)

    def tag(self, message: bytes) -> bytes:
        """Return the HMAC-SHA256 of a message under the session's key for tags."""
        with self._lock, self._memory.use() as view:
            return hmac.digest(view[_ASK], message, "sha256")

    def has_tagged(self, message: bytes, tag: bytes) -> bool:
        """Whether ``tag`` is the tag of a message; the time does not depend on where it differs."""
        return hmac.compare_digest(self.tag(message), tag)

    @property
    def closed(self) -> bool:
        """Whether the keys are wiped."""
        return self._closed

    def close(self) -> None:
        """Wipe the keys."""
        self._closed = True
        self._memory.purge()

    def _reply_aad(self, request: bytes, outcome: Outcome) -> bytes:
        return ctx(labels.REPLY, request, self.info.callee, outcome)

    def _seal(self, key: slice, plain: memoryview, aad: bytes, nonce: bytes) -> bytes:
        with self._lock, self._memory.use() as view:
            return bytes(xaes.seal(view[key], plain, aad, nonce, view[_SCRATCH]))

    def _open(self, key: slice, sealed: bytes, aad: bytes, out: memoryview) -> None:
        with self._lock, self._memory.use() as view:
            xaes.open_into(view[key], sealed, aad, out, view[_SCRATCH])


def sealed_size(plain_size: int) -> int:
    """Return the size in bytes of a sealed body of ``plain_size`` bytes."""
    return NONCE_SIZE + plain_size + TAG_SIZE


def plain_size(sealed: bytes) -> int:
    """Return the size in bytes of what a sealed body has in it; 0 if it is too short for one."""
    return max(0, len(sealed) - sealed_size(0))


def open_session_as_caller(
    info: TicketInfo,
    public: HpkePublic,
    sign: Callable[[bytes], bytes],
    memory: SecretMemory,
    fill: Callable[[memoryview], None],
) -> tuple[Session, bytes, bytes]:
    """Make a session; returns it with the ciphertext and the signature of its ticket.

    The session owns ``memory`` from now on; ``fill`` writes its random secret.
    """
    encoded = info.encode()
    with memory.use() as view:
        fill(view[_SECRET])
        ciphertext = public.encrypt(view[_SECRET], encoded)
    salt = hashlib.sha256(encoded + ciphertext).digest()
    return Session(info, memory, salt), ciphertext, sign(to_sign(encoded, ciphertext))


def open_session_as_callee(
    info: TicketInfo, private: HpkePrivate, ciphertext: bytes, memory: SecretMemory
) -> Session:
    """Open a ticket whose signature and lifetime were verified.

    Raises ``InvalidTag``, and ``KeyClosed`` after the private key was closed. The session owns
    ``memory`` from now on; a ticket that does not open purges it.
    """
    encoded = info.encode()
    try:
        with memory.use() as view:
            private.decrypt_into(ciphertext, encoded, view[_SECRET])
    except (InvalidTag, ValueError):
        memory.purge()
        raise InvalidTag from None
    except KeyClosed:
        memory.purge()
        raise
    return Session(info, memory, hashlib.sha256(encoded + ciphertext).digest())
