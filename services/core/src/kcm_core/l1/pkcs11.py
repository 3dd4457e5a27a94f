"""A key on the customer's own HSM, through PKCS#11.

One operation, one process, one thread, one session: python-pkcs11 calls ``C_Initialize(NULL)``,
and modules corrupt their heap when two threads then use them; a login belongs to the whole process.

**Mechanism.** Tokens differ, so it is discovered at wrap and recorded with the link: AES-GCM with
the context as AAD, else AES key wrap (RFC 3394), and with an RSA pair OAEP with SHA-256, else
SHA-1 (all that SoftHSM has; OAEP does not need its hash to resist collisions). Whoever asked for
the wrap opens the result at once, so a token that wraps what it cannot unwrap is found out there.

**Errors.** A refusal is only what can be nothing else: the token rejects the PIN, the key may not
be used (CKR 0x68 or CKA_DECRYPT off), or a logged-in search does not find it. SoftHSM answers
``GeneralError`` to a wrong GCM tag, which is also what a broken device says: a fresh round trip
tells ``invalid`` from ``unreachable``. A PIN is tried once; if the token says that one try is
left, that one is left to a human.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, assert_never

import pkcs11
from pkcs11 import Attribute, MechanismFlag, ObjectClass, TokenFlag
from pkcs11.mechanisms import MGF, GCMParams
from pkcs11.mechanisms import Mechanism as Ck

from kcm_core.l1.port import Opened, WrapResult, unknown_mechanism
from kcm_core.l1.state import L1Error, L1State
from kcm_core.l1.uri import KeyClass, Pkcs11Uri

_NONCE_SIZE: Final = 12
_PIN_MAX: Final = 256
"""Bytes of a PIN file that are read: tokens take 4 to 255 characters."""


class Wrapping(StrEnum):
    """A way to wrap, best first."""

    AES_GCM = "aes-gcm"
    AES_KEY_WRAP = "aes-key-wrap"
    RSA_OAEP_SHA256 = "rsa-oaep-sha256"
    RSA_OAEP_SHA1 = "rsa-oaep-sha1"


_SECRET: Final = (Wrapping.AES_GCM, Wrapping.AES_KEY_WRAP)
_PAIR: Final = (Wrapping.RSA_OAEP_SHA256, Wrapping.RSA_OAEP_SHA1)

_STATES: Final[dict[type[Exception], tuple[L1State, str]]] = {
    **dict.fromkeys(
        (
            pkcs11.PinIncorrect,
            pkcs11.PinInvalid,
            pkcs11.PinLenRange,
            pkcs11.PinExpired,
            pkcs11.PinLocked,
            pkcs11.UserPinNotInitialized,
        ),
        (L1State.FORBIDDEN, "the token does not accept the PIN"),
    ),
    **dict.fromkeys(
        (pkcs11.UserNotLoggedIn, pkcs11.FunctionRejected),
        (L1State.FORBIDDEN, "the token does not let this user do it"),
    ),
    **dict.fromkeys(
        (pkcs11.NoSuchKey, pkcs11.ObjectHandleInvalid, pkcs11.KeyHandleInvalid),
        (L1State.DELETED, "the token has no such key"),
    ),
    **dict.fromkeys(
        (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange),
        (L1State.INVALID, "the blob does not authenticate"),
    ),
    **dict.fromkeys(
        (pkcs11.NoSuchToken, pkcs11.TokenNotPresent, pkcs11.DeviceRemoved),
        (L1State.UNREACHABLE, "the token is not there"),
    ),
    **dict.fromkeys(
        (pkcs11.MultipleTokensReturned, pkcs11.MultipleObjectsReturned),
        (L1State.UNREACHABLE, "the URI matches more than one"),
    ),
}
_KEY_FUNCTION_NOT_PERMITTED: Final = "Unmapped error code 0x68"
"""How the library spells the one return code that means "disabled", for which it has no class."""

_NOT_OFFERED: Final = (
    pkcs11.ArgumentsBad,
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.FunctionNotSupported,
)
_BUFFER_TOO_SMALL: Final = "Buffer was too small. Should never see this."
"""What NSS's GCM encryption gives through the library."""


