"""Holds and lifts: which signers may place and end them, and which statements still count."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from kcm_schemas import labels, limits
from kcm_schemas.codec import encode
from kcm_schemas.control import Hold, Lift, Lifts
from kcm_schemas.labels import ctx
from kcm_schemas.signed import Kind, Signed, united

from kcm_trust.checks import Checker, body_of
from kcm_trust.envelopes import Untrusted, envelope
from kcm_trust.identity import digest
from kcm_trust.rights import CORE, MAY_HOLD, Entry, is_security, one_of
from kcm_trust.roster import name_of


@dataclass(frozen=True, slots=True)
class VerifiedHold:
    """A hold whose signatures and signers' rights were verified, with its signed bytes.

    ``issuer`` is the name under which it counts.
    """

    hold: Hold
    issuer: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class VerifiedLift:
    """A lift, with the hold that it ends; ``issuer`` is the name under which the lift counts."""

    lift: Lift
    held: VerifiedHold
    issuer: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class VerifiedLifts:
    """A lift page, with its one signer."""

    lifts: Lifts
    signer: str
    raw: bytes


class HoldChecker(Checker):
    """Verifies holds, lifts and lift pages."""

    def hold(self, raw: bytes) -> VerifiedHold:
        """Verify a hold: each signature counts by itself, as if it were the only one.

        Signatures that do not count are dropped, and one that counts is enough. Otherwise the
        removal of one signer by the root would end a hold that others signed, too.
        """
        statement = envelope(raw, Kind.HOLD)
        if len(statement.signatures) == 1:
            return self._held(*self._signed(raw, MAY_HOLD, Kind.HOLD), raw)
        counted: list[VerifiedHold] = []
        refused = Untrusted("the hold has no signature")
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
        return VerifiedHold(counted[0].hold, self.author(whole), whole)

    def lift(self, raw: bytes) -> VerifiedLift:
        """Verify a lift and the hold that it embeds."""
        statement, signers = self._signed(raw, MAY_HOLD, Kind.LIFT)
        return self._lifted(statement, signers, raw)

    def lifts(self, raw: bytes) -> VerifiedLifts:
        """Verify a page of lifted holds with cause ``l1``, signed by a Core of their origin.

        An operator's hold is never paged: its own lift decides.
        """
        statement, signers = self._signed(raw, CORE, Kind.LIFTS)
        signer = one_of(signers)
        body = body_of(Lifts, statement)
        if body.origin not in self._regions:
            raise Untrusted("the origin of the holds is not on the roster", body.origin)
        if body.cause != "l1":
            raise Untrusted("a lift page cannot end the holds of operators")
        self._in_region(signers, body.origin)
        self._counts(statement, signers)
        return VerifiedLifts(body, name_of(signer), raw)

    def hold_or_lift(self, raw: bytes) -> VerifiedHold | VerifiedLift:
        """Verify a hold or a lift: a hold's subject carries either."""
        if envelope(raw, Kind.HOLD, Kind.LIFT).kind is Kind.LIFT:
            return self.lift(raw)
        return self.hold(raw)

    def author(self, raw: bytes) -> str:
        """Return the name under which a verified hold or lift counts, by this roster."""
        return self._author(envelope(raw, Kind.HOLD, Kind.LIFT))

    def lasts(self, raw: bytes) -> bool:
        """Whether a hold or lift still counts that was verified before its signers retired.

        Valid only if nothing else about them changed since: signatures are not verified again.
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
        """Verify the hold in a lift that does not count: it was placed, whatever the lift is worth.

        This is the one body that is read although its signature may be invalid: it has one shape of
        bounded size, and the hold in it is verified like any other.
        """
        return self.hold(body_of(Lift, envelope(raw, Kind.LIFT)).hold)

    def _held(self, statement: Signed, signers: list[Entry], raw: bytes) -> VerifiedHold:
        """A hold counts although signers retired: to stay out of service is safe."""
        hold = body_of(Hold, statement)
        if hold.id != hold_id(hold):
            raise Untrusted(
                "the hold's id does not commit to its content",
                f"{hold.id.hex()}, not {hold_id(hold).hex()}",
            )
        if hold.origin not in self._regions:
            raise Untrusted("the hold's origin is not on the roster", hold.origin)
        if hold.scope == "region" and hold.target not in self._regions:
            raise Untrusted("the hold's region is not on the roster", hold.target)
        if hold.cause == "l1":
            if hold.scope != "link":
                raise Untrusted("a hold with cause l1 must have scope link", hold.scope)
            self._in_region(signers, hold.origin)
        elif not all(map(is_security, signers)):
            raise Untrusted("the signer is not an operator with role security")
        return VerifiedHold(hold, self._author(statement), raw)

    def _lifted(self, statement: Signed, signers: list[Entry], raw: bytes) -> VerifiedLift:
        """``security`` lifts every hold; a Core lifts one that a root key of its region caused."""
        lift = body_of(Lift, statement)
        held = self.hold(lift.hold)
        if not all(map(is_security, signers)):
            if held.hold.cause != "l1":
                raise Untrusted("the signer is not an operator with role security")
            self._in_region([one for one in signers if not is_security(one)], held.hold.origin)
        self._counts(statement, signers)
        return VerifiedLift(lift, held, self._author(statement), raw)


def hold_id(hold: Hold) -> bytes:
    """Return the id that a hold must have: 16 bytes of a SHA-256 over all its other fields."""
    content = ctx(
        labels.HOLD_ID,
        hold.scope,
        hold.target,
        hold.cause,
        hold.origin,
        hold.issued_ms,
        hold.reason,
        hold.salt,
    )
    return digest(content)[: limits.ID_SIZE]
