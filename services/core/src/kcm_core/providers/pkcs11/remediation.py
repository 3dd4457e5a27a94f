"""What to do about a key on an HSM: attributes to set, and the next step after each failure."""

from __future__ import annotations

from typing import Final

from kcm_core.providers import requirements
from kcm_core.providers.pkcs11.uri import KeyClass, Pkcs11Uri
from kcm_core.providers.state import L1Error, L1State

_NAME_A_FILE: Final = "name a file with the PIN by pin-source=file:/path, readable by this user"

_FIXES: Final = {
    L1State.DISABLED: "set CKA_DECRYPT (and CKA_ENCRYPT) of the key to true",
    L1State.DELETED: "is the label or id right (pkcs11-tool --list-objects --login)?",
    L1State.FORBIDDEN: "put the right PIN into the pin-source file; it is tried once a change",
    L1State.INVALID: "the token's answer does not authenticate: is there another key of its name?",
}

_BY_WORD: Final = {
    "accept": _FIXES[L1State.FORBIDDEN],
    "expired": "set another PIN at the token, and put it into the pin-source file",
    "one try": "is the PIN file right? Log in once by hand: that gives the tries back",
    "PIN": _NAME_A_FILE,
    "login": _NAME_A_FILE,
    "not allowed": "whoever runs the Core adds the module's path to KCM_L1_MODULES of its unsealer",
    "may write": "`namei -l` of the module shows who may write to it and above: chmod go-w",
    "module": "install the vendor's module, owned by root, and name it with module-path",
    "another kind": "make a key with the attributes that `kcm l1 policy URI` prints",
    "more than one": "name the token by serial or slot-id, and the key by id",
}
"""By a word of the detail, where nobody has refused anything; the first one counts."""


def policy(uri: Pkcs11Uri) -> str:
    """The attributes that the key has to have, and what the user has to be allowed."""
    pair = uri.type is KeyClass.PRIVATE
    attributes = requirements.PKCS11_PAIR if pair else requirements.PKCS11_SECRET
    return (
        "The key:\n"
        + requirements.as_text(attributes)
        + "The user behind the PIN (CKU_USER): C_FindObjects, C_GetAttributeValue, C_Encrypt and\n"
        "C_Decrypt with this key, and nothing else.\n"
        "The PIN stands in the pin-source file, of mode 0400.\n"
    )


def fix(error: L1Error) -> str:
    """One line that says what to do next."""
    known = _FIXES.get(error.state)
    if known is not None:
        return known
    for word, next_step in _BY_WORD.items():
        if word in error.detail:
            return next_step
    return "is the HSM connected and its service running (pkcs11-tool --list-slots)?"
