"""Steps that tests of rosters share."""

from tests.unit.switch.rig import Incarnation


def said(incarnation, core):
    """The version of the roster by which an incarnation says that it judges."""
    found = core.switch.registered.registered(core.clock.elapsed())
    return next(one.roster for one in found if one.instance == incarnation.me.name)


def refused(incarnation: Incarnation) -> list[str]:
    return [fields["detail"] for kind, fields in incarnation.events if kind == "trust.refused"]
