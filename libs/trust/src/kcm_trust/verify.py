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
lift, lifts               an operator with role ``security``; for an L1's hold also a
                          Core of the origin region
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

A statement has one to eight signatures. **Each** of its signers has to be on the roster, to have
the right to say it alone, and to have signed it; so nobody can change a statement's bytes by adding
to them. Of a hold those are left out that do not count: it does not end when the root removes one
of those who placed it.

Somebody retired can do nothing new (admin, ticket, receipt, lease, fence, proof, pull and replies
are refused). Their holds go on counting: a kill does not end because the operator who placed it
left. Of their lifts, tenants, links, services and wrapped keys those count that the root listed as
it retired them, and those that somebody acting has signed, too. So belief is a function of the
statement and the roster, and never of when, or in which order, anything arrived.

**No work before trust.** What is done with bytes from outside before a signature was checked is
bounded by their kind: the envelope's one shape is walked through, signers are looked up, and the
signatures of those who may say this at all are checked. Only then is the body read.

Every function takes bytes from outside and returns the verified thing, or raises ``Untrusted``.
What is absent, unverifiable or of an unknown signer is not served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import Final, TypeVar

from kcm_crypto import context
from kcm_crypto.context import ctx
from kcm_schemas import limits
from kcm_schemas.admin import AdminReply, AdminRequest
from kcm_schemas.audit import AuditBatch
from kcm_schemas.auditing import AuditHead, StreamHead, Trim
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import (
    Fence,
    Hold,
    Lease,
    Lift,
    Lifts,
    Proof,
    PullReply,
    PullRequest,
    Receipt,
)
from kcm_schemas.registry import (
    Accepted,
    Link,
    RegistryEntry,
    RootKeys,
    Service,
    ServiceKeys,
    Tenant,
)
from kcm_schemas.roster import Instance, Operator, OperatorRole, Role, Roster
from kcm_schemas.signed import Kind, Signed, united

from kcm_trust.envelopes import (
    STATEMENT_MAX,
    Forged,
    Unlisted,
    Untrusted,
    envelope,
    statement_digest,
)
from kcm_trust.identity import check, digest, to_sign
from kcm_trust.lasting import NOTHING, Lasting
from kcm_trust.rosters import entries, name_of, verify_roster

