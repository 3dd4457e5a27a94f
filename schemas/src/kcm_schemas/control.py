"""The kill switch's messages: holds, lifts, receipts, leases, attestations and pulls.

Each is the body of a ``Signed`` statement. The subject of a hold names its scope and id; its target
is in the signed body.
"""

from __future__ import annotations

from hashlib import sha256
from operator import lt
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.l1 import L1StateField
from kcm_schemas.names import U32, U64, Digest, Id, Name, Target, Text, Trouble
from kcm_schemas.roster import Role

Scope = Literal["tenant", "link", "region", "app", "instance"]
KEY_SCOPES: Final = frozenset({"app", "instance"})
"""Scopes whose target is a name with one of its keys (``key_target``)."""

Cause = Literal["operator", "l1"]

PENDING: Final = "pending"
"""The ``unkept`` of a receipt whose hold a Core has not written to its disk yet."""


class Hold(Message):
    """One order to keep a target out of service, until a lift names its id.

    A hold on a region takes it out of service: nothing is served there, and no other region needs
    a peer lease from it. A hold on an application or an instance names one of its keys: what that
    key signs opens no session, and an instance that has the key serves nothing.

    ``id`` commits to all other fields, the random ``salt`` included, so that no other hold can
    have the same id.
    """

    id: Id
    salt: Id
    scope: Scope
    target: Target
    cause: Cause
    origin: Name
    issued_ms: U64
    reason: Text

    @model_validator(mode="after")
    def _of_its_scope(self) -> Hold:
        if ("." in self.target) != (self.scope in KEY_SCOPES):
            raise ValueError(
                "the target is a name, and for an application or an instance a name and its key"
            )
        return self


class Lift(Message):
    """The end of one hold, which it embeds as it was signed."""

    hold: Annotated[bytes, Field(max_length=limits.SIGNED_HOLD_MAX)]
    issued_ms: U64
    reason: Text


class Lifts(Message):
    """The end of many holds, of one cause and origin, whose ids begin with the byte ``prefix``.

    ``ids`` are their ids, 16 bytes each, in ascending order, each once. The page counts as a lift
    of each of them, so its signer needs the right to lift each. The id of a hold of another cause
    or origin has no effect.
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
            raise ValueError(f"ids have {len(self.ids)} bytes, not a multiple of {size}")
        each = [self.ids[at : at + size] for at in range(0, len(self.ids), size)]
        if not all(map(lt, each, each[1:])):
            raise ValueError("the ids are not in ascending order, or one repeats")
        if (each[0][0], each[-1][0]) != (self.prefix, self.prefix):
            raise ValueError("an id does not begin with the page's prefix")
        return self


def page_key(prefix: int, raw: bytes) -> bytes:
    """Return 16 bytes that name a signed page and give its order among the ids of holds."""
    return bytes((prefix,)) + sha256(raw).digest()[: limits.ID_SIZE - 1]


class Receipt(Message):
    """An incarnation's statement that it purged for a hold: keys purged and time taken.

    ``unkept`` says why a Core's own disk does not have the hold, for example ``disk full``, and is
    ``pending`` before the first attempt. It is empty once the disk has the hold, and always in a
    Gateway's receipt. Only a receipt with an empty one counts. ``reached`` is the digest of what
    the incarnation knows of the tenants that the hold reaches; the receipt counts if the asked Core
    of the region knows the same.
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
    """An incarnation's entry in its region's control stream; its acknowledgement renews the lease.

    ``first`` is the sequence of the incarnation's first entry, 0 in that entry itself: the stream
    keeps only the latest. ``lease_ms`` is for how long an entry lets it serve. ``holds`` is the
    digest of the holds that it knows by the roster of version ``roster``, by which it judged the
    whole stream: under another roster, other holds count. ``registry`` has the digests of the
    shards of the region's tenants, links and services. It is empty in the entry of a Core without
    baseline of the registry. ``ended`` marks its last entry: it serves no more and has no key.
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
            raise ValueError(
                f"a lease entry has {len(self.registry)} shard digests, not"
                f" {limits.REGISTRY_SHARDS} or none"
            )
        return self


class PeerLease(Message):
    """``region`` knew every hold of ``other`` when its own stream was at ``position``.

    ``nonce`` is that of the lease entry at ``position``: if another entry is there, the stream was
    rolled back, and the peer lease is void. ``stored`` is the highest sequence of a hold that the
    writer knows, and ``hold`` that hold's id (zeros if there is none): a reader to which that hold
    was not delivered there lacks holds for which the peer lease vouches. ``roster`` is the version
    by which ``other`` judges its holds: a reader with a lower version may judge some as lifted.
    """

    region: Name
    other: Name
    position: U64
    nonce: Id
    stored: U64
    hold: Id
    roster: U32


class KeyUseAttestation(Message):
    """A Core used a customer's key, or was refused, after the stream was at ``position``.

    ``nonce`` is that of the lease entry at ``position``. The attestation is valid for exactly this
    link revision, key version and principal.
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
    """Ask another region for its holds and its incarnations, once it has caught up with its stream.

    ``after`` is the id after which the reply begins (zeros: at the start, ordered by id). ``parts``
    has a digest of the asker's holds for each first byte of an id, and ``pages`` one of its lift
    pages. Both are empty if no holds are wanted. ``hold_id`` is the hold whose progress is asked
    for.
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
            raise ValueError(
                f"parts and pages have {sizes[0]} and {sizes[1]} bytes, not {limits.PARTS_SIZE} and"
                f" {limits.PAGES_SIZE}, or none"
            )
        return self


class Incarnation(Message):
    """A registered incarnation: its lease, and the first and latest sequence of its entries.

    ``silent_ms`` is for how long the answering Core has read no entry of it from below the hold
    that is asked for, within its stream watch; 0 if its reading does not count. ``quiet_ms`` is the
    same for any entry. ``roster`` is the roster version in its latest entry.
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
    """Signed holds of a region in the order of their ids, and its incarnations.

    Lift pages are among them, ordered by first byte and digest. The reply has only parts that
    differ; ``same`` says that none does, and then there are no holds. ``more`` says whether others
    follow the last one. ``durable_at`` is the stream sequence at which ``hold_id`` of the request
    was acknowledged in this region, 0 if it is not stored; ``lifted`` says whether it is lifted
    there. ``position`` is the stream's latest sequence. ``held_ms`` is for how long the answering
    Core has known the hold at that sequence, and ``watched_ms`` how long its stream watch was
    before. ``reached`` is the digest of what it knows of the tenants that the hold reaches, and
    ``settled`` says that all Cores of the region know the same. ``roster`` is the highest version
    in the region's stream, by which all of this is judged. ``result`` is the signed kill result
    that the region stores, empty if there is none or it does not fit.
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
