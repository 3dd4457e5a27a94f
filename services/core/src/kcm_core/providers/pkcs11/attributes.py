"""A token's description of a key: its attributes, in the spelling of PKCS#11.

An attribute that the token does not know is left out, and then meets no requirement. The attributes
are the token's own claims: a token that lies is not detected.
"""

from __future__ import annotations

from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass

_UNKNOWN: Final = (
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeSensitive,
    pkcs11.AttributeValueInvalid,
    KeyError,
    NotImplementedError,
)

_YES_OR_NO: Final = (
    Attribute.TOKEN,
    Attribute.PRIVATE,
    Attribute.SENSITIVE,
    Attribute.ALWAYS_SENSITIVE,
    Attribute.EXTRACTABLE,
    Attribute.NEVER_EXTRACTABLE,
    Attribute.LOCAL,
    Attribute.DECRYPT,
)


def facts_of(key: Any, encrypting: Any) -> dict[str, str]:
    """Return the attributes of the key that unwraps; ``encrypting`` is the one that wraps."""
    said: dict[str, str] = {}
    for attribute in _YES_OR_NO:
        _add(said, key, attribute)
    _add(said, encrypting, Attribute.ENCRYPT)
    kind, family = _read(key, Attribute.CLASS), _read(key, Attribute.KEY_TYPE)
    if isinstance(kind, ObjectClass):
        said["CKA_CLASS"] = f"CKO_{kind.name}"
    if isinstance(family, KeyType):
        said["CKA_KEY_TYPE"] = f"CKK_{family.name}"
    size, modulus = _read(key, Attribute.VALUE_LEN), _read(key, Attribute.MODULUS)
    if size is not None:
        said["CKA_VALUE_LEN"] = str(size)
    if modulus is not None:
        said["CKA_MODULUS_BITS"] = str(int.from_bytes(modulus, "big").bit_length())
    return said


def _add(said: dict[str, str], key: Any, attribute: Attribute) -> None:
    value = _read(key, attribute)
    if isinstance(value, bool):
        said[f"CKA_{attribute.name}"] = str(value).lower()


def _read(key: Any, attribute: Attribute) -> Any:
    try:
        return key[attribute]
    except _UNKNOWN:
        return None
