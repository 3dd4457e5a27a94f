"""The meaning of a token's return codes, in the one taxonomy.

Only an unambiguous denial counts as a refusal: the token rejects the PIN or the user, the key may
not be used, a search does not find it. All other codes, unknown ones included, are
``unreachable``: a broken device has refused nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pkcs11

from kcm_core.providers.state import L1Error, L1State

STATES: Final[dict[type[Exception], tuple[L1State, str]]] = {
    **dict.fromkeys(
        (
            pkcs11.PinIncorrect,
            pkcs11.PinInvalid,
            pkcs11.PinLenRange,
            pkcs11.PinLocked,
        ),
        (L1State.FORBIDDEN, "the token does not accept the PIN"),
    ),
    pkcs11.FunctionRejected: (L1State.FORBIDDEN, "the token does not let this user do it"),
    # An expired PIN and a session that the token dropped are no denial of the key.
    pkcs11.PinExpired: (L1State.UNREACHABLE, "the PIN has expired"),
    pkcs11.UserNotLoggedIn: (L1State.UNREACHABLE, "the token requires a login, or has ended it"),
    pkcs11.NoSuchKey: (L1State.DELETED, "the token has no such key"),
    # Also returned by an HSM after a failover; every operation searches for the key again.
    **dict.fromkeys(
        (pkcs11.ObjectHandleInvalid, pkcs11.KeyHandleInvalid),
        (L1State.UNREACHABLE, "the token does not know the key that it just found"),
    ),
    **dict.fromkeys(
        (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange),
        (L1State.INVALID, "the blob does not authenticate"),
    ),
    **dict.fromkeys(
        (pkcs11.NoSuchToken, pkcs11.TokenNotPresent, pkcs11.DeviceRemoved),
        (L1State.UNREACHABLE, "the token is not there"),
    ),
    # SoftHSM returns this for a token in disorder, which is no denial.
    pkcs11.UserPinNotInitialized: (L1State.UNREACHABLE, "the token has no user PIN"),
    **dict.fromkeys(
        (pkcs11.KeyTypeInconsistent, pkcs11.KeySizeRange),
        (L1State.UNREACHABLE, "wrong kind of key: it must be AES, or an RSA pair"),
    ),
    **dict.fromkeys(
        (pkcs11.MultipleTokensReturned, pkcs11.MultipleObjectsReturned),
        (L1State.UNREACHABLE, "the URI matches more than one"),
    ),
}
"""For each exception of the library, the state that it means and the text of the error."""

_KEY_FUNCTION_NOT_PERMITTED: Final = "Unmapped error code 0x68"
"""The library's text for the one return code that means "disabled", for which it has no class."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the library's exceptions into ``L1Error``; the library's texts are dropped."""
    try:
        yield
    except pkcs11.PKCS11Error as error:
        name = type(error).__name__
        if str(error) == _KEY_FUNCTION_NOT_PERMITTED:
            raise disabled(name) from None
        state, detail = STATES.get(
            type(error), (L1State.UNREACHABLE, "the token did not perform the operation")
        )
        raise L1Error(state, detail, cls=name) from None


def disabled(name: str = "") -> L1Error:
    """Return the error of a key that exists and may not be used."""
    return L1Error(L1State.DISABLED, "the key may not be used", cls=name)
