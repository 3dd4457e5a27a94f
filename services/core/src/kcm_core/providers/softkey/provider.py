"""A root key in a file, for development: it shows every state of a cloud's key, without a cloud.

The directory contains ``key`` (32 random bytes, readable by its owner only) and ``state``, a word
that a person changes: ``echo disabled > …/state``. A key in a file protects from no user who can
read files, so the provider works only if development is switched on, and logs a warning.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kcm_runtime.files.atomic import place
from kcm_schemas.limits import KEY_SIZE, TAG_SIZE

from kcm_core.providers.port import UnwrapResult, WrapResult, unknown_mechanism
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import SoftkeyUri

MECHANISM: Final = "aes-gcm"
"""AES-256-GCM with the context as associated data; the blob is nonce, ciphertext, tag."""

_NONCE_SIZE: Final = 12
_STATE_MAX: Final = 32
"""Bytes of a state file that are read: the longest word has 16 letters."""

_SHOWN: Final = frozenset(L1State) - {L1State.INVALID}

_log: Final = logging.getLogger(__name__)


@functools.cache
def announce() -> None:
    """Log a warning, once in a process, that a key in a file is in use."""
    _log.warning("SOFTKEY: a root key in a plain file is in use. Development only.")


def create(directory: Path) -> None:
    """Make a directory with a new, enabled key; raises FileExistsError rather than replace one."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):  # an earlier call was interrupted, or the key exists, too
        place(directory / "state", f"{L1State.ENABLED.value}\n".encode("ascii"), replace=False)
    place(directory / "key", os.urandom(KEY_SIZE), replace=False)


class SoftkeyProvider:
    """The key of one directory, in the present state of its state file."""

    def __init__(self, uri: SoftkeyUri, *, development: bool) -> None:
        if not development:
            raise L1Error(
                L1State.UNREACHABLE, "a softkey is for development, which is not switched on"
            )
        self._directory = Path(uri.directory)

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap under the file's key."""
        key = self._open()
        nonce = os.urandom(_NONCE_SIZE)
        blob = nonce + AESGCM(key).encrypt(nonce, plaintext, context)
        return WrapResult(blob, MECHANISM, _version(key), _principal())

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> UnwrapResult:
        """Unwrap a blob of ``wrap``; ``invalid`` if it does not authenticate."""
        if mechanism != MECHANISM:
            raise unknown_mechanism()
        key = self._open()
        if len(blob) < _NONCE_SIZE + TAG_SIZE:
            raise L1Error(L1State.INVALID, "the blob is too short")
        plaintext = bytearray(len(blob) - _NONCE_SIZE - TAG_SIZE)
        try:
            AESGCM(key).decrypt_into(blob[:_NONCE_SIZE], blob[_NONCE_SIZE:], context, plaintext)
        except InvalidTag:
            plaintext[:] = bytes(len(plaintext))  # the library leaves the real plaintext there
            raise L1Error(
                L1State.INVALID, "the blob does not authenticate", cls="InvalidTag"
            ) from None
        return UnwrapResult(plaintext, _version(key), _principal())

    def facts(self) -> dict[str, str]:
        """Return the one property of the file: the size of its key."""
        return {"bits": str(len(self._open()) * 8)}

    def _open(self) -> bytearray:
        state = self._state()
        if state is not L1State.ENABLED:
            raise L1Error(state, "the state file says so")
        return self._key()

    def _state(self) -> L1State:
        try:
            handle = os.open(self._directory / "state", os.O_RDONLY | os.O_CLOEXEC)
            try:
                word = os.read(handle, _STATE_MAX).decode("ascii").strip()
            finally:
                os.close(handle)
            state = L1State(word)
        except OSError as error:
            raise _unreadable("state", error) from None
        except ValueError:  # also if it is not ASCII
            raise L1Error(L1State.UNREACHABLE, "the state file has no known word") from None
        if state not in _SHOWN:
            raise L1Error(L1State.UNREACHABLE, "the state file has no known word")
        return state

    def _key(self) -> bytearray:
        key = bytearray(KEY_SIZE + 1)
        try:
            handle = os.open(self._directory / "key", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                info = os.fstat(handle)
                size = os.readv(handle, [key])
            finally:
                os.close(handle)
        except OSError as error:
            raise _unreadable("key", error) from None
        if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
            raise L1Error(L1State.UNREACHABLE, "the key file must be a file of mode 0600")
        if size != KEY_SIZE:
            raise L1Error(L1State.UNREACHABLE, "the key file must have 32 bytes")
        del key[KEY_SIZE:]
        return key


def _unreadable(what: str, error: OSError) -> L1Error:
    return L1Error(L1State.UNREACHABLE, f"the {what} file cannot be read", cls=type(error).__name__)


def _version(key: bytearray) -> str:
    # A fingerprint under its own label: it distinguishes two keys and reveals neither.
    return hashlib.sha256(b"kcm/softkey/version" + key).hexdigest()[:16]


def _principal() -> str:
    return f"uid-{os.geteuid()}"
