"""Holds and lifts as they are signed, by an operator or by a Core."""

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
    """A new hold's id, and the signed hold. Whoever has the latter can put it in force."""
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
    """A signed hold that a customer's key caused."""
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
    """A signed end of the signed hold ``held``."""
    return encode(identity.sign(Kind.LIFT, Lift(hold=held, issued_ms=issued_ms, reason=reason)))


def lifts(identity: Identity, *, cause: Cause, origin: str, issued_ms: int, ids: bytes) -> bytes:
    """A signed page of lifted holds; ``ids`` are in order and begin with one byte."""
    page = Lifts(cause=cause, origin=origin, prefix=ids[0], issued_ms=issued_ms, ids=ids)
    return encode(identity.sign(Kind.LIFTS, page))


def signers(raw: bytes) -> frozenset[str]:
    """Who signed a statement, and the hold in it if it is a lift. It has to be verified already."""
    statement = read_signed(raw)
    names = frozenset(one.signer for one in statement.signatures)
    if statement.kind is not Kind.LIFT:
        return names
    return names | signers(decode(Lift, statement.body).hold)


def signed_by(raw: bytes, names: frozenset[str]) -> bool:
    """Whether any of these signed it, as ``signers`` says. Of most statements, looking will do."""
    if len(names) <= _FEW and not any(name.encode() in raw for name in names):
        return False
    return not names.isdisjoint(signers(raw))


_FEW: Final = 8
"""Names for which looking for each costs less than reading the statement: 1 µs against 30."""


def lifted(raw: bytes) -> tuple[int, str]:
    """When a lift was signed (Unix milliseconds), and why: by whom says ``Verifier.author``.

    It has to be verified already.
    """
    content = decode(Lift, read_signed(raw).body)
    return content.issued_ms, content.reason


def key_of_page(raw: bytes) -> bytes:
    """The key of a page of lifted holds, by which lists are ordered; raises ``malformed``.

    Nothing is verified.
    """
    page = decode(Lifts, read_signed(raw).body)
    return page_key(page.prefix, raw)
