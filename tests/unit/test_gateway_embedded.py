"""The engine inside an application: within its grants, and recorded in its name."""

import asyncio

import pytest
from kcm_gateway.application_engine import ApplicationEngine
from kcm_gateway.config import GatewayConfig
from kcm_gateway.embedded import EmbeddedGateway
from kcm_gateway.service import GatewayService
from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.clock import SystemClock
from kcm_runtime.config import ConfigError
from kcm_runtime.host import Host
from kcm_schemas.codes import Code, KcmError

from tests.unit.app_rig import Served, app, following
from tests.unit.core_rig import VERIFIER, instance_context
from tests.unit.refusals import refusal

PLACE = ("acme", "crm")
NAME = "engine"
"""The application of the roster's Gateways."""


class Room:
    """The audit trail's room, and the whole of each event."""

    has_room = True
    refusal = "the audit trail cannot take more"

    def __init__(self):
        self.events = []

    def emit(self, kind, **fields):
        self.events.append((kind.value, fields))

    @property
    def told(self):
        named = ("actor", "code", "count", "failed")
        return [(kind, *(fields[name] for name in named)) for kind, fields in self.events]


@pytest.fixture
def served():
    made = Served(verifier=VERIFIER)
    made.registry.put(app(NAME, "acme/crm"))
    return made


@pytest.fixture
def room():
    return Room()


@pytest.fixture
def engine(served, room):
    host = Host(served.me, served.clock, served.keys, room.emit)
    return ApplicationEngine(host, served.engine, served.applications, room)


async def test_each_call_is_recorded_in_the_name_of_the_application(engine, room):
    done = await engine.encrypt(*PLACE, [b"x", b"y"])
    assert done.values == [b"x", b"y"]
    assert (await engine.decrypt(*PLACE, [b"x", b"y", b"z"])).codes[0] is Code.TAMPERED
    assert room.told == [
        ("data.encrypt", NAME, Code.OK, 2, 0),
        ("data.decrypt", NAME, Code.OK, 3, 1),
    ]


@pytest.mark.parametrize("change", [{"grants": []}, {"regions": ["us"]}, {"revoked": True}])
async def test_what_the_application_may_not_does_no_work(served, engine, room, change):
    served.registry.put(following(served.registry.app(NAME), **change))
    for call in (engine.encrypt, engine.decrypt):
        assert (await refusal(call(*PLACE, [b"x"]))).code is Code.FORBIDDEN
    assert served.engine.calls == 0
    assert [event[2:] for event in room.told] == [(Code.FORBIDDEN, 1, 1)] * 2


async def test_what_the_roster_does_not_grant_is_refused_for_good(served, engine, room):
    served.registry.put(following(served.registry.app(NAME), grants=app(NAME, "bcme/crm").grants))
    error = await refusal(engine.encrypt("bcme", "crm", [b"x"]))
    assert (error.code, "the roster grants gw-eu nothing" in error.detail) == (Code.FORBIDDEN, True)
    assert (served.engine.calls, error.retryable) == (0, False)


async def test_a_revocation_while_it_works_leaves_no_output(served, engine, room):
    def revoke():
        served.registry.put(following(served.registry.app(NAME), revoked=True))

    served.engine.work = revoke
    assert (await refusal(engine.decrypt(*PLACE, [b"x"]))).code is Code.FORBIDDEN
    assert served.engine.calls == 1
    assert room.told == [("data.decrypt", NAME, Code.FORBIDDEN, 1, 1)]


async def test_a_call_that_is_cancelled_is_not_recorded_as_done(served, engine, room):
    async def for_ever(*_, **__):
        await asyncio.Event().wait()

    served.engine.encrypt = for_ever
    task = asyncio.ensure_future(engine.encrypt(*PLACE, [b"x"]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event[3:] for event in room.told] == [(1, 1)]
    assert room.told[0][2] is not Code.OK


async def test_the_output_lasts_no_longer_than_what_is_known_of_the_application(served, engine):
    now = served.clock.elapsed()
    served.lease.until = lambda *_: now + 1.5
    assert (await engine.encrypt(*PLACE, [b"x"])).lease_s == 1.5
    served.lease.until = lambda *_: now + 60.0
    assert (await engine.encrypt(*PLACE, [b"x"])).lease_s == served.engine.lease_s


async def test_nothing_is_done_that_cannot_be_recorded(served, engine, room):
    room.has_room = False
    error = await refusal(engine.encrypt(*PLACE, [b"x"]))
    assert (error.code, served.engine.calls, room.events) == (Code.UNAVAILABLE, 0, [])


async def test_a_bad_name_is_in_no_event(engine, room):
    with pytest.raises(KcmError, match="malformed"):
        await engine.encrypt("acme.*", "crm", [b"x"])
    assert room.events == []


def _changed(name, **fields):
    me = instance_context(name)
    entry = me.joined.model_copy(update=fields)
    return _Context(me, entry)


class _Context:
    """An instance whose roster has another entry of it."""

    def __init__(self, me, entry):
        self._me, self.entry = me, entry

    def __getattr__(self, name):
        return getattr(self._me, name)


def _config():
    return GatewayConfig.model_construct()


def test_a_gateway_for_many_applications_is_not_embedded():
    me = _changed("gw-eu", application=None)
    with pytest.raises(ConfigError, match="many applications"):
        EmbeddedGateway(_config(), me, SystemClock(), SystemKeyRandomness())


def test_an_embedded_gateway_is_no_service():
    me = _changed("gw-eu")
    with pytest.raises(ConfigError, match="a part of application engine"):
        GatewayService(_config(), me, SystemClock(), SystemKeyRandomness())
