"""All verification of signed statements, in one place and without I/O.

Theory of operation. An instance is configured with one public key, the operator root's. The root
signs a roster; everybody else is believed only as far as the roster says:

========================  =======================================================
statement                 who may sign it
========================  =======================================================
roster                    the root
tenant, link, service     an operator with role ``admin``
accepted                  a Core of the region it names
hold, cause operator      an operator with role ``security``
hold, cause l1            a Core of the origin region; only on a link
lift                      an operator with role ``security``; for an L1's hold also a
                          Core of the origin region
lifts                     of L1's holds alone: a Core of the origin region
root-keys, service-keys   a Core of the region it names
receipt, lease            the instance that it names, in the role and region it names
result                    Cores, at least one of whom acts (``resulting``)
peer lease, attestation              a Core of the region it names
pull, pull-reply          a Core of the region it names
registry-question         a Core of the region it names
registry-answer           a Core of the region it names
admin                     an operator; which role depends on noun and verb
admin-reply               a Core, or an Auditor where the caller says so
audit                     the instance that it names
audit-head, stream-head   the Auditor that it names
trim                      a Core of the region it names
session ticket            a Gateway of the region it names
========================  =======================================================

A statement has one to eight signatures. **Each** of its signers has to be on the roster, to have
the right to say it alone, and to have signed it; so nobody can change a statement's bytes by adding
to them. Of a hold, and of a result, those are left out that do not count: it does not end when the
root removes one of those who signed it.

Somebody retired can do nothing new (admin, ticket, receipt, lease, peer lease, attestation, pull,
questions on a registry, and replies are refused). Their holds go on counting: a kill does not end
because the operator who placed it left. Of their lifts, tenants, links, services and wrapped keys
those count that the root listed as it retired them, and those that somebody acting has signed, too.
So belief is a function of the statement and the roster, and never of when, or in which order,
anything arrived.

**No work before trust.** What is done with bytes from outside before a signature was checked is
bounded by their kind: the envelope's one shape is walked through, signers are looked up, and the
signatures of those who may say this at all are checked. Only then is the body read.

Every function takes bytes from outside and returns the verified thing, or raises ``Untrusted``.
What is absent, unverifiable or of an unknown signer is not served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_schemas.admin.requests import AdminReply, AdminRequest
from kcm_schemas.audit import AuditBatch
from kcm_schemas.auditor import AuditHead, StreamHead, Trim
from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import (
    KeyUseAttestation,
    Lease,
    PeerLease,
    PullReply,
    PullRequest,
    Receipt,
)
from kcm_schemas.registry import (
    Accepted,
    Link,
    RegistryAnswer,
    RegistryEntry,
    RegistryQuestion,
    RootKeys,
    Service,
    ServiceKeys,
    Tenant,
)
from kcm_schemas.roster import Instance, Operator, OperatorRole, Role
from kcm_schemas.signed import Kind

from kcm_trust.checks import body_of
from kcm_trust.envelopes import (
    STATEMENT_MAX,
    Forged,
    Outdated,
    Retired,
    Unlisted,
    Untrusted,
    envelope,
    statement_digest,
)
from kcm_trust.hold_statements import (
    HoldChecker,
    VerifiedHold,
    VerifiedLift,
    VerifiedLifts,
    hold_id,
)
from kcm_trust.result_statements import ResultChecker, SignedResult
from kcm_trust.rights import ADMIN, CORE, INSTANCE, OPERATOR, ROLE, itself, one_of
from kcm_trust.roster import name_of, verify_roster

__all__ = [
    "STATEMENT_MAX",
    "Forged",
    "Outdated",
    "Retired",
    "SignedResult",
    "Unlisted",
    "Untrusted",
    "VerifiedHold",
    "VerifiedLift",
    "VerifiedLifts",
    "Verifier",
    "hold_id",
    "majority_is_possible",
    "may_ask",
    "verify_roster",
]


@dataclass(frozen=True, slots=True)
class VerifiedTrim:
    """A decision to trim, with the heads in it that hold and reach far enough, one an Auditor."""

    trim: Trim
    heads: tuple[StreamHead, ...]
    raw: bytes


class Verifier(HoldChecker, ResultChecker):
    """Verifies statements by one roster. Immutable: a new roster makes a new verifier."""

    def tenant(self, raw: bytes) -> Tenant:
        """A tenant, signed by an admin."""
        return self._lasts(raw, Kind.TENANT, Tenant, ADMIN)

    def link(self, raw: bytes) -> Link:
        """An L1 link, signed by an admin."""
        return self._lasts(raw, Kind.LINK, Link, ADMIN)

    def service(self, raw: bytes) -> Service:
        """A service, signed by an admin."""
        return self._lasts(raw, Kind.SERVICE, Service, ADMIN)

    def accepted(self, raw: bytes) -> Accepted:
        """A Core's word on a registry entry, by a Core of the region it names."""
        statement, signers = self._signed(raw, CORE, Kind.ACCEPTED)
        body = body_of(Accepted, statement)
        self._in_region(signers, body.region)
        self._counts(statement, signers)
        return body

    def registered(self, raw: bytes, region: str) -> Tenant | Link | Service:
        """A record as a region's registry stores it: what an operator signed and a Core accepted.

        Whatever a Core checks that needs nothing but the record is checked again here.
        """
        try:
            entry = decode(RegistryEntry, raw)
        except KcmError:
            raise Forged("not an entry of the registry") from None
        accepted = self.accepted(entry.accepted)
        statement = envelope(entry.statement, Kind.TENANT, Kind.LINK, Kind.SERVICE)
        if (accepted.statement, accepted.region) != (statement_digest(statement), region):
            raise Forged("no Core of this region accepted this record")
        match statement.kind:
            case Kind.TENANT:
                tenant = self.tenant(entry.statement)
                if region not in tenant.regions or not majority_is_possible(tenant):
                    raise Forged("a tenant that no Core of this region accepts")
                return tenant
            case Kind.LINK:
                return self.link(entry.statement)
            case _:
                return self.service(entry.statement)

    def root_keys(self, raw: bytes) -> RootKeys:
        """Wrapped tenant roots, signed by a Core of their region."""
        statement, signers = self._signed(raw, CORE, Kind.ROOT_KEYS)
        keys = body_of(RootKeys, statement)
        self._in_region(signers, keys.region)
        self._counts(statement, signers)
        return keys

    def service_keys(self, raw: bytes) -> ServiceKeys:
        """Wrapped service keys, signed by a Core of their region."""
        statement, signers = self._signed(raw, CORE, Kind.SERVICE_KEYS)
        keys = body_of(ServiceKeys, statement)
        self._in_region(signers, keys.region)
        self._counts(statement, signers)
        return keys

    def receipt(self, raw: bytes) -> Receipt:
        """A receipt, by the instance it names."""
        statement, signers = self._signed(raw, INSTANCE, Kind.RECEIPT, acting=True)
        body = body_of(Receipt, statement)
        itself(signers, body.instance, body.role, body.region)
        return body

    def lease(self, raw: bytes) -> Lease:
        """A lease entry, by the instance it names."""
        statement, signers = self._signed(raw, INSTANCE, Kind.LEASE, acting=True)
        body = body_of(Lease, statement)
        itself(signers, body.instance, body.role, body.region)
        return body

    def peer_lease(self, raw: bytes) -> PeerLease:
        """A peer lease, by a Core of the region that knows."""
        statement, signers = self._signed(raw, CORE, Kind.PEER_LEASE, acting=True)
        body = body_of(PeerLease, statement)
        self._in_region(signers, body.region)
        return body

    def key_use(self, raw: bytes) -> KeyUseAttestation:
        """An attestation, by a Core of the region in which the key was used."""
        statement, signers = self._signed(raw, CORE, Kind.KEY_USE, acting=True)
        body = body_of(KeyUseAttestation, statement)
        self._in_region(signers, body.region)
        return body

    def pull(self, raw: bytes) -> PullRequest:
        """A pull, by a Core of the region that asks."""
        statement, signers = self._signed(raw, CORE, Kind.PULL, acting=True)
        body = body_of(PullRequest, statement)
        self._in_region(signers, body.region)
        return body

    def pull_reply(self, raw: bytes) -> PullReply:
        """The answer to a pull, by a Core of the region that was asked."""
        statement, signers = self._signed(raw, CORE, Kind.PULL_REPLY, acting=True)
        body = body_of(PullReply, statement)
        self._in_region(signers, body.region)
        return body

    def registry_question(self, raw: bytes) -> RegistryQuestion:
        """A question about a region's registry, by a Core of that region."""
        statement, signers = self._signed(raw, CORE, Kind.REGISTRY_QUESTION, acting=True)
        body = body_of(RegistryQuestion, statement)
        self._in_region(signers, body.region)
        return body

    def registry_answer(self, raw: bytes) -> tuple[RegistryAnswer, str]:
        """The answer to one, by a Core of that region, with its name: its word is about itself."""
        statement, signers = self._signed(raw, CORE, Kind.REGISTRY_ANSWER, acting=True)
        body = body_of(RegistryAnswer, statement)
        self._in_region(signers, body.region)
        return body, name_of(one_of(signers))

    def admin(self, raw: bytes) -> tuple[AdminRequest, str, frozenset[OperatorRole]]:
        """An admin request with its operator and that operator's roles."""
        statement, signers = self._signed(raw, OPERATOR, Kind.ADMIN, acting=True)
        who = one_of(signers)
        roles = frozenset(who.roles) if isinstance(who, Operator) else frozenset()
        return body_of(AdminRequest, statement), name_of(who), roles

    def admin_reply(self, raw: bytes, role: Role = Role.CORE) -> tuple[AdminReply, Instance]:
        """An admin reply with the instance that answered, which must have ``role``.

        An Auditor's word must never pass for a Core's: it could say that a kill is complete. The
        caller also compares the instance's region with the one that it asked.
        """
        statement, signers = self._signed(raw, ROLE[role], Kind.ADMIN_REPLY, acting=True)
        return body_of(AdminReply, statement), self.acting(name_of(one_of(signers)))

    def audit(self, raw: bytes) -> AuditBatch:
        """Audit events, by the instance that emitted them."""
        statement, signers = self._signed(raw, INSTANCE, Kind.AUDIT)
        body = body_of(AuditBatch, statement)
        itself(signers, body.emitter, body.role, body.region)
        return body

    def audit_head(self, raw: bytes) -> AuditHead:
        """The head of a journal, by the Auditor that keeps it."""
        statement, signers = self._signed(raw, ROLE[Role.AUDITOR], Kind.AUDIT_HEAD)
        body = body_of(AuditHead, statement)
        if name_of(one_of(signers)) != body.auditor:
            raise Untrusted("the signer speaks for somebody else")
        return body

    def stream_head(self, raw: bytes) -> StreamHead:
        """How far an Auditor has a region's audit stream, by that Auditor, which must be acting."""
        return self._stream_head(raw, acting=True)

    def trim(self, raw: bytes) -> VerifiedTrim:
        """A decision to trim an audit stream, by a Core of its region.

        Who was retired since counts: what was trimmed on their word is gone. Heads of the same
        Auditor count once; whoever acts on a trim compares their number with its quorum.
        """
        statement, signers = self._signed(raw, CORE, Kind.TRIM)
        body = body_of(Trim, statement)
        self._in_region(signers, body.region)
        heads: dict[str, StreamHead] = {}
        for head in (self._head_of_trim(raw_head, body) for raw_head in body.heads):
            if head is not None:
                heads.setdefault(head.auditor, head)
        return VerifiedTrim(body, tuple(heads.values()), raw)

    def _stream_head(self, raw: bytes, *, acting: bool = False) -> StreamHead:
        statement, signers = self._signed(raw, ROLE[Role.AUDITOR], Kind.STREAM_HEAD, acting=acting)
        head = body_of(StreamHead, statement)
        if name_of(one_of(signers)) != head.auditor:
            raise Untrusted("the signer speaks for somebody else")
        return head

    def _head_of_trim(self, raw: bytes, trim: Trim) -> StreamHead | None:
        """A head that reaches as far as a trim does, or ``None``."""
        try:
            head = self._stream_head(raw)
        except Untrusted:
            return None
        same = (head.region, head.created) == (trim.region, trim.created)
        return head if same and head.through >= trim.through else None

    def ticket(self, caller: str, region: str, signature: bytes, message: bytes) -> Instance:
        """A session ticket's signature, by a Gateway of this region; returns the caller."""
        entry = self.acting(caller)
        if (entry.role, entry.region) != (Role.GATEWAY, region):
            raise Untrusted("the ticket is not of a Gateway of this region")
        if not self._holds(entry.public_key, signature, message):
            raise Untrusted("the signature does not hold")
        return entry


MAJORITY_MIN: Final = 3
"""Regions of a tenant that serves on when most of them are heard: of two, most are both."""


def majority_is_possible(tenant: Tenant) -> bool:
    """Whether the tenant has as many regions as its policy needs."""
    return tenant.region_quorum != "majority" or len(set(tenant.regions)) >= MAJORITY_MIN


def may_ask(entry: Instance, tenant: str, service: str) -> bool:
    """Whether an instance's grants cover a tenant's service."""
    return any(
        grant.tenant in ("*", tenant) and grant.service in ("*", service) for grant in entry.grants
    )
