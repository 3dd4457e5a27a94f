"""The mechanisms by which a token wraps a few bytes, discovered by attempts.

Tokens differ, so the mechanism is discovered at wrap and stored with the wrapped key: AES-GCM with
the context as AAD, otherwise AES key wrap (RFC 3394); with an RSA pair, OAEP with SHA-256,
otherwise SHA-1. SoftHSM has only the latter, and OAEP does not need a collision-resistant hash.
OAEP's parameters are always passed, because the library's default is SHA-1.

A key is used through two methods of python-pkcs11's key classes, which that library makes at run
time and which therefore have no static type.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, Protocol, assert_never

import pkcs11
from pkcs11.mechanisms import MGF, GCMParams
from pkcs11.mechanisms import Mechanism as Ck

from kcm_core.providers.state import L1Error, L1State

_NONCE_SIZE: Final = 12


class Wrapping(StrEnum):
    """A wrapping mechanism, best first."""

    AES_GCM = "aes-gcm"
    AES_KEY_WRAP = "aes-key-wrap"
    RSA_OAEP_SHA256 = "rsa-oaep-sha256"
    RSA_OAEP_SHA1 = "rsa-oaep-sha1"


SECRET: Final = (Wrapping.AES_GCM, Wrapping.AES_KEY_WRAP)
PAIR: Final = (Wrapping.RSA_OAEP_SHA256, Wrapping.RSA_OAEP_SHA1)

_NOT_OFFERED: Final = (
    pkcs11.ArgumentsBad,
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.FunctionNotSupported,
)
_BUFFER_TOO_SMALL: Final = "Buffer was too small. Should never see this."
"""The library's text for NSS's failure of GCM encryption, for which it has no class."""


class WrappingKey(Protocol):
    """The methods that are needed of the library's key objects."""

    def encrypt(self, data: bytes, *, mechanism: Ck, mechanism_param: Any) -> bytes:
        """Encrypt in one part."""
        ...

    def decrypt(self, data: bytes, *, mechanism: Ck, mechanism_param: Any) -> bytes:
        """Decrypt in one part."""
        ...


def wrap_first(
    key: WrappingKey, candidates: Iterable[Wrapping], plaintext: bytes, context: bytes
) -> tuple[Wrapping, bytes]:
    """Wrap with the first mechanism that the token supports.

    Raises `L1Error` if it supports none, and the library's exception for every other error: a
    denial or a fault must not cause a fallback to a weaker mechanism.
    """
    for wrapping in candidates:
        try:
            return wrapping, _encrypt(key, wrapping, plaintext, context)
        except pkcs11.PKCS11Error as error:
            if not isinstance(error, _NOT_OFFERED) and str(error) != _BUFFER_TOO_SMALL:
                raise
    raise L1Error(L1State.UNREACHABLE, "the token offers no mechanism for this key")


def mechanism_of(wrapping: Wrapping) -> Ck:
    """Return the mechanism that a token lists for it."""
    match wrapping:
        case Wrapping.AES_GCM:
            return Ck.AES_GCM
        case Wrapping.AES_KEY_WRAP:
            return Ck.AES_KEY_WRAP
        case Wrapping.RSA_OAEP_SHA256 | Wrapping.RSA_OAEP_SHA1:
            return Ck.RSA_PKCS_OAEP
        case _:
            assert_never(wrapping)


def _parameter(wrapping: Wrapping, nonce: bytes, context: bytes) -> Any:
    match wrapping:
        case Wrapping.AES_GCM:
            return GCMParams(nonce, context)
        case Wrapping.AES_KEY_WRAP:
            return None
        case Wrapping.RSA_OAEP_SHA256:
            return (Ck.SHA256, MGF.SHA256, None)
        case Wrapping.RSA_OAEP_SHA1:
            return (Ck.SHA_1, MGF.SHA1, None)
        case _:
            assert_never(wrapping)


def _encrypt(key: WrappingKey, wrapping: Wrapping, plaintext: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE_SIZE) if wrapping is Wrapping.AES_GCM else b""
    sealed = key.encrypt(
        plaintext,
        mechanism=mechanism_of(wrapping),
        mechanism_param=_parameter(wrapping, nonce, context),
    )
    return nonce + sealed


def unwrap(key: WrappingKey, wrapping: Wrapping, blob: bytes, context: bytes) -> bytes:
    """Unwrap a blob that ``wrap_first`` made with this mechanism.

    SoftHSM returns ``GeneralError`` for a wrong GCM tag, as a broken device does. A new round trip
    distinguishes them: `L1Error` (invalid) if it succeeds.
    """
    try:
        return _decrypt(key, wrapping, blob, context)
    except pkcs11.GeneralError as error:
        if wrapping is Wrapping.AES_GCM and _healthy(key, context):
            raise L1Error(
                L1State.INVALID, "the blob does not authenticate", cls=type(error).__name__
            ) from None
        raise


def _decrypt(key: WrappingKey, wrapping: Wrapping, blob: bytes, context: bytes) -> bytes:
    size = _NONCE_SIZE if wrapping is Wrapping.AES_GCM else 0
    return key.decrypt(
        blob[size:],
        mechanism=mechanism_of(wrapping),
        mechanism_param=_parameter(wrapping, blob[:size], context),
    )


def _healthy(key: WrappingKey, context: bytes) -> bool:
    try:
        fresh = _encrypt(key, Wrapping.AES_GCM, bytes(32), context)
        return _decrypt(key, Wrapping.AES_GCM, fresh, context) == bytes(32)
    except (pkcs11.PKCS11Error, AttributeError):  # the latter: a key that may not encrypt
        return False
