"""The oracle notices what no application may be given, and lets pass what may be."""

import pytest
from kcm_schemas.codes import Code

from tests.simulation.apps import Apps, Caller, app_entry, app_identity
from tests.simulation.plan import APPS
from tests.simulation.test_oracle import BOUNDS, Rig, killed

REGIONS = ["ap", "eu", "us"]
APP, OTHER = APPS


class AppRig(Rig):
    """A world of applications in which a test moves the time itself."""

    def __init__(self, **bounds):
        super().__init__(policy="local", **bounds)
        self.tenants = list(self.oracle.tenants.values())
        self.apps = Apps(self.loop, self.oracle, self.tenants, REGIONS)

    def ask(self, at, app=APP, number=0, *, sent=0.001, verb="decrypt"):
        self.loop.now = at
        caller = Caller(app, app_identity(app, number).public)
        self.apps.accepted(caller, self.tenants[0], "eu", verb, at - sent)

    def refuse(self, app=APP, number=0, code=Code.FORBIDDEN):
        caller = Caller(app, app_identity(app, number).public)
        return self.apps.refused(caller, "acme", "eu", code, "decrypt")

    def hold_app(self, **what):
        return killed(self, scope="app", target=self.apps.caller(APP).target, **what)

    def accept_entry(self, at, **what):
        entry = app_entry(APP, self.tenants, REGIONS, **what)
        known, self.loop.now = self.apps.entries, at
        self.oracle.accepted_record(known, APP, "eu", entry.revision, self.apps.made(entry))


def test_a_held_key_is_given_nothing_after_the_bound_or_after_completion():
    rig = AppRig()
    found, _ = rig.hold_app()
    rig.ask(10.0)  # its own lease, of 10 s / (1 - e)
    assert rig.broken is None
    rig.ask(10.2)
    assert rig.broken == 2
    rig = AppRig()
    found, _ = rig.hold_app()
    rig.loop.now = 1.0
    rig.oracle.complete(found)
    rig.ask(1.1)
    assert rig.broken == 1


def test_an_answer_in_flight_is_excused_where_that_is_asked_for():
    rig = AppRig(excuse_in_flight=True)
    found, _ = rig.hold_app()
    rig.loop.now = 1.0
    rig.oracle.complete(found)
    rig.ask(1.5, sent=0.6)
    assert rig.broken is None


def test_another_application_and_another_key_are_served_and_not_refused():
    rig = AppRig()
    rig.hold_app()
    rig.ask(60.0, OTHER)
    assert rig.broken is None
    assert rig.refuse()
    assert not rig.refuse(OTHER)
    assert not rig.refuse(code=Code.TENANT_KILLED)
    rig.accept_entry(60.0, revision=3, number=1)
    rig.ask(90.0, number=1)
    assert rig.broken is None
    assert not rig.refuse(number=1)


def test_a_held_key_is_served_again_after_the_lift():
    rig = AppRig()
    _, raw = rig.hold_app()
    rig.loop.now = 20.0
    rig.oracle.issued(rig.lift(raw), "lifted by ada")
    rig.ask(60.0)
    assert rig.broken is None


def test_a_hold_that_a_stream_lost_counts_again_a_lease_after_it_is_back():
    rig = AppRig()
    _, raw = rig.hold_app()
    rig.loop.now = 20.0
    rig.oracle.went_back("eu", [])
    rig.ask(30.0)
    assert rig.broken is None
    rig.oracle.stored("eu", raw)
    rig.ask(40.0)
    assert rig.broken is None
    rig.ask(40.2)
    assert rig.broken == 2


@pytest.mark.parametrize("change", [{"lacks": ("acme", "decrypt")}, {"number": 1}])
def test_an_entry_counts_a_lease_and_the_patience_after_a_core_accepted_it(change):
    rig = AppRig()
    rig.accept_entry(20.0, revision=3, **change)
    bound = 20.0 + (BOUNDS.control_lease_s + BOUNDS.patience_s) / (1 - BOUNDS.clock_error)
    rig.ask(bound - 0.1)
    assert rig.broken is None
    assert rig.refuse()
    rig.ask(bound + 0.1, OTHER)
    assert rig.broken is None
    rig.ask(bound + 0.1)
    assert rig.broken == 8


def test_a_grant_for_another_verb_stays():
    rig = AppRig()
    rig.accept_entry(20.0, revision=3, lacks=("acme", "decrypt"))
    rig.ask(60.0, verb="encrypt")
    assert rig.broken is None


def test_an_entry_that_is_not_full_is_unsettled():
    rig = AppRig()
    assert not rig.apps.unsettled(APP)
    rig.accept_entry(20.0, revision=3, lacks=("acme", "decrypt"))
    assert rig.apps.unsettled(APP)
    assert not rig.apps.unsettled(OTHER)
    assert rig.apps.next(APP).revision == 5
