"""Reading a roster: signed by the pinned operator root, and never an older one."""

from __future__ import annotations

from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError
from kcm_schemas.names import is_region, key_target
from kcm_schemas.roster import Instance, Operator, Role, Roster
from kcm_schemas.signed import Kind

from kcm_trust.envelopes import Outdated, Untrusted, envelope, holds
from kcm_trust.identity import ROOT


def verify_roster(raw: bytes, root_public: bytes, seen: int) -> Roster:
    """Verify a roster; ``seen`` is the highest version that this instance ever accepted.

    Raises ``Outdated`` for a lower version, and ``Untrusted``.
    """
    statement = envelope(raw, Kind.ROSTER)
    signers = [one.signer for one in statement.signatures]
    if signers != [ROOT] or not holds(statement, ROOT, root_public):
        raise Untrusted("the roster is not signed by the operator root")
    try:
        roster = decode(Roster, statement.body)
    except KcmError:
        raise Untrusted("the statement's body is not well formed", Kind.ROSTER.value) from None
    if roster.system != statement.system:
        raise Untrusted(
            "the roster is of another system than its signature",
            f"{roster.system}, not {statement.system}",
        )
    if roster.version < seen:
        raise Outdated("the roster is older than one seen before", f"{roster.version} < {seen}")
    names = [name_of(entry) for entry in entries(roster)]
    if len(set(names)) != len(names) or ROOT in names:
        raise Untrusted("the roster has a name twice, or the name of the root")
    keys = [entry.public_key for entry in entries(roster)]
    if len(set(keys)) != len(keys) or root_public in keys:
        raise Untrusted("the roster has one key under two names")
    regions = [entry.region for entry in roster.regions]
    if len(set(regions)) != len(regions) or not all(is_region(region) for region in regions):
        raise Untrusted("the roster has a region twice, or one with a reserved name")
    return roster


def targets_in(roster: Roster, region: str) -> list[str]:
    """Return what holds on keys of the region's Cores and Gateways are on, if these serve others.

    A Gateway inside of an application serves no others, and a retired instance serves none.
    """
    return [
        key_target(one.instance, one.public_key)
        for one in roster.instances
        if (one.region, one.retired, one.application) == (region, None, None)
        and one.role is not Role.AUDITOR
    ]


def follows(known: Roster, new: Roster) -> None:
    """Raise ``Untrusted`` unless ``new`` may replace ``known``: ``Outdated`` for a lower version.

    No signer returns from retirement, and its endorsements never change. Otherwise a roster could
    make lifts count that did not count before, or void ones that did.
    """
    if new.system != known.system:
        raise Untrusted("the roster is of another system", f"{new.system}, not {known.system}")
    if new.version < known.version:
        raise Outdated(
            "the roster is older than one seen before", f"{new.version} < {known.version}"
        )
    if new.version == known.version and new != known:
        raise Untrusted("the roster differs from one of the same version", str(new.version))
    here = {name_of(entry): entry for entry in entries(new)}
    for entry in entries(known):
        if entry.retired is not None and here.get(name_of(entry), entry) != entry:
            raise Untrusted("the roster changes a retired signer", name_of(entry))


def changed(known: Roster, new: Roster) -> frozenset[str]:
    """Return the names on ``known`` whose entry differs on ``new`` or is missing there.

    Their statements are verified again. Statements of new signers were never trusted before: see
    ``more``. If a region was removed, all names are returned: statements may be about it.
    """
    here = {name_of(entry): entry for entry in entries(new)}
    was = {name_of(entry): entry for entry in entries(known)}
    if {one.region for one in known.regions} - {one.region for one in new.regions}:
        return frozenset(was)
    return frozenset(name for name, entry in was.items() if here.get(name) != entry)


def more(known: Roster, new: Roster) -> bool:
    """Whether a statement may count by ``new`` that did not count by ``known``."""
    was = {name_of(entry): entry for entry in entries(known)}
    regions = {one.region for one in new.regions} - {one.region for one in known.regions}
    acting = (entry for entry in entries(new) if entry.retired is None)
    return bool(regions) or any(was.get(name_of(entry)) != entry for entry in acting)


def left(known: Roster, new: Roster) -> frozenset[str]:
    """Return the names whose only change is that they are retired now."""
    here = {name_of(entry): entry for entry in entries(new)}
    return frozenset(
        name
        for entry in entries(known)
        if (name := name_of(entry)) in here
        and here[name] == entry.model_copy(update={"retired": here[name].retired})
    )


def entries(roster: Roster) -> list[Instance | Operator]:
    """Return all instances and operators of a roster."""
    return [*roster.instances, *roster.operators]


def name_of(entry: Instance | Operator) -> str:
    """Return the name under which an instance or operator signs."""
    return entry.instance if isinstance(entry, Instance) else entry.operator