class Pkcs11Provider:
    """The key that a ``pkcs11:`` URI names."""

    def __init__(self, uri: Pkcs11Uri) -> None:
        self._uri = uri

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap with the first mechanism that token and key offer."""
        with _translated(), _opened(self._uri) as key:
            public, candidates = key.for_wrapping()
            for wrapping in candidates:
                try:
                    blob = _encrypt(public, wrapping, bytes(plaintext), context)
                except pkcs11.PKCS11Error as error:
                    if _not_offered(error):
                        continue
                    raise
                return WrapResult(blob, wrapping.value, key.version, key.principal)
            raise L1Error(L1State.UNREACHABLE, "the token offers no mechanism for this key")

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> Opened:
        """Open what ``wrap`` made, by the mechanism that it returned."""
        try:
            wrapping = Wrapping(mechanism)
        except ValueError:
            raise unknown_mechanism() from None
        with _translated(), _opened(self._uri) as key:
            plaintext = _decrypt(
                key.allowed(key.object, Attribute.DECRYPT), wrapping, blob, context
            )
            return Opened(plaintext, key.version, key.principal)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the library's exceptions into ours; the library's own texts are dropped."""
    try:
        yield
    except pkcs11.PKCS11Error as error:
        name = type(error).__name__
        if str(error) == _KEY_FUNCTION_NOT_PERMITTED:
            raise _disabled(name) from None
        state, detail = _STATES.get(
            type(error), (L1State.UNREACHABLE, "the token did not do what was asked")
        )
        raise L1Error(state, detail, cls=name) from None


def _disabled(name: str = "") -> L1Error:
    return L1Error(L1State.DISABLED, "the key may not be used", cls=name)


def _not_offered(error: pkcs11.PKCS11Error) -> bool:
    return isinstance(error, _NOT_OFFERED) or str(error) == _BUFFER_TOO_SMALL


@dataclass(frozen=True, slots=True)
class _Key:
    """A key found on a token, in a session that is open."""

    uri: Pkcs11Uri
    token: pkcs11.Token
    session: pkcs11.Session
    object: Any  # the library makes its classes at run time, with the methods that a key allows

    @property
    def version(self) -> str:
        """An HSM has no versions: a key that replaces another is told by its id or its token."""
        return f"{_serial(self.token)}:{bytes(self.object[Attribute.ID]).hex()}"

    @property
    def principal(self) -> str:
        return f"{'user' if self.uri.pin_source else 'public'}@{_serial(self.token)}"

    def for_wrapping(self) -> tuple[Any, tuple[Wrapping, ...]]:
        """Return the key that encrypts and the mechanisms worth trying with it."""
        if self.object[Attribute.CLASS] == ObjectClass.SECRET_KEY:
            offered = tuple(each for each in _SECRET if self._offers(each))
            return self.allowed(self.object, Attribute.ENCRYPT), offered
        try:
            public = _find(self.session, self.uri, ObjectClass.PUBLIC_KEY)
        except pkcs11.NoSuchKey:
            # The key that counts is there, so this is no deletion.
            raise L1Error(L1State.UNREACHABLE, "the pair's public key is not there") from None
        return self.allowed(public, Attribute.ENCRYPT), _PAIR

    @staticmethod
    def allowed(key: Any, use: Attribute) -> Any:
        """Return the key if its owner allows this use: the library's classes hide a fault here."""
        if not key[use]:
            raise _disabled()
        return key

    def _offers(self, wrapping: Wrapping) -> bool:
        try:
            info = self.token.slot.get_mechanism_info(_mechanism(wrapping))
        except pkcs11.MechanismInvalid:
            return False
        both = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
        return info.flags & both == both


@contextmanager
def _opened(uri: Pkcs11Uri) -> Iterator[_Key]:
    """Load the module, log in once, find the key."""
    _require_trusted(uri.module_path)
    token = _token(uri)
    if token.flags & (TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED) and uri.pin_source:
        raise L1Error(L1State.FORBIDDEN, "the PIN is locked, or one try away from it: not tried")
    pin = None if uri.pin_source is None else _read_pin(uri.pin_source)
    with token.open(user_pin=pin) as session:
        try:
            found = _find_unwrapping(session, uri)
        except pkcs11.NoSuchKey:
            if pin is None and token.flags & TokenFlag.LOGIN_REQUIRED:
                # Private keys are invisible without a login: absence proves nothing here.
                raise L1Error(
                    L1State.UNREACHABLE, "no such key without a login: give a pin-source"
                ) from None
            raise
        yield _Key(uri, token, session, found)


