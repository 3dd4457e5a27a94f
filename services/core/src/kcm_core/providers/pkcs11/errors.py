"""What a token's return codes mean, in the one taxonomy.

A refusal is only what can be nothing else: the token rejects the PIN or the user, the key may not
be used, a search does not find it. All other codes, and those that nobody has seen yet, are
``unreachable``: a device that is broken has refused nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pkcs11

from kcm_core.providers.state import L1Error, L1State

_STATES: Final[dict[type[Exception], tuple[L1State, str]]] = {
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
    # A PIN that ran out, and a session that the token dropped: nobody said no to the key.
    pkcs11.PinExpired: (L1State.UNREACHABLE, "the PIN has expired"),
    pkcs11.UserNotLoggedIn: (L1State.UNREACHABLE, "the token wants a login, or has ended it"),
    pkcs11.NoSuchKey: (L1State.DELETED, "the token has no such key"),
    # Also said by an HSM that another one took over from; every operation searches the key anew.
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
    # SoftHSM says this of a token in disorder: it refuses nobody.
    pkcs11.UserPinNotInitialized: (L1State.UNREACHABLE, "the token has no user PIN"),
    **dict.fromkeys(
        (pkcs11.KeyTypeInconsistent, pkcs11.KeySizeRange),
        (L1State.UNREACHABLE, "the key is of another kind: it has to be AES, or an RSA pair"),
    ),
    **dict.fromkeys(
        (pkcs11.MultipleTokensReturned, pkcs11.MultipleObjectsReturned),
        (L1State.UNREACHABLE, "the URI matches more than one"),
    ),
}
_KEY_FUNCTION_NOT_PERMITTED: Final = "Unmapped error code 0x68"
"""How the library spells the one return code that means "disabled", for which it has no class."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the library's exceptions into ours; the library's own texts are dropped."""
    try:
        yield
    except pkcs11.PKCS11Error as error:
        name = type(error).__name__
        if str(error) == _KEY_FUNCTION_NOT_PERMITTED:
            raise disabled(name) from None
        state, detail = _STATES.get(
            type(error), (L1State.UNREACHABLE, "the token did not do what was asked")
        )
        raise L1Error(state, detail, cls=name) from None


def disabled(name: str = "") -> L1Error:
    """Return the error of a key that is there and may not be used."""
    return L1Error(L1State.DISABLED, "the key may not be used", cls=name)
