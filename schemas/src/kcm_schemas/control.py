"""The kill switch's messages: holds, lifts, receipts, leases, attestations and pulls.

Each is the body of a ``Signed`` statement. A hold's subject names its scope and id; whom it is
about stands in the body, which is signed.
"""

from __future__ import annotations

from hashlib import sha256
from operator import lt
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.l1 import L1StateField
from kcm_schemas.names import U32, U64, Digest, Id, Name, Text, Trouble
from kcm_schemas.roster import Role

Scope = Literal["tenant", "link", "region"]
Cause = Literal["operator", "l1"]

PENDING: Final = "pending"
"""A hold that a Core is about to write to its disk."""


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


class Lifts(Message):
    """The end of many holds, of one cause and origin, whose ids begin with the byte ``prefix``.

    ``ids`` are theirs, 16 bytes each, in order, each once. It says what a lift of each says, so
    whoever signs it has to have the right to sign each of them; an id of a hold of another cause or
    origin means nothing in it.
    """

    cause: Cause
    origin: Name
    prefix: Annotated[int, Field(ge=0, le=255)]
    issued_ms: U64
    ids: Annotated[
        bytes,
        Field(min_length=limits.ID_SIZE, max_length=limits.LIFTS_MAX * limits.ID_SIZE),
    ]

    @model_validator(mode="after")
    def _in_order(self) -> Lifts:
        size = limits.ID_SIZE
        if len(self.ids) % size:
            raise ValueError("an id has 16 bytes")
        each = [self.ids[at : at + size] for at in range(0, len(self.ids), size)]
        if not all(map(lt, each, each[1:])):
            raise ValueError("ids stand in order, each once")
        if (each[0][0], each[-1][0]) != (self.prefix, self.prefix):
            raise ValueError("all ids begin with the page's byte")
        return self


def page_key(prefix: int, raw: bytes) -> bytes:
    """16 bytes that name a signed page, in order among the ids of holds."""
    return bytes((prefix,)) + sha256(raw).digest()[: limits.ID_SIZE - 1]


class Receipt(Message):
    """An incarnation's word that it purged for a hold: what it dropped and how long it took.

    ``unkept`` is why a Core's own disk does not have the hold, as in ``disk full``, and ``pending``
    when it was not tried yet; it is empty once the disk has it, and in a Gateway's. Only an empty
    one counts. ``reached`` is the digest of what the incarnation knows of the tenants that the hold
    reaches: it counts where the region's Core that is asked knows the same.
    """

    hold_id: Id
    instance: Name
    incarnation: Id
    role: Annotated[Role, Field(strict=False)]
    region: Name
    keys: U32
    purge_us: U32
    unkept: Trouble
    reached: Digest


class Lease(Message):
    """An incarnation's entry in its region's control stream; acknowledged, it renews the lease.

    ``first`` is the sequence of the incarnation's first record, 0 in that record itself: the stream
    keeps only the latest. ``lease_ms`` is for how long it serves from a record. ``holds`` is the
    digest of the holds that it knows, by the roster of version ``roster``, by which it judged all
    that the stream had: where another one counts, other holds do. ``registry`` has those of the
    shards of the region's tenants, links and services; it is empty in the record of a Core without
    memory of them, which says nothing about them. ``ended`` is its last word: it serves no more and
    holds no key.
    """

    instance: Name
    incarnation: Id
    role: Annotated[Role, Field(strict=False)]
    region: Name
    nonce: Id
    first: U64
    lease_ms: U32
    holds: Digest
    registry: Annotated[
        list[Id],
        Field(max_length=limits.REGISTRY_SHARDS),
    ]
    roster: U32
    ended: bool

    @model_validator(mode="after")
    def _every_shard_or_none(self) -> Lease:
        if len(self.registry) not in (0, limits.REGISTRY_SHARDS):
            raise ValueError("a lease entry has a digest of each shard, or none")
        return self


class PeerLease(Message):
    """Region ``region`` knew everything of ``other`` when its own stream stood at ``position``.

    ``nonce`` is the one of the lease entry that lies there: where another one does, the stream went
    back, and the peer lease says nothing. ``stored`` is the highest sequence at which a hold lies
    that the writer knows, and ``hold`` that hold's id (zeros: there is none): whoever was not
    delivered that one there lacks something that the peer lease vouches for. ``roster`` is the
    version by which ``other`` judged what it holds: whoever has a lower one may take it for lifted.
    """

    region: Name
    other: Name
    position: U64
    nonce: Id
    stored: U64
    hold: Id
    roster: U32


class KeyUseAttestation(Message):
    """Somebody used a customer's key, or was refused, after the stream stood at ``position``.

    ``nonce`` is the one of the lease entry that lies there. It serves for this very link revision,
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

    ``after`` is the id behind which to go on (zeros: from the start, by ids). ``parts`` has for
    each first byte of an id a digest of what the asker holds, and ``pages`` one of the pages of
    lifted holds that it has; both are empty when no holds are wanted. ``hold_id`` is the hold whose
    progress is asked for.
    """

    region: Name
    nonce: Id
    after: Id
    parts: Annotated[bytes, Field(max_length=limits.PARTS_SIZE)]
    pages: Annotated[bytes, Field(max_length=limits.PAGES_SIZE)]
    hold_id: Id

    @model_validator(mode="after")
    def _all_or_none(self) -> PullRequest:
        sizes = (len(self.parts), len(self.pages))
        if sizes not in ((0, 0), (limits.PARTS_SIZE, limits.PAGES_SIZE)):
            raise ValueError("a pull has a digest for each first byte of an id, or none")
        return self


class Incarnation(Message):
    """One incarnation on record: its lease, and its record's first and latest stream sequence.

    ``silent_ms`` is for how long who says this has heard no record of it from below the hold that
    is asked for, as far as its watch goes; 0 where what was heard does not count. ``quiet_ms`` is
    the same of any record. ``roster`` is the version by which it last said that it judges.
    """

    instance: Name
    incarnation: Id
    role: Annotated[Role, Field(strict=False)]
    first: U64
    latest: U64
    lease_ms: U32
    silent_ms: U32
    quiet_ms: U32
    roster: U32


class PullReply(Message):
    """Holds of a region (signed statements) in the order of their ids, and its incarnations.

    Among them are pages of lifted holds, by their first byte and digest. Of both those parts only
    that differ; ``same`` says that none does: then nothing follows.
    ``more`` says that there are more behind the last one. ``durable_at`` is the stream sequence at
    which ``hold_id`` of the request was acknowledged in this region, 0 when it is not stored there;
    ``lifted`` says whether it is lifted there. ``position`` is the stream's latest sequence.
    ``held_ms`` is for how long who answers has known the hold in that place, and ``watched_ms`` for
    how long it had missed nothing of the stream before. ``reached`` is over what it knows of the
    tenants that the hold reaches, and ``settled`` says that no Core of the region knows others.
    ``roster`` is the highest version that the region's stream has: by it all of this is judged.
    ``result`` is the signed result of that kill as the region stores it, empty where it has none or
    where it does not fit.
    """

    region: Name
    nonce: Id
    roster: U32
    same: bool
    more: bool
    position: U64
    durable_at: U64
    held_ms: U32
    watched_ms: U32
    reached: Digest
    settled: bool
    lifted: bool
    holds: Annotated[list[bytes], Field(max_length=limits.HOLDS_MAX)]
    incarnations: Annotated[list[Incarnation], Field(max_length=4096)]
    result: Annotated[bytes, Field(max_length=limits.RESULT_MAX)] = b""
