"""Remedies for a key on an HSM: attributes to set, and the next step after each failure."""

from __future__ import annotations

from typing import Final

from kcm_core.providers import requirements
from kcm_core.providers.pkcs11.uri import KeyClass, Pkcs11Uri
from kcm_core.providers.state import L1Error, L1State

_NAME_A_FILE: Final = "name a file with the PIN by pin-source=file:/path, readable by this user"

_FIXES: Final = {
    L1State.DISABLED: "set CKA_DECRYPT (and CKA_ENCRYPT) of the key to true",
    L1State.DELETED: "is the label or id right (pkcs11-tool --list-objects --login)?",
    L1State.FORBIDDEN: "put the right PIN into the pin-source file; each change is tried once",
    L1State.INVALID: "the token's answer does not authenticate: is there another key of this name?",
}

_BY_WORD: Final = {
    "accept": _FIXES[L1State.FORBIDDEN],
    "expired": "set another PIN at the token, and put it into the pin-source file",
    "one try": "is the PIN file right? One login by hand restores the tries",
    "PIN": _NAME_A_FILE,
    "login": _NAME_A_FILE,
    "not allowed": "the Core's operator adds the module's path to KCM_L1_MODULES of its unsealer",
    "may write": "`namei -l` of the module shows who may write to it and above: chmod go-w",
    "module": "install the vendor's module, owned by root, and name it with module-path",
    "wrong kind": "make a key with the attributes that `kcm l1 policy URI` prints",
    "more than one": "name the token by serial or slot-id, and the key by id",
}
"""By a word of the detail, for failures that are no refusals; the first match counts."""


def policy(uri: Pkcs11Uri) -> str:
    """Return the attributes that the key must have, and what the user must be allowed."""
    pair = uri.type is KeyClass.PRIVATE
    attributes = requirements.PKCS11_PAIR if pair else requirements.PKCS11_SECRET
    return (
        "The key:\n"
        + requirements.as_text(attributes)
        + "The user with the PIN (CKU_USER): C_FindObjects, C_GetAttributeValue, C_Encrypt and\n"
        "C_Decrypt with this key, and nothing else.\n"
        "The PIN is in the pin-source file, of mode 0400.\n"
    )


def fix(error: L1Error) -> str:
    """Return one line with the next step."""
    known = _FIXES.get(error.state)
    if known is not None:
        return known
    for word, next_step in _BY_WORD.items():
        if word in error.detail:
            return next_step
    return "is the HSM connected and its service running (pkcs11-tool --list-slots)?"
