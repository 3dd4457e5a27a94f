"""Names: subject tokens, identifiers and their grammar."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from kcm_schemas import limits

TOKEN: Final = re.compile(r"[a-z0-9-]{1,63}", re.ASCII)
"""A subject token: a tenant, a service, a region, an instance."""

NAME_PATTERN: Final = r"^[a-z0-9-]{1,63}\z"

NAME_FORM: Final = "1 to 63 characters of a-z, 0-9 and -"
"""The same, for a person."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A token as a field of a message."""

Target = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}(\.[0-9a-f]{32})?\z")]
"""What a hold is on: a name, or the name and the key of an application or an instance, as
``key_target`` writes it."""

Cursor = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{0,63}\z")]
"""The name after which a page of a list begins; empty for the first page."""

Text = Annotated[str, StringConstraints(max_length=limits.TEXT_MAX)]
"""Free text, bounded."""

Trouble = Annotated[str, StringConstraints(max_length=limits.TROUBLE_MAX)]
"""A short reason; empty if there is no trouble."""

Id = Annotated[bytes, Field(min_length=limits.ID_SIZE, max_length=limits.ID_SIZE)]
"""A random 16-byte identifier."""

Digest = Annotated[bytes, Field(min_length=32, max_length=32)]
"""A SHA-256 digest."""

U32 = Annotated[int, Field(ge=0, lt=1 << 32)]
U64 = Annotated[int, Field(ge=0, lt=1 << 63)]


RESERVED_REGION: Final = "ctl"
"""The token of subjects that cross regions; no region may have this name."""


def key_target(name: str, public_key: bytes) -> str:
    """Name one key of an application or an instance: name, dot, and half of its SHA-256 in hex.

    A hold on it ends with that key: a key that replaces it is not held.
    """
    return f"{name}.{sha256(public_key).hexdigest()[:32]}"


def is_region(text: str) -> bool:
    """Whether ``text`` may name a region."""
    return is_name(text) and text != RESERVED_REGION


def is_name(text: str) -> bool:
    """Whether ``text`` is a subject token."""
    return TOKEN.fullmatch(text) is not None
