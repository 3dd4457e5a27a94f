"""All verification of signed statements, in one place and without I/O.

Theory of operation. An instance is configured with one public key, that of the operator root. The
root signs a roster; every other signer is trusted only as far as the roster says:

============================  ===================================================
statement                     required signer
============================  ===================================================
roster                        the root
tenant, link, service         an operator with role ``admin``
app                           an operator with role ``admin``; for a grant of every
                              tenant also another one with role ``security``
accepted                      a Core of the region it names
hold, cause operator          an operator with role ``security``
hold, cause l1                a Core of the origin region; only on a link
lift                          an operator with role ``security``; for cause l1 also
                              a Core of the origin region
lifts                         for cause l1 only: a Core of the origin region
root-keys, service-keys       a Core of the region it names
receipt, lease                the instance that it names, in that role and region
result                        Cores, at least one of them not retired
                              (``result_statements``)
peer-lease, key-use           a Core of the region it names
pull, pull-reply              a Core of the region it names
registry-question             a Core of the region it names
registry-answer               a Core of the region it names
admin                         an operator; noun and verb determine the role
admin-reply                   a Core, or an Auditor if the caller asked one
audit                         the instance that it names
audit-head, stream-head       the Auditor that it names
trim                          a Core of the region it names
session-key                   the instance that it names, in that role and region
session ticket                a Gateway of the region it names; for ``open-operator``
                              an operator
============================  ===================================================

A statement has one to eight signatures. **Each** signer must be on the roster, must have the right
to sign it alone, and must have signed it, so that an attacker cannot change a statement's bytes by
adding signatures. For holds and results, signatures that do not count are ignored: a hold does not
end when the root removes one of its signers.

A retired signer can do nothing new: its admin requests, tickets, receipts, leases, peer leases,
attestations, pulls, registry questions and replies are rejected. Its holds still count: a kill does
not end because the operator who placed it left. Of its lifts, registry entries and wrapped
keys, those count that the root endorsed at its retirement, and those that another signer signed who
is not retired. So trust is a function of the statement and the roster; the time and the order of
arrival do not matter.

**No work before trust.** The kind of a message bounds the work before its signature is verified:
one walk over the envelope's shape, a look-up of the signers, and the verification of signatures
whose signers have the right to sign this kind. Only then is the body read.

Every function takes untrusted bytes and returns the verified thing, or raises ``Untrusted``. A
statement that is absent, invalid or of an unknown signer has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from kcm_schemas.admin.requests import AdminReply, AdminRequest
from kcm_schemas.app import App
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

from kcm_trust.app_statements import AppChecker
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
from kcm_trust.session_statements import SessionChecker

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

R = TypeVar("R", PeerLease, KeyUseAttestation, PullRequest, PullReply, RegistryQuestion)


@dataclass(frozen=True, slots=True)
class VerifiedTrim:
    """A decision to trim, with its valid heads that reach far enough, one for each Auditor."""

    trim: Trim
    heads: tuple[StreamHead, ...]
    raw: bytes


class Verifier(HoldChecker, ResultChecker, SessionChecker, AppChecker):
    """Verifies statements by one roster. Immutable: a new roster needs a new verifier."""

    def tenant(self, raw: bytes) -> Tenant:
        """Verify a tenant, signed by an admin."""
        return self._lasts(raw, Kind.TENANT, Tenant, ADMIN)

    def link(self, raw: bytes) -> Link:
        """Verify an L1 link, signed by an admin."""
        return self._lasts(raw, Kind.LINK, Link, ADMIN)

    def service(self, raw: bytes) -> Service:
        """Verify a service, signed by an admin."""
        return self._lasts(raw, Kind.SERVICE, Service, ADMIN)

    def accepted(self, raw: bytes) -> Accepted:
        """Verify the acceptance of a registry entry, signed by a Core of the region it names."""
        statement, signers = self._signed(raw, CORE, Kind.ACCEPTED)
        body = body_of(Accepted, statement)
        self._in_region(signers, body.region)
        self._counts(statement, signers)
        return body

    def registered(self, raw: bytes, region: str) -> Tenant | Link | Service | App:
        """Verify a registry entry of a region: an operator signed it and a Core accepted it.

        The Core's checks that need nothing but the entry are repeated here.
        """
        try:
            entry = decode(RegistryEntry, raw)
        except KcmError:
            raise Forged("not an entry of the registry") from None
        accepted = self.accepted(entry.accepted)
        statement = envelope(entry.statement, Kind.TENANT, Kind.LINK, Kind.SERVICE, Kind.APP)
        if (accepted.statement, accepted.region) != (statement_digest(statement), region):
            raise Forged(
                "the acceptance is for another entry or region",
                f"region {accepted.region}, not {region}",
            )
        match statement.kind:
            case Kind.TENANT:
                tenant = self.tenant(entry.statement)
                if region not in tenant.regions or not majority_is_possible(tenant):
                    raise Forged(
                        "no Core of this region may accept this tenant",
                        f"tenant {tenant.tenant}, region {region}",
                    )
                return tenant
            case Kind.LINK:
                return self.link(entry.statement)
            case Kind.APP:
                return self.app(entry.statement)
            case _:
                return self.service(entry.statement)

    def root_keys(self, raw: bytes) -> RootKeys:
        """Verify wrapped tenant roots, signed by a Core of their region."""
        statement, signers = self._signed(raw, CORE, Kind.ROOT_KEYS)
        keys = body_of(RootKeys, statement)
        self._in_region(signers, keys.region)
        self._counts(statement, signers)
        return keys

    def service_keys(self, raw: bytes) -> ServiceKeys:
        """Verify wrapped service keys, signed by a Core of their region."""
        statement, signers = self._signed(raw, CORE, Kind.SERVICE_KEYS)
        keys = body_of(ServiceKeys, statement)
        self._in_region(signers, keys.region)
        self._counts(statement, signers)
        return keys

    def receipt(self, raw: bytes) -> Receipt:
        """Verify a receipt, signed by the instance that it names."""
        statement, signers = self._signed(raw, INSTANCE, Kind.RECEIPT, acting=True)
        body = body_of(Receipt, statement)
        itself(signers, body.instance, body.role, body.region)
        return body

    def lease(self, raw: bytes) -> Lease:
        """Verify a lease entry, signed by the instance that it names."""
        statement, signers = self._signed(raw, INSTANCE, Kind.LEASE, acting=True)
        body = body_of(Lease, statement)
        itself(signers, body.instance, body.role, body.region)
        return body

    def peer_lease(self, raw: bytes) -> PeerLease:
        """Verify a peer lease, signed by a Core of the region that has it."""
        return self._by_core(raw, Kind.PEER_LEASE, PeerLease)

    def key_use(self, raw: bytes) -> KeyUseAttestation:
        """Verify a key-use attestation, signed by a Core of the region that used the key."""
        return self._by_core(raw, Kind.KEY_USE, KeyUseAttestation)

    def pull(self, raw: bytes) -> PullRequest:
        """Verify a pull, signed by a Core of the asking region."""
        return self._by_core(raw, Kind.PULL, PullRequest)

    def pull_reply(self, raw: bytes) -> PullReply:
        """Verify the reply to a pull, signed by a Core of the asked region."""
        return self._by_core(raw, Kind.PULL_REPLY, PullReply)

    def registry_question(self, raw: bytes) -> RegistryQuestion:
        """Verify a question about a region's registry, signed by a Core of that region."""
        return self._by_core(raw, Kind.REGISTRY_QUESTION, RegistryQuestion)

    def registry_answer(self, raw: bytes) -> tuple[RegistryAnswer, str]:
        """Verify the answer of a Core of that region; returns it with the name of the Core."""
        statement, signers = self._signed(raw, CORE, Kind.REGISTRY_ANSWER, acting=True)
        body = body_of(RegistryAnswer, statement)
        self._in_region(signers, body.region)
        return body, name_of(one_of(signers))

    def admin(self, raw: bytes) -> tuple[AdminRequest, str, frozenset[OperatorRole]]:
        """Verify an admin request; returns it with its operator and that operator's roles."""
        statement, signers = self._signed(raw, OPERATOR, Kind.ADMIN, acting=True)
        who = one_of(signers)
        roles = frozenset(who.roles) if isinstance(who, Operator) else frozenset()
        return body_of(AdminRequest, statement), name_of(who), roles

    def admin_reply(self, raw: bytes, role: Role = Role.CORE) -> tuple[AdminReply, Instance]:
        """Verify an admin reply; returns it with its signer, which must have ``role``.

        An Auditor's reply must never pass for a Core's: it could claim that a kill is complete. The
        caller also compares the signer's region with the one that it asked.
        """
        statement, signers = self._signed(raw, ROLE[role], Kind.ADMIN_REPLY, acting=True)
        return body_of(AdminReply, statement), self.acting(name_of(one_of(signers)))

    def audit(self, raw: bytes) -> AuditBatch:
        """Verify audit events, signed by the instance that emitted them."""
        statement, signers = self._signed(raw, INSTANCE, Kind.AUDIT)
        body = body_of(AuditBatch, statement)
        itself(signers, body.emitter, body.role, body.region)
        return body

    def audit_head(self, raw: bytes) -> AuditHead:
        """Verify the head of a journal, signed by the Auditor that writes it."""
        statement, signers = self._signed(raw, ROLE[Role.AUDITOR], Kind.AUDIT_HEAD)
        body = body_of(AuditHead, statement)
        if name_of(one_of(signers)) != body.auditor:
            raise _not_named(name_of(one_of(signers)), body.auditor)
        return body

    def stream_head(self, raw: bytes) -> StreamHead:
        """Verify an Auditor's stream head; the Auditor must not be retired."""
        return self._stream_head(raw, acting=True)

    def trim(self, raw: bytes) -> VerifiedTrim:
        """Verify a decision to trim an audit stream, signed by a Core of its region.

        Signers that retired since still count, because the stream was trimmed on their statements.
        Heads of one Auditor count once; the caller compares their number with its quorum.
        """
        statement, signers = self._signed(raw, CORE, Kind.TRIM)
        body = body_of(Trim, statement)
        self._in_region(signers, body.region)
        heads: dict[str, StreamHead] = {}
        for head in (self._head_of_trim(raw_head, body) for raw_head in body.heads):
            if head is not None:
                heads.setdefault(head.auditor, head)
        return VerifiedTrim(body, tuple(heads.values()), raw)

    def _by_core(self, raw: bytes, kind: Kind, model: type[R]) -> R:
        """Verify a statement of a Core that is not retired, about its own region."""
        statement, signers = self._signed(raw, CORE, kind, acting=True)
        body = body_of(model, statement)
        self._in_region(signers, body.region)
        return body

    def _stream_head(self, raw: bytes, *, acting: bool = False) -> StreamHead:
        statement, signers = self._signed(raw, ROLE[Role.AUDITOR], Kind.STREAM_HEAD, acting=acting)
        head = body_of(StreamHead, statement)
        if name_of(one_of(signers)) != head.auditor:
            raise _not_named(name_of(one_of(signers)), head.auditor)
        return head

    def _head_of_trim(self, raw: bytes, trim: Trim) -> StreamHead | None:
        """Return a valid head that reaches as far as the trim, or ``None``."""
        try:
            head = self._stream_head(raw)
        except Untrusted:
            return None
        same = (head.region, head.created) == (trim.region, trim.created)
        return head if same and head.through >= trim.through else None


def _not_named(signer: str, named: str) -> Untrusted:
    return Untrusted("the signer is not the instance named", f"signer {signer}, named {named}")


MAJORITY_MIN: Final = 3
"""Regions that a tenant with region quorum ``majority`` needs: a majority of two is both."""


def majority_is_possible(tenant: Tenant) -> bool:
    """Whether the tenant has as many regions as its region quorum needs."""
    return tenant.region_quorum != "majority" or len(set(tenant.regions)) >= MAJORITY_MIN


def may_ask(entry: Instance, tenant: str, service: str) -> bool:
    """Whether an instance's grants cover a tenant's service."""
    return any(
        grant.tenant in ("*", tenant) and grant.service in ("*", service) for grant in entry.grants
    )
