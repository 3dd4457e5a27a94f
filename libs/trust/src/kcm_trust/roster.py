"""Reading a roster: signed by the pinned root, in order, and never a step back."""

from __future__ import annotations

from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError
from kcm_schemas.names import is_region
from kcm_schemas.roster import Instance, Operator, Roster
from kcm_schemas.signed import Kind

from kcm_trust.envelopes import Outdated, Untrusted, envelope, holds
from kcm_trust.identity import ROOT


def verify_roster(raw: bytes, root_public: bytes, seen: int) -> Roster:
    """Verify a roster; ``seen`` is the highest version this instance has ever accepted.

    Raises ``Outdated`` for a lower one, and ``Untrusted``.
    """
    statement = envelope(raw, Kind.ROSTER)
    signers = [one.signer for one in statement.signatures]
    if signers != [ROOT] or not holds(statement, ROOT, root_public):
        raise Untrusted("the roster is not signed by the operator root")
    try:
        roster = decode(Roster, statement.body)
    except KcmError:
        raise Untrusted("the statement's body is not well formed") from None
    if roster.system != statement.system:
        raise Untrusted("the roster is of another system than its signature")
    if roster.version < seen:
        raise Outdated("the roster is older than one that was seen before")
    names = [name_of(entry) for entry in entries(roster)]
    if len(set(names)) != len(names) or ROOT in names:
        raise Untrusted("the roster names somebody twice")
    keys = [entry.public_key for entry in entries(roster)]
    if len(set(keys)) != len(keys) or root_public in keys:
        raise Untrusted("the roster has one key under two names")
    regions = [entry.region for entry in roster.regions]
    if len(set(regions)) != len(regions) or not all(is_region(region) for region in regions):
        raise Untrusted("the roster names a region twice, or by a name that is reserved")
    return roster


def follows(known: Roster, new: Roster) -> None:
    """Raise ``Untrusted`` unless ``new`` may take the place of ``known``: ``Outdated`` if lower.

    Nobody comes back from retirement, and what lasts of them stays what it is: a roster that said
    otherwise would bring lifts to life that were dark, or end ones that counted.
    """
    if new.system != known.system:
        raise Untrusted("the roster is of another system")
    if new.version < known.version:
        raise Outdated("the roster is older than one that was seen before")
    if new.version == known.version and new != known:
        raise Untrusted("the roster differs from one of the same version that was seen before")
    here = {name_of(entry): entry for entry in entries(new)}
    for entry in entries(known):
        if entry.retired is not None and here.get(name_of(entry), entry) != entry:
            raise Untrusted("the roster changes somebody who is retired")


def changed(known: Roster, new: Roster) -> frozenset[str]:
    """The names on ``known`` whose entry is another one on ``new``, or none.

    What they signed is judged anew. Of somebody who is new nothing was believed before: see
    ``more``. Where a region is gone, that is everybody: a statement may be about it.
    """
    here = {name_of(entry): entry for entry in entries(new)}
    was = {name_of(entry): entry for entry in entries(known)}
    if {one.region for one in known.regions} - {one.region for one in new.regions}:
        return frozenset(was)
    return frozenset(name for name, entry in was.items() if here.get(name) != entry)


def more(known: Roster, new: Roster) -> bool:
    """Whether somebody may say by ``new`` what nobody believed by ``known``."""
    was = {name_of(entry): entry for entry in entries(known)}
    regions = {one.region for one in new.regions} - {one.region for one in known.regions}
    acting = (entry for entry in entries(new) if entry.retired is None)
    return bool(regions) or any(was.get(name_of(entry)) != entry for entry in acting)


def left(known: Roster, new: Roster) -> frozenset[str]:
    """The names of whom nothing changed but that they are retired now."""
    here = {name_of(entry): entry for entry in entries(new)}
    return frozenset(
        name
        for entry in entries(known)
        if (name := name_of(entry)) in here
        and here[name] == entry.model_copy(update={"retired": here[name].retired})
    )


def entries(roster: Roster) -> list[Instance | Operator]:
    """Everybody on a roster."""
    return [*roster.instances, *roster.operators]


def name_of(entry: Instance | Operator) -> str:
    """The name under which somebody signs."""
    return entry.instance if isinstance(entry, Instance) else entry.operator
