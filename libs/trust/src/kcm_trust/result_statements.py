"""Results of finished kills: a Core's word, and what can be checked without believing it.

A result is signed by Cores. The signatures of those who are not on the roster any more are left
out, and one of a Core that acts is enough: else removing one Core would unmake the evidence of
every kill that it ever countersigned. Each receipt in it is checked by the key of its own instance,
also of one that has retired since. That nobody is missing from the list of incarnations, and that a
lease had ended, nobody but the Core can say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kcm_schemas.control import Hold, Receipt
from kcm_schemas.kill_result import ITEM_MAX, Result, room_for_receipts
from kcm_schemas.roster import Instance, Role
from kcm_schemas.signed import STATEMENT_MAX, Kind, Signed

from kcm_trust.checks import Checker, body_of
from kcm_trust.envelopes import Forged, Untrusted, envelope
from kcm_trust.identity import digest, to_sign
from kcm_trust.rights import CORE, INSTANCE, itself

CLOCKS_APART_MS: Final = 600_000
"""Milliseconds by which a Core's clock and that of who signed a hold may differ.

A Core whose clock is more than a minute off serves no operator; a clock may be set back a little.
"""


@dataclass(frozen=True, slots=True)
class SignedResult:
    """A result, and those who signed it and count: Cores on the roster, one of whom acts."""

    result: Result
    signers: tuple[Instance, ...]
    statement: Signed
    raw: bytes
    author_known: bool
    """Whether who is said to have concluded it is on the roster."""

    @property
    def by_author(self) -> bool:
        """Whether who is said to have concluded it has signed it, or cannot be asked for that.

        A signature of somebody who is not on the roster any more cannot be checked.
        """
        return not self.author_known or self.signed_by(self.result.instance)

    def signed_by(self, name: str) -> bool:
        """Whether a Core has signed it."""
        return any(one.instance == name for one in self.signers)

    def acting_in(self, region: str) -> list[str]:
        """Those of them who act in a region."""
        return [one.instance for one in self.signers if one.region == region and not one.retired]


class ResultChecker(Checker):
    """Verifies results, and the receipts in them."""

    def result(self, raw: bytes) -> SignedResult:
        """A result that a Core has signed who acts. Its receipts are not looked at."""
        statement = envelope(raw, Kind.RESULT)
        if statement.system != self.roster.system:
            raise Forged("the statement is of another system")
        content = digest(statement.body)
        signers, broken = [], False
        for one in statement.signatures:
            entry = self._entries.get(one.signer)
            if not isinstance(entry, Instance) or not CORE.has(entry):
                continue
            message = to_sign(statement.system, statement.kind, one.signer, content)
            if self._holds(entry.public_key, one.signature, message):
                signers.append(entry)
            else:
                broken = True
        if broken and not signers:
            raise Untrusted("the signature does not hold")
        if all(entry.retired for entry in signers):
            raise Untrusted("no Core that acts has signed it")
        body = body_of(Result, statement)
        author = self._entries.get(body.instance)
        if isinstance(author, Instance) and (author.role, author.region) != (
            Role.CORE,
            body.region,
        ):
            raise Untrusted("the result names somebody who is no Core of its region")
        return SignedResult(body, tuple(signers), statement, raw, author is not None)

    def receipt_once(self, raw: bytes) -> Receipt:
        """A receipt by the instance it names, which may have retired since."""
        statement, signers = self._signed(raw, INSTANCE, Kind.RECEIPT)
        body = body_of(Receipt, statement)
        itself(signers, body.instance, body.role, body.region)
        return body


def accounted(result: Result, receipts: Sequence[Receipt]) -> None:
    """Raise ``Untrusted`` unless each incarnation that gave a receipt has exactly one here.

    Some may be left out for want of room, and for no other reason.
    """
    told = {
        (one.instance, one.incarnation): one for one in result.incarnations if one.how == "receipt"
    }
    if len({(one.instance, one.incarnation) for one in result.incarnations}) != len(
        result.incarnations
    ):
        raise Untrusted("the result lists an incarnation twice")
    seen = set()
    for receipt in receipts:
        key = (receipt.instance, receipt.incarnation)
        incarnation = told.get(key)
        if incarnation is None or key in seen:
            raise Untrusted(f"a receipt of {receipt.instance} is of no incarnation, or there twice")
        seen.add(key)
        if receipt.hold_id != result.hold_id:
            raise Untrusted(f"the receipt of {receipt.instance} is for another hold")
        if receipt.unkept:
            raise Untrusted(f"{receipt.instance} says that it has not stored the hold")
        if (receipt.role, receipt.region, receipt.keys, receipt.purge_us) != (
            incarnation.role,
            incarnation.region,
            incarnation.keys,
            incarnation.purge_us,
        ):
            raise Untrusted(f"the receipt of {receipt.instance} says something else than the list")
    if len(seen) + result.left_out != len(told):
        raise Untrusted(
            f"{len(told)} incarnations gave a receipt by the list; {len(seen)} are here, and "
            f"{result.left_out} are said to be left out"
        )
    if result.left_out and room_for_receipts(result) >= STATEMENT_MAX[Kind.RECEIPT] + ITEM_MAX:
        raise Untrusted(f"{result.left_out} receipts are left out, and there is room for them")


def timely(result: Result, hold: Hold) -> None:
    """Raise ``Untrusted`` where a kill is said to be noticed before its hold was signed."""
    if result.heard_ms + CLOCKS_APART_MS < hold.issued_ms:
        raise Untrusted("the kill is said to be noticed before the hold was signed: a clock is off")


def finished(result: Result) -> None:
    """Raise ``Untrusted`` unless the regions and incarnations of the result are a finished kill."""
    names = [one.region for one in result.regions]
    if len(set(names)) != len(names):
        raise Untrusted("the result lists a region twice")
    if result.heard_ms > result.concluded_ms:
        raise Untrusted("the kill is said to be complete before it was noticed")
    durable = {one.region for one in result.regions if one.how == "durable" and one.durable_at}
    if not durable:
        raise Untrusted("the hold is stored in no region")
    for one in result.regions:
        if one.region not in durable and one.how != "leases-ended":
            raise Untrusted(f"region {one.region} does not count yet: {one.how}")
    for incarnation in result.incarnations:
        if incarnation.how == "waiting":
            raise Untrusted(f"{incarnation.instance} has not purged")
        if incarnation.region not in durable:
            raise Untrusted(
                f"{incarnation.instance} is of a region in which the hold is not stored"
            )
    silent = durable - {incarnation.region for incarnation in result.incarnations}
    if silent:
        raise Untrusted(
            f"no incarnation is listed of region {min(silent)}, which has at least a Core"
        )