def _token(uri: Pkcs11Uri) -> pkcs11.Token:
    found = []
    for slot in pkcs11.lib(uri.module_path).get_slots(token_present=True):
        if uri.slot_id is not None and slot.slot_id != uri.slot_id:
            continue
        token = slot.get_token()
        if uri.token in {None, token.label} and uri.serial in {None, _serial(token)}:
            found.append(token)
    if len(found) > 1:
        raise pkcs11.MultipleTokensReturned
    if not found:
        raise pkcs11.NoSuchToken
    return found[0]


def _serial(token: pkcs11.Token) -> str:
    return token.serial.decode("ascii", "replace").strip()


def _find_unwrapping(session: pkcs11.Session, uri: Pkcs11Uri) -> Any:
    match uri.type:
        case KeyClass.SECRET:
            return _find(session, uri, ObjectClass.SECRET_KEY)
        case KeyClass.PRIVATE:
            return _find(session, uri, ObjectClass.PRIVATE_KEY)
        case None:
            try:
                return _find(session, uri, ObjectClass.SECRET_KEY)
            except pkcs11.NoSuchKey:
                return _find(session, uri, ObjectClass.PRIVATE_KEY)
        case _:
            assert_never(uri.type)


def _find(session: pkcs11.Session, uri: Pkcs11Uri, kind: ObjectClass) -> Any:
    return session.get_key(object_class=kind, label=uri.object, id=uri.id)


def _mechanism(wrapping: Wrapping) -> Ck:
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


def _encrypt(key: Any, wrapping: Wrapping, plaintext: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE_SIZE) if wrapping is Wrapping.AES_GCM else b""
    sealed: bytes = key.encrypt(
        plaintext,
        mechanism=_mechanism(wrapping),
        mechanism_param=_parameter(wrapping, nonce, context),
    )
    return nonce + sealed


def _decrypt(key: Any, wrapping: Wrapping, blob: bytes, context: bytes) -> bytes:
    size = _NONCE_SIZE if wrapping is Wrapping.AES_GCM else 0
    nonce, sealed = blob[:size], blob[size:]
    try:
        plaintext: bytes = key.decrypt(
            sealed,
            mechanism=_mechanism(wrapping),
            mechanism_param=_parameter(wrapping, nonce, context),
        )
    except pkcs11.GeneralError as error:
        if wrapping is Wrapping.AES_GCM and _healthy(key, context):
            raise L1Error(
                L1State.INVALID, "the blob does not authenticate", cls=type(error).__name__
            ) from None
        raise
    return plaintext


def _healthy(key: Any, context: bytes) -> bool:
    """Tell a wrong tag from a broken device: a sound one opens what it wrapped a moment ago."""
    try:
        fresh = _encrypt(key, Wrapping.AES_GCM, bytes(32), context)
        sealed = fresh[_NONCE_SIZE:]
        param = GCMParams(fresh[:_NONCE_SIZE], context)
        return bool(key.decrypt(sealed, mechanism=Ck.AES_GCM, mechanism_param=param) == bytes(32))
    except (pkcs11.PKCS11Error, AttributeError):  # the second: a key that may not encrypt
        return False


def _read_pin(source: str) -> str:
    try:
        handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pin = os.read(handle, _PIN_MAX)
        finally:
            os.close(handle)
        return pin.removesuffix(b"\n").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise L1Error(
            L1State.UNREACHABLE, "the PIN file cannot be read", cls=type(error).__name__
        ) from None


def _require_trusted(module_path: str) -> None:
    """Refuse to load code that somebody other than root or this user could have put there."""
    try:
        path = Path(module_path).resolve(strict=True)
        infos = [each.stat() for each in (path, *path.parents)]
    except OSError as error:
        raise L1Error(
            L1State.UNREACHABLE, "the PKCS#11 module is not there", cls=type(error).__name__
        ) from None
    owners = {0, os.geteuid()}
    for info in infos:
        sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
        if info.st_uid not in owners or (info.st_mode & stat.S_IWOTH and not sticky):
            raise L1Error(L1State.UNREACHABLE, "others may write to the PKCS#11 module or above it")
