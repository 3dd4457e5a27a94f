"""Making holds and lifts, signed by an operator or by a Core."""

from __future__ import annotations

from typing import Final

from kcm_schemas import limits
from kcm_schemas.codec import decode, encode
from kcm_schemas.control import Cause, Hold, Lift, Lifts, Scope, page_key
from kcm_schemas.signed import Kind, read_signed

from kcm_trust.identity import Identity
from kcm_trust.verify import hold_id


def hold(
    identity: Identity,
    *,
    scope: Scope,
    target: str,
    cause: Cause,
    origin: str,
    issued_ms: int,
    reason: str,
    salt: bytes,
) -> tuple[bytes, bytes]:
    """Return a new hold's id and the signed hold, which every party that has it can publish."""
    content = Hold(
        id=bytes(limits.ID_SIZE),
        salt=salt,
        scope=scope,
        target=target,
        cause=cause,
        origin=origin,
        issued_ms=issued_ms,
        reason=reason,
    )
    content = content.model_copy(update={"id": hold_id(content)})
    return content.id, encode(identity.sign(Kind.HOLD, content))


def l1_hold(
    identity: Identity, *, link: str, origin: str, issued_ms: int, reason: str, salt: bytes
) -> bytes:
    """Return a signed hold that a customer's root key caused."""
    _, raw = hold(
        identity,
        scope="link",
        target=link,
        cause="l1",
        origin=origin,
        issued_ms=issued_ms,
        reason=reason,
        salt=salt,
    )
    return raw


def lift(identity: Identity, held: bytes, *, issued_ms: int, reason: str) -> bytes:
    """Return a signed lift of the signed hold ``held``."""
    return encode(identity.sign(Kind.LIFT, Lift(hold=held, issued_ms=issued_ms, reason=reason)))


def lifts(identity: Identity, *, cause: Cause, origin: str, issued_ms: int, ids: bytes) -> bytes:
    """Return a signed lift page; ``ids`` are in order and share their first byte."""
    page = Lifts(cause=cause, origin=origin, prefix=ids[0], issued_ms=issued_ms, ids=ids)
    return encode(identity.sign(Kind.LIFTS, page))


def signers(raw: bytes) -> frozenset[str]:
    """Return the signers of a verified statement and, for a lift, of the hold in it."""
    statement = read_signed(raw)
    names = frozenset(one.signer for one in statement.signatures)
    if statement.kind is not Kind.LIFT:
        return names
    return names | signers(decode(Lift, statement.body).hold)


def signed_by(raw: bytes, names: frozenset[str]) -> bool:
    """Whether one of these names is among ``signers``; mostly a search for the names suffices."""
    if len(names) <= _FEW and not any(name.encode() in raw for name in names):
        return False
    return not names.isdisjoint(signers(raw))


_FEW: Final = 8
"""Names for which a search for each is cheaper than reading the statement: 1 µs against 30."""


def lifted(raw: bytes) -> tuple[int, str]:
    """Return when a verified lift was signed (Unix milliseconds), and its reason.

    ``Verifier.author`` returns the name under which it counts.
    """
    content = decode(Lift, read_signed(raw).body)
    return content.issued_ms, content.reason


def key_of_page(raw: bytes) -> bytes:
    """Return the key of a lift page, by which lists are ordered; raises ``malformed``.

    Nothing is verified.
    """
    page = decode(Lifts, read_signed(raw).body)
    return page_key(page.prefix, raw)
