"""A key on the customer's own HSM, through PKCS#11.

One operation, one process, one thread, one session: python-pkcs11 calls ``C_Initialize(NULL)``, and
modules corrupt their heap if two threads then use them; a login belongs to the whole process.

Every operation searches for the key again, so a deleted key is detected. ``mechanisms`` finds the
mechanism, ``errors`` determines what counts as a refusal. A PIN is tried once; if the token reports
one remaining try, that one is left to a person. The token must allow the user to find the key, to
read its attributes, and to use it with C_Encrypt and C_Decrypt, and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, assert_never

import pkcs11
from pkcs11 import Attribute, MechanismFlag, ObjectClass, TokenFlag

from kcm_core.providers.pkcs11.attributes import facts_of
from kcm_core.providers.pkcs11.errors import disabled, translated
from kcm_core.providers.pkcs11.mechanisms import (
    PAIR,
    SECRET,
    Wrapping,
    WrappingKey,
    mechanism_of,
    unwrap,
    wrap_first,
)
from kcm_core.providers.pkcs11.modules import trusted
from kcm_core.providers.pkcs11.uri import KeyClass, Pkcs11Uri
from kcm_core.providers.port import UnwrapResult, WrapResult, unknown_mechanism
from kcm_core.providers.state import L1Error, L1State

LOOK_AGAIN_S: Final = (0.01, 0.03, 0.1, 0.2, 0.3)
"""Seconds between attempts with a token in disorder. A rejected PIN is not tried again."""

_DISORDER: Final = (
    pkcs11.NoSuchToken,
    pkcs11.NoSuchKey,
    pkcs11.UserPinNotInitialized,
    pkcs11.GeneralError,
)
"""Errors that are retried before they count, because a deleted key causes a hold."""

_PIN_MAX: Final = 256
"""Bytes of a PIN file that are read: tokens accept 4 to 255 characters."""


class Pkcs11Provider:
    """The key that a ``pkcs11:`` URI names."""

    def __init__(self, uri: Pkcs11Uri) -> None:
        self._uri = uri

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap with the first mechanism that token and key support."""
        with translated(), _opened(self._uri) as key:
            public, candidates = key.for_wrapping()
            wrapping, blob = wrap_first(public, candidates, bytes(plaintext), context)
            return WrapResult(blob, wrapping.value, key.version, key.principal)

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> UnwrapResult:
        """Unwrap a blob of ``wrap``, with the mechanism that it returned."""
        try:
            wrapping = Wrapping(mechanism)
        except ValueError:
            raise unknown_mechanism() from None
        with translated(), _opened(self._uri) as key:
            usable = key.allowed(key.object, Attribute.DECRYPT)
            plaintext = unwrap(usable, wrapping, blob, context)
            return UnwrapResult(plaintext, key.version, key.principal)

    def facts(self) -> dict[str, str]:
        """Return the attributes of the key, and of its public half if it is a pair."""
        with translated(), _opened(self._uri) as key:
            return facts_of(key.object, key.encrypting())


@dataclass(frozen=True, slots=True)
class _Key:
    """A key that was found on a token, in an open session."""

    uri: Pkcs11Uri
    token: pkcs11.Token
    session: pkcs11.Session
    object: Any  # the library makes its classes at run time, with the methods that a key allows

    @property
    def version(self) -> str:
        """An HSM has no versions: id and token distinguish a replaced key."""
        return f"{_serial(self.token)}:{bytes(self.object[Attribute.ID]).hex()}"

    @property
    def principal(self) -> str:
        return f"{'user' if self.uri.pin_source else 'public'}@{_serial(self.token)}"

    def for_wrapping(self) -> tuple[WrappingKey, tuple[Wrapping, ...]]:
        """Return the key that encrypts, and the mechanisms to try with it."""
        if self.object[Attribute.CLASS] == ObjectClass.SECRET_KEY:
            candidates = tuple(each for each in SECRET if self._offers(each))
        else:
            candidates = PAIR
        return self.allowed(self.encrypting(), Attribute.ENCRYPT), candidates

    def encrypting(self) -> Any:
        """Return the key itself, or the public half of a pair."""
        if self.object[Attribute.CLASS] == ObjectClass.SECRET_KEY:
            return self.object
        try:
            return _find(self.session, self.uri, ObjectClass.PUBLIC_KEY)
        except pkcs11.NoSuchKey:
            # The private key exists, so this is no deletion.
            raise L1Error(L1State.UNREACHABLE, "the pair's public key is not there") from None

    @staticmethod
    def allowed(key: Any, use: Attribute) -> WrappingKey:
        """Return the key if its owner allows this use; the library would hide the reason."""
        if not key[use]:
            raise disabled()
        usable: WrappingKey = key
        return usable

    def _offers(self, wrapping: Wrapping) -> bool:
        try:
            info = self.token.slot.get_mechanism_info(mechanism_of(wrapping))
        except pkcs11.MechanismInvalid:
            return False
        both = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
        return info.flags & both == both


