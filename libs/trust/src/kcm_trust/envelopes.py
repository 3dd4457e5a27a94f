"""Reading signed envelopes, and the digest by which an endorsement lists a statement.

This is all the work that is done on a message before the signature of a known signer is verified:
one walk over its shape, and a bound of its size by its kind.
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
    """A statement is not trusted. ``reason`` is one of a fixed set of texts.

    ``str()`` may add details: names, numbers and kinds from the statement that passed the grammar.
    A sender chooses them, so failures are counted by ``reason`` alone.
    """

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(f"{reason}: {details}" if details else reason)
        self.reason: Final = reason


class Unknown(Untrusted):
    """No entry has the name: a sender can invent any number of such names."""


class Unlisted(Untrusted):
    """All signers are retired, and no endorsement that is known here lists the statement."""


class Retired(Untrusted):
    """A signer is retired: its statements of this kind do not count any more."""


class Outdated(Untrusted):
    """The root signed this roster, and a newer one has replaced it."""


class Forged(Untrusted):
    """No roster could make this trusted: it is not a statement, or not one for this place."""


def envelope(raw: bytes, *kinds: Kind) -> Signed:
    """Read a statement of one of these kinds; raises ``Forged``. Nothing in it is verified."""
    try:
        statement = read_signed(raw)
    except KcmError:
        raise Forged("not a signed statement") from None
    if statement.kind not in kinds:
        raise Forged(
            f"not a statement of kind {' or '.join(kind.value for kind in kinds)}",
            statement.kind.value,
        )
    if len(raw) > MAX_OF[statement.kind]:
        raise Forged(
            f"larger than a statement of kind {statement.kind.value} can be", f"{len(raw)} bytes"
        )
    return statement


def holds(statement: Signed, signer: str, public: bytes) -> bool:
    """Whether a statement has a valid signature of ``signer``, who has this public key."""
    content = digest(statement.body)
    message = to_sign(statement.system, statement.kind, signer, content)
    return any(
        check(public, one.signature, message)
        for one in statement.signatures
        if one.signer == signer
    )


def statement_digest(statement: Signed) -> bytes:
    """Return the 32 bytes by which an endorsement lists a statement, whatever its signatures."""
    content = digest(statement.body)
    return digest(ctx(labels.ENDORSEMENT, statement.system, statement.kind.value, content))
