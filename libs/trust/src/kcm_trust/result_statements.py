"""Kill results: a Core's statement, and the parts that can be verified without trusting it.

Cores sign a result. Signatures of Cores that are no longer on the roster are ignored, and one of a
Core that is not retired is enough. Otherwise the removal of one Core would void the evidence of
every kill that it ever countersigned. Each receipt is verified by the key of its own instance, even
if that one retired since. Only a Core can know that the list of incarnations is complete and that a
lease had ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kcm_schemas.control import Hold, Receipt
from kcm_schemas.kill_result import ITEM_MAX, Result, room_for_receipts
from kcm_schemas.roster import Instance, Role
from kcm_schemas.signed import STATEMENT_MAX, Kind, Signed
from kcm_schemas.text import counted

from kcm_trust.checks import Checker, body_of
from kcm_trust.envelopes import Forged, Untrusted, envelope
from kcm_trust.identity import digest, to_sign
from kcm_trust.rights import CORE, INSTANCE, itself

CLOCKS_APART_MS: Final = 600_000
"""Milliseconds by which a Core's clock and that of a hold's signer may differ.

A Core whose clock is off by more than a minute serves no operator; a clock may be set back later.
"""


@dataclass(frozen=True, slots=True)
class SignedResult:
    """A result and its signers that count: Cores on the roster, at least one not retired."""

    result: Result
    signers: tuple[Instance, ...]
    statement: Signed
    raw: bytes
    author_known: bool
    """Whether the Core that concluded the kill, by the result, is on the roster."""

    @property
    def by_author(self) -> bool:
        """Whether the Core that concluded the kill signed the result, or is not on the roster.

        A signature of a Core that is no longer on the roster cannot be verified.
        """
        return not self.author_known or self.signed_by(self.result.instance)

    def signed_by(self, name: str) -> bool:
        """Whether a Core has signed it."""
        return any(one.instance == name for one in self.signers)

    def acting_in(self, region: str) -> list[str]:
        """Return the signers that belong to a region and are not retired."""
        return [one.instance for one in self.signers if one.region == region and not one.retired]


class ResultChecker(Checker):
    """Verifies results and the receipts in them."""

    def result(self, raw: bytes) -> SignedResult:
        """Verify that Cores, one of them not retired, signed a result; receipts are not read."""
        statement = envelope(raw, Kind.RESULT)
        if statement.system != self.roster.system:
            raise Forged(
                "the statement is of another system",
                f"{statement.system}, not {self.roster.system}",
            )
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
            raise Untrusted("a signature is not valid")
        if all(entry.retired for entry in signers):
            raise Untrusted("no Core signed the result that is on the roster and not retired")
        body = body_of(Result, statement)
        author = self._entries.get(body.instance)
        if isinstance(author, Instance) and (author.role, author.region) != (
            Role.CORE,
            body.region,
        ):
            raise Untrusted(
                "the result names an instance that is no Core of its region",
                f"{body.instance}, region {body.region}",
            )
        return SignedResult(body, tuple(signers), statement, raw, author is not None)

    def receipt_once(self, raw: bytes) -> Receipt:
        """Verify a receipt by the instance that it names, which may have retired since."""
        statement, signers = self._signed(raw, INSTANCE, Kind.RECEIPT)
        body = body_of(Receipt, statement)
        itself(signers, body.instance, body.role, body.region)
        return body


def accounted(result: Result, receipts: Sequence[Receipt]) -> None:
    """Raise ``Untrusted`` unless each incarnation that gave a receipt has exactly one here.

    Receipts may be left out only for lack of room.
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
            raise Untrusted(f"a receipt of {receipt.instance} matches no incarnation, or repeats")
        seen.add(key)
        if receipt.hold_id != result.hold_id:
            raise Untrusted(f"the receipt of {receipt.instance} is for another hold")
        if receipt.unkept:
            raise Untrusted(f"{receipt.instance} states that it has not stored the hold")
        if (receipt.role, receipt.region, receipt.keys, receipt.purge_us) != (
            incarnation.role,
            incarnation.region,
            incarnation.keys,
            incarnation.purge_us,
        ):
            raise Untrusted(f"the receipt of {receipt.instance} differs from the list")
    if len(seen) + result.left_out != len(told):
        raise Untrusted(
            f"the list has {counted(len(told), 'incarnation')} with a receipt; receipts here:"
            f" {len(seen)}, left out: {result.left_out}"
        )
    if result.left_out and room_for_receipts(result) >= STATEMENT_MAX[Kind.RECEIPT] + ITEM_MAX:
        raise Untrusted(f"{counted(result.left_out, 'receipt')} left out although there is room")


def timely(result: Result, hold: Hold) -> None:
    """Raise ``Untrusted`` if the kill was first known long before its hold was signed."""
    if result.heard_ms + CLOCKS_APART_MS < hold.issued_ms:
        raise Untrusted(
            f"the kill was known at {result.heard_ms} ms, before the hold was signed at"
            f" {hold.issued_ms} ms: a clock is wrong"
        )


def finished(result: Result) -> None:
    """Raise ``Untrusted`` unless regions and incarnations are those of a completed kill."""
    names = [one.region for one in result.regions]
    if len(set(names)) != len(names):
        raise Untrusted("the result lists a region twice")
    if result.heard_ms > result.concluded_ms:
        raise Untrusted(
            f"the kill was complete at {result.concluded_ms} ms, before it was known at"
            f" {result.heard_ms} ms"
        )
    durable = {one.region for one in result.regions if one.how == "durable" and one.durable_at}
    if not durable:
        raise Untrusted("the hold is durable in no region")
    for one in result.regions:
        if one.region not in durable and one.how != "leases-ended":
            raise Untrusted(f"region {one.region} does not count yet: {one.how}")
    for incarnation in result.incarnations:
        if incarnation.how == "waiting":
            raise Untrusted(f"{incarnation.instance} has not purged")
        if incarnation.region not in durable:
            raise Untrusted(
                f"{incarnation.instance} is of region {incarnation.region}, in which the hold is"
                " not durable"
            )
    silent = durable - {incarnation.region for incarnation in result.incarnations}
    if silent:
        raise Untrusted(f"the list has no incarnation of region {min(silent)}, not even a Core")
