"""The oracle notices what no application may be given, and lets pass what may be."""

from types import SimpleNamespace

import pytest
from kcm_schemas.asks import TAG_SIZE, Ask, Asked
from kcm_schemas.codes import Code
from kcm_schemas.names import key_target

from tests.simulation.apps import Apps, Caller, app_entry, app_identity
from tests.simulation.asks import Asks, Made
from tests.simulation.plan import APPS, Member
from tests.simulation.test_oracle import BOUNDS, Rig, killed
from tests.simulation.trust import identity

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


class Instance:
    """An instance that lets applications act with the key of this number, or with none."""

    def __init__(self, number=None):
        self.number = number
        self.who = Member("gw-eu", "gateway", "eu", 0)
        self.me = SimpleNamespace(key_target=key_target("gw-eu", identity("gw-eu").public))

    def allows(self, app, tenant, verb):
        return None if self.number is None else app_identity(app, self.number).public

    def has_keys(self, tenant):
        return True

    def serves(self, tenant):
        return True


def test_an_instance_with_its_leases_lets_nobody_act_after_the_bound():
    rig = AppRig()
    found, _ = rig.hold_app()
    rig.loop.now = 10.0
    one = Instance(0)
    rig.apps.would(one, rig.tenants[0])
    assert rig.broken is None
    hold = rig.oracle.holds[found]
    assert "gw-eu serves app-a for acme" in list(rig.apps.serving(hold, [("gw-eu", one)]))
    assert not list(rig.apps.serving(hold, [("gw-eu", Instance(1))]))
    rig.loop.now = 10.2
    rig.apps.would(one, rig.tenants[0])
    assert rig.broken == 2


def test_an_instance_with_its_leases_refuses_no_application_that_may():
    rig = AppRig()
    rig.hold_app()
    rig.accept_entry(20.0, revision=3, number=1)
    rig.apps.numbers[APP] = 1
    rig.loop.now = 30.0
    rig.apps.would(Instance(), rig.tenants[0])
    assert rig.broken == 7  # the other application, which was never held


def test_an_instance_whose_key_is_held_serves_nothing_after_the_bound():
    rig = AppRig()
    one = Instance(0)
    found, _ = killed(rig, scope="instance", target=one.me.key_target)
    rig.loop.now = 10.0
    rig.apps.would(one, rig.tenants[0])
    assert rig.broken is None
    hold = rig.oracle.holds[found]
    assert "gw-eu serves acme" in list(rig.apps.serving(hold, [("gw-eu", one)]))
    rig.loop.now = 10.2
    rig.apps.would(one, rig.tenants[0])
    assert rig.broken == 2


class AskRig(AppRig):
    """A Core that opens keys for a Gateway, because of asks."""

    def __init__(self):
        super().__init__()
        self.asks = Asks(self.apps)
        self.core = SimpleNamespace(
            who=Member("core-eu", "core", "eu", 0), clock=SimpleNamespace(unix_ms=lambda: 1000)
        )

    def open(self, *, wrapped=b"w", gateway="gw-eu", deadline_ms=1001, core="core-eu"):
        ask = Ask(core=core, session_id=bytes(16), deadline_ms=deadline_ms, tags=b"t" * TAG_SIZE)
        caller = self.apps.caller(APP)
        self.asks.made(ask, Made(caller, core, "gw-eu", "acme", b"w", deadline_ms))
        asked = Asked(
            app=APP, session_id=bytes(16), deadline_ms=deadline_ms, count=1, tag=ask.tag(0)
        )
        entry = SimpleNamespace(instance=gateway, public_key=identity(gateway).public)
        self.asks.opened(self.core, entry, "acme", [wrapped], [asked])


def test_a_core_opens_what_an_application_asks_for():
    rig = AskRig()
    rig.open()
    assert rig.broken is None


@pytest.mark.parametrize(
    "what", [{"wrapped": b"x"}, {"gateway": "gw-us"}, {"deadline_ms": 1000}, {"core": "core-us"}]
)
def test_a_core_opens_nothing_else(what):
    rig = AskRig()
    rig.open(**what)
    assert rig.broken == 10


def test_a_core_opens_nothing_without_an_ask():
    rig = AskRig()
    entry = SimpleNamespace(instance="gw-eu", public_key=identity("gw-eu").public)
    rig.asks.opened(rig.core, entry, "acme", [b"w"], [])
    assert rig.broken == 10


@pytest.mark.parametrize("scope", ["app", "instance"])
def test_a_core_opens_nothing_for_a_held_key(scope):
    rig = AskRig()
    gateway = key_target("gw-eu", identity("gw-eu").public)
    target = rig.apps.caller(APP).target if scope == "app" else gateway
    found, _ = killed(rig, scope=scope, target=target)
    rig.loop.now = 1.0
    rig.open()
    assert rig.broken is None
    rig.oracle.complete(found)
    rig.open()
    assert rig.broken == 1


def test_a_request_is_executed_once():
    rig = AskRig()
    rig.asks.taken(rig.core, b"s", 1)
    rig.asks.taken(rig.core, b"s", 2)
    assert rig.broken is None
    rig.asks.taken(rig.core, b"s", 1)
    assert rig.broken == 10
