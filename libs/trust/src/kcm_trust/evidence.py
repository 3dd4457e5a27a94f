"""Verification of the signed evidence of a kill, by a root key that the verifier has: no I/O.

Every signature is verified. Facts that only a Core can know are listed separately, as *attested*:
that no instance is missing from its list, that a lease had ended, and all times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from kcm_schemas.control import Receipt
from kcm_schemas.kill_result import Result
from kcm_schemas.roster import Instance, Role, Roster
from kcm_schemas.signed import Kind, Signed
from kcm_schemas.text import counted

from kcm_trust.endorsements import Endorsements
from kcm_trust.envelopes import Untrusted, envelope, holds
from kcm_trust.hold_statements import VerifiedHold
from kcm_trust.result_statements import accounted, finished, timely
from kcm_trust.roster import entries, follows, name_of, verify_roster
from kcm_trust.verify import Verifier

State = Literal["ok", "failed", "not checked"]


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements to verify. ``lift`` and ``result`` are empty if there is none.

    ``root``, ``system`` and ``hold_id`` are the file's claims about them.
    """

    root: bytes
    system: str
    hold_id: bytes
    hold: bytes
    lift: bytes
    result: bytes
    roster: bytes
    lists: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    check: str
    state: State
    detail: str


@dataclass(slots=True)
class Findings:
    """The outcome of all checks, and the facts that rest on a Core's statement alone."""

    checks: list[Check] = field(default_factory=list[Check])
    attested: list[str] = field(default_factory=list[str])
    held: VerifiedHold | None = None
    result: Result | None = None

    @property
    def good(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(one.state == "ok" for one in self.checks)


class _NotCheckedError(Exception):
    """A check on which this one depends did not pass."""


def examine(given: Statements, root: bytes, known: Roster | None = None) -> Findings:
    """Check everything by the root's public key, and by the higher one of the two rosters.

    ``known`` is a roster that the verifier trusts already: an attacker with a retired Core's key
    could present an older roster, by which that Core still acts.
    """
    steps = _Steps(given, root, known)
    for name, step in (
        ("roster", steps.roster),
        ("hold", steps.hold),
        ("lift", steps.lift),
        ("result", steps.result),
        ("receipts", steps.receipts),
        ("completeness", steps.completeness),
    ):
        steps.found.checks.append(_checked(name, step))
    return steps.found


def _checked(name: str, step: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", step())
    except _NotCheckedError as error:
        return Check(name, "not checked", str(error))
    except Untrusted as error:
        return Check(name, "failed", str(error))


class _Steps:
    """One verification: each step depends on those before it and returns its finding."""

    def __init__(self, given: Statements, root: bytes, known: Roster | None) -> None:
        self._given: Final = given
        self._root: Final = root
        self._known: Final = known
        self.found: Final = Findings()
        self._by: Verifier | None = None
        self._receipts: list[Receipt] | None = None

    def roster(self) -> str:
        """The roster is signed by the verifier's root key, and by no other."""
        given = self._given
        if given.root != self._root:
            raise Untrusted(
                f"the file is for the root {given.root.hex()}, and yours is {self._root.hex()}"
            )
        roster = verify_roster(given.roster, self._root, 0)
        told = f"version {roster.version}, signed by the root {self._root.hex()}"
        if given.system != roster.system:
            raise Untrusted(f"the roster is of system {roster.system}, not {given.system}")
        if self._known is not None and self._known.version >= roster.version:
            follows(roster, self._known)
            if self._known.version > roster.version:
                told += f"; verified by version {self._known.version}, which is known here"
            roster = self._known
        else:
            if self._known is not None:
                follows(self._known, roster)
            self.found.attested.append(
                f"that roster version {roster.version} is the highest one: compare it"
            )
        self._by = Verifier(roster, _lists(roster, given.lists))
        return told

    def hold(self) -> str:
        """The hold's signer has the right to place it, and its id commits to its content."""
        by, raw = self._verifier, self._given.hold
        held = by.hold(raw)
        _unspoiled(by, envelope(raw, Kind.HOLD))
        if held.hold.id != self._given.hold_id:
            raise Untrusted(
                f"the hold has the id {held.hold.id.hex()}, not {self._given.hold_id.hex()}"
            )
        self.found.held = held
        return f"on {held.hold.scope} {held.hold.target}, signed by {held.issuer}"

    def lift(self) -> str:
        """The lift's signer has the right to end this hold; a missing lift proves nothing."""
        by, held, raw = self._verifier, self._held, self._given.lift
        if not raw:
            self.found.attested.append("that the hold was not lifted: the file has no lift")
            return "there is none"
        statement = envelope(raw, Kind.LIFT, Kind.LIFTS)
        if statement.kind is Kind.LIFT:
            lifted = by.lift(raw)
            _unspoiled(by, statement)
            if lifted.held.hold != held.hold:
                raise Untrusted(f"the lift ends another hold, {lifted.held.hold.id.hex()}")
            return f"signed by {lifted.issuer}"
        page = by.lifts(raw)
        size = len(held.hold.id)
        ids = {page.lifts.ids[at : at + size] for at in range(0, len(page.lifts.ids), size)}
        of = (page.lifts.cause, page.lifts.origin)
        if held.hold.id not in ids or of != (held.hold.cause, held.hold.origin):
            raise Untrusted("the lift page does not end this hold")
        return f"in a lift page signed by {page.signer}"

    def result(self) -> str:
        """The result is signed by Cores, one of them not retired, and by the one that concluded."""
        by, held, raw = self._verifier, self._held, self._given.result
        if not raw:
            raise Untrusted("there is none: no Core found the kill complete and stored the result")
        signed = by.result(raw)
        _unspoiled(by, signed.statement)
        if signed.result.hold_id != held.hold.id:
            raise Untrusted(f"the result is for another hold, {signed.result.hold_id.hex()}")
        if signed.result.roster > by.roster.version:
            raise Untrusted(
                f"the kill was concluded by roster version {signed.result.roster}; the file's "
                f"version {by.roster.version} is older"
            )
        author = signed.result.instance
        if not signed.by_author:
            raise Untrusted(f"{author}, which concluded the kill, has not signed the result")
        self.found.result = signed.result
        told = [
            f"{one.instance} (retired)" if one.retired else one.instance for one in signed.signers
        ]
        if len(told) == 1:
            self.found.attested.append(f"the whole result: {told[0]} alone has signed it")
        if not signed.signed_by(author):
            self.found.attested.append(f"that {author}, which is not on the roster, concluded it")
        others = len(signed.statement.signatures) - len(told)
        left_out = f"; {others} not counted, of no Core on the roster" if others else ""
        return f"signed by {', '.join(told)}{left_out}"

    def receipts(self) -> str:
        """Each receipt is signed by the instance that purged, and they match the list."""
        by, result = self._verifier, self._concluded
        receipts = []
        for at, raw in enumerate(result.receipts, 1):
            try:
                receipts.append(by.receipt_once(raw))
            except Untrusted as error:
                raise Untrusted(f"receipt {at} of {len(result.receipts)}: {error}") from None
        accounted(result, receipts)
        self._receipts = receipts
        left_out = f"; {result.left_out} left out for lack of room" if result.left_out else ""
        return f"{counted(len(receipts), 'signed receipt')}{left_out}"

    def completeness(self) -> str:
        """The regions and incarnations are those of a completed kill."""
        by, result = self._verifier, self._concluded
        if self._receipts is None:
            raise _NotCheckedError("the receipts did not pass")
        finished(result)
        timely(result, self._held.hold)
        known = {name_of(one): one for one in entries(by.roster)}
        for incarnation in result.incarnations:
            one = known.get(incarnation.instance)
            if one is not None and not (
                isinstance(one, Instance)
                and (one.role, one.region) == (incarnation.role, incarnation.region)
            ):
                raise Untrusted(
                    f"{incarnation.instance} is no {incarnation.role.value} of region"
                    f" {incarnation.region} on the roster"
                )
        self.found.attested += _attested(result, by.roster)
        regions = counted(len(result.regions), "region")
        return f"{regions}, {counted(len(result.incarnations), 'incarnation')}"

    @property
    def _verifier(self) -> Verifier:
        if self._by is None:
            raise _NotCheckedError("the roster did not pass")
        return self._by

    @property
    def _held(self) -> VerifiedHold:
        if self.found.held is None:
            raise _NotCheckedError("the hold did not pass")
        return self.found.held

    @property
    def _concluded(self) -> Result:
        if self.found.result is None:
            raise _NotCheckedError("the result did not pass")
        return self.found.result


def _lists(roster: Roster, lists: Mapping[str, bytes]) -> dict[str, Endorsements]:
    """Return the endorsements to which the roster commits; raises ``Untrusted`` for others."""
    found = {}
    for one in entries(roster):
        if one.retired is not None and (raw := lists.get(name_of(one))) is not None:
            try:
                found[name_of(one)] = Endorsements.read(raw, one.retired)
            except ValueError:
                raise Untrusted(
                    f"the endorsements of {name_of(one)} are not those of the roster"
                ) from None
    if unnamed := sorted(lists.keys() - found.keys()):
        raise Untrusted(f"the roster has no endorsements for {len(unnamed)} of the signers")
    return found


def _unspoiled(by: Verifier, statement: Signed) -> None:
    """Raise if a signature of a signer on the roster is not valid.

    Components ignore such a signature. In a file it means that the file was changed.
    """
    known = {name_of(one): one for one in entries(by.roster)}
    for one in statement.signatures:
        entry = known.get(one.signer)
        if entry is not None and not holds(statement, one.signer, entry.public_key):
            raise Untrusted(f"the signature of {one.signer} is not valid")


def _attested(result: Result, roster: Roster) -> list[str]:
    """Return what the Cores that signed a result state, and no signature of others shows."""
    regions = {one.region for one in result.regions if one.how == "durable"}
    serving = [
        one for one in roster.instances if one.role is not Role.AUDITOR and one.retired is None
    ]
    wanted = {one.instance for one in serving if one.region in regions}
    known = {name_of(one) for one in entries(roster)}
    listed = {incarnation.instance for incarnation in result.incarnations}
    told = [
        "that no incarnation and no region of the tenants is missing from the list",
        f"all times, by the clock of {result.instance}",
        "the position of the hold in each region's stream",
    ]
    for how in ("lease-ended", "started-after"):
        names = sorted(
            {incarnation.instance for incarnation in result.incarnations if incarnation.how == how}
        )
        if names:
            told.append(f"{how}: {', '.join(names)}")
    if unknown := sorted(listed - known):
        told.append(f"not on the roster: {', '.join(unknown)}")
    listed_regions = {one.region for one in result.regions}
    if nowhere := sorted(listed_regions - {one.region for one in roster.regions}):
        told.append(f"regions that are not on the roster: {', '.join(nowhere)}")
    elsewhere = {one.region for one in serving} - listed_regions
    if elsewhere:
        others = ", ".join(sorted(elsewhere))
        told.append(f"that the hold reaches no instance in other regions of the roster: {others}")
    if silent := sorted(wanted - listed):
        told.append(f"on the roster, and not running: {', '.join(silent)}")
    cut_off = sorted(one.region for one in result.regions if one.how == "leases-ended")
    if cut_off:
        told.append(f"leases-ended: {', '.join(cut_off)}")
    if result.left_out:
        told.append(f"{counted(result.left_out, 'receipt')} for which the result has no room")
    return told
