"""Rosters for the incarnations of the rig: the first one, and others that follow it."""

from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.roster import Roster
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.endorsements import Endorsements
from kcm_trust.envelopes import statement_digest
from kcm_trust.identity import ROOT
from kcm_trust.verify import Verifier

from tests.unit.switch import statements
from tests.unit.switch.statements import VERIFIER
from tests.vectors.families.messages import identity

ROOT_KEY = identity(ROOT)
FIRST = statements.roster()


def signed(roster: Roster) -> bytes:
    return encode(ROOT_KEY.sign(Kind.ROSTER, roster))


def without(
    name: str, endorsements: Endorsements | None = None, *, known: Roster = FIRST
) -> Roster:
    """The next roster, in which ``name`` is retired."""
    entry = (endorsements or Endorsements()).retirement()
    return known.model_copy(
        update={
            "version": known.version + 1,
            "instances": [
                one.model_copy(update={"retired": entry}) if one.instance == name else one
                for one in known.instances
            ],
            "operators": [
                one.model_copy(update={"retired": entry}) if one.operator == name else one
                for one in known.operators
            ],
        }
    )


def removed(name: str) -> Roster:
    return FIRST.model_copy(
        update={
            "version": 2,
            "operators": [one for one in FIRST.operators if one.operator != name],
            "instances": [one for one in FIRST.instances if one.instance != name],
        }
    )


def listing(*statements: bytes) -> Endorsements:
    return Endorsements(statement_digest(read_signed(raw)) for raw in statements)


def rosters(known: Roster = FIRST) -> Rosters:
    """What an incarnation has that was started from files: it takes later rosters."""
    verifier = VERIFIER if known is FIRST else Verifier(known)
    return Rosters(verifier, raw=signed(known), root_public=ROOT_KEY.public)


def stored(incarnation):
    entry = incarnation.stream.entries.get(subjects.control_roster("eu"))
    return None if entry is None else entry.data
