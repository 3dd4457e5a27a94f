"""Holds, lifts, receipts, leases, fences, proofs and pulls: the messages of the kill switch.

Each is the body of a ``Signed`` statement. A hold's subject names its scope and id; whom it is
about stands in the body, which is signed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.l1 import L1StateField
from kcm_schemas.names import U32, U64, Digest, Id, Name, Text
from kcm_schemas.roster import Role

Scope = Literal["tenant", "link", "region"]
Cause = Literal["operator", "l1"]


class Hold(Message):
    """One kill. It lasts until a lift names its id.

    On a region it takes the region out of service: nothing is served there, and no other region
    waits for its word any more.

    ``id`` commits to everything else, the random ``salt`` included: no other hold can take its
    place.
    """

    id: Id
    salt: Id
    scope: Scope
    target: Name
    cause: Cause
    origin: Name
    issued_ms: U64
    reason: Text


class Lift(Message):
    """The end of one hold, which it embeds as it was signed."""

    hold: Annotated[bytes, Field(max_length=limits.SIGNED_HOLD_MAX)]
    issued_ms: U64
    reason: Text


class Receipt(Message):
    """A boot's word that it purged for a hold: what it dropped and how long it took."""

    hold_id: Id
    instance: Name
    boot: Id
    role: Annotated[Role, Field(strict=False)]
    region: Name
    keys: U32
    purge_us: U32


class Lease(Message):
    """A boot's own record in its region's control stream; acknowledged, it renews the lease.

    ``first`` is the sequence of the boot's first record, 0 in that record itself: the stream keeps
    only the latest. ``lease_ms`` is for how long it serves from a record. ``holds`` is the digest
    of the holds that it knows, by the roster of version ``roster``: where another one counts, other
    holds do. ``ended`` is its last word: it serves no more and holds no key.
    """

    instance: Name
    boot: Id
    role: Annotated[Role, Field(strict=False)]
    region: Name
    nonce: Id
    first: U64
    lease_ms: U32
    holds: Digest
    roster: U32
    ended: bool


class Fence(Message):
    """Region ``region`` knew everything of ``other`` when its own stream stood at ``position``.

    ``nonce`` is the one of the lease record that lies there: where another one does, the stream
    went back, and the fence says nothing.
    """

    region: Name
    other: Name
    position: U64
    nonce: Id


class Proof(Message):
    """Somebody used a customer's key, or was refused, after the stream stood at ``position``.

    ``nonce`` is the one of the lease record that lies there. It serves for this very link revision,
    key version and principal.
    """

    region: Name
    link: Name
    link_revision: U64
    key_version: Text
    principal: Text
    state: L1StateField
    position: U64
    nonce: Id


class PullRequest(Message):
    """Ask another region what it holds, and who it knows, after its stream is caught up.

    ``after`` is the id behind which to go on (zeros: from the start, by ids); ``known`` is the
    digest of what the asker holds. ``hold_id`` is the hold whose progress is asked for.
    """

    region: Name
    nonce: Id
    after: Id
    known: Digest
    hold_id: Id


class Boot(Message):
    """One boot on record: its lease, and its record's first and latest stream sequence."""

    instance: Name
    boot: Id
    role: Annotated[Role, Field(strict=False)]
    first: U64
    latest: U64
    lease_ms: U32


class PullReply(Message):
    """Holds of a region (signed statements), in the order of their ids, and its boots on record.

    ``same`` says that the region holds exactly what the asker does: then no holds follow.
    ``more`` says that there are more behind the last one. ``durable_at`` is the stream sequence at
    which ``hold_id`` of the request was acknowledged in this region, 0 when it is not stored there;
    ``message`` is that hold as it is stored. ``position`` is the stream's latest sequence.
    """

    region: Name
    nonce: Id
    same: bool
    more: bool
    position: U64
    durable_at: U64
    message: Annotated[bytes, Field(max_length=2 * limits.SIGNED_HOLD_MAX)]
    holds: Annotated[list[bytes], Field(max_length=limits.HOLDS_MAX)]
    boots: Annotated[list[Boot], Field(max_length=4096)]