@contextmanager
def _opened(uri: Pkcs11Uri) -> Iterator[_Key]:
    """Load the module, log in once, find the key."""
    module = trusted(uri.module_path)
    _load(module)
    token, session, found = _found(uri, module)
    with session:
        yield _Key(uri, token, session, found)


def _load(module: str) -> None:
    try:
        pkcs11.lib(module)
    except pkcs11.PKCS11Error as error:
        if type(error) is not pkcs11.PKCS11Error:
            return  # the module of a token in disorder: it is tried again
        hint = "the HSM's module cannot be loaded: is it a PKCS#11 module for this machine?"
        raise L1Error(L1State.UNREACHABLE, hint, cls=type(error).__name__) from None


def _found(uri: Pkcs11Uri, module: str) -> tuple[pkcs11.Token, pkcs11.Session, Any]:
    """Return a session with the key, with short retries while the token is in disorder.

    If several processes start SoftHSM at once, it reads its files while another process has locked
    them. It then lacks the token, its PIN or a key until it is initialised again.
    """
    for wait_s in LOOK_AGAIN_S:
        try:
            return _look(uri, module)
        except _DISORDER:
            time.sleep(wait_s)
            pkcs11.lib(module).reinitialize()
    return _look(uri, module)


def _look(uri: Pkcs11Uri, module: str) -> tuple[pkcs11.Token, pkcs11.Session, Any]:
    token = _token(uri, module)
    if uri.pin_source is not None:
        may_be_tried(token.flags)
    pin = None if uri.pin_source is None else _read_pin(uri.pin_source)
    session = token.open(user_pin=pin)
    try:
        return token, session, _find_unwrapping(session, uri)
    except pkcs11.NoSuchKey:
        session.close()
        if pin is None and token.flags & TokenFlag.LOGIN_REQUIRED:
            # Private keys are invisible without a login, so their absence proves nothing.
            hint = "no such key without a login: give a pin-source"
            raise L1Error(L1State.UNREACHABLE, hint) from None
        raise
    except BaseException:
        session.close()
        raise


def may_be_tried(flags: TokenFlag) -> None:
    """Raise unless the token has tries to spare; a single remaining try is no refusal."""
    if flags & TokenFlag.USER_PIN_LOCKED:
        raise L1Error(L1State.FORBIDDEN, "the PIN is locked")
    if flags & TokenFlag.USER_PIN_FINAL_TRY:
        raise L1Error(L1State.UNREACHABLE, "the PIN is one try away from being locked: not tried")


def _token(uri: Pkcs11Uri, module: str) -> pkcs11.Token:
    found = []
    for slot in pkcs11.lib(module).get_slots(token_present=True):
        if uri.slot_id is not None and slot.slot_id != uri.slot_id:
            continue
        token = slot.get_token()
        if _is_meant(uri, token):
            found.append(token)
    if len(found) > 1:
        raise pkcs11.MultipleTokensReturned
    if not found:
        raise pkcs11.NoSuchToken
    return found[0]


def _is_meant(uri: Pkcs11Uri, token: pkcs11.Token) -> bool:
    pairs = (
        (uri.token, token.label),
        (uri.serial, _serial(token)),
        (uri.manufacturer, token.manufacturer_id.strip()),
        (uri.model, token.model.strip()),
    )
    return all(wanted is None or wanted == has for wanted, has in pairs)


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


def _read_pin(source: str) -> str:
    """Return the PIN without byte order mark and line ends, which would cost a try each."""
    try:
        handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pin = os.read(handle, _PIN_MAX)
        finally:
            os.close(handle)
        text = pin.decode("utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise L1Error(
            L1State.UNREACHABLE, "the PIN file cannot be read", cls=type(error).__name__
        ) from None
    if not text:
        raise L1Error(L1State.UNREACHABLE, "the PIN file is empty: no login was tried")
    return text
