"""Holds and lifts: who may place them, who may end them, and what goes on counting."""

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
    """A hold whose signature and signer's right were checked, with the bytes that say so.

    ``issuer`` is in whose name it counts.
    """

    hold: Hold
    issuer: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class VerifiedLift:
    """A lift, with the hold that it ends; ``issuer`` is in whose name the lift counts."""

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


class HoldChecker(Checker):
    """Verifies holds, lifts and pages of lifts."""

    def hold(self, raw: bytes) -> VerifiedHold:
        """A hold, by whoever may kill for its cause: as each of its signers alone says it.

        The signatures that do not count are left out, and one that does is enough: else who signs
        somebody else's hold, too, would take it along when the root removes him.
        """
        statement = envelope(raw, Kind.HOLD)
        if len(statement.signatures) == 1:
            return self._held(*self._signed(raw, MAY_HOLD, Kind.HOLD), raw)
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
        return VerifiedHold(counted[0].hold, self.author(whole), whole)

    def lift(self, raw: bytes) -> VerifiedLift:
        """A lift and the hold it embeds."""
        statement, signers = self._signed(raw, MAY_HOLD, Kind.LIFT)
        return self._lifted(statement, signers, raw)

    def lifts(self, raw: bytes) -> VerifiedLifts:
        """A page of lifted holds of customers' keys, by a Core of the region that they are of.

        What an operator placed is never paged: each such hold is judged by its own lift.
        """
        statement, signers = self._signed(raw, CORE, Kind.LIFTS)
        signer = one_of(signers)
        body = body_of(Lifts, statement)
        if body.origin not in self._regions:
            raise Untrusted("the holds are of a region that is not on the roster")
        if body.cause != "l1":
            raise Untrusted("what an operator placed is not paged")
        self._in_region(signers, body.origin)
        self._counts(statement, signers)
        return VerifiedLifts(body, name_of(signer), raw)

    def hold_or_lift(self, raw: bytes) -> VerifiedHold | VerifiedLift:
        """What a hold's subject carries."""
        if envelope(raw, Kind.HOLD, Kind.LIFT).kind is Kind.LIFT:
            return self.lift(raw)
        return self.hold(raw)

    def author(self, raw: bytes) -> str:
        """In whose name a hold or lift counts, by this roster. It has to be verified already."""
        return self._author(envelope(raw, Kind.HOLD, Kind.LIFT))

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
        return self.hold(body_of(Lift, envelope(raw, Kind.LIFT)).hold)

    def _held(self, statement: Signed, signers: list[Entry], raw: bytes) -> VerifiedHold:
        """A hold counts whoever has retired: dark is safe, and somebody acting may lift it."""
        hold = body_of(Hold, statement)
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
        elif not all(map(is_security, signers)):
            raise Untrusted("the signer is not an operator with role security")
        return VerifiedHold(hold, self._author(statement), raw)

    def _lifted(self, statement: Signed, signers: list[Entry], raw: bytes) -> VerifiedLift:
        """``security`` lifts any hold; a Core one that its own region's key caused."""
        lift = body_of(Lift, statement)
        held = self.hold(lift.hold)
        if not all(map(is_security, signers)):
            if held.hold.cause != "l1":
                raise Untrusted("the signer is not an operator with role security")
            self._in_region([one for one in signers if not is_security(one)], held.hold.origin)
        self._counts(statement, signers)
        return VerifiedLift(lift, held, self._author(statement), raw)


def hold_id(hold: Hold) -> bytes:
    """The id that a hold must have: the first 16 bytes of a SHA-256 over all its other fields."""
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