__all__ = [
    "STATEMENT_MAX",
    "Forged",
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

M = TypeVar("M", bound=Message)

Entry = Instance | Operator


@dataclass(frozen=True, slots=True)
class Right:
    """Who may sign a kind of statement at all: asked before a signature is checked."""

    who: str
    has: Callable[[Entry], bool]

    def check(self, entry: Entry | None) -> Entry:
        """The entry; raises ``Untrusted``."""
        if entry is None:
            raise Untrusted("the signer is not on the roster")
        if not self.has(entry):
            raise Untrusted(f"the signer is not {self.who}")
        return entry

    def acting(self, entry: Entry | None) -> Entry:
        """The same, of whoever is not retired."""
        if self.check(entry).retired:
            raise Untrusted("the signer is retired")
        return self.check(entry)


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


@dataclass(frozen=True, slots=True)
class VerifiedLifts:
    """A page of lifted holds, with its one signer."""

    lifts: Lifts
    signer: str
    raw: bytes


class Verifier:
    """Verifies statements by one roster. Immutable: a new roster makes a new verifier."""

    def __init__(self, roster: Roster, lasting: Mapping[str, Lasting] | None = None) -> None:
        """``lasting`` has the lists of those who are retired, as far as they are here."""
        self.roster: Final = roster
        self.lasting: Final = dict(lasting or {})
        self._entries: Final[dict[str, Entry]] = {name_of(one): one for one in entries(roster)}
        self._regions: Final = {entry.region: entry for entry in roster.regions}

    @property
    def regions(self) -> list[str]:
        """All regions of the system."""
        return sorted(self._regions)

    def instance(self, name: str) -> Instance:
        """An instance on the roster."""
        entry = self._entries.get(name)
        if not isinstance(entry, Instance):
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
        return self._lasts(raw, Kind.TENANT, Tenant, _ADMIN)

    def link(self, raw: bytes) -> Link:
        """An L1 link, signed by an admin."""
        return self._lasts(raw, Kind.LINK, Link, _ADMIN)

    def service(self, raw: bytes) -> Service:
        """A service, signed by an admin."""
        return self._lasts(raw, Kind.SERVICE, Service, _ADMIN)

    def accepted(self, raw: bytes) -> Accepted:
        """A Core's word on a registry record, by a Core of the region it names."""
        statement, signers = self._signed(raw, _CORE, Kind.ACCEPTED)
        body = _body(Accepted, statement)
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
        statement, signers = self._signed(raw, _CORE, Kind.ROOT_KEYS)
        keys = _body(RootKeys, statement)
        self._in_region(signers, keys.region)
        self._counts(statement, signers)
        return keys

    def service_keys(self, raw: bytes) -> ServiceKeys:
        """Wrapped service keys, signed by a Core of their region."""
        statement, signers = self._signed(raw, _CORE, Kind.SERVICE_KEYS)
        keys = _body(ServiceKeys, statement)
        self._in_region(signers, keys.region)
        self._counts(statement, signers)
        return keys

    def hold(self, raw: bytes) -> VerifiedHold:
        """A hold, by whoever may kill for its cause: as each of its signers alone says it.

        The signatures that do not count are left out, and one that does is enough: else who signs
        somebody else's hold, too, would take it along when the root removes him.
        """
        statement = envelope(raw, Kind.HOLD)
        if len(statement.signatures) == 1:
            return self._held(*self._signed(raw, _MAY_HOLD, Kind.HOLD), raw)
        counted: list[VerifiedHold] = []
        refused = Untrusted("nobody has signed it")
        for one in statement.signatures:
            try:
                counted.append(
                    self.hold(encode(statement.model_copy(update={"signatures": [one]})))
                )
            except Untrusted as error:
                refused = error
        if not counted:
            raise refused
        whole = reduce(united, (one.raw for one in counted))
        return VerifiedHold(counted[0].hold, counted[0].issuer, whole)

    def lift(self, raw: bytes) -> VerifiedLift:
        """A lift and the hold it embeds."""
        statement, signers = self._signed(raw, _MAY_HOLD, Kind.LIFT)
        return self._lifted(statement, signers, raw)

    def lifts(self, raw: bytes) -> VerifiedLifts:
        """A page of lifted holds, by one who may lift each hold of its cause and origin."""
        statement, signers = self._signed(raw, _MAY_HOLD, Kind.LIFTS)
        signer = _one(signers)
        body = _body(Lifts, statement)
        if body.origin not in self._regions:
            raise Untrusted("the holds are of a region that is not on the roster")
        if not _security(signer):
            if body.cause != "l1":
                raise Untrusted("the signer is not an operator with role security")
            self._in_region(signers, body.origin)
        self._counts(statement, signers)
        return VerifiedLifts(body, name_of(signer), raw)

    def hold_or_lift(self, raw: bytes) -> VerifiedHold | VerifiedLift:
        """What a hold's subject carries."""
        if envelope(raw, Kind.HOLD, Kind.LIFT).kind is Kind.LIFT:
            return self.lift(raw)
        return self.hold(raw)

    def lasts(self, raw: bytes) -> bool:
        """Whether a hold or lift goes on counting that was verified before its signers retired.

        Only for where nothing else of them changed since: their signatures are not checked again.
        """
        statement = envelope(raw, Kind.HOLD, Kind.LIFT)
        if statement.kind is Kind.HOLD:
            return True
        entries = [self._entries.get(one.signer) for one in statement.signatures]
        try:
            self._counts(statement, [one for one in entries if one is not None])
        except Untrusted:
            return False
        return None not in entries

    def held_within(self, raw: bytes) -> VerifiedHold:
        """The hold in a lift that does not count: it was placed, whoever says that it has ended.

        The one body that is read although its signature may not hold: it has one shape, of a
        bounded size, and the hold in it is verified like any other.
        """
        return self.hold(_body(Lift, envelope(raw, Kind.LIFT)).hold)

    def receipt(self, raw: bytes) -> Receipt:
        """A receipt, by the instance it names."""
        statement, signers = self._signed(raw, _INSTANCE, Kind.RECEIPT, acting=True)
        body = _body(Receipt, statement)
        _itself(signers, body.instance, body.role, body.region)
        return body

    def lease(self, raw: bytes) -> Lease:
        """A lease record, by the instance it names."""
        statement, signers = self._signed(raw, _INSTANCE, Kind.LEASE, acting=True)
        body = _body(Lease, statement)
        _itself(signers, body.instance, body.role, body.region)
        return body

    def fence(self, raw: bytes) -> Fence:
        """A fence, by a Core of the region that knows."""
        statement, signers = self._signed(raw, _CORE, Kind.FENCE, acting=True)
        body = _body(Fence, statement)
        self._in_region(signers, body.region)
        return body

    def proof(self, raw: bytes) -> Proof:
        """A proof, by a Core of the region in which the key was used."""
        statement, signers = self._signed(raw, _CORE, Kind.PROOF, acting=True)
        body = _body(Proof, statement)
        self._in_region(signers, body.region)
        return body

    def pull(self, raw: bytes) -> PullRequest:
        """A pull, by a Core of the region that asks."""
        statement, signers = self._signed(raw, _CORE, Kind.PULL, acting=True)
        body = _body(PullRequest, statement)
        self._in_region(signers, body.region)
        return body

    def pull_reply(self, raw: bytes) -> PullReply:
        """The answer to a pull, by a Core of the region that was asked."""
        statement, signers = self._signed(raw, _CORE, Kind.PULL_REPLY, acting=True)
        body = _body(PullReply, statement)
        self._in_region(signers, body.region)
        return body

    def admin(self, raw: bytes) -> tuple[AdminRequest, str, frozenset[OperatorRole]]:
        """An admin request with its operator and that operator's roles."""
        statement, signers = self._signed(raw, _OPERATOR, Kind.ADMIN, acting=True)
        who = _one(signers)
        roles = frozenset(who.roles) if isinstance(who, Operator) else frozenset()
        return _body(AdminRequest, statement), name_of(who), roles

    def admin_reply(self, raw: bytes, role: Role = Role.CORE) -> tuple[AdminReply, Instance]:
        """An admin reply with the instance that answered, which must have ``role``.

        An Auditor's word must never pass for a Core's: it could say that a kill is complete. The
        caller also compares the instance's region with the one that it asked.
        """
        statement, signers = self._signed(raw, _ROLE[role], Kind.ADMIN_REPLY, acting=True)
        return _body(AdminReply, statement), self.acting(name_of(_one(signers)))

    def audit(self, raw: bytes) -> AuditBatch:
        """Audit events, by the instance that emitted them."""
        statement, signers = self._signed(raw, _INSTANCE, Kind.AUDIT)
        body = _body(AuditBatch, statement)
        _itself(signers, body.emitter, body.role, body.region)
        return body

    def audit_head(self, raw: bytes) -> AuditHead:
        """The head of a journal, by the Auditor that keeps it."""
        statement, signers = self._signed(raw, _ROLE[Role.AUDITOR], Kind.AUDIT_HEAD)
        body = _body(AuditHead, statement)
        if name_of(_one(signers)) != body.auditor:
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
        statement, signers = self._signed(raw, _CORE, Kind.TRIM)
        body = _body(Trim, statement)
        self._in_region(signers, body.region)
        heads: dict[str, StreamHead] = {}
        for head in (self._head_of_trim(raw_head, body) for raw_head in body.heads):
            if head is not None:
                heads.setdefault(head.auditor, head)
        return VerifiedTrim(body, tuple(heads.values()), raw)

    def _stream_head(self, raw: bytes, *, acting: bool = False) -> StreamHead:
        statement, signers = self._signed(raw, _ROLE[Role.AUDITOR], Kind.STREAM_HEAD, acting=acting)
        head = _body(StreamHead, statement)
        if name_of(_one(signers)) != head.auditor:
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

    def _signed(
        self, raw: bytes, right: Right, *kinds: Kind, acting: bool = False
    ) -> tuple[Signed, list[Entry]]:
        """A statement and its signers, all of whom may say this kind of thing and have."""
        statement = envelope(raw, *kinds)
        if statement.system != self.roster.system:
            raise Forged("the statement is of another system")
        check_right = right.acting if acting else right.check
        signers = [check_right(self._entries.get(one.signer)) for one in statement.signatures]
        content = digest(statement.body)
        for entry, one in zip(signers, statement.signatures, strict=True):
            message = to_sign(statement.system, statement.kind, one.signer, content)
            if not self._holds(entry.public_key, one.signature, message):
                raise Untrusted("the signature does not hold")
        return statement, signers

    def _lasts(self, raw: bytes, kind: Kind, model: type[M], right: Right) -> M:
        statement, signers = self._signed(raw, right, kind)
        self._counts(statement, signers)
        return _body(model, statement)

    def _counts(self, statement: Signed, signers: list[Entry]) -> None:
        """Raise unless somebody who acts has signed it, or it lasts of somebody who retired."""
        if all(entry.retired for entry in signers):
            named = statement_digest(statement)
            if not any(named in self.lasting.get(name_of(one), NOTHING) for one in signers):
                raise Unlisted("the signer is retired, and the root does not list this")

    def _held(self, statement: Signed, signers: list[Entry], raw: bytes) -> VerifiedHold:
        """A hold counts whoever has retired: dark is safe, and somebody acting may lift it."""
        hold = _body(Hold, statement)
        if hold.id != hold_id(hold):
            raise Untrusted("the hold's id is not the one of its content")
        if hold.origin not in self._regions:
            raise Untrusted("the hold is of a region that is not on the roster")
        if hold.scope == "region" and hold.target not in self._regions:
            raise Untrusted("the hold is on a region that is not on the roster")
        if hold.cause == "l1":
            if hold.scope != "link":
                raise Untrusted("a customer's key holds what it opens, and nothing else")
            self._in_region(signers, hold.origin)
        elif not all(map(_security, signers)):
            raise Untrusted("the signer is not an operator with role security")
        return VerifiedHold(hold, name_of(signers[0]), raw)

    def _lifted(self, statement: Signed, signers: list[Entry], raw: bytes) -> VerifiedLift:
        """``security`` lifts any hold; a Core one that its own region's key caused."""
        lift = _body(Lift, statement)
        held = self.hold(lift.hold)
        if not all(map(_security, signers)):
            if held.hold.cause != "l1":
                raise Untrusted("the signer is not an operator with role security")
            self._in_region([one for one in signers if not _security(one)], held.hold.origin)
        self._counts(statement, signers)
        return VerifiedLift(lift, held, name_of(signers[0]), raw)

    def _in_region(self, signers: list[Entry], region: str) -> None:
        for entry in signers:
            if not isinstance(entry, Instance) or (entry.role, entry.region) != (Role.CORE, region):
                raise Untrusted("the signer speaks for somebody else")

    def _holds(self, public: bytes, signature: bytes, message: bytes) -> bool:
        """Whether a signature holds: the one thing here that a simulation may make cheaper."""
        return check(public, signature, message)


def _has_role(entry: Entry, role: Role) -> bool:
    return isinstance(entry, Instance) and entry.role is role


def _is_operator(entry: Entry, role: OperatorRole) -> bool:
    return isinstance(entry, Operator) and role in entry.roles


def _security(entry: Entry) -> bool:
    return _is_operator(entry, OperatorRole.SECURITY)


_ROLE: Final = {
    role: Right(f"an instance with role {role.value}", partial(_has_role, role=role))
    for role in Role
}
_CORE: Final = _ROLE[Role.CORE]
_INSTANCE: Final = Right("an instance", lambda entry: isinstance(entry, Instance))
_OPERATOR: Final = Right("an operator", lambda entry: isinstance(entry, Operator))
_ADMIN: Final = Right("an operator with role admin", partial(_is_operator, role=OperatorRole.ADMIN))
_MAY_HOLD: Final = Right(
    "an operator with role security or a Core",
    lambda entry: _security(entry) or _has_role(entry, Role.CORE),
)


def _one(signers: list[Entry]) -> Entry:
    """The signer of what one speaks for oneself alone."""
    if len(signers) != 1:
        raise Untrusted("this kind of statement has one signer")
    return signers[0]


def _itself(signers: list[Entry], name: str, role: Role, region: str) -> None:
    entry = _one(signers)
    if not isinstance(entry, Instance):
        raise Untrusted("the signer is no instance")
    if (entry.instance, entry.role, entry.region) != (name, role, region):
        raise Untrusted("the signer speaks for somebody else")


MAJORITY_MIN: Final = 3
"""Regions of a tenant that serves on when most of them are heard: of two, most are both."""


def majority_is_possible(tenant: Tenant) -> bool:
    """Whether the tenant has as many regions as its policy needs."""
    return tenant.fence != "majority" or len(set(tenant.regions)) >= MAJORITY_MIN


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


def _body(model: type[M], statement: Signed) -> M:
    try:
        return decode(model, statement.body, limit=STATEMENT_MAX)
    except KcmError:
        raise Untrusted("the statement's body is not well formed") from None
