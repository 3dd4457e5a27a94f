"""Reading signed envelopes, and the digest by which a statement is listed.

This is all that is done with a message before a signature of somebody known was checked: its shape
is walked through once, and its size is bounded by its kind.
"""

from __future__ import annotations

from typing import Final

from kcm_schemas import labels, limits
from kcm_schemas.codes import KcmError
from kcm_schemas.labels import ctx
from kcm_schemas.signed import STATEMENT_MAX as MAX_OF
from kcm_schemas.signed import Kind, Signed, read_signed

from kcm_trust.identity import check, digest, to_sign

STATEMENT_MAX: Final = limits.BODY_MAX
"""Bytes of any signed statement."""


class Untrusted(Exception):
    """A statement is not believed. The text says why and carries nothing of it."""


class Unlisted(Untrusted):
    """Somebody retired has signed this, and no list that is here names it."""


class Retired(Untrusted):
    """Somebody retired has signed this: it counted while they acted, and does not now."""


class Outdated(Untrusted):
    """The root has signed this roster, and a newer one has taken its place."""


class Forged(Untrusted):
    """No roster would make anybody believe this: it is no statement, or not one of its place."""


def envelope(raw: bytes, *kinds: Kind) -> Signed:
    """Read a statement of one of these kinds; raises ``Untrusted``. Nothing in it counts yet."""
    try:
        statement = read_signed(raw)
    except KcmError:
        raise Forged("not a signed statement") from None
    if statement.kind not in kinds:
        raise Forged(f"not a statement of kind {' or '.join(kind.value for kind in kinds)}")
    if len(raw) > MAX_OF[statement.kind]:
        raise Forged(f"larger than a statement of kind {statement.kind.value} can be")
    return statement


def holds(statement: Signed, signer: str, public: bytes) -> bool:
    """Whether the signature of a signer holds, who has this public key."""
    content = digest(statement.body)
    message = to_sign(statement.system, statement.kind, signer, content)
    return any(
        check(public, one.signature, message)
        for one in statement.signatures
        if one.signer == signer
    )


def statement_digest(statement: Signed) -> bytes:
    """32 bytes that name what a statement says, whoever signed it, for a list of what lasts."""
    content = digest(statement.body)
    return digest(ctx(labels.LASTING, statement.system, statement.kind.value, content))
