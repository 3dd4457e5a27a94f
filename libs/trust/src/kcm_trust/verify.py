"""All verification of signed statements, in one place and without I/O.

Theory of operation. An instance is configured with one public key, the operator root's. The root
signs a roster; everybody else is believed only as far as the roster says:

========================  =======================================================
statement                 who may sign it
========================  =======================================================
roster                    the root
tenant, link, service     an operator with role ``admin``
hold, cause operator      an operator with role ``security``
hold, cause l1            a Core of the origin region; only on a link
lift                      for an operator's hold an operator with role ``security``,
                          for an L1's hold a Core of the origin region
root-keys, service-keys   a Core of the region it names
receipt, lease            the instance that it names, in the role and region it names
fence, proof              a Core of the region it names
pull, pull-reply          a Core of the region it names
admin                     an operator; which role depends on noun and verb
admin-reply               a Core, or an Auditor where the caller says so
audit                     the instance that it names
audit-head, stream-head   the Auditor that it names
trim                      a Core of the region it names
session ticket            a Gateway of the region it names
========================  =======================================================

Somebody retired can do nothing new (admin, ticket, receipt, lease, fence, proof, pull and replies
are refused), but what they signed to last goes on counting: a kill does not end because the
operator who pulled it left.

Every function takes bytes from outside and returns the verified thing, or raises ``Untrusted``.
What is absent, unverifiable or of an unknown signer is not served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from kcm_crypto import context
from kcm_crypto.context import ctx
from kcm_schemas import limits
from kcm_schemas.admin import AdminReply, AdminRequest
from kcm_schemas.audit import AuditBatch
from kcm_schemas.auditing import AuditHead, StreamHead, Trim
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Fence, Hold, Lease, Lift, Proof, PullReply, PullRequest, Receipt
from kcm_schemas.names import is_region
from kcm_schemas.registry import Link, RootKeys, Service, ServiceKeys, Tenant
from kcm_schemas.roster import Instance, OperatorRole, Role, Roster
from kcm_schemas.signed import Kind, Signed

from kcm_trust.identity import ROOT, check, digest, to_sign

STATEMENT_MAX: Final = 900 * 1024
"""Bytes of a signed statement."""

M = TypeVar("M", bound=Message)


class Untrusted(Exception):
    """A statement is not believed. The text says why and carries nothing of it."""


@dataclass(frozen=True, slots=True)
class VerifiedHold:
    """A hold whose signature and signer's right were checked, with the bytes that say so."""

    hold: Hold
    issuer: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class VerifiedTrim:
    """A decision to trim, with the heads in it that hold and reach far enough, one an Auditor."""

    trim: Trim
    heads: tuple[StreamHead, ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class VerifiedLift:
    """A lift, with the hold that it ends."""

    lift: Lift
    held: VerifiedHold
    issuer: str
    raw: bytes


def verify_roster(raw: bytes, root_public: bytes, seen: int) -> Roster:
    """Verify a roster; ``seen`` is the highest version this instance has ever accepted."""
    statement = _statement(raw, Kind.ROSTER)
    if statement.signer != ROOT or not check(root_public, statement.signature, _signed(statement)):
        raise Untrusted("the roster is not signed by the operator root")
    roster = _body(Roster, statement)
    if roster.version < seen:
        raise Untrusted("the roster is older than one that was seen before")
    names = [i.instance for i in roster.instances] + [o.operator for o in roster.operators]
    if len(set(names)) != len(names) or ROOT in names:
        raise Untrusted("the roster names somebody twice")
    regions = [entry.region for entry in roster.regions]
    if len(set(regions)) != len(regions) or not all(is_region(region) for region in regions):
        raise Untrusted("the roster names a region twice, or by a name that is reserved")
    return roster


class Verifier:
    """Verifies statements by one roster. Immutable: a new roster makes a new verifier."""

    def __init__(self, roster: Roster) -> None:
        self.roster: Final = roster
        self._instances: Final = {entry.instance: entry for entry in roster.instances}
        self._operators: Final = {entry.operator: entry for entry in roster.operators}
        self._regions: Final = {entry.region: entry for entry in roster.regions}

    @property
    def regions(self) -> list[str]:
        """All regions of the system."""
        return sorted(self._regions)

    def instance(self, name: str) -> Instance:
        """An instance on the roster."""
        entry = self._instances.get(name)
        if entry is None:
            raise Untrusted("the signer is not on the roster")
        return entry

    def acting(self, name: str) -> Instance:
        """An instance on the roster that is not retired: one that may act now."""
        entry = self.instance(name)
        if entry.retired:
            raise Untrusted("the signer is retired")
        return entry

    def tenant(self, raw: bytes) -> Tenant:
        """A tenant, signed by an admin."""
        return self._by_operator(raw, Kind.TENANT, Tenant, OperatorRole.ADMIN)

    def link(self, raw: bytes) -> Link:
        """An L1 link, signed by an admin."""
        return self._by_operator(raw, Kind.LINK, Link, OperatorRole.ADMIN)

    def service(self, raw: bytes) -> Service:
        """A service, signed by an admin."""
        return self._by_operator(raw, Kind.SERVICE, Service, OperatorRole.ADMIN)

    def root_keys(self, raw: bytes) -> RootKeys:
        """Wrapped tenant roots, signed by a Core of their region."""
        statement = _statement(raw, Kind.ROOT_KEYS)
        keys = _body(RootKeys, statement)
        self._core_of(statement, keys.region)
        return keys

    def service_keys(self, raw: bytes) -> ServiceKeys:
        """Wrapped service keys, signed by a Core of their region."""
        statement = _statement(raw, Kind.SERVICE_KEYS)
        keys = _body(ServiceKeys, statement)
        self._core_of(statement, keys.region)
        return keys

    def hold(self, raw: bytes) -> VerifiedHold:
        """A hold, by whoever may kill for its cause."""
        statement = _statement(raw, Kind.HOLD)
        hold = _body(Hold, statement)
        if hold.id != hold_id(hold):
            raise Untrusted("the hold's id is not the one of its content")
        self._may_hold(statement, hold)
        return VerifiedHold(hold, statement.signer, raw)

    def lift(self, raw: bytes) -> VerifiedLift:
        """A lift and the hold it embeds."""
        statement = _statement(raw, Kind.LIFT)
        lift = _body(Lift, statement)
        held = self.hold(lift.hold)
        self._may_hold(statement, held.hold)
        return VerifiedLift(lift, held, statement.signer, raw)

    def hold_or_lift(self, raw: bytes) -> VerifiedHold | VerifiedLift:
        """What a hold's subject carries."""
        kind = _decode(raw).kind
        return self.lift(raw) if kind is Kind.LIFT else self.hold(raw)

    def receipt(self, raw: bytes) -> Receipt:
        """A receipt, by the instance it names."""
        statement = _statement(raw, Kind.RECEIPT)
        body = _body(Receipt, statement)
        self._itself(statement, body.instance, body.role, body.region, acting=True)
        return body

    def lease(self, raw: bytes) -> Lease:
        """A lease record, by the instance it names."""
        statement = _statement(raw, Kind.LEASE)
        body = _body(Lease, statement)
        self._itself(statement, body.instance, body.role, body.region, acting=True)
        return body

    def fence(self, raw: bytes) -> Fence:
        """A fence, by a Core of the region that knows."""
        statement = _statement(raw, Kind.FENCE)
        body = _body(Fence, statement)
        self._core_of(statement, body.region, acting=True)
        return body

    def proof(self, raw: bytes) -> Proof:
        """A proof, by a Core of the region in which the key was used."""
        statement = _statement(raw, Kind.PROOF)
        body = _body(Proof, statement)
        self._core_of(statement, body.region, acting=True)
        return body

    def pull(self, raw: bytes) -> PullRequest:
        """A pull, by a Core of the region that asks."""
        statement = _statement(raw, Kind.PULL)
        body = _body(PullRequest, statement)
        self._core_of(statement, body.region, acting=True)
        return body

    def pull_reply(self, raw: bytes) -> PullReply:
        """The answer to a pull, by a Core of the region that was asked."""
        statement = _statement(raw, Kind.PULL_REPLY)
        body = _body(PullReply, statement)
        self._core_of(statement, body.region, acting=True)
        return body

    def admin(self, raw: bytes) -> tuple[AdminRequest, str, frozenset[OperatorRole]]:
        """An admin request with its operator and that operator's roles."""
        statement = _statement(raw, Kind.ADMIN)
        operator = self._operators.get(statement.signer)
        if operator is None or not self._signed_by(statement, operator.public_key):
            raise Untrusted("the request is not signed by an operator of the roster")
        if operator.retired:
            raise Untrusted("the operator is retired")
        return _body(AdminRequest, statement), operator.operator, frozenset(operator.roles)

    def admin_reply(self, raw: bytes, role: Role = Role.CORE) -> tuple[AdminReply, Instance]:
        """An admin reply with the instance that answered, which must have ``role``.

        An Auditor's word must never pass for a Core's: it could say that a kill is complete. The
        caller also compares the instance's region with the one that it asked.
        """
        statement = _statement(raw, Kind.ADMIN_REPLY)
        entry = self.acting(statement.signer)
        if entry.role is not role or not self._signed_by(statement, entry.public_key):
            raise Untrusted(f"the reply is not signed by an instance with role {role.value}")
        return _body(AdminReply, statement), entry

    def audit(self, raw: bytes) -> AuditBatch:
        """Audit events, by the instance that emitted them."""
        statement = _statement(raw, Kind.AUDIT)
        body = _body(AuditBatch, statement)
        self._itself(statement, body.emitter, body.role, body.region)
        return body

    def audit_head(self, raw: bytes) -> AuditHead:
        """The head of a journal, by the Auditor that keeps it."""
        statement = _statement(raw, Kind.AUDIT_HEAD)
        body = _body(AuditHead, statement)
        entry = self.instance(statement.signer)
        self._itself(statement, body.auditor, Role.AUDITOR, entry.region)
        return body

    def stream_head(self, raw: bytes) -> StreamHead:
        """How far an Auditor has a region's audit stream, by that Auditor, which must be acting."""
        statement = _statement(raw, Kind.STREAM_HEAD)
        body = _body(StreamHead, statement)
        entry = self.acting(statement.signer)
        self._itself(statement, body.auditor, Role.AUDITOR, entry.region, acting=True)
        return body

    def trim(self, raw: bytes) -> VerifiedTrim:
        """A decision to trim an audit stream, by a Core of its region.

        Who was retired since counts: what was trimmed on their word is gone. Heads of the same
        Auditor count once; whoever acts on a trim compares their number with its quorum.
        """
        statement = _statement(raw, Kind.TRIM)
        body = _body(Trim, statement)
        self._core_of(statement, body.region)
        heads: dict[str, StreamHead] = {}
        for head in (self._head_of_trim(raw_head, body) for raw_head in body.heads):
            if head is not None:
                heads.setdefault(head.auditor, head)
        return VerifiedTrim(body, tuple(heads.values()), raw)

    def _head_of_trim(self, raw: bytes, trim: Trim) -> StreamHead | None:
        """A head that reaches as far as a trim does, or ``None``."""
        try:
            statement = _statement(raw, Kind.STREAM_HEAD)
            head = _body(StreamHead, statement)
            self._itself(
                statement, head.auditor, Role.AUDITOR, self.instance(statement.signer).region
            )
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

    def _by_operator(self, raw: bytes, kind: Kind, model: type[M], role: OperatorRole) -> M:
        statement = _statement(raw, kind)
        self._operator(statement, role)
        return _body(model, statement)

    def _operator(self, statement: Signed, role: OperatorRole) -> None:
        operator = self._operators.get(statement.signer)
        if operator is None or role not in operator.roles:
            raise Untrusted(f"the signer is not an operator with role {role.value}")
        if not self._signed_by(statement, operator.public_key):
            raise Untrusted("the signature does not hold")

    def _core_of(self, statement: Signed, region: str, *, acting: bool = False) -> None:
        self._itself(statement, statement.signer, Role.CORE, region, acting=acting)

    def _itself(
        self, statement: Signed, name: str, role: Role, region: str, *, acting: bool = False
    ) -> None:
        entry = self.acting(statement.signer) if acting else self.instance(statement.signer)
        if (entry.instance, entry.role, entry.region) != (name, role, region):
            raise Untrusted("the signer speaks for somebody else")
        if not self._signed_by(statement, entry.public_key):
            raise Untrusted("the signature does not hold")

    def _may_hold(self, statement: Signed, hold: Hold) -> None:
        if hold.origin not in self._regions:
            raise Untrusted("the hold is of a region that is not on the roster")
        if hold.scope == "region" and hold.target not in self._regions:
            raise Untrusted("the hold is on a region that is not on the roster")
        if hold.cause == "operator":
            self._operator(statement, OperatorRole.SECURITY)
            return
        if hold.scope != "link":
            raise Untrusted("a customer's key holds what it opens, and nothing else")
        self._core_of(statement, hold.origin)

    def _signed_by(self, statement: Signed, public: bytes) -> bool:
        return self._holds(public, statement.signature, _signed(statement))

    def _holds(self, public: bytes, signature: bytes, message: bytes) -> bool:
        """Whether a signature holds: the one thing here that a simulation may make cheaper."""
        return check(public, signature, message)


def hold_id(hold: Hold) -> bytes:
    """The id that a hold must have: the first 16 bytes of a SHA-256 over all its other fields."""
    content = ctx(
        context.HOLD_ID,
        hold.scope,
        hold.target,
        hold.cause,
        hold.origin,
        hold.issued_ms,
        hold.reason,
        hold.salt,
    )
    return digest(content)[: limits.ID_SIZE]


def may_ask(entry: Instance, tenant: str, service: str) -> bool:
    """Whether an instance's grants cover a tenant's service."""
    return any(
        grant.tenant in ("*", tenant) and grant.service in ("*", service) for grant in entry.grants
    )


def _decode(raw: bytes) -> Signed:
    try:
        return decode(Signed, raw, limit=STATEMENT_MAX)
    except KcmError:
        raise Untrusted("not a signed statement") from None


def _statement(raw: bytes, kind: Kind) -> Signed:
    statement = _decode(raw)
    if statement.kind is not kind:
        raise Untrusted(f"not a statement of kind {kind.value}")
    return statement


def _body(model: type[M], statement: Signed) -> M:
    try:
        return decode(model, statement.body, limit=STATEMENT_MAX)
    except KcmError:
        raise Untrusted("the statement's body is not well formed") from None


def _signed(statement: Signed) -> bytes:
    return to_sign(statement.kind, statement.signer, statement.body)
