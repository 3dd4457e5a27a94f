"""Rosters that follow the rig's, signed by the root."""

from kcm_schemas.codec import encode
from kcm_schemas.roster import Roster
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements
from kcm_trust.identity import ROOT

from tests.unit.core_rig import ROSTER
from tests.vectors.families.messages import identity


def signed_roster(roster: Roster) -> bytes:
    return encode(identity(ROOT).sign(Kind.ROSTER, roster))


def without(name, endorsements=None):
    entry = (endorsements or Endorsements()).retirement()
    people = {
        "instances": [
            one.model_copy(update={"retired": entry}) if one.instance == name else one
            for one in ROSTER.instances
        ],
        "operators": [
            one.model_copy(update={"retired": entry}) if one.operator == name else one
            for one in ROSTER.operators
        ],
    }
    return ROSTER.model_copy(update={"version": ROSTER.version + 1, **people})


def changed(fields: dict[str, dict[str, object]]) -> Roster:
    """The next roster, with other fields of these instances."""
    instances = [one.model_copy(update=fields.get(one.instance, {})) for one in ROSTER.instances]
    return ROSTER.model_copy(update={"version": ROSTER.version + 1, "instances": instances})
